"""The built-in generator: its sums are right, its mistakes wrong, its splits apart."""

import hashlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntune.data.arithmetic import identity, rows
from aligntune.errors import ConfigError

OPERATORS = st.lists(st.sampled_from("+-*"), min_size=1, max_size=3, unique=True)
OPERANDS = st.lists(st.integers(2, 4), min_size=1, max_size=2, unique=True)


def value(question):
    return eval(re.fullmatch(r"What is ([\d +*-]+)\?", question)[1])


def steps(text):
    shown, _, final = text.partition(". The answer is ")
    return [step.split(" = ") for step in shown.split(", ")], int(final.rstrip("."))


@given(
    operators=OPERATORS,
    operands=OPERANDS,
    max_value=st.integers(20, 60),
    seed=st.integers(-(2**31), 2**31),
    split=st.sampled_from(["train", "test"]),
)
@settings(max_examples=40, deadline=None)
def test_every_row_is_right_and_its_mistake_is_one_slip(
    operators, operands, max_value, seed, split
):
    params = {"count": 8, "operands": operands, "operators": operators}
    for row in rows("", params | {"max_value": max_value, "seed": seed}, split):
        assert value(row["question"]) == int(row["answer"])
        shown, final = steps(row["worked"])
        assert final == int(row["answer"]) == int(shown[-1][1])
        assert all(eval(left) == int(right) >= 0 for left, right in shown)
        wrong, wrong_final = steps(row["wrong"])
        off = [int(right) - eval(left) for left, right in wrong]
        assert sorted(map(abs, filter(None, off))) in ([1], [10]), row
        assert wrong_final == int(wrong[-1][1]) != final


def test_a_worked_row_looks_like_this():
    assert rows("", {"count": 2}, "train")[1] == {
        "question": "What is 35 - 12 + 24?",
        "worked": "35 - 12 = 23, 23 + 24 = 47. The answer is 47.",
        "answer": "47",
        "wrong": "35 - 12 = 23, 23 + 24 = 46. The answer is 46.",
    }


def test_the_same_rows_on_every_machine():
    made = rows("", {"count": 500, "operands": [2, 3, 4], "operators": ["+", "-", "*"]}, "test")
    digest = hashlib.sha256(json.dumps(made).encode()).hexdigest()
    assert digest.startswith("afd57270198affda"), "raise VERSION if this is meant"


def test_train_and_test_of_any_two_configs_share_no_question():
    base = {"count": 300, "max_value": 30, "operands": [2]}
    train = {row["question"] for row in rows("", base, "train")}
    for other in ({}, {"seed": 9}, {"max_value": 40}, {"operands": [2, 3], "worked": False}):
        test = {row["question"] for row in rows("", {**base, "count": 60, **other}, "test")}
        assert len(test) == 60
        assert not train & test


def test_questions_are_unique_and_a_seed_changes_them():
    first, second = (
        [row["question"] for row in rows("", {"count": 400, "seed": seed}, "train")]
        for seed in (0, 1)
    )
    assert len(set(first)) == 400
    assert set(first) != set(second)


def test_a_smaller_universe_is_used_up_and_then_refused():
    params = {"operands": [2], "max_value": 5, "operators": ["+"]}
    counts = {}
    for split in ("train", "test"):
        with pytest.raises(
            ConfigError, match=r"params\.count: 99 rows .* only (\d+) diff"
        ) as caught:
            rows("", params | {"count": 99}, split)
        counts[split] = int(re.search(r"only (\d+)", str(caught.value))[1])
        assert len(rows("", params | {"count": counts[split]}, split)) == counts[split]
    assert sum(counts.values()) == 36


def test_numbers_of_operands_take_turns_until_one_runs_out():
    made = rows("", {"count": 300, "operands": [2, 3], "max_value": 9}, "train")
    sizes = [len(re.findall(r"\d+", row["question"])) for row in made]
    assert sizes[:6] == [2, 3] * 3
    assert sizes[-6:] == [3] * 6


def test_without_steps_the_solution_is_the_number():
    row = rows("", {"count": 1, "worked": False}, "train")[0]
    assert row["worked"] == row["answer"] != row["wrong"]
    assert row["wrong"].isdecimal()


def test_a_system_turn_is_on_every_row():
    assert {r["system"] for r in rows("", {"count": 3, "system": "Add."}, "train")} == {"Add."}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"count": 0}, "params.count: input should be greater than or equal to 1"),
        ({"cuont": 5}, "params.cuont: unknown setting 'cuont'; did you mean 'count'"),
        ({"operators": ["/"]}, r"params.operators.0: .*\(got '/'\)$"),
        ({"operands": [1]}, r"params.operands.0: .*\(got 1\)$"),
        ({"count": "many", "seed": None}, "(?s)params.count: .*\n  params.seed: "),
    ],
)
def test_a_wrong_param_is_named_before_anything_is_made(params, message):
    with pytest.raises(ConfigError, match=message):
        identity("", params)


def test_an_unknown_split_and_a_task_are_refused():
    with pytest.raises(ConfigError, match="unknown split 'tset'; did you mean 'test'"):
        rows("", {}, "tset")
    with pytest.raises(ConfigError, match="nothing may follow `arithmetic:`, but 'hard' does"):
        identity("hard", {})

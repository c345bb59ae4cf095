"""The data stage as a whole: what is kept, on which side, in what order."""

import hashlib
import json
import re
from collections import Counter

import pyarrow.parquet as pq
import pytest
from data.conftest import DEFAULTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_process import printed

from aligntune.data.rows import encode, prompt_of, question_of
from aligntune.errors import ConfigError, DataError

ARITHMETIC = {"name": "arithmetic:", "params": {"count": 200}}


def qa(count, start=0):
    return [{"question": f"q{i}", "answer": f"a{i}"} for i in range(start, start + count)]


def questions(rows):
    return [question_of(row) for row in rows]


def broken(count, bad):
    """Rows of which the first `bad` have an empty answer."""
    return [{"prompt": f"q{i}", "completion": " " if i < bad else "a"} for i in range(count)]


def test_two_runs_write_the_same_bytes(tmp_path, write_jsonl):
    """In processes of their own, with other hash seeds."""
    name = write_jsonl(broken(300, 2) + broken(10, 0))
    datasets = [
        {"name": name, "percent": 90, "max_samples": 200},
        {"name": "arithmetic:", "params": {"count": 100}, "weight": 2},
    ]
    spec = {"datasets": datasets, "task": "conversation", "heldout_fraction": 0.1}
    code = (
        "import sys; from pathlib import Path\n"
        "from aligntune.config.slices import DataSlice\n"
        "from aligntune.data.prepare import Place, prepare\n"
        "from aligntune.data.sources import fingerprint\n"
        "spec = DataSlice.model_validate_json(sys.argv[1])\n"
        "sources = {f'datasets[{i}]': fingerprint(d) for i, d in enumerate(spec.datasets)}\n"
        "print(prepare(spec, sources, Place(Path(sys.argv[2]))))"
    )
    outs, told = [], []
    for seed in ("1", "2"):
        outs.append(tmp_path / seed)
        outs[-1].mkdir()
        hashed = {"PYTHONHASHSEED": seed}
        told.append(printed(code, json.dumps(DEFAULTS | spec), outs[-1], env=hashed))
    assert told[0] == told[1]
    for file in ("train.parquet", "heldout.parquet", "rejected.jsonl", "report.json"):
        assert (outs[0] / file).read_bytes() == (outs[1] / file).read_bytes(), file
        assert (outs[0] / file).stat().st_size


def test_the_result_stays_the_same_from_version_to_version(run_stage):
    """If this fails on purpose, raise the version of the data stage."""
    made = run_stage(
        {**ARITHMETIC, "percent": 80, "weight": 2},
        {"name": "arithmetic:", "params": {"count": 50, "seed": 1}},
        heldout_fraction=0.1,
        task="conversation",
    )
    assert {split: digest[:12] for split, digest in made.facts["digests"].items()} == {
        "train": "748d6c63d7ad",
        "heldout": "0cfeb2dd3388",
    }


def test_digests_are_over_the_rows_as_they_stand_in_the_files(run_stage):
    made = run_stage(ARITHMETIC, heldout_fraction=0.2)
    for split, rows in (("train", made.train), ("heldout", made.heldout)):
        lines = b"".join(map(encode, rows))
        assert made.facts["digests"][split] == hashlib.sha256(lines).hexdigest()
        assert made.metrics[f"rows_{split}"] == len(rows) > 0


@pytest.mark.parametrize("task", ["conversation", "preference", "prompt"])
def test_the_files_load_as_datasets_in_the_form_trl_expects(run_stage, task):
    from datasets import Dataset

    made = run_stage(ARITHMETIC, task=task)
    table = Dataset(pq.read_table(made.out / "train.parquet"))
    assert table[0] == made.train[0]
    for name in set(table.column_names) - {"answer"}:
        assert all(set(turn) == {"role", "content"} for turn in table[0][name])
    assert table.map(lambda row: {"n": len(prompt_of(row))})["n"][:] == [1] * 200
    assert made.facts["task"] == task


def test_without_a_held_out_share_there_is_one_file_and_only_the_digest_of_it(run_stage):
    made = run_stage(ARITHMETIC)
    assert sorted(path.name for path in made.out.glob("*.parquet")) == ["train.parquet"]
    assert list(made.facts["digests"]) == ["train"]
    assert json.loads(json.dumps(made.facts)) == made.facts


def test_rows_without_a_reference_have_no_answer_column(run_stage, write_jsonl):
    plain = run_stage({"name": write_jsonl(broken(5, 0))})
    assert pq.read_schema(plain.out / "train.parquet").names == ["messages"]
    answered = {"name": write_jsonl(qa(5, 100), "qa.jsonl")}
    mixed = run_stage({"name": write_jsonl(broken(5, 0))}, answered)
    assert Counter("answer" in row for row in mixed.train) == {True: 5, False: 5}


@given(
    sizes=st.lists(st.integers(2, 60), min_size=1, max_size=3),
    distinct=st.integers(2, 40),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_question_is_on_both_sides_and_no_row_is_lost(
    run_stage, write_jsonl, sizes, distinct, fraction, seed
):
    names = [
        write_jsonl(
            [{"prompt": f"q{i % distinct}", "completion": f"{source}.{i}"} for i in range(size)],
            f"{source}.jsonl",
        )
        for source, size in enumerate(sizes)
    ]
    datasets = [{"name": name} for name in names]
    made = run_stage(
        *datasets,
        heldout_fraction=fraction,
        max_heldout=10**6,
        seed=seed,
        cleaning={"duplicates": "row"},
    )
    train, heldout = questions(made.train), questions(made.heldout)
    assert train
    assert heldout
    assert not set(train) & set(heldout)
    assert len(train) + len(heldout) == sum(sizes)


def test_a_conversation_is_held_out_with_everything_that_opens_like_it(run_stage, write_jsonl):
    rows = [
        {"messages": [*({"role": r, "content": f"{r}{i}"} for r in roles)]}
        for i in range(60)
        for roles in (["user", "assistant"], ["system", "user", "assistant", "user", "assistant"])
    ]
    made = run_stage({"name": write_jsonl(rows)}, heldout_fraction=0.3)
    assert len(made.heldout) > 4
    assert set(Counter(questions(made.heldout)).values()) == {2}


def test_what_is_held_out_does_not_depend_on_task_or_other_sources(run_stage, write_jsonl):
    """So rows held out from dpo were not trained on in sft either."""
    extra = {"name": write_jsonl(qa(100))}
    spec = {"heldout_fraction": 0.1, "max_heldout": 10**6}
    pairs = run_stage(ARITHMETIC, task="preference", **spec)
    mixed = run_stage(extra, ARITHMETIC, task="conversation", **spec)
    assert set(questions(pairs.heldout)) <= set(questions(mixed.heldout))
    assert not set(questions(pairs.heldout)) & set(questions(mixed.train))


def test_held_out_rows_are_capped_and_the_rest_is_not_trained_on(run_stage):
    spec = {"heldout_fraction": 0.5}
    everything = run_stage(ARITHMETIC, max_heldout=1000, **spec)
    capped = run_stage(ARITHMETIC, max_heldout=7, **spec)
    assert capped.heldout == everything.heldout[:7]
    assert capped.train == everything.train


@pytest.mark.parametrize("share", [{}, {"max_samples": 60}, {"percent": 50}])
def test_a_seed_changes_the_order_and_not_what_is_held_out(run_stage, share):
    """A champion that was trained with another seed has learned nothing that it is measured on."""
    dataset = ARITHMETIC | share
    first, second = (run_stage(dataset, heldout_fraction=0.2, seed=seed) for seed in (1, 2))
    assert questions(first.heldout) == questions(second.heldout)
    assert set(questions(first.train)) == set(questions(second.train))
    assert questions(first.train)[:20] != questions(second.train)[:20]


def test_one_question_cannot_be_split(run_stage, write_jsonl):
    rows = [{"prompt": "q", "completion": f"a{i}"} for i in range(9)]
    every = {"duplicates": "row"}
    with pytest.raises(DataError, match="9 rows ask only one question, so none can be held out"):
        run_stage({"name": write_jsonl(rows)}, heldout_fraction=0.5, cleaning=every)


def test_percent_then_max_samples_take_a_sample_and_not_the_first_rows(run_stage, write_jsonl):
    name = write_jsonl(qa(1000))
    numbers = [
        int(question[1:]) for question in questions(run_stage({"name": name, "percent": 20}).train)
    ]
    assert len(numbers) == 200
    assert max(numbers) > 900
    assert numbers != sorted(numbers)
    fewer = run_stage({"name": name, "percent": 20, "max_samples": 30})
    assert len(fewer.train) == 30
    assert {int(question[1:]) for question in questions(fewer.train)} < set(numbers)
    assert fewer.facts["sources"][0]["not_sampled"] == 970


def test_two_uses_of_a_source_sample_it_differently(run_stage, write_jsonl):
    half = {"name": write_jsonl(qa(100)), "percent": 50}
    made = run_stage(half, half)
    assert made.metrics["duplicates"] == 100 - len(made.train) > 10


def test_exact_duplicates_are_dropped_wherever_they_are(run_stage, write_jsonl):
    first = write_jsonl(qa(5) + qa(5), "a.jsonl")
    # The same rows once they are canonical.
    second = write_jsonl([{"question": "q4", "answer": "a4", "id": 1}, *qa(2, 9)], "b.jsonl")
    made = run_stage({"name": first}, {"name": second})
    assert sorted(questions(made.train)) == ["q0", "q1", "q10", "q2", "q3", "q4", "q9"]
    assert [source["duplicates"] for source in made.facts["sources"]] == [5, 1]


def test_equal_weights_concatenate(run_stage, write_jsonl):
    datasets = [
        {"name": write_jsonl(qa(n, s), f"{s}.jsonl"), "weight": 3} for n, s in ((50, 0), (7, 100))
    ]
    assert len(run_stage(*datasets).train) == 57


def test_weights_give_exact_shares_without_repeating_a_row(run_stage, write_jsonl):
    big = {"name": write_jsonl(qa(900), "big.jsonl"), "weight": 1}
    small = {"name": write_jsonl(qa(100, 1000), "small.jsonl"), "weight": 3}
    made = run_stage(big, small)
    numbers = [int(question[1:]) for question in questions(made.train)]
    assert len(set(numbers)) == len(numbers)
    # 100 = floor(134 * 3 / 4) is all there is of the small one; of 135 rows it would be 101.
    assert Counter(number >= 1000 for number in numbers) == {True: 100, False: 33}
    assert [source["train"] for source in made.facts["sources"]] == [33, 100]
    assert max(number for number in numbers if number < 1000) > 500
    mixed_up = [number >= 1000 for number in numbers]
    assert mixed_up != sorted(mixed_up)


def test_a_weight_that_leaves_nothing_of_a_source_is_refused(run_stage, write_jsonl):
    rare = {"name": write_jsonl(qa(3), "rare.jsonl"), "weight": 0.001}
    big = {"name": write_jsonl(qa(10, 50), "big.jsonl")}
    with pytest.raises(DataError, match=r"weights leave 0 of 3 rows of dataset '.*rare\.jsonl'"):
        run_stage(rare, big)


def test_up_to_one_percent_of_bad_rows_is_left_out_and_listed(run_stage, write_jsonl):
    name = write_jsonl(broken(200, 2))
    made = run_stage({"name": name})
    assert made.metrics["invalid"] == 2
    assert len(made.train) == 198
    assert made.rejected == [
        {
            "source": name,
            "row": row,
            "place": f"rows.jsonl:{row}",
            "cause": "invalid",
            "reason": "a turn is empty",
            "content": {"prompt": f"q{row - 1}", "completion": " "},
        }
        for row in (1, 2)
    ]


def test_more_bad_rows_than_that_stop_the_run_and_the_first_are_shown(run_stage, write_jsonl):
    message = (
        r"(?s)rows\.jsonl': 3 of 200 rows cannot be used as conversation rows, and only 1\.00%"
        r" .*were read as prompt_completion\)\n  rows\.jsonl:1: a turn is empty \(3 rows\)"
    )
    with pytest.raises(DataError, match=message):
        run_stage({"name": write_jsonl(broken(200, 3))})


def test_a_row_that_does_not_fit_its_layout_counts_as_bad(run_stage, write_jsonl):
    rows = [*qa(150), {"question": "q"}]
    made = run_stage({"name": write_jsonl(rows)})
    assert made.rejected[0]["row"] == 151
    assert made.rejected[0]["reason"] == "`answer` is missing"


def test_a_small_sample_of_a_good_source_is_allowed_some_bad_luck(run_stage, write_jsonl):
    """Of a source with just under 1 % of bad rows, one sample of 100 in four holds two or more."""
    good = run_stage({"name": write_jsonl(broken(1000, 0)), "max_samples": 100})
    drawn = {row["messages"][0]["content"] for row in good.train}
    rows = sorted(broken(1000, 0), key=lambda row: row["prompt"] not in drawn)
    bad = [*rows[:3], *rows[-6:]]
    name = write_jsonl(row | {"completion": " "} if row in bad else row for row in broken(1000, 0))
    made = run_stage({"name": name, "max_samples": 100})
    assert made.metrics["invalid"] == 3


def test_a_sample_of_a_bad_source_is_refused(run_stage, write_jsonl):
    name = write_jsonl(broken(1000, 100))
    with pytest.raises(DataError, match="of 200 rows cannot be used"):
        run_stage({"name": name, "max_samples": 200})


def test_a_source_of_which_nothing_is_left_says_which_step_took_it(run_stage, write_jsonl):
    message = r"nothing is left of .*: 9 read, 9 left out by `percent` and `max_samples`, 0 left"
    with pytest.raises(DataError, match=message):
        run_stage({"name": write_jsonl(qa(9)), "percent": 1})
    twice = {"name": write_jsonl(qa(9))}
    with pytest.raises(DataError, match=r"9 read, 9 duplicates, 0 left"):
        run_stage(twice, twice)


def test_a_source_of_another_type_is_refused_with_the_mapping_to_write(run_stage, write_jsonl):
    name = write_jsonl([{"text": "x", "good": "y"}] * 4)
    with pytest.raises(DataError, match=r"(?s)columns text, good, .*`columns: \{prompt: .*row 3: "):
        run_stage({"name": name}, task="preference")


def test_a_mapping_makes_any_columns_fit(run_stage, write_jsonl):
    name = write_jsonl([{"text": f"x{i}", "good": "y", "bad": "z"} for i in range(4)])
    columns = {"prompt": "text", "chosen": "good", "rejected": "bad"}
    made = run_stage({"name": name, "columns": columns}, task="preference")
    assert sorted(questions(made.train)) == ["x0", "x1", "x2", "x3"]


def test_a_task_type_overrides_what_a_source_naturally_is(run_stage):
    made = run_stage({**ARITHMETIC, "task_type": "prompt"})
    assert made.facts["task"] == "prompt"


def test_a_stage_makes_what_it_needs_whatever_the_task_type(run_stage):
    made = run_stage({**ARITHMETIC, "task_type": "conversation"}, task="preference")
    assert made.facts["task"] == "preference"


def test_a_task_type_decides_between_readings(run_stage, write_jsonl):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "told"}]
    rows = [
        {"messages": turns, "prompt": f"p{i}", "chosen": "good", "rejected": "bad"}
        for i in range(8)
    ]
    name = write_jsonl(rows)
    pairs = run_stage({"name": name}, task="conversation")
    assert {row["messages"][-1]["content"] for row in pairs.train} == {"good"}
    dialogues = run_stage({"name": name, "task_type": "conversation"}, task="conversation")
    assert {row["messages"][-1]["content"] for row in dialogues.train} == {"told"}


def test_sources_of_different_types_are_refused(run_stage, write_jsonl):
    message = r"one type of rows, but: datasets\[0\] .* preference, datasets\[1\] .* conversation"
    with pytest.raises(ConfigError, match=message):
        run_stage(ARITHMETIC, {"name": write_jsonl(qa(5))})


def test_facts_account_for_every_row(run_stage, write_jsonl):
    name = write_jsonl(broken(200, 1) + broken(10, 0))
    made = run_stage({"name": name, "percent": 90}, heldout_fraction=0.1, max_heldout=10**6)
    (source,) = made.facts["sources"]
    assert source["read"] == 210
    dropped = source["not_sampled"] + source["invalid"] + source["duplicates"]
    assert source["read"] - dropped == source["kept"] == source["train"] + source["heldout"]
    assert source["format"] == "prompt_completion"


FOUR = [
    ({"instruction": "i{n}", "input": "", "output": "o{n}"}, 5),
    ({"messages": [{"role": "user", "content": "m{n}"}, {"role": "assistant", "content": "a"}]}, 3),
    ({"question": "g{n}", "answer": "so\n#### {n}"}, 1),
    ({"prompt": "p{n}", "chosen": "c{n}", "rejected": "r{n}"}, 1),
]
"""A row of each of four formats, and its source's weight."""


def four(write_jsonl, count=100):
    def filled(row, n):
        return json.loads(json.dumps(row).replace("{n}", str(n)))

    return [
        {
            "name": write_jsonl([filled(row, n) for n in range(count)], f"{weight}-{index}.jsonl"),
            "weight": weight,
        }
        for index, (row, weight) in enumerate(FOUR)
    ]


def test_four_formats_at_5_3_1_1_give_these_counts(run_stage, write_jsonl):
    """The largest total is 201: 100 = floor(201 * 0.5), and of 202 rows it would be 101."""
    made = run_stage(*four(write_jsonl), task="conversation")
    assert [source["train"] for source in made.facts["sources"]] == [100, 60, 20, 20]
    repeated = run_stage(*four(write_jsonl), task="conversation", mix={"repeat": True})
    assert [source["train"] for source in repeated.facts["sources"]] == [504, 302, 100, 100]
    counts = Counter(question for question in questions(repeated.train) if question[0] == "i")
    assert sorted(Counter(counts.values()).items()) == [(5, 96), (6, 4)]


def test_the_same_bytes_on_one_and_four_workers(run_stage, write_jsonl, monkeypatch):
    monkeypatch.setattr("aligntune.data.intake.BATCH", 16)
    spec = {"task": "conversation", "heldout_fraction": 0.1}
    one, several = (run_stage(*four(write_jsonl), workers=workers, **spec) for workers in (1, 4))
    names = sorted(path.name for path in one.out.iterdir())
    assert names == sorted(path.name for path in several.out.iterdir())
    for name in names:
        assert (one.out / name).read_bytes() == (several.out / name).read_bytes(), name


def test_row_groups_and_kinds_of_files_change_nothing(run_stage, tmp_path):
    import pyarrow as pa

    table = pa.Table.from_pylist(qa(500))
    made = []
    for size in (7, 500):
        pq.write_table(table, tmp_path / "rows.parquet", row_group_size=size)
        made.append(run_stage({"name": str(tmp_path / "rows.parquet"), "percent": 50}))
    assert made[0].train == made[1].train
    assert made[0].facts["digests"] == made[1].facts["digests"]


def test_a_prompt_that_comes_again_is_dropped_across_sources(run_stage, write_jsonl):
    """Letter case and spaces do not make another prompt; other answers do not either."""
    first = write_jsonl([{"prompt": "Why is  the sky blue?", "completion": "air"}], "a.jsonl")
    second = write_jsonl(
        [
            {"prompt": "why is the sky blue? ", "completion": "light"},
            {"prompt": "Why is grass green?", "completion": "x"},
        ],
        "b.jsonl",
    )
    sources = ({"name": first}, {"name": second})
    made = run_stage(*sources)
    assert made.metrics["duplicates"] == 1
    assert made.rejected[0]["reason"] == f"the same prompt as a.jsonl:1 of '{first}'"
    assert len(run_stage(*sources, cleaning={"duplicates": "row"}).train) == 3
    assert len(run_stage(*sources, cleaning={"duplicates": "keep"}).train) == 3


def test_pairs_may_share_a_prompt(run_stage, write_jsonl):
    rows = [{"prompt": "q", "chosen": f"c{n}", "rejected": "r"} for n in (1, 2, 2)]
    made = run_stage({"name": write_jsonl(rows)})
    assert (len(made.train), made.metrics["duplicates"]) == (2, 1)


def test_near_duplicates_are_dropped_when_asked_for(run_stage, write_jsonl):
    words = [f"w{n}" for n in range(60)]
    rows = [
        {"prompt": "Tell me of " + " ".join(words), "completion": "x"},
        {"prompt": "Tell me of " + " ".join([*words[:-1], "end"]), "completion": "x"},
        {"prompt": " ".join(reversed(words)), "completion": "x"},
    ]
    name = write_jsonl(rows)
    assert run_stage({"name": name}).metrics["near_duplicates"] == 0
    made = run_stage({"name": name}, cleaning={"near_duplicates": 0.7})
    assert made.metrics["near_duplicates"] == 1
    assert "much like rows.jsonl:1" in made.rejected[0]["reason"]


LONG = "Natalia sold clips to forty eight of her friends in April and then half as many in May"


def test_rows_that_share_text_with_evaluation_rows_are_dropped(run_stage, write_jsonl):
    evaluation = run_stage({"name": write_jsonl([{"prompt": LONG + "?"}], "eval.jsonl")})
    rows = [
        {"prompt": f"Once more: {LONG}, please.", "completion": "72"},
        *({"prompt": f"q{n}", "completion": "a"} for n in range(5)),
    ]
    found = {"evaluation": evaluation.out / "train.parquet"}
    made = run_stage({"name": write_jsonl(rows)}, **found)
    assert made.metrics["contaminated"] == 1
    assert sorted(questions(made.train)) == [f"q{n}" for n in range(5)]
    assert made.facts["sources"][0]["kept"] == 5
    off = run_stage({"name": write_jsonl(rows)}, **found, cleaning={"decontaminate": None})
    assert len(off.train) == 6


def test_if_everything_is_in_an_evaluation_set_the_run_stops(run_stage, write_jsonl):
    name = write_jsonl([{"prompt": LONG, "completion": "72"}])
    evaluation = run_stage({"name": name})
    with pytest.raises(DataError, match="every row shares text with an evaluation row"):
        run_stage({"name": name}, evaluation=evaluation.out / "train.parquet")


def test_a_share_to_hold_out_per_source(run_stage, write_jsonl):
    sources = [
        {"name": write_jsonl(qa(200), "a.jsonl"), "eval_fraction": 0.5},
        {"name": write_jsonl(qa(200, 1000), "b.jsonl"), "eval_fraction": 0},
        {"name": write_jsonl(qa(200, 2000), "c.jsonl")},
    ]
    made = run_stage(*sources, heldout_fraction=0.1, max_heldout=10**6)
    held = [source["heldout"] for source in made.facts["sources"]]
    assert 70 < held[0] < 130
    assert held[1] == 0
    assert 5 < held[2] < 40


def test_a_split_of_its_own_is_held_out_and_never_trained_on(run_stage):
    made = run_stage(
        {**ARITHMETIC, "eval_split": "test"},
        {"name": "arithmetic:", "split": "test", "params": {"count": 300}},
        task="conversation",
        heldout_fraction=0.1,
        max_heldout=10**6,
    )
    held, own, other = made.facts["sources"]
    assert (held["heldout"], held["train"]) == (200, 0)
    assert own["train"] == 200
    assert other["duplicates"] == 200
    assert not set(questions(made.train)) & set(questions(made.heldout))


def test_pairs_with_a_held_out_question_are_not_trained_on(run_stage):
    """Pairs are no duplicates of each other for having the same prompt."""
    params = {"count": 300, "worked": False}
    made = run_stage(
        {**ARITHMETIC, "eval_split": "test"},
        {"name": "arithmetic:", "split": "test", "params": params},
        task="preference",
        heldout_fraction=0.1,
        max_heldout=10**6,
    )
    assert made.metrics["contaminated"] == 200
    assert not set(questions(made.train)) & set(questions(made.heldout))


def test_every_bad_row_of_a_source_is_named_before_the_run_stops(run_stage, tmp_path):
    lines = [json.dumps(row).encode() for row in qa(10)]
    lines[1] = b'{"question": "q1", "answer": '
    lines[3] = b'{"question": "caf\xe9", "answer": "a"}'
    lines[5] = b'{"question": "q5"}'
    lines[6] = b'{"question": "q6", "answer": null}'
    lines[8] = b'{"question": "q8", "answer": "  "}'
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(
        DataError, match=r"5 of 10 rows cannot be used .*on_invalid is `error`"
    ) as e:
        run_stage({"name": str(path)}, cleaning={"on_invalid": "error"})
    for line in (2, 4, 6, 7, 9):
        assert f"rows.jsonl:{line}" in (tmp_path / "out-1" / "rejected.jsonl").read_text()
    assert len(str(e.value).splitlines()) <= 12
    made = run_stage({"name": str(path)}, cleaning={"max_invalid": 0.5})
    assert len(made.train) == 5


def test_other_columns_are_kept_for_rewards(run_stage, write_jsonl):
    made = run_stage({"name": write_jsonl([{"prompt": "q", "answer": "4", "level": 3}])})
    assert json.loads(made.train[0]["extra"]) == {"level": 3}


def test_what_the_stage_wrote_is_a_source_like_any_other(run_stage, write_jsonl):
    call = {"name": "f", "arguments": {"x": 1}}
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [call], "content": None},
        {"role": "tool", "name": "f", "content": "2"},
        {"role": "assistant", "content": "a", "thinking": "hm", "weight": 0},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "b"},
    ]
    row = {"messages": turns, "functions": [{"name": "f"}], "level": 3, "answer": "b"}
    first = run_stage({"name": write_jsonl([row])})
    again = run_stage({"name": str(first.out / "train.parquet")})
    assert again.train == first.train
    assert again.facts["digests"] == first.facts["digests"]


def corrupted():
    """Lines of a jsonl file, and by number why they are dropped."""
    good = [json.dumps({"id": n, "prompt": f"q{n}", "completion": f"a{n}"}) for n in range(1000)]
    bad = {
        3: (b'{"id": 3, "prompt": "q3", ', "not valid JSON"),
        5: ("naïve caf\xe9".encode("latin-1"), "not valid JSON|not UTF-8"),
        8: (b'{"id": 8, "prompt": "caf\xe9", "completion": "a"}', "byte 0xe9 is not UTF-8"),
        11: (b'{"id": 11, "prompt": "q11"}', "`completion` is missing"),
        13: (b'{"id": 13, "prompt": "q13", "completion": ""}', "a turn is empty"),
        17: (b'{"id": 17, "prompt": null, "completion": "a"}', "`prompt` is missing"),
        19: (json.dumps({"prompt": "q", "completion": "x" * 10**7}).encode(), "1,000,000 char"),
        21: (b"[1, 2]", "an array and not an object"),
        23: ('{"prompt": "caf\ufffd", "completion": "a"}'.encode(), "U\\+FFFD"),
        29: (b'{"prompt": "a\\u0000b", "completion": "a"}', "NUL"),
        31: (b'{"prompt": {"a": 1}, "completion": "a"}', "`prompt` is an object, not text"),
        37: (good[36].encode(), "the same prompt as rows.jsonl:37"),
    }  # fmt: skip
    lines = [bad[n][0] if n in bad else line.encode() for n, line in enumerate(good)]
    return lines, {number: reason for number, (_, reason) in bad.items()}


def test_a_corrupted_corpus_is_reported_row_by_row(run_stage, tmp_path):
    lines, expected = corrupted()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    made = run_stage({"name": str(path)}, cleaning={"max_invalid": 0.02})
    reasons = {row["row"] - 1: row["reason"] for row in made.rejected}
    assert reasons.keys() == expected.keys()
    for number, reason in expected.items():
        assert re.search(reason, reasons[number]), (number, reasons[number])
    assert all(len(json.dumps(row["content"])) <= 20_100 for row in made.rejected)
    kept = {row["row"] - 1: row["content"] for row in made.rejected}
    assert kept[3] == '{"id": 3, "prompt": "q3",'
    assert kept[8] == '{"id": 8, "prompt": "caf\\xe9", "completion": "a"}'
    assert kept[37]["messages"][1]["content"] == "a36"
    assert (made.metrics["invalid"], made.metrics["duplicates"]) == (11, 1)
    assert len(made.train) == 1000 - 12
    assert (made.out / "rejected.jsonl").stat().st_size < 100_000
    with pytest.raises(DataError, match="11 of 1000 rows cannot be used") as stopped:
        run_stage({"name": str(path)}, cleaning={"on_invalid": "error"})
    assert len(str(stopped.value)) < 3000
    with pytest.raises(DataError, match=r"only 1\.00% may be dropped"):
        run_stage({"name": str(path)})


def test_of_a_file_of_nothing_but_broken_lines_the_first_is_told(run_stage, tmp_path):
    path = tmp_path / "printed.json"
    path.write_text("{'prompt': 'p', 'completion': 'c'}\n")
    with pytest.raises(
        DataError, match=r"no row can be read, the first \(printed\.json:1\) because"
    ):
        run_stage({"name": str(path)})


def test_an_answer_of_weight_0_is_not_learned(run_stage, write_jsonl, tiny_model):
    def chat(number, weight):
        said = [("user", 1), ("assistant", weight), ("user", 1), ("assistant", 1)]
        turns = [{"role": role, "content": f"{number}", "weight": w} for role, w in said]
        return {"messages": turns}

    name = write_jsonl([chat(1, 1), chat(2, 0)])
    made = run_stage({"name": name}, tokenizer=tiny_model)
    tokens = pq.read_table(made.out / "train.tokens.parquet")["tokens"].to_pylist()
    learned = {
        row["messages"][0]["content"]: len(t) for row, t in zip(made.train, tokens, strict=True)
    }
    assert learned == {"1": 2, "2": 1}
    none = {"messages": [*chat(3, 0)["messages"][:2]]}
    with pytest.raises(DataError, match="every answer has `weight` 0"):
        run_stage({"name": write_jsonl([none])}, tokenizer=tiny_model)


def test_a_signature_in_an_address_is_in_no_message_and_no_file(run_stage, monkeypatch, tmp_path):
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = [json.dumps(row) for row in broken(300, 2)]
    fsspec.filesystem("memory").pipe("/set/a.jsonl", "\n".join(lines).encode())
    address = "memory://user:SECRET@set/a.jsonl"
    monkeypatch.setattr("aligntune.data.sources.fetch", lambda url: fetched(tmp_path, lines))
    result = run_stage({"name": address})
    told = [path.read_text() for path in result.out.iterdir() if path.suffix in (".json", ".jsonl")]
    assert any("memory://set/a.jsonl" in text for text in told)
    assert not any("SECRET" in text for text in [*told, json.dumps(result.facts)])
    with pytest.raises(DataError) as refused:
        run_stage({"name": address}, cleaning={"on_invalid": "error"})
    assert "SECRET" not in str(refused.value)


def fetched(folder, lines):
    (folder / "a.jsonl").write_text("\n".join(lines))
    return {"a.jsonl": folder / "a.jsonl"}


def test_a_pair_whose_answers_are_equal_within_the_limit_is_lost(
    run_stage, write_jsonl, tiny_model
):
    same = "word " * 60
    rows = [
        {"prompt": f"p{i}", "chosen": f"{same}{i}", "rejected": f"{same}no {i}"} for i in range(2)
    ] + [{"prompt": f"q{i}", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(98)]
    result = run_stage({"name": write_jsonl(rows)}, tokenizer=tiny_model, max_length=64)
    assert result.metrics["too_long"] == 2
    assert len(result.train) == 98

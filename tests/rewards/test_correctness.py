"""Rewards that compare with a reference: obvious answers, and answers that only look right."""

import threading
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, DataError
from aligntune.rewards import check, scorer
from aligntune.rewards.overlap import common_subsequence
from aligntune.rewards.types import Sample

GSM8K = Path(__file__).parents[3] / "shared/hub/datasets/openai/gsm8k/main"
formulas = pytest.mark.skipif(
    find_spec("math_verify") is None, reason="the extra rewards is not installed"
)


def score(name, completion, answer, columns=None, **params):
    judge = scorer(Reward(reward_type=name, params=params))
    return judge([Sample("", completion, answer, columns=columns or {})])[0]


@pytest.mark.parametrize(
    ("answer", "completion", "expected"),
    [
        ("0.5", r"\boxed{\frac{1}{2}}", 1),
        ("0.5", "#### 1/2", 1),
        ("-0.5", r"\boxed{-\dfrac{1}{2}}", 1),
        ("0.5", r"\boxed{1/0}", 0),
        ("3", r"\boxed{x^2 + 3}", 0),
        ("3", r"\boxed{\sqrt{3}}", 0),
        ("5", r"\boxed{8-5}", 0),
        ("12", r"\boxed{3 \cdot 4 = 12}", 1),
        ("18", r"\boxed{18 \text{ eggs}}", 1),
        ("18", r"\boxed{18} or \boxed{19}", 0),
        ("18 eggs", "18", 1),
        ("90", r"\boxed{90^\circ}", 1),
        ("18", r"\boxed{18\text{ cm}^2}", 1),
        ("2", r"\boxed{2x}", 0),
        ("3", r"\boxed{3^{2}}", 0),
        ("x = 3", r"\boxed{3}", 1),
        ("3", r"\boxed{x = 3}", 1),
        (r"\text{even}", r"\boxed{Even}", 1),
        (r"\text{even}", "even or odd", 0),
        ("2", "The answer is 1/2", 0),
        ("0.5", "The answer is 1/2", 1),
        ("4", r"The probability is $\frac{3}{4}$.", 0),
        ("0.5", r"\boxed{\frac12}", 1),
        ("18", "#### **18**", 1),
        ("18", "#### $18 - a total", 1),
        (r"18\text{ cm}", "18", 1),
        ("1/2 inches", "0.5", 1),
        ("1/2 inches", "2", 0),
    ],
)
def test_math_by_numbers(answer, completion, expected):
    assert score("math", completion, answer) == expected


@formulas
@pytest.mark.parametrize(
    ("answer", "completion", "expected"),
    [
        (r"\frac{1}{2}", r"The answer is \boxed{0.5}.", 1),
        (r"\frac{1}{2}", "so it is $1/2$", 1),
        (r"\frac{1}{2}", r"\boxed{\frac{1}{3}} or \boxed{\frac{1}{2}}", 1),
        (r"\frac{1}{2}", r"\boxed{\frac{1}{2}} or \boxed{\frac{1}{3}}", 0),
        (r"\frac{1}{2}", r"\boxed{\frac{1}{3}, \frac{1}{2}}", 0),
        (r"\frac{1}{3}", r"\boxed{0.333}", 0),
        ("3/4", r"\boxed{0.75}", 1),
        ("3/4", "4", 0),
        (r"\frac{3}{4}\text{ inches}", r"\boxed{\frac{3}{4}}", 1),
        (r"\frac{3}{4}\text{ inches}", "4", 0),
        (r"\frac{3}{4}", r"<answer>\frac{3}{4}</answer>", 1),
        ("(x+1)^2", r"\boxed{x^2 + 2x + 1}", 1),
        ("(x+1)^2", r"\boxed{x^2 + 1}", 0),
        (r"2\sqrt{3}", r"\boxed{\sqrt{12}}", 1),
        (r"\{1, 2\}", r"\boxed{\{2, 1\}}", 1),
        ("(1, 2)", r"\boxed{(2, 1)}", 0),
        (r"\sqrt{2}", "", 0),
        (r"\sqrt{2}", r"\boxed{\sqrt{2}", 1),
        (r"\sqrt{2}", r"\boxed{" + "(" * 500, 0),
    ],
)
def test_math_by_algebra(answer, completion, expected):
    assert score("math", completion, answer) == expected


@formulas
def test_a_formula_that_takes_for_ever_costs_its_seconds_and_nothing_else(caplog):
    judge = scorer(Reward(reward_type="math", params={"seconds": 0.5}))
    endless = Sample("", r"\boxed{9^{9^{9^{9}}}}", r"\sqrt{2}")
    right = Sample("", r"\boxed{\sqrt{2}}", r"\sqrt{2}")
    found = []

    def work():
        found.extend(judge([right, endless, endless, right]))

    before = time.process_time()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert found == [1, 0, 0, 1]
    assert time.process_time() - before < 2
    assert "2 answers took more than 0.5 s" in caplog.text


def test_a_formula_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr("aligntune.extras.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package math-verify; `pip install 'align"):
        score("math", "1", r"\frac{1}{2}")
    assert score("math", "18", "18") == 1


@formulas
def test_a_reference_that_cannot_be_read_is_a_fault_of_the_data():
    with pytest.raises(DataError, match="is not a formula that math-verify can read; use"):
        score("math", "1", "???")


def test_gsm8k_reads_the_reference_as_the_set_writes_it():
    reference = "4 * 18 = <<4*18=72>>72\n#### 72"
    texts = ["#### 72", "72", "It is 72.0 eggs", "#### 71\n", "72 or 73", "no"]
    assert [score("gsm8k", text, reference) for text in texts] == [1, 1, 1, 0, 0, 0]
    assert [score("gsm8k", text, reference, strict=True) for text in texts] == [1, 0, 0, 0, 0, 0]
    assert score("gsm8k", "#### First step\nIt is 72", reference, strict=True) == 0
    assert [score("gsm8k", "#### 3/4", f"#### {number}") for number in ("4", "0.75")] == [0, 1]
    with pytest.raises(DataError, match="has no number"):
        score("gsm8k", "1", "one")


@pytest.mark.skipif(not GSM8K.exists(), reason="openai/gsm8k lies outside the repository")
def test_every_solution_of_gsm8k_is_right_and_no_other_ones():
    import pyarrow.parquet as parquet

    answers = parquet.read_table(GSM8K / "test-00000-of-00001.parquet")["answer"].to_pylist()
    for name in ("gsm8k", "math"):
        judge = scorer(Reward(reward_type=name))
        assert set(judge([Sample("", text, text) for text in answers])) == {1}
        others = judge([Sample("", *pair) for pair in pairwise(answers)])
        assert sum(others) / len(others) < 0.03


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("B", 1),
        ("(b)", 1),
        ("**B**", 1),
        ("B) Paris", 1),
        ("(B) Paris.", 1),
        ("Paris", 1),
        (r"Hm. \boxed{B}", 1),
        ("#### B", 1),
        ("The answer is (B) because France.", 1),
        ("The answer is A? No, the correct answer is B.", 1),
        ("The answer is **B**.", 1),
        ("It must be in France.\n\nB.", 1),
        ("Answer: B", 1),
        ("ANSWER IS B", 1),
        ("**Answer:** B", 1),
        ("**Answer: B**", 1),
        (r"Answer: \text{B}", 1),
        ("Answer: b", 1),
        ("The Answer is (B)", 1),
        ("The correct choice is: **B**", 1),
        ("The answer must be B.", 1),
        ("so the answer is A, no wait\nAnswer: B", 1),
        ("The answer is B. Option C is wrong, as it is in the north.", 1),
        ("Option A is wrong.\nOption C is incorrect.\nSo Option B is right.", 1),
        ("b) Paris", 1),
        ("A or C?<answer>B</answer>", 1),
        ("A", 0),
        ("Answer: A or B", 0),
        ("Answer: A", 0),
        ("Answer: a city in B", 0),
        ("The answer is not B", 0),
        ("Option A: Rome\nOption B: Paris\nOption C: Oslo.", 0),
        ("option B or C", 0),
        ("A B C D", 0),
        ("A) Rome B) Paris C) Oslo", 0),
        ("The answer is A or B", 0),
        ("The answer is B or C", 0),
        ("The answer is B and A", 0),
        ("B) Rome", 0),
        ("Because it is big", 0),
        ("A big city, I think.", 0),
        ("Answer: Berlin", 0),
        ("", 0),
    ],
)
def test_a_choice_is_one_option(completion, expected):
    columns = {"choices": ["Rome", "Paris", "Oslo"]}
    assert score("multiple_choice", completion, "B", columns) == expected
    assert score("multiple_choice", completion, "paris", columns) == expected
    assert score("multiple_choice", completion, "1", columns) == expected
    arc = {"choices": {"label": ["A", "B", "C"], "text": ["Rome", "Paris", "Oslo"]}}
    assert score("multiple_choice", completion, "B", arc) == expected


@pytest.mark.parametrize("text", ["Answer: A city", "Answer: I think so", "Answer: A-levels"])
def test_a_word_is_no_choice(text):
    assert [score("multiple_choice", text, letter) for letter in ("A", "I")] == [0, 0]


def test_hostile_choices_are_read_in_linear_time():
    begun = time.process_time()
    for text in ("answer" + "_" * 20_000, "answer" + " is" * 7_000, "option" + " " * 20_000):
        assert score("multiple_choice", text, "B") == 0
    assert time.process_time() - begun < 1


def test_a_choice_needs_no_options_and_the_reference_must_be_one():
    assert [score("multiple_choice", text, "C") for text in ("(C)", "B", "C) Oslo")] == [1, 0, 1]
    assert score("multiple_choice", "C) Oslo D) Rome", "C") == 0
    assert score("multiple_choice", "C", None) is None
    for reference, columns in (("Paris", None), ("D", {"choices": ["a", "b"]})):
        with pytest.raises(DataError, match="is none of the options"):
            score("multiple_choice", "C", reference, columns)


REFERENCE = "The quick brown fox jumps over the lazy dog."


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge"])
def test_overlap_orders_same_near_and_other_texts(name):
    if name != "rouge":
        pytest.importorskip("sacrebleu", reason="the extra rewards is not installed")
    texts = [REFERENCE, "The quick brown fox jumps over a dog.", "Nothing of that at all", ""]
    same, near, other, nothing = (score(name, text, REFERENCE) for text in texts)
    assert same == pytest.approx(1)
    assert 0.9 > near > 0.4 > other >= nothing == 0
    assert score(name, REFERENCE * 20, REFERENCE) < 0.5
    assert score(name, "no", None) is None
    assert score(name, "Yes", "Yes") == pytest.approx(1)


def test_overlap_without_sacrebleu(monkeypatch):
    from aligntune.rewards import overlap

    overlap._metric.cache_clear()
    monkeypatch.setattr("aligntune.extras.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package sacrebleu; `pip install 'align"):
        check("bleu", {}, None)


def test_rouge_as_in_its_paper():
    reference = "police killed the gunman"
    texts = ["police kill the gunman", "the gunman kill police"]
    assert [score("rouge", text, reference) for text in texts] == [0.75, 0.5]
    assert score("rouge", texts[1], reference, variant="rouge1") == 0.75
    assert score("rouge", texts[1], reference, variant="rouge2") == pytest.approx(1 / 3)


def test_the_common_subsequence_is_the_one_by_the_table():
    from random import Random

    rng = Random(0)
    for _ in range(200):
        first, second = ([rng.choice("abcd") for _ in range(rng.randint(0, 90))] for _ in "12")
        row = [0] * (len(second) + 1)
        for word in first:
            diagonal = 0
            for at, other in enumerate(second):
                diagonal, row[at + 1] = (
                    row[at + 1],
                    diagonal + 1 if word == other else max(row[at + 1], row[at]),
                )
        assert common_subsequence(first, second) == row[-1]

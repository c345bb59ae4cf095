"""Public layouts -> canonical rows."""

from itertools import combinations

import pytest

from aligntune.data.formats import FORMATS, mismatch, reader
from aligntune.errors import DataError


def turns(*contents, system=None):
    """Alternating turns, the user's first."""
    roles = ["user", "assistant"] * len(contents)
    said = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return [{"role": "system", "content": system}, *said] if system else said


def answer(content):
    return [{"role": "assistant", "content": content}]


def read(row, task=None):
    return reader(row, task)(row)


def sharegpt(*contents):
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names[t["role"]], "value": t["content"]} for t in turns(*contents)]


PAIR = {"prompt": turns("p"), "chosen": answer("good"), "rejected": answer("bad")}
HH = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
ARITHMETIC = {"question": "What is 1 + 1?", "worked": "2.", "answer": "2", "wrong": "3."}

CASES = {
    "messages": ({"messages": turns("q", "a")}, {"messages": turns("q", "a")}),
    "conversations": ({"conversations": sharegpt("q", "a")}, {"messages": turns("q", "a")}),
    "from and value under messages": (
        {"messages": sharegpt("q", "a")},
        {"messages": turns("q", "a")},
    ),
    "prompt and completion": ({"prompt": "q", "completion": "a"}, {"messages": turns("q", "a")}),
    "prompt and completion as messages": (
        {"prompt": turns("q", "a", "r", system="s"), "completion": answer("b")},
        {"messages": turns("q", "a", "r", "b", system="s")},
    ),
    "alpaca": (
        {"instruction": "Say", "input": "it", "output": "it"},
        {"messages": turns("Say\n\nit", "it")},
    ),
    "alpaca without input": (
        {"instruction": "Hi", "input": "", "output": "Yo", "system": "s"},
        {"messages": turns("Hi", "Yo", system="s")},
    ),
    "alpaca with null input": (
        {"instruction": "Hi", "input": None, "output": "Yo"},
        {"messages": turns("Hi", "Yo")},
    ),
    "question and answer": (
        {"question": "q", "answer": "a"},
        {"messages": turns("q", "a"), "answer": "a"},
    ),
    "gsm8k": (
        {"question": "q", "answer": "6*3=18\n#### 1,018"},
        {"messages": turns("q", "6*3=18\n#### 1,018"), "answer": "1,018"},
    ),
    "numbers are text": (
        {"question": "q", "answer": 72},
        {"messages": turns("q", "72"), "answer": "72"},
    ),
    "hh": (
        {"chosen": f"{HH} good", "rejected": f"{HH} bad"},
        {"prompt": turns("a", "b", "c"), "chosen": answer("good"), "rejected": answer("bad")},
    ),
    "two whole dialogues": (
        {"chosen": turns("p", "good"), "rejected": turns("p", "bad")},
        PAIR,
    ),
    "pair of texts": ({"prompt": "p", "chosen": "good", "rejected": "bad"}, PAIR),
    "pair of messages": (PAIR, PAIR),
    "pair whose answers repeat the prompt": (
        {"prompt": "p", "chosen": turns("p", "good"), "rejected": turns("p", "bad")},
        PAIR,
    ),
    "pair whose answers repeat the prompt without its system turn": (
        {
            "prompt": turns("p", system="s"),
            "chosen": turns("p", "good"),
            "rejected": turns("p", "bad"),
        },
        PAIR | {"prompt": turns("p", system="s")},
    ),
    "llamafactory pair": (
        {
            "conversations": sharegpt("p"),
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        PAIR,
    ),
    "earlier turns and two answers": (
        {"messages": turns("p"), "chosen": "good", "rejected": "bad"},
        PAIR,
    ),
    "question and two answers": (
        {"system": "s", "question": "p", "chosen": "good", "rejected": "bad"},
        PAIR | {"prompt": turns("p", system="s")},
    ),
    "arithmetic": (
        ARITHMETIC | {"system": "s"},
        {
            "prompt": turns("What is 1 + 1?", system="s"),
            "chosen": answer("2."),
            "rejected": answer("3."),
            "answer": "2",
        },
    ),
    "prompt": ({"prompt": "p", "key": 3}, {"prompt": turns("p")}),
    "prompt and answer": (
        {"prompt": turns("p"), "answer": " 7 "},
        {"prompt": turns("p"), "answer": "7"},
    ),
    "an answer that is no text is not a reference": (
        {"messages": turns("q", "a"), "answer": ["x"]},
        {"messages": turns("q", "a")},
    ),
}


@pytest.mark.parametrize(("row", "expected"), CASES.values(), ids=CASES.keys())
def test_a_layout_becomes_what_it_naturally_is(row, expected):
    assert read(row) == expected


def test_every_layout_is_covered_above():
    assert {reader(row, None).layout for row, _ in CASES.values()} == set(FORMATS)


@pytest.mark.parametrize(
    ("row", "task", "expected"),
    [
        (ARITHMETIC, "conversation", {"messages": turns("What is 1 + 1?", "2."), "answer": "2"}),
        (ARITHMETIC, "prompt", {"prompt": turns("What is 1 + 1?"), "answer": "2"}),
        (PAIR, "conversation", {"messages": turns("p", "good")}),
        (PAIR, "prompt", {"prompt": turns("p")}),
        ({"messages": turns("q", "a")}, "prompt", {"prompt": turns("q"), "answer": "a"}),
        (
            {"messages": turns("q", "long"), "answer": "7"},
            "prompt",
            {"prompt": turns("q"), "answer": "7"},
        ),
        ({"messages": turns("q")}, "prompt", {"prompt": turns("q")}),
        (
            {"prompt": "q", "answer": "7"},
            "conversation",
            {"messages": turns("q", "7"), "answer": "7"},
        ),
    ],
)
def test_a_row_is_turned_into_the_type_that_is_asked_for(row, task, expected):
    assert read(row, task) == expected


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"instruction": "i", "output": "o"}, "preference"),
        ({"question": "q", "answer": "a"}, "preference"),
        ({"prompt": "p"}, "conversation"),
        ({"a": 1}, None),
    ],
)
def test_a_row_that_cannot_become_it_has_no_reader(row, task):
    assert reader(row, task) is None


def test_no_layout_hides_one_that_needs_more_columns():
    layouts = list(FORMATS.values())
    for earlier, later in combinations(layouts, 2):
        assert not set(earlier.columns) < set(later.columns), (earlier.columns, later.columns)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "no dialogue", "rejected": f"{HH} b"}, "`chosen` is not a transcript"),
        ({"chosen": f"{HH} x\n\nHuman: y", "rejected": f"{HH} b"}, "does not end with an answer"),
        ({"chosen": f"{HH} x", "rejected": f"\n\nHuman: z{HH} b"}, "answer different prompts"),
        ({"chosen": f"Rules.{HH} x", "rejected": f"{HH} b"}, "`chosen` is not a transcript"),
        ({"chosen": [], "rejected": turns("p", "a")}, "`chosen` has no messages"),
        ({"prompt": "p", "chosen": turns("q", "a"), "rejected": "b"}, "does not continue the pro"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "a turn of 'tool', not of"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "not of system, user, assistant"),
        ({"messages": ["hello"]}, "something that is not a message"),
        ({"messages": "hello"}, "`messages` is not a list of messages"),
        ({"messages": [{"role": "user", "content": None}]}, "`messages` is null, not text"),
        ({"instruction": "i", "output": None}, "`output` is missing"),
        ({"instruction": "i", "output": ["a"]}, "`output` is a list, not text"),
        ({"question": True, "answer": "a"}, "`question` is true or false, not text"),
    ],
)
def test_a_row_that_does_not_fit_its_layout_says_why(row, reason):
    with pytest.raises(DataError, match=reason):
        read(row)


def test_a_mismatch_shows_columns_rows_and_the_mapping_to_write():
    rows = [{"text": "x" * 200 + "\x1b[31m", "label": 1}] * 3
    message = mismatch("a.jsonl", ["text", "label"], "preference", rows)
    assert "'a.jsonl' has the columns text, label, which are no layout we know" in message
    assert "`columns: {prompt: <column>, chosen: <column>, rejected: <column>}`" in message
    assert message.count("\n  row ") == 3
    assert f"text={'x' * 79}…, label=1" in message
    assert "\x1b" not in mismatch("a", ["t"], None, [{"t": "\x1b[31m"}])

"""The contract of canonical rows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntune.data.schema import faults

TEXT = st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text)
ALTERNATE = "roles do not alternate between user and assistant, assistant last"
PROMPT = "the prompt's roles do not alternate and end with the user"
BLANK, BROKEN = "a turn is empty", "text is not valid UTF-8 or holds a NUL"


def said(roles, content="x"):
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[role], "content": content} for role in roles]


def conversation(roles, **kept):
    return {"messages": said(roles), **kept}


def pair(prompt="u", chosen="a", rejected="a", better="good"):
    return {
        "prompt": said(prompt),
        "chosen": said(chosen, better),
        "rejected": said(rejected, "bad"),
    }


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("conversation", [conversation(r) for r in ("ua", "sua", "uaua", "suauaua")]),
        ("preference", [pair(p, a, a) for p in ("u", "su", "uau") for a in ("a", "aua")]),
        ("prompt", [{"prompt": said(r), "answer": "7"} for r in ("u", "su", "uau")]),
        ("prompt", []),
    ],
)
def test_good_rows_pass(task, rows):
    assert faults(rows, task) == {}


@pytest.mark.parametrize(
    ("task", "row", "reason"),
    [
        *(("conversation", conversation(r), ALTERNATE) for r in ("", "u", "aa", "uau", "uua")),
        *(("conversation", conversation(r), ALTERNATE) for r in ("usa", "sa", "ssua")),
        ("conversation", {"messages": said("ua", " \n")}, BLANK),
        ("conversation", {"messages": said("ua", "a\0b")}, BROKEN),
        ("conversation", {"messages": said("ua", "\ud800")}, BROKEN),
        ("conversation", conversation("ua", answer="\0"), BROKEN),
        ("conversation", {"messages": said("u", "\0")}, f"{ALTERNATE}; {BROKEN}"),
        ("preference", pair(better="bad"), "chosen equals rejected"),
        ("preference", pair("ua"), PROMPT),
        ("preference", pair(""), PROMPT),
        ("preference", pair(chosen="u"), "the chosen answer is not the assistant's"),
        ("preference", pair(rejected=""), "the rejected answer is not the assistant's"),
        ("preference", pair(better=""), BLANK),
        ("prompt", {"prompt": said("ua")}, PROMPT),
        ("prompt", {"prompt": said("s")}, PROMPT),
    ],
)
def test_a_bad_row_is_named_with_every_reason(task, row, reason):
    good = {
        "conversation": conversation("ua"),
        "preference": pair(),
        "prompt": {"prompt": said("u")},
    }
    assert faults([good[task], row, good[task], row], task) == {1: reason, 3: reason}


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXT, min_size=1, max_size=4))
def test_any_text_that_is_not_blank_is_allowed(contents):
    rows = [{"messages": [*said("u", text), *said("a", text)]} for text in contents]
    assert faults(rows, "conversation") == {}


def test_a_reason_never_shows_the_text():
    (reason,) = faults([{"messages": said("uu", "secret\0")}], "conversation").values()
    assert "secret" not in reason


def spoken(roles):
    """`c` is an assistant that calls tools, `t` what they return."""
    names = {"s": "system", "u": "user", "a": "assistant", "c": "assistant", "t": "tool"}
    calls = {"c": {"tool_calls": "[]"}}
    return [
        {"role": names[r], "content": "" if r == "c" else "x"} | calls.get(r, {}) for r in roles
    ]


@pytest.mark.parametrize("roles", ["uata", "suataua", "uctc", "ucta", "uctcttaua", "uc"])
def test_tools_may_be_called_in_text_and_again(roles):
    assert faults([{"messages": spoken(roles)}], "conversation") == {}


@pytest.mark.parametrize("roles", ["ut", "uta", "uatu", "ucua", "tua"])
def test_what_tools_return_follows_a_call_and_is_answered(roles):
    assert faults([{"messages": spoken(roles)}], "conversation") == {0: ALTERNATE}


def test_half_a_character_in_a_call_is_found():
    messages = spoken("ucta")
    messages[1]["tool_calls"] = "\ud800"
    assert faults([{"messages": messages}], "conversation") == {0: BROKEN}

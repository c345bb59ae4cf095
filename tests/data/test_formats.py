"""Public layouts -> canonical rows."""

import json
from itertools import combinations

import pytest

from aligntune.data.formats import FORMATS, mismatch, reader
from aligntune.errors import ConfigError, DataError


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
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": '[{"function": {"arguments": {"x": 1}, "name": "f"}, "type": "function"}]',
}
TOLD = {"role": "tool", "name": "f", "content": "2"}
TOOLS = '[{"function": {"name": "f"}, "type": "function"}]'
HH = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
ARITHMETIC = {"question": "What is 1 + 1?", "worked": "2.", "answer": "2", "wrong": "3."}


def rated(chosen, rejected):
    """What a reward model's margins are made of."""
    return {"extra": f'{{"score_chosen":{chosen},"score_rejected":{rejected}}}'}


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
    "pairs with an instruction": (
        {"instruction": "p", "input": "x", "chosen": "good", "rejected": "bad"},
        {**PAIR, "prompt": turns("p\n\nx")},
    ),
    "question, solution and answer": (
        {"question": "q", "solution": "so 2", "answer": 2},
        {"messages": turns("q", "so 2"), "answer": "2"},
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
    "prompt": ({"prompt": "p"}, {"prompt": turns("p")}),
    "other columns are kept": (
        {"prompt": "p", "level": 3, "a": {"c": None, "b": [1]}, "raw": b"x", "none": None},
        {"prompt": turns("p"), "extra": '{"a":{"b":[1],"c":null},"level":3}'},
    ),
    "alpaca with history": (
        {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]},
        {"messages": turns("a", "b", "c", "d", system="s")},
    ),
    "plain text": ({"text": "Once upon a time"}, {"messages": answer("Once upon a time")}),
    "unpaired": (
        {"prompt": "p", "completion": "c", "label": True},
        {"prompt": turns("p"), "completion": answer("c"), "label": True},
    ),
    "unpaired messages": (
        {"messages": turns("p", "a", "q", "c"), "label": "undesirable"},
        {"prompt": turns("p", "a", "q"), "completion": answer("c"), "label": False},
    ),
    "ranked": (
        {"prompt": "p", "responses": ["ok", "good", "bad"], "ranks": [2, 1, 3]},
        PAIR,
    ),
    "rated": (
        {"prompt": "p", "responses": ["bad", "good"], "scores": [0.5, 4]},
        PAIR | rated(4.0, 0.5),
    ),
    "ultrafeedback": (
        {
            "instruction": "p",
            "completions": [
                {"response": "good", "overall_score": 8.0, "fine-grained_score": 1},
                {"response": "bad", "overall_score": 3.5},
            ],
        },
        PAIR | rated(8.0, 3.5),
    ),
    "tool calls": (
        {
            "messages": [
                *turns("q"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}],
                },
                {"role": "tool", "name": "f", "content": "2"},
                *answer("two"),
            ],
            "tools": '[{"type": "function", "function": {"name": "f"}}]',
        },
        {"messages": [*turns("q"), CALL, TOLD, *answer("two")], "tools": TOOLS},
    ),
    "tool calls of sharegpt": (
        {
            "conversations": [
                *sharegpt("q"),
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "two"},
            ],
            "tools": "[]",
        },
        {"messages": [*turns("q"), CALL, {"role": "tool", "content": "2"}, *answer("two")]},
    ),
    "openorca": (
        {"id": "x", "system_prompt": "s", "question": "q", "response": "a"},
        {"messages": turns("q", "a", system="s"), "extra": '{"id":"x"}'},
    ),
    "dolly": (
        {"instruction": "Say", "context": "it", "response": "it"},
        {"messages": turns("Say\n\nit", "it")},
    ),
    "maths": (
        {"problem": "1 + 1", "solution": "\\boxed{2}", "level": 1},
        {
            "messages": turns("1 + 1", "\\boxed{2}"),
            "answer": "\\boxed{2}",
            "extra": '{"level":1}',
        },
    ),
    "roles under other names": (
        {"dialogue": [{"role": "Prompter", "content": "q"}, {"role": "bot", "content": "a"}]},
        {"messages": turns("q", "a")},
    ),
    "prompt and answer": (
        {"prompt": turns("p"), "answer": " 7 "},
        {"prompt": turns("p"), "answer": "7"},
    ),
    "pairs as OpenAI tunes on": (
        {
            "input": {"messages": turns("p"), "tools": json.loads(TOOLS)},
            "preferred_output": answer("good"),
            "non_preferred_output": answer("bad"),
        },
        {**PAIR, "tools": TOOLS},
    ),
    "KTO with an instruction": (
        {"instruction": "p", "input": "x", "output": "c", "kto_tag": False},
        {"prompt": turns("p\n\nx"), "completion": answer("c"), "label": False},
    ),
    "KTO in ShareGPT's words": (
        {"conversations": sharegpt("p", "c"), "kto_tag": True},
        {"prompt": turns("p"), "completion": answer("c"), "label": True},
    ),
    "headings of a spreadsheet": (
        {"Prompt ": "p", "Chosen Response": "good", "Rejected-Response": "bad"},
        PAIR,
    ),
    "the columns of a chat": ({"User": "q", "Assistant": "a"}, {"messages": turns("q", "a")}),
    "an answer that is no text is not a reference": (
        {"messages": turns("q", "a"), "answer": ["x"]},
        {"messages": turns("q", "a")},
    ),
}


@pytest.mark.parametrize(("row", "expected"), CASES.values(), ids=CASES.keys())
def test_a_layout_becomes_what_it_naturally_is(row, expected):
    assert read(row) == expected


def test_every_layout_is_covered_above():
    asked_for = {name for name, layout in FORMATS.items() if layout.on_request}
    assert {reader(row, None).layout for row, _ in CASES.values()} | asked_for == set(FORMATS)


@pytest.mark.parametrize(
    ("answers", "known"),
    [
        ([{"answer": "bad", "rank": 2.0}, {"answer": "good", "rank": 1.0}], {}),
        (
            [
                {"text": "bad", "pm_score": 1},
                {"text": "good", "pm_score": 5},
                {"text": "x", "score": 2},
            ],
            rated(5.0, 1.0),
        ),
    ],
)
def test_answers_with_a_value_each_make_a_pair_where_pairs_are_asked_for(answers, known):
    assert read({"question": "p", "answers": answers}, "preference") == PAIR | known
    # Elsewhere `answers` are mostly the accepted ones of a question.
    assert reader(["question", "answers"], None).layout == "prompt"


def test_two_names_for_a_column_are_not_chosen_between():
    assert reader(["prompt", "winner", "accepted", "loser"], "preference") is None
    assert reader(["prompt", "winner", "loser"], "preference").layout == "preference"


def test_a_format_can_be_said():
    assert reader(["prompt", "completion", "label"], None).layout == "unpaired"
    chosen = reader(["prompt", "completion", "label"], None, None, "prompt_completion")
    assert chosen.layout == "prompt_completion"
    with pytest.raises(ConfigError, match="unknown format 'alpacca'; did you mean 'alpaca'"):
        reader(["instruction"], None, None, "alpacca")


def test_a_bad_answer_is_not_imitated():
    row = {"messages": turns("q", "a"), "label": False}
    make = reader(["messages", "label"], "conversation", "unpaired")
    with pytest.raises(DataError, match="says that this answer is a bad one"):
        make(row)
    assert make(row | {"label": True}) == {"messages": turns("q", "a")}


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
        ({"messages": [{"role": "wizard", "content": "x"}]}, "a turn of 'wizard', not of"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "not of system, developer, user"),
        ({"messages": ["hello"]}, "something that is not a message"),
        ({"messages": "hello"}, "`messages` is not a list of messages"),
        ({"messages": [{"role": "user", "content": None}]}, "`messages` is null, not text"),
        ({"instruction": "i", "output": None}, "`output` is missing"),
        ({"instruction": "i", "output": ["a"]}, "`output` is a list, not text"),
        ({"question": True, "answer": "a"}, "`question` is true or false, not text"),
        ({"prompt": "p", "completion": "c", "label": "maybe"}, "'maybe', neither true nor false"),
        ({"prompt": "p", "responses": ["a", "b"], "ranks": [1]}, "2 answers but 1 values"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1, 1]}, "all answers are valued the"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1, "x"]}, "value is not a number"),
        ({"instruction": "i", "output": "o", "history": ["a"]}, "`history` is not a list of"),
        ({"messages": [{"from": "function_call", "value": "{"}]}, "tool calls are not valid JSON"),
        ({"messages": turns("q", "a"), "tools": "{"}, "`tools`: the tools are not valid JSON"),
    ],
)
def test_a_row_that_does_not_fit_its_layout_says_why(row, reason):
    with pytest.raises(DataError, match=reason):
        read(row)


def test_a_mismatch_shows_columns_rows_and_the_mapping_to_write():
    rows = [{"txt": "x" * 200 + "\x1b[31m", "label": 1}] * 3
    message = mismatch("a.jsonl", ["txt", "label"], "preference", rows)
    assert "'a.jsonl' has the columns txt, label, which are no layout we know" in message
    assert "`columns: {prompt: <column>, chosen: <column>, rejected: <column>}`" in message
    assert message.count("\n  row ") == 3
    assert f"txt={'x' * 79}…, label=1" in message
    assert "\x1b" not in mismatch("a", ["t"], None, [{"t": "\x1b[31m"}])


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("alpaca", "but `format: alpaca` needs instruction, output; remove `format`"),
        ("prompt", "but `format: prompt` makes prompt rows, and preference rows are needed"),
    ],
)
def test_a_layout_that_was_asked_for_is_what_a_mismatch_is_about(layout, words):
    columns = ["prompt", "chosen", "rejected"]
    assert reader(columns, "preference", layout=layout) is None
    assert words in mismatch("a.jsonl", columns, "preference", [], layout)


@pytest.mark.parametrize(
    ("columns", "task", "layout"),
    [
        (["prompt", "response", "answer"], "conversation", "prompt_completion"),
        (["prompt", "response", "ground_truth"], "conversation", "prompt_completion"),
        (["problem", "solution", "answer"], "conversation", "question_solution"),
        (["problem", "solution", "answer"], "prompt", "question_solution"),
        (["instruction", "response", "text"], None, "prompt_completion"),
        (["message_id", "parent_id", "text", "role"], None, None),
        (["instruction", "input", "chosen", "rejected"], None, "preference_instruction"),
        (["system", "input", "chosen", "rejected"], None, "preference"),
        (["query", "chosen", "rejected"], None, "preference"),
        (["input", "output"], None, "prompt_completion"),
        (["prompt", "answer"], "conversation", "prompt"),
        (["prompt", "answer"], None, "prompt"),
        (["prompt", "response"], None, "prompt_completion"),
        (["prompt", "Response", "response_length"], None, "prompt_completion"),
        (["Prompt", "PROMPT", "completion"], None, None),
        (["task_id", "text", "code", "test_list"], None, None),
        (["conversations", "kto_tag"], "conversation", "unpaired_conversations"),
    ],
)
def test_the_layout_that_says_most_is_taken(columns, task, layout):
    found = reader(columns, task)
    assert (found and found.layout) == layout


NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Say 2", "input": NAN, "output": "2"}, {"messages": turns("Say 2", "2")}),
        (
            {"prompt": "q", "completion": "a", "system": NAN, "answer": NAN},
            {"messages": turns("q", "a")},
        ),
        ({"prompt": "q", "answer": 72.0}, {"prompt": turns("q"), "answer": "72"}),
        (
            {"prompt": "q", "reward_model": {"ground_truth": "34", "style": "rule"}},
            {
                "prompt": turns("q"),
                "answer": "34",
                "extra": '{"reward_model":{"ground_truth":"34","style":"rule"}}',
            },
        ),
        (
            {"question": "How many?", "context": "CREATE TABLE t", "answer": "SELECT 1"},
            {"messages": turns("CREATE TABLE t\n\nHow many?", "SELECT 1"), "answer": "SELECT 1"},
        ),
        (
            {"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", "chosen": "d",
             "rejected": "e"},
            {"prompt": turns("a", "b", "c"), "chosen": answer("d"), "rejected": answer("e")},
        ),
        (
            {"messages": [{"role": "system", "content": ""}, *turns("q", "a")]},
            {"messages": turns("q", "a")},
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]},
                          *answer("a")]},
            {"messages": turns("q", "a")},
        ),
        (
            {"messages": [*turns("q"), {"role": "assistant", "content": None,
                                        "function_call": {"name": "f", "arguments": '{"x": 1}'}}]},
            {"messages": [*turns("q"), CALL]},
        ),
        (
            {"conversation": [{"input": "q", "output": "a"}, {"input": "r", "output": "b"}]},
            {"messages": turns("q", "a", "r", "b")},
        ),
        ({"messages": json.dumps(turns("q", "a"))}, {"messages": turns("q", "a")}),
        (
            {"prompt": json.dumps(turns("p")), "chosen": json.dumps(turns("p", "good")),
             "rejected": json.dumps(answer("bad"))},
            PAIR,
        ),
        (
            {"prompt": "q", "completion": '[{"name": "x"}]'},
            {"messages": turns("q", '[{"name": "x"}]')},
        ),
        (
            {"messages": [*turns("q", "a"), *turns("r"),
                          {"role": "assistant", "content": "b", "weight": 0}]},
            {"messages": [*turns("q", "a", "r"), answer("b")[0] | {"weight": "0"}]},
        ),
        (
            {"messages": [{"role": "user", "content": "q", "weight": 0},
                          {"role": "assistant", "content": "a", "thinking": "hm", "weight": 1}]},
            {"messages": [*turns("q"), answer("a")[0] | {"thinking": "hm"}]},
        ),
        (
            {"messages": [*turns("q"), {"role": "assistant", "content": "a", "train": False},
                          *turns("r"), {"role": "assistant", "content": "b", "loss": True}]},
            {"messages": [*turns("q"), answer("a")[0] | {"weight": "0"}, *turns("r", "b")]},
        ),
        ({"instruction": "", "input": "x", "output": "a"}, {"messages": turns("x", "a")}),
        ({"prompt": "q", "completion": "a", "system": " "}, {"messages": turns("q", "a")}),
        ({"messages": turns("q", "a"), "tools": "null"}, {"messages": turns("q", "a")}),
        (
            {"question": "p", "context": "c", "chosen": "good", "rejected": "bad"},
            {**PAIR, "prompt": turns("c\n\np")},
        ),
        (
            {"prompt": "p", "wide": 2**70, "deep": {"x": [2**70, "é"]}},
            {"prompt": turns("p"),
             "extra": f'{{"deep":{{"x":[{2**70},"\\u00e9"]}},"wide":{2**70}}}'},
        ),
        ({"prompt": "p", "images": [], "audio": ""},
         {"prompt": turns("p"), "extra": '{"audio":"","images":[]}'}),
        ({"prompt": "p", "image": {"bytes": None, "path": None}, "images": [None], "video": False},
         {"prompt": turns("p"),
          "extra": '{"image":{"bytes":null,"path":null},"images":[null],"video":false}'}),
        (
            {"messages": turns("q", "a"), "functions": [{"name": "f"}]},
            {"messages": turns("q", "a"), "tools": TOOLS},
        ),
        (
            {"question": "Which? (a) or (b)", "choices": {"text": ["(a)", "(b)"]}, "answer": "a"},
            {"messages": turns("Which? (a) or (b)", "a"), "answer": "a",
             "extra": '{"choices":{"text":["(a)","(b)"]}}'},
        ),
    ],
)  # fmt: skip
def test_quirks_of_public_sets(row, expected):
    assert read(row) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": "q", "choices": ["a", "b"], "answer": 1},
            "`choices` are not in the question",
        ),
        ({"instruction": NAN, "output": "a"}, "`instruction` is missing"),
        ({"question": "q", "choices": {"text": ["one"]}}, "`choices` are not in the question"),
        ({"messages": "[{'role': 'user', 'content': 'q'}]"}, "as Python prints them; write them"),
        ({"prompt": "p", "completion": "[{'content': 'a', 'role': 'x'}]"}, "as Python prints"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, *answer("a")]},
            "parts that are not text",
        ),
        ({"messages": turns("<image>\nq", "a"), "images": ["a.png"]}, "`images` is not empty, and"),
        ({"prompt": "q", "answer": "1", "images": [None, {"path": "a"}]}, "`images` is not empty"),
        (
            {"prompt": "q", "answer": "1", "image": {"bytes": b"x"}},
            "`image` is not empty, and only",
        ),
    ],
)
def test_what_would_be_lost_is_refused(row, message):
    with pytest.raises(DataError, match=message):
        read(row)

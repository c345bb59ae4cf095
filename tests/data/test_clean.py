"""What counts as the same text, and what does not."""

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligntune.data.clean import Overlap, Similar, bands, duplicate_key, normalised, signatures

GSM8K = Path(__file__).parents[3] / "shared/hub/datasets/openai/gsm8k/main"
WORDS = [f"w{n}" for n in range(2000)]


def chat(user, assistant="fine", system=None):
    first = [{"role": "system", "content": system}] if system else []
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": [*first, *turns]}


@pytest.mark.parametrize("other", ["  what IS\tthis? ", "What is\u00a0this?"])
def test_case_and_spaces_make_no_other_text(other):
    assert normalised(other) == normalised("What is this?") == "what is this?"


def test_accents_may_be_characters_of_their_own_but_powers_are_no_digits():
    assert normalised("cafe\u0301") == normalised("caf\u00e9")
    assert normalised("2\u2075") != normalised("25")


def test_the_same_question_with_other_tools_is_another_row():
    tools = [chat("q") | {"tools": f'[{{"name": "{name}"}}]'} for name in "fg"]
    assert len({duplicate_key(row, "prompt") for row in (*tools, chat("q"))}) == 3


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)


def test_the_prompt_or_the_row_decides():
    one, other = chat("Hello", "a"), chat("hello ", "b")
    assert duplicate_key(one, "prompt") == duplicate_key(other, "prompt")
    assert duplicate_key(one, "row") != duplicate_key(other, "row")
    assert duplicate_key(one, "row") == duplicate_key(chat("hello", "A"), "row")
    assert duplicate_key(one, "prompt") != duplicate_key(chat("Hello", system="Be"), "prompt")


def test_turns_cannot_run_into_each_other():
    one = {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    other = {"prompt": [{"role": "user", "content": "a assistant b"}]}
    assert duplicate_key(one, "prompt") != duplicate_key(other, "prompt")


def test_labels_and_answers_are_part_of_a_row():
    row = {"prompt": [{"role": "user", "content": "q"}], "answer": "4"}
    assert duplicate_key(row, "row") != duplicate_key(row | {"answer": "5"}, "row")
    assert duplicate_key(row, "prompt") == duplicate_key(row | {"answer": "5"}, "prompt")


def test_plain_text_is_its_own_prompt():
    text = {"messages": [{"role": "assistant", "content": "one text"}]}
    other = {"messages": [{"role": "assistant", "content": "another"}]}
    assert duplicate_key(text, "prompt") != duplicate_key(other, "prompt")


def changed(words, share, source):
    return [source.choice(WORDS) if source.random() < share else word for word in words]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_near_copies_are_found_and_others_are_not(threshold):
    pytest.importorskip("rensa")
    source = random.Random(0)
    texts = [source.choices(WORDS, k=200) for _ in range(200)]
    known = Similar(threshold)
    for number, signature in enumerate(signatures([chat(" ".join(text)) for text in texts])):
        assert known.first(signature) is None
        known.add(number, signature)
    # A word in 400 changed leaves some 97 % of the 5-grams of a text.
    near = [chat(" ".join(changed(text, 1 / 400, source))) for text in texts]
    found = [known.first(signature) for signature in signatures(near)]
    assert sum(number == at for at, number in enumerate(found)) >= 190
    # One in five leaves a third of them, a Jaccard similarity of 0.2.
    far = [chat(" ".join(changed(text, 1 / 5, source))) for text in texts]
    assert sum(known.first(signature) is not None for signature in signatures(far)) <= 2


def test_signatures_are_the_same_everywhere():
    pytest.importorskip("rensa")
    (made,) = signatures([chat("the quick brown fox jumps over the lazy dog")])
    assert made.digest()[:3] == FIRST


FIRST = [3313849879, 3298934994, 3190686803]


def test_more_bands_for_lower_thresholds():
    assert [bands(t) for t in (0.3, 0.5, 0.8, 0.95)] == sorted(
        (bands(t) for t in (0.3, 0.5, 0.8, 0.95)), reverse=True
    )


QUESTION = "Natalia sold clips to forty eight of her friends in April and half as many in May"


def overlap(*questions, size=13):
    return Overlap([chat(question) for question in questions], size)


@pytest.mark.parametrize(
    "row",
    [
        chat(QUESTION),
        chat("q", f"As they say: {QUESTION.upper()}!"),
        chat(f"Well. {' '.join(QUESTION.split()[2:15])} and so on"),
        {"prompt": chat(QUESTION)["messages"][:1], "answer": "72"},
    ],
)
def test_a_run_of_thirteen_words_is_found_wherever_it_is(row):
    assert overlap(QUESTION, "another one").contaminated([chat("fine"), row]) == [False, True]


def test_twelve_words_are_not_enough_and_turns_do_not_join():
    words = QUESTION.split()
    parts = chat(" ".join(words[:12]), " ".join(words[12:]))
    assert overlap(QUESTION).contaminated([parts]) == [False]


def test_system_turns_are_nobodys_question():
    row = chat("a different question", system=QUESTION)
    assert overlap(QUESTION).contaminated([row]) == [False]
    assert Overlap([chat("fine", system=QUESTION)], 13).contaminated([chat(QUESTION)]) == [False]


def test_the_wording_of_a_template_is_no_overlap():
    template = "Answer the following question as well as you can and think step by step first: {}"
    asked = overlap(*(template.format(f"what is {n} plus {n}") for n in range(11)))
    assert asked.contaminated([chat(template.format("who was Ada Lovelace"))]) == [False]
    assert asked.contaminated([chat(template.format("what is 3 plus 3"))]) == [True]


def test_a_question_that_is_asked_again_or_varied_is_still_one():
    for others in (
        [QUESTION + " "],
        [QUESTION.upper()],
        [f"{QUESTION} In {n} days?" for n in "23"],
    ):
        asked = overlap(QUESTION, *others)
        assert asked.contaminated([chat(f"Solve this: {QUESTION} Explain.")]) == [True]


def test_plain_text_to_measure_on_is_all_question():
    text = {"messages": [{"role": "assistant", "content": QUESTION}]}
    asked = Overlap([text], 13)
    assert asked.contaminated([text, chat(QUESTION), chat("else")]) == [True, True, False]
    short = Overlap([{"messages": [{"role": "assistant", "content": "Hi all."}]}], 13)
    again = {"messages": [{"role": "assistant", "content": "hi  all."}]}
    assert short.contaminated([again, chat("x")]) == [True, False]


def test_each_character_of_a_script_without_spaces_is_a_word():
    question = "".join(chr(0x5C0F + n) for n in range(16))
    asked = overlap(question)
    assert asked.contaminated([chat(f"\u8bf7\u95ee{question}")]) == [True]
    assert asked.contaminated([chat(question[:8])]) == [False]


def test_short_questions_count_as_a_whole():
    asked = overlap("What is 12 + 7 - 5?", "Who?")
    rows = [chat("what is 12 + 7 - 5? "), chat("What is 12 - 7 + 5?"), chat("x", "Who?")]
    assert asked.contaminated(rows) == [True, False, False]


def test_nothing_to_compare_with_finds_nothing():
    assert Overlap([], 13).contaminated([chat(QUESTION)]) == [False]
    assert overlap(QUESTION).contaminated([]) == []


def slow(evaluated, row, size=13):
    """The definition, for questions without templates."""

    def grams(text):
        import re

        words = re.findall(r"\w+", text.casefold())
        return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}

    return any(
        grams(turn["content"]) & evaluated for turn in row["messages"] if turn["role"] != "system"
    ), grams


@pytest.mark.skipif(not GSM8K.exists(), reason="no gsm8k in shared/hub")
def test_gsm8k_has_as_many_overlaps_as_the_definition_says():
    def rows(split):
        table = pq.read_table(GSM8K / f"{split}-00000-of-00001.parquet")
        return [chat(row["question"], row["answer"]) for row in table.to_pylist()]

    test, train = rows("test"), rows("train")
    grams = slow(set(), test[0])[1]
    counts: dict = {}
    for row in test:
        for gram in grams(row["messages"][0]["content"]):
            counts[gram] = counts.get(gram, 0) + 1
    evaluated = {gram for gram, count in counts.items() if count <= 10}
    expected = [slow(evaluated, row)[0] for row in train]
    assert Overlap(test, 13).contaminated(train) == expected
    assert sum(expected) == 1

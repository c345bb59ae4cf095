"""Where a completion reasons and where it answers."""

import random
import time

import pytest
from tiny import build_tokenizer

from aligntune.config.train import Counterfactual
from aligntune.train.spans import ARITHMETIC, layout, pieces

TOKENIZER = build_tokenizer(vocab_size=400, context=512)
MARKERS = Counterfactual().answer_markers


def found(text, max_spans=10, markers=MARKERS):
    """The answer, the spans and the formatting tokens, as text."""
    ids = TOKENIZER.encode(text)
    where = layout(ids, TOKENIZER.decode, markers=markers, max_spans=max_spans)
    if where is None:
        return None
    spans = [TOKENIZER.decode(ids[start:end]) for start, end in where.spans]
    start, end = where.answer
    marks = [TOKENIZER.decode([ids[i]]) for i, mark in enumerate(where.formatting) if mark]
    return TOKENIZER.decode(ids[start:end]), [span.strip() for span in spans], marks


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so it is\n#### 42", "#### 42"),
        ("we get \\boxed{7} then", "\\boxed{7} then"),
        ("so the final answer is 3", " final answer is 3"),
        ("Yes. FINAL ANSWER: 3 #### 3", " FINAL ANSWER: 3 #### 3"),
        ("#### 1 is wrong. The final answer is 2", " final answer is 2"),
        ("one #### two #### three", "#### two #### three"),
    ],
)
def test_the_answer_begins_with_its_marker(text, answer):
    assert found(text)[0].strip() == answer.strip()


def test_markers_of_ones_own_are_words_and_no_patterns():
    assert found("so (a+b) it is: 42", markers=("(A+B)",))[0].strip() == "(a+b) it is: 42"
    assert found("the final answer is 3", markers=("####",)) is None


@pytest.mark.parametrize("text", ["no marker at all", "#### 42", "", "final answer"])
def test_without_a_marker_or_anything_before_it_there_is_no_layout(text):
    assert found(text) is None


def test_sums_come_before_sentences_and_no_sentence_contains_one():
    text = "We know a lot. First 12 + 30 = 42 cats.\n\nThe moon is in the sky. Yes. So\n#### 42"
    assert found(text)[1] == ["We know a lot.", "12 + 30 = 42", "The moon is in the sky."]


def test_a_sentence_ends_at_a_stop_a_blank_line_or_the_answer():
    _, spans, _ = found("it costs 3.5 red cats\n\nthe moon is blue! and the sun is red\n#### 1")
    assert spans == ["it costs 3.5 red cats", "the moon is blue!", "and the sun is red"]


def test_sums_take_at_most_half_of_the_spans():
    sums = " and ".join(f"{number} + 1 = {number + 1}" for number in range(2, 9))
    assert len(found(f"{sums}\n#### 9", max_spans=6)[1]) == 3
    assert len(found("the cat sat on a mat. " * 9 + "#### 1", max_spans=6)[1]) == 6


def test_long_spans_and_markup_are_not_masked():
    long = "the cat sat on a mat and " * 20
    assert found(f"{long}. #### 1")[1] == []
    assert found("\\a\\b\\c\\d\\e\\f\\g\\h. #### 1")[1] == []


def test_signs_only_format_outside_of_sums():
    _, spans, marks = found("== 1 + 2 = 3\n---\n#### 3")
    assert spans[0] == "1 + 2 = 3"
    assert set("".join(marks)) == {"=", "-"}
    assert "".join(marks).count("=") == 2


def test_pieces_are_the_text_and_characters_of_several_tokens_are_one():
    text = "naïve 日本 moon"
    ids = TOKENIZER.encode(text)
    cut = pieces(ids, TOKENIZER.decode)
    assert "".join(piece for _, piece in cut) == text
    assert len(cut) < len(ids)
    assert cut[-1][0] == len(ids)


def test_pieces_of_any_tokens_are_what_they_decode_to():
    draw = random.Random(0)
    for _ in range(100):
        ids = [draw.randrange(3, len(TOKENIZER)) for _ in range(40)]
        cut = pieces(ids, TOKENIZER.decode)
        assert "".join(piece for _, piece in cut) == TOKENIZER.decode(ids)
        assert cut[-1][0] == len(ids)


def test_pieces_keep_the_spaces_that_a_tokenizer_strips_from_the_beginning():
    def decode(ids):
        return TOKENIZER.decode(ids).lstrip(" ")

    ids = TOKENIZER.encode("the cat sat on a mat")
    assert "".join(piece for _, piece in pieces(ids, decode)) == "the cat sat on a mat"


def test_a_row_of_sums_without_a_result_is_not_searched_again_from_each_number():
    began = time.process_time()
    assert ARITHMETIC.search("1+" * 20000) is None
    assert time.process_time() - began < 5

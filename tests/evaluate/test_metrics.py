"""Each metric against its definition."""

import math
from dataclasses import replace

import pytest
import torch

from aligntune.errors import DataError
from aligntune.evaluate.generate import Answer, prompt_tokens
from aligntune.evaluate.generate import answers as generate
from aligntune.evaluate.likelihood import encode, token_log_probs
from aligntune.evaluate.metrics import METRICS
from aligntune.evaluate.types import Subject, prompt_of


def ignore(done, total):
    pass


def assistant(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def subject(model, tokenizer):
    return Subject(model, tokenizer, precision="fp32", batch_size=2, max_length=64)


@pytest.fixture
def pair(say):
    def pair(chosen, rejected, prompt="hi"):
        return {
            "prompt": say(prompt),
            "chosen": assistant(chosen),
            "rejected": assistant(rejected),
        }

    return pair


def log_probs(subject, completions):
    """Of each as a whole, one at a time."""
    alone = replace(subject, batch_size=1)
    return [float(each.sum()) for each in token_log_probs(alone, completions, ignore)]


def score(name, subject, rows, answers=None):
    metric = METRICS[name]
    found = metric.score(subject, rows, answers or [None] * len(rows), ignore)
    return [None if value is None else metric.of(value) for value in found]


def test_exact_match_scores_the_generated_answer(subject):
    rows = [{"answer": "7"}, {"answer": "7"}, {"answer": "7"}]
    answers = [Answer("it is 7.", 5, True), Answer("it is 8.", 5, True), None]
    assert score("exact_match", subject, rows, answers) == [1, 0, None]


def test_nll_of_a_model_without_preferences_is_log_v(subject, say):
    subject.model.lm_head.weight.data.zero_()
    rows = [{"messages": say("hi") + assistant(text)} for text in ("a", "a longer one", "")]
    expected = math.log(subject.model.config.vocab_size)
    assert score("nll", subject, rows) == pytest.approx([expected] * 3)


def test_nll_is_per_token_of_the_last_turn_only(subject, tokenizer, say):
    first = say("hi") + assistant("hello") + say("and?")
    (completion,) = encode(tokenizer, [(first, assistant("bye"))])
    (total,) = log_probs(subject, [completion])
    assert completion.length == len("bye") + 1
    row = {"messages": first + assistant("bye")}
    assert score("nll", subject, [row]) == [pytest.approx(-total / 4)]


def test_preferring_the_chosen_answer_is_right_and_the_rejected_wrong(
    subject, tokenizer, say, pair
):
    texts = [("yes", "no, not at all"), ("abc", "xyz"), ("one", "two"), ("q", "r")]
    forward = score("preference_accuracy", subject, [pair(a, b) for a, b in texts])
    backward = score("preference_accuracy", subject, [pair(b, a) for a, b in texts])
    both = [(say("hi"), assistant(text)) for texts_ in texts for text in texts_]
    summed = log_probs(subject, encode(tokenizer, both))
    pairs = zip(summed[::2], summed[1::2], strict=True)
    assert forward == [float(one > other) for one, other in pairs]
    assert set(forward) == {0, 1}
    assert [a + b for a, b in zip(forward, backward, strict=True)] == [1] * 4


def test_the_margin_is_the_difference_of_the_whole_log_probabilities(subject, tokenizer, say, pair):
    both = encode(tokenizer, [(say("hi"), assistant("yes")), (say("hi"), assistant("no, no"))])
    one, other = log_probs(subject, both)
    rows = [pair("yes", "no, no"), pair("no, no", "yes")]
    assert score("preference_margin", subject, rows) == pytest.approx([one - other, other - one])


def test_answers_are_described_by_length_end_variety_and_refusal(subject):
    answers = [
        Answer("a a b a a b", 7, True),
        Answer("I\u2019m sorry, but I can't help with that", 9, False),
        Answer("word", 2, True),
        None,
    ]
    rows = [{}] * 4
    assert score("answer_tokens", subject, rows, answers) == [7, 9, 2, None]
    assert score("finished_rate", subject, rows, answers) == [1, 0, 1, None]
    assert score("refusal_rate", subject, rows, answers) == [0, 1, 0, None]
    assert score("distinct_1", subject, rows, answers) == [pytest.approx(2 / 6), 1, 1, None]
    assert score("distinct_2", subject, rows, answers) == [pytest.approx(3 / 5), 1, None, None]


def test_the_distance_to_the_base_is_k3_on_the_tokens_that_were_generated(
    subject, make_model, tokenizer, say, tmp_path
):
    base = make_model(seed=5)
    base.save_pretrained(tmp_path)
    rows = [{"prompt": say("hi")}, {"prompt": say("and now")}, {"prompt": say("cut")}]
    found = generate(
        subject.model, tokenizer, [prompt_of(row) for row in rows[:2]],
        max_new_tokens=6, batch_size=2, progress=ignore,
    )  # fmt: skip
    measured = score("kl_to_base", replace(subject, reference=tmp_path), rows, [*found, None])
    for row, answer, distance in zip(rows[:2], found, measured[:2], strict=True):
        (asked,) = prompt_tokens(tokenizer, [prompt_of(row)])
        ids = torch.tensor([[*asked, *answer.ids]])
        with torch.no_grad():
            own, theirs = (
                m(input_ids=ids).logits[0, len(asked) - 1 : -1].log_softmax(-1)
                .gather(1, ids[0, len(asked) :, None])[:, 0].double()
                for m in (subject.model, base)
            )  # fmt: skip
        ratio = theirs - own
        assert distance == pytest.approx(float((ratio.exp() - 1 - ratio).mean()), rel=1e-4)
    assert measured[2] is None


def test_a_model_is_at_no_distance_from_itself(subject, say, tmp_path):
    subject.model.save_pretrained(tmp_path)
    answers = [Answer("abc", 3, False, (65, 66, 67))]
    (distance,) = score(
        "kl_to_base", replace(subject, reference=tmp_path), [{"prompt": say("hi")}], answers
    )
    assert distance == pytest.approx(0, abs=1e-9)


def test_preference_counts_the_whole_answer_and_not_its_mean(subject, pair):
    # Without preferences every token costs log V, so the shorter answer is the likelier one.
    subject.model.lm_head.weight.data.zero_()
    rows = [pair("a", "a longer one"), pair("a longer one", "a")]
    assert score("preference_accuracy", subject, rows) == [1, 0]


def test_equal_answers_are_half_right(subject, pair):
    rows = [pair("same", "same"), pair("x" * 20, "y"), pair("z" * 9, "z" * 9)]
    found = score("preference_accuracy", subject, rows)
    assert (found[0], found[2]) == (0.5, 0.5)


def test_a_row_longer_than_max_length_has_no_score(subject, say, pair):
    rows = [{"messages": say("hi") + assistant("x" * n)} for n in (5, 100)]
    found = score("nll", subject, rows)
    assert found[0] is not None
    assert found[1] is None
    found = score("preference_accuracy", subject, [pair("a", "b" * 100), pair("a", "b")])
    assert found[0] is None
    assert found[1] is not None


def test_a_row_longer_than_the_models_positions_has_no_score(make_model, tokenizer, say):
    subject = Subject(make_model(positions=32), tokenizer, "fp32", batch_size=2, max_length=1000)
    rows = [{"messages": say("hi") + assistant("x" * n)} for n in (5, 60)]
    assert [value is None for value in score("nll", subject, rows)] == [False, True]


def test_metrics_say_which_rows_they_are_for(say, pair):
    talk = {"messages": say("hi") + assistant("hello")}
    rows = {
        "conversation": talk,
        "conversation with answer": talk | {"answer": "7"},
        "conversation in a mixture": talk | {"prompt": None, "chosen": None, "answer": ""},
        "preference": pair("a", "b"),
        "prompt": {"prompt": say("hi"), "answer": "7"},
    }
    allowed = {
        kind: {n for n, metric in METRICS.items() if metric.columns and metric.allows(row)}
        for kind, row in rows.items()
    }
    assert allowed == {
        "conversation": {"nll", "perplexity"},
        "conversation with answer": {"nll", "perplexity", "exact_match"},
        "conversation in a mixture": {"nll", "perplexity"},
        "preference": {"preference_accuracy", "preference_margin"},
        "prompt": {"exact_match"},
    }


def test_a_prompt_is_the_conversation_up_to_its_last_answer(say, pair):
    first = say("hi") + assistant("hello") + say("and?")
    assert prompt_of({"messages": first + assistant("bye")}) == first
    assert prompt_of(pair("a", "b", prompt="why?")) == say("why?")
    with pytest.raises(DataError, match="ends with a turn of 'user'"):
        prompt_of({"messages": first})

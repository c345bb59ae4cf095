"""Log-probabilities of completions, and only of them."""

import math

import pytest
import torch

from aligntune.errors import ConfigError, DataError, Diverged
from aligntune.evaluate import likelihood
from aligntune.evaluate.likelihood import Completion, encode, token_log_probs
from aligntune.evaluate.types import Subject

TEXTS = [("hi", "hello"), ("what is 2 + 2?", "4"), ("x", "a much longer answer"), ("longer?", "")]


@pytest.fixture
def completions(tokenizer, say):
    return encode(tokenizer, [(say(asked), answer(said)) for asked, said in TEXTS])


def answer(text):
    return [{"role": "assistant", "content": text}]


def score(model, completions, batch_size=2, progress=lambda done, total: None, *, precision="fp32"):
    """The log-probability of each completion as a whole."""
    subject = Subject(model, None, precision, batch_size, max_length=128)
    return [tokens.sum() for tokens in token_log_probs(subject, completions, progress)]


@torch.no_grad()
def chained(model, completion):
    """The chain rule, one prefix at a time."""
    total = 0.0
    for index in range(completion.start, len(completion.tokens)):
        logits = model(torch.tensor([completion.tokens[:index]])).logits[0, -1]
        total += float(logits.log_softmax(-1)[completion.tokens[index]])
    return total


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_log_probs_follow_the_chain_rule_in_every_batch(model, completions, batch_size):
    expected = [chained(model, completion) for completion in completions]
    assert score(model, completions, batch_size) == pytest.approx(expected, rel=1e-5)


def test_a_model_without_preferences_gives_every_token_one_in_v(model, completions):
    model.lm_head.weight.data.zero_()
    expected = [-c.length * math.log(model.config.vocab_size) for c in completions]
    assert score(model, completions) == pytest.approx(expected)


def test_batches_are_cut_where_their_logits_would_not_fit(model, completions, monkeypatch):
    expected, sizes = score(model, completions, 9), []
    monkeypatch.setattr(likelihood, "LOGITS", 30 * model.config.vocab_size)

    def record(module, arguments, output):
        rows, positions, _ = output.shape
        assert rows == 1 or rows * positions <= 30
        sizes.append(rows)

    model.lm_head.register_forward_hook(record)
    assert score(model, completions, 9) == pytest.approx(expected)
    assert sum(sizes) == len(completions)
    assert 1 < len(sizes) < len(completions)


def test_logits_are_only_computed_from_the_first_completion_on(model, completions):
    widths = []
    model.lm_head.register_forward_hook(lambda m, a, output: widths.append(output.shape[1]))
    score(model, completions, 1)
    assert sorted(widths) == sorted(completion.length + 1 for completion in completions)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_is_of_the_arithmetic_and_not_of_the_weights(
    model, completions, precision, dtype
):
    seen = set()
    model.lm_head.register_forward_hook(lambda m, a, output: seen.add(output.dtype))
    score(model, completions, precision=precision)
    assert seen == {dtype}
    assert model.lm_head.weight.dtype == torch.float32


def test_half_precision_is_close_to_single(model, completions):
    assert score(model, completions, precision="bf16") == pytest.approx(
        score(model, completions), rel=0.05
    )


def test_a_completion_is_what_follows_the_generation_prompt(tokenizer, completions):
    hello = completions[0]
    assert tokenizer.decode(hello.tokens[: hello.start]) == "<user>hi<end><assistant>"
    assert tokenizer.decode(hello.tokens[hello.start :]) == "hello<end>"
    assert hello.length == 6


def test_a_token_that_spans_prompt_and_answer_belongs_to_the_answer(tokenizer, say):
    tokenizer.chat_template = tokenizer.chat_template.replace("<{{", " {{").replace("}}>", "}} ")
    tokenizer.chat_template = tokenizer.chat_template.replace("<assistant>", " assistant ")
    (four,) = encode(tokenizer, [(say("2 + 2"), answer("4"))])
    assert tokenizer.decode(four.tokens[four.start :]) == " 4<end>"


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer, say):
    tokenizer.chat_template = "{% if add_generation_prompt %}ask{% endif %}" + (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(ConfigError, match="prompt of row 0"):
        encode(tokenizer, [(say("hi"), answer("hello"))])


def test_a_conversation_that_the_template_refuses_is_a_data_error(tokenizer, say):
    tokenizer.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(DataError, match="refuses a conversation of user: no such role"):
        encode(tokenizer, [(say("hi"), answer("hello"))])


def test_a_model_with_nan_weights_is_refused(model, completions):
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(Diverged, match="not finite"):
        score(model, completions)


def test_progress_counts_to_the_number_of_completions(model, completions):
    seen = []
    score(model, completions, 3, lambda done, total: seen.append((done, total)))
    assert seen == [(3, 4), (4, 4)]


def test_nothing_to_score_needs_no_forward_pass(model):
    assert score(model, []) == []
    assert Completion((1, 2, 3), 1).length == 2

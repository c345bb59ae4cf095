"""Greedy answers, whatever they are batched with."""

import pytest
import torch

from aligntune.errors import Diverged
from aligntune.evaluate.forward import tokens_of
from aligntune.evaluate.generate import Answer, answers
from aligntune.models.chat import render

END = 257
"""The tokenizer's end token."""
PROMPTS = ["hi", "what is 2 + 2?", "a", "tell me about the sea and the sky", "why?", "7", "so?"]


def ignore(done, total):
    pass


@pytest.fixture
def ask(tokenizer, say):
    def ask(model, texts=PROMPTS, max_new_tokens=12, batch_size=3, progress=ignore, **more):
        return answers(
            model,
            tokenizer,
            [say(text) for text in texts],
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=progress,
            **more,
        )

    return ask


@pytest.fixture
def greedy(tokenizer, say):
    """One token at a time, one prompt at a time, no cache, no padding: what greedy means."""

    @torch.no_grad()
    def greedy(model, text, count, ends):
        prompt = tokens_of(tokenizer, [render(tokenizer, say(text), to_answer=True)])[0]
        written = []
        while len(written) < count and not set(written) & ends:
            logits = model(torch.tensor([prompt + written])).logits[0, -1]
            written.append(int(logits.argmax()))
        return written

    return greedy


@pytest.fixture
def likeliest(tokenizer, greedy):
    def likeliest(model, text, count, ends):
        written = greedy(model, text, count, ends)
        kept = [token for token in written if token not in ends]
        text = tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Answer(text, len(written), len(kept) < len(written))

    return likeliest


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_each_answer_is_the_models_likeliest_in_every_batch(ask, likeliest, model, batch_size):
    expected = [likeliest(model, text, 12, {model.config.eos_token_id}) for text in PROMPTS]
    assert ask(model, batch_size=batch_size) == expected
    assert len({answer.text for answer in expected}) == len(PROMPTS)


def test_padding_that_is_also_the_end_token_changes_nothing(ask, model, tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    padded_by_end = ask(model)
    tokenizer.pad_token = "!"
    assert ask(model) == padded_by_end


@pytest.mark.parametrize("configured", [lambda end: end, lambda end: [end, END]])
def test_an_answer_ends_at_the_first_of_all_end_tokens(
    ask, likeliest, greedy, model, tokenizer, configured
):
    free = greedy(model, PROMPTS[1], 12, {tokenizer.eos_token_id})
    model.generation_config.eos_token_id = configured(free[5])
    ends = {tokenizer.eos_token_id, free[5]}
    found = ask(model)
    assert found == [likeliest(model, text, 12, ends) for text in PROMPTS]
    assert (found[1].finished, found[1].tokens) == (True, free.index(free[5]) + 1)
    assert len(free) > found[1].tokens


def test_the_tokenizers_end_token_counts_where_the_model_names_none(ask, model):
    expected = ask(model)
    model.generation_config.eos_token_id = None
    assert ask(model) == expected


def test_an_answer_cut_at_the_limit_is_not_finished(ask, model, tokenizer):
    model.lm_head.weight.data[tokenizer.eos_token_id] = 0
    model.lm_head.weight.data[tokenizer.eos_token_id, 0] = -1e4
    cut = [answer for answer in ask(model, max_new_tokens=3) if not answer.finished]
    assert cut
    assert {answer.tokens for answer in cut} == {3}


def test_sampling_settings_saved_with_the_model_do_not_apply(ask, model):
    expected = ask(model)
    model.generation_config.update(
        do_sample=True, temperature=5.0, repetition_penalty=3.0, min_new_tokens=9, num_beams=2
    )
    saved = model.generation_config
    assert ask(model) == expected
    assert model.generation_config is saved


def test_a_prompt_that_is_too_long_gets_no_answer(ask, make_model):
    short, *_, long = sorted(PROMPTS, key=len)
    assert ask(make_model(), [short, long], max_length=40)[1] is None
    assert ask(make_model(), [short, long], max_length=40)[0] is not None
    # 12 new tokens have to fit into the model's positions behind the prompt.
    assert ask(make_model(positions=40), [long, short])[0] is None
    assert ask(make_model(positions=40), [long, short])[1] is not None


def test_no_prompts_need_no_model(ask, model):
    assert ask(model, []) == []


def test_progress_counts_to_the_number_of_prompts(ask, model):
    seen = []
    ask(model, batch_size=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_a_model_in_training_answers_without_dropout_and_stays_in_training(ask, model):
    expected = ask(model)
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    model.train()
    assert ask(model) == expected
    assert model.training


def test_half_precision_gives_answers_too(ask, model):
    found = ask(model, precision="bf16")
    assert len(found) == len(PROMPTS)
    assert all(answer.tokens for answer in found)


def test_a_model_with_nan_weights_is_refused(ask, model):
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(Diverged, match="not finite"):
        ask(model)

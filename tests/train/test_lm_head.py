"""The plain LM head and batches without padding find what TRL's own head finds."""

import copy
import logging

import pytest
import torch
from offline import make, run, spec
from places import place
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    MistralConfig,
    MixtralConfig,
)
from trl.trainer.utils import add_fused_lm_head

from aligntune.config.train import Peft, Train
from aligntune.journal import read
from aligntune.models.load import load_policy
from aligntune.train.lm_head import FIELDS, Lighter, lighten

PLAIN, FREE, BOTH = Lighter(True, False), Lighter(False, True), Lighter(True, True)
SMALL = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, "attn_implementation": "sdpa",
}  # fmt: skip
LENGTHS = (9, 4, 12, 1, 7)


def batch(side="right", seed=1, start=2):
    """{input_ids, attention_mask, labels} of rows of LENGTHS; labels from the token `start` on."""
    draw = torch.Generator().manual_seed(seed)
    width = max(LENGTHS)
    ids = torch.randint(3, 90, (len(LENGTHS), width), generator=draw)
    real, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, length in enumerate(LENGTHS):
        first = 0 if side == "right" else width - length
        real[row, first : first + length] = 1
        labels[row, first + start : first + length] = ids[row, first + start : first + length]
    return {"input_ids": ids * real, "attention_mask": real, "labels": labels}


def scored(model, inputs, use_entropy=True):
    """Its answer and its gradients for a loss of the log-probabilities and the entropy."""
    out = model(**inputs, fused_lm_head=True, use_cache=False)
    loss = -out.log_probs.sum() / 7
    if use_entropy:
        loss = loss - 0.3 * out.entropy.square().sum()
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return out, found


def with_head(model, lighter=None, temperature=1.0):
    """A copy of it with TRL's head, or what `lighter` makes of that."""
    model = copy.deepcopy(model)
    add_fused_lm_head(model, temperature=temperature, outputs=FIELDS)
    if lighter:
        assert (
            lighten(model, lighter, wanted=FIELDS, longest=16, temperature=temperature) == lighter
        )
    return model


def check_same(theirs, ours, inputs, close=1e-5, **given):
    (expected, gradients), (found, own) = (scored(m, inputs, **given) for m in (theirs, ours))
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=close, atol=close
        )
    assert torch.equal(found.label_mask, expected.label_mask)
    torch.testing.assert_close(found.loss, expected.loss, rtol=close, atol=close)
    for name, gradient in gradients.items():
        assert torch.allclose(
            own[name], gradient, rtol=0, atol=close * max(gradient.abs().max(), 1e-3)
        ), name
    return found


@pytest.fixture(scope="module")
def llama(tiny_model):
    return load_policy(tiny_model, trust_remote_code=False).train()


@pytest.mark.parametrize("lighter", [PLAIN, FREE, BOTH])
@pytest.mark.parametrize("side", ["right", "left"])
def test_every_field_and_gradient_is_trls(llama, lighter, side):
    ours = with_head(llama, lighter, temperature=0.7)
    found = check_same(with_head(llama, temperature=0.7), ours, batch(side))
    assert found.is_top1.dtype == torch.bool
    assert found.entropy.detach().abs().sum() > 0


@pytest.mark.parametrize("lighter", [PLAIN, FREE, BOTH])
def test_a_label_on_the_first_token_is_what_it_is_in_trl(llama, lighter):
    """On the left it follows from padding, so there the padding stays."""
    for side in ("right", "left"):
        check_same(with_head(llama), with_head(llama, lighter), batch(side, start=0))


def architecture(kind):
    """A model of it, and what of BOTH it can have."""
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=90, n_positions=64, n_embd=32, n_layer=2, n_head=4)
        return AutoModelForCausalLM.from_config(config), BOTH
    if kind == "gemma2":
        settings = SMALL | {"attn_implementation": "eager"}
        config = Gemma2Config(**settings, final_logit_softcapping=3.0)
        return AutoModelForCausalLM.from_config(config), PLAIN
    config = MixtralConfig(**SMALL, num_local_experts=4, output_router_logits=True)
    return AutoModelForCausalLM.from_config(config), BOTH


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "mixtral"])
def test_other_architectures(kind):
    """Learned positions; a soft cap, and windows that keep the padding; experts."""
    model, kept = architecture(kind)
    model.eval()  # no dropout, which is drawn in another order
    ours = copy.deepcopy(model)
    add_fused_lm_head(ours, outputs=FIELDS)
    assert lighten(ours, BOTH, wanted=FIELDS, longest=16) == kept
    found = check_same(with_head(model), ours, batch())
    assert (found.aux_loss is not None) == (kind == "mixtral")


def test_a_window_that_is_shorter_than_a_row_keeps_the_padding():
    for window, kept in ((8, PLAIN), (16, BOTH), (None, BOTH)):
        config = MistralConfig(**SMALL, sliding_window=window)
        model = AutoModelForCausalLM.from_config(config)
        add_fused_lm_head(model, outputs=FIELDS)
        assert lighten(model, BOTH, wanted=FIELDS, longest=16) == kept


OFF = {"lm_head": "chunked", "padding_free": False}
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"say {word}"},
            {"role": "assistant", "content": " ".join([word] * times) + " it is"},
        ]
    }
    for word, times in zip(
        ("red", "blue", "sun", "moon", "tree", "sky"), (1, 9, 3, 20, 2, 5), strict=True
    )
]
TRAININGS = {
    "plain": {},
    "lora": {"peft": Peft(r=4)},
    "accumulated": {"gradient_accumulation_steps": 2},
    "everything": {"completion_only_loss": False},
    "dft": {"loss_type": "dft"},
    "packed": {"packing": True, "max_length": 48},
    "recomputed": {"gradient_checkpointing": True},
    "bf16": {"precision": "bf16"},
}


def trained(path, folder, **changes):
    """Its curves, and its weights."""
    chosen = spec(per_device_batch_size=3, max_steps=4, **changes)
    trainer = run(path, chosen, place(folder), ROWS)
    rows = [row.metrics for row in read(folder / "metrics.jsonl")]
    rows = [row for row in rows if "train/loss" in row]
    kept = (
        "train/loss",
        "train/grad_norm",
        "train/entropy",
        "train/mean_token_accuracy",
        "train/num_tokens",
    )
    return [[row[name] for name in kept] for row in rows], trainer.model.state_dict()


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_the_same_with_it_on_and_off(tiny_model, tmp_path, name):
    curves, weights = trained(tiny_model, tmp_path / "on", **TRAININGS[name])
    expected, others = trained(tiny_model, tmp_path / "off", **TRAININGS[name], **OFF)
    assert len(curves) == 4
    close = 2e-2 if name == "bf16" else 1e-4
    for found, wanted in zip(curves, expected, strict=True):
        assert found == pytest.approx(wanted, rel=close, abs=1e-5)
    if name != "bf16":  # where AdamW makes a whole step of what is only rounding
        assert all(torch.allclose(weights[key], others[key], atol=1e-5) for key in weights)


def test_the_held_out_loss_is_the_same(tiny_model, tmp_path):
    """Its last batch has fewer rows than the others, and counts for fewer."""
    found = []
    for folder, changes in (("on", {}), ("off", OFF)):
        chosen = spec(per_device_batch_size=4, **changes)
        trainer = make(tiny_model, chosen, place(tmp_path / folder), ROWS)
        measured = trainer.evaluate(trainer.train_dataset)
        found.append(
            [measured[f"eval_{name}"] for name in ("loss", "entropy", "mean_token_accuracy")]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_settings_are_taken_at_their_word():
    assert Lighter.asked(Train(lm_head="auto", padding_free="auto")) == BOTH
    assert Lighter.asked(Train(lm_head="plain", padding_free=False)) == PLAIN
    assert Lighter.asked(Train(lm_head="chunked", padding_free=True)) == FREE
    assert Lighter.asked(Train(**OFF)) == Lighter(False, False)


def test_on_a_gpu_auto_is_trls_own_way(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Lighter.asked(Train(lm_head="auto", padding_free="auto")) == Lighter(False, False)
    assert Lighter.asked(Train(lm_head="plain", padding_free=True)) == BOTH


@pytest.mark.parametrize("lighter", [PLAIN, FREE, BOTH])
def test_in_bf16_they_differ_by_its_rounding(llama, lighter):
    with torch.autocast("cpu", torch.bfloat16):
        check_same(with_head(llama), with_head(llama, lighter), batch(), close=2e-2)


def test_rows_do_not_see_each_other(llama):
    """With recomputed activations, too: then attention runs a second time, in the backward pass."""
    ours = with_head(llama, BOTH)
    ours.activation_checkpointing_enable()
    inputs = batch()
    before, gradients = scored(ours, inputs)
    check_same(with_head(llama), ours, inputs)
    inputs["input_ids"][0, :9] = 5
    inputs["labels"][0, :9] = -100
    after, others = scored(ours, inputs)
    assert torch.equal(before.log_probs[1:], after.log_probs[1:])
    inputs["labels"][1:] = -100
    _, own = scored(ours, inputs)
    assert all(not gradient.any() for gradient in own.values())
    assert any(gradient.any() for gradient in others.values())
    assert any(not torch.equal(gradients[name], others[name]) for name in others)


def test_a_batch_without_labels_has_a_loss_of_zero_and_gradients(llama):
    inputs = batch()
    inputs["labels"][:] = -100
    found, gradients = scored(with_head(llama, BOTH), inputs)
    assert found.loss.requires_grad
    assert found.loss == 0
    assert not any(gradient.any() for gradient in gradients.values())


def test_generation_and_logits_are_those_of_the_model(llama):
    inputs = {name: value[:1, :9] for name, value in batch().items()}
    prompt, labels = inputs["input_ids"], inputs["labels"]
    ours = with_head(llama, BOTH).eval()
    expected = copy.deepcopy(llama).eval()
    with torch.no_grad():
        assert torch.equal(ours(prompt).logits, expected(prompt).logits)
        assert torch.equal(ours(prompt, labels=labels).loss, expected(prompt, labels=labels).loss)
    sampled = [m.generate(prompt, max_new_tokens=4, do_sample=False) for m in (ours, expected)]
    assert torch.equal(*sampled)


def test_a_model_that_does_not_hand_on_where_rows_begin_keeps_its_padding(llama, caplog):
    model = copy.deepcopy(llama)
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, given: (
                args,
                {k: v for k, v in given.items() if "seq_lens" not in k},
            ),
            with_kwargs=True,
        )
    add_fused_lm_head(model, outputs=FIELDS)
    with caplog.at_level(logging.WARNING):
        assert lighten(model, BOTH, wanted=FIELDS, longest=16) == PLAIN
    assert "does not hand on where rows begin" in caplog.text
    check_same(with_head(llama), model, batch())


def test_a_head_that_is_another_one_is_left_as_trl_made_it(llama, caplog):
    """Were the logits scaled outside of the model's own forward, say."""
    model = copy.deepcopy(llama)
    add_fused_lm_head(model, temperature=0.5, outputs=FIELDS)
    assert lighten(model, BOTH, wanted=FIELDS, longest=16, temperature=1.0) == FREE
    assert "does not compute the same with Lighter(plain_head=True" in caplog.text
    check_same(with_head(llama, temperature=0.5), model, batch())

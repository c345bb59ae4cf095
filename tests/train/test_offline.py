"""What SFT and DPO make of their settings."""

import logging

import pytest
import torch
from offline import ROWS, make, run, spec
from places import place
from rollouts import curve
from rollouts import spec as online_spec
from tokens import trained_on
from torch.nn.functional import logsigmoid

from aligntune.config.presets import LOSS_TYPES, SMOOTHED
from aligntune.config.train import Peft
from aligntune.errors import ConfigError
from aligntune.journal import read
from aligntune.models.load import load_policy
from aligntune.train.loop import within

TURNS = [
    {"role": "user", "content": "red?"},
    {"role": "assistant", "content": "blue"},
    {"role": "user", "content": "sun?"},
    {"role": "assistant", "content": "moon"},
]


def losses(setting):
    return curve(setting, "train/loss")


def first_loss(path, folder, **changes):
    run(path, spec(max_steps=1, **changes), place(folder))
    return losses(place(folder))[0]


def learned(trainer):
    """The text that the loss is on, per row."""
    rows = trainer.train_dataset
    return [
        trainer.processing_class.decode([i for i in row["labels"] if i != -100]) for row in rows
    ]


def test_completion_only_is_the_assistants_words(tiny_model, tmp_path):
    rows = [{"messages": TURNS}]
    only = make(tiny_model, spec(), place(tmp_path), rows)
    assert learned(only) == ["blue<|im_end|>\n", "moon<|im_end|>\n"]


def test_a_loss_on_everything_learns_every_token_once(tiny_model, tmp_path):
    chosen = spec(completion_only_loss=False)
    trainer = make(tiny_model, chosen, place(tmp_path), [{"messages": TURNS}])
    whole = trainer.processing_class.apply_chat_template(TURNS, tokenize=False)
    assert learned(trainer) == [whole]


def test_dft_weighs_each_token_by_its_probability(tiny_model, tmp_path):
    nll = first_loss(tiny_model, tmp_path / "nll")
    dft = first_loss(tiny_model, tmp_path / "dft", loss_type="dft")
    # arXiv:2508.05629: p * nll, and a random model gives each of 400 tokens about 1/400.
    assert dft == pytest.approx(nll / 400, rel=0.5)


@pytest.mark.parametrize("loss_type", LOSS_TYPES["dpo"])
def test_every_dpo_loss_trains(tiny_model, tmp_path, loss_type):
    smoothing = 1e-3 if loss_type == "exo_pair" else 0.0
    chosen = spec("dpo", loss_type=loss_type, label_smoothing=smoothing, max_steps=2)
    trainer = run(tiny_model, chosen, place(tmp_path))
    assert trainer.loss_types == [loss_type]
    before = load_policy(tiny_model, trust_remote_code=False).state_dict()
    after = trainer.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.isfinite(weight).all() for weight in after.values())


def test_dpo_losses_are_those_of_their_names(tiny_model, tmp_path):
    """At the start both ratios are 0, so each loss has a value that is known."""
    known = {"sigmoid": 0.6931, "hinge": 1.0, "ipo": 25.0, "robust": 0.6931, "sppo_hard": 50.0,
             "apo_zero": 1.0, "nca_pair": 1.3863}  # fmt: skip
    for name, value in known.items():
        found = first_loss(tiny_model, tmp_path / name, algo="dpo", loss_type=name)
        assert found == pytest.approx(value, rel=1e-3), name


def test_smoothed_dpo_is_cdpo(tiny_model, tmp_path):
    """https://ericmitchell.ai/cdpo.pdf, equation 3, in each step's own margin, which is beta D."""
    chosen = spec("dpo", label_smoothing=0.3, per_device_batch_size=1, learning_rate=1e-2)
    run(tiny_model, chosen, place(tmp_path))
    steps = [row.metrics for row in read(tmp_path / "metrics.jsonl") if "train/loss" in row.metrics]
    margins = torch.tensor([step["train/rewards/margins"] for step in steps])
    assert margins.abs().max() > 0.1
    expected = -0.7 * logsigmoid(margins) - 0.3 * logsigmoid(-margins)
    assert losses(place(tmp_path)) == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_other_smoothed_losses_are_those_that_trl_smoothes(tiny_model, tmp_path):
    trainer = make(tiny_model, spec("dpo"), place(tmp_path))
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        trainer.model.get_output_embeddings().weight.mul_(1.5)

    def loss(name, share):
        trainer.loss_types, trainer.label_smoothing = [name], share
        return trainer.compute_loss(trainer.model, dict(batch)).item()

    found = {name for name in LOSS_TYPES["dpo"] if loss(name, 0.1) != loss(name, 0.3)}
    assert found | {"sigmoid"} == set(SMOOTHED)


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [("adamw_torch", "AdamW"), ("adafactor", "Adafactor"), ("sgd", "SGD")],
)
def test_the_optimizer_is_the_one_that_is_named(tiny_model, tmp_path, optimizer, kind):
    trainer = run(tiny_model, spec(optimizer=optimizer, max_steps=1), place(tmp_path))
    made = trainer.optimizer
    assert type(getattr(made, "optimizer", made)).__name__ == kind


def test_an_8bit_optimizer_says_what_it_needs(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="adamw_8bit needs a GPU and bitsandbytes"):
        make(tiny_model, spec(optimizer="adamw_8bit"), place(tmp_path))


@pytest.mark.parametrize("algo", ["sft", "dpo"])
def test_the_attention_kernel_is_used_and_not_saved(tiny_model, tmp_path, algo):
    chosen = spec(algo, attn_implementation="eager", max_steps=1)
    trainer = run(tiny_model, chosen, place(tmp_path))
    models = [trainer.model] + ([trainer.ref_model] if algo == "dpo" else [])
    assert [model.config._attn_implementation for model in models] == ["eager"] * len(models)
    from aligntune.models.save import save_policy

    save_policy(trainer.model, trainer.processing_class, tmp_path)
    loaded = load_policy(tmp_path / "model", trust_remote_code=False)
    assert loaded.config._attn_implementation == "sdpa"


def test_lengths_are_clamped_to_the_models_positions_with_a_warning(tiny_model, caplog):
    policy = load_policy(tiny_model, trust_remote_code=False)
    chosen = spec(max_length=512)
    assert within(chosen, policy) is chosen
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING, "aligntune"):
        assert within(spec(max_length=2048), policy).train.max_length == 512
    assert caplog.messages == [
        "train.max_length is 2048, but the model has 512 positions: it is trained on 512 tokens"
    ]


@pytest.mark.parametrize(("answer", "expected"), [(100, (412, 100)), (600, (256, 256))])
def test_prompt_and_answer_fit_into_the_positions_together(tiny_model, answer, expected):
    policy = load_policy(tiny_model, trust_remote_code=False)
    chosen = online_spec("grpo", max_length=2000, max_completion_length=answer)
    train = within(chosen, policy).train
    assert (train.max_prompt_length, train.max_completion_length) == expected


def test_an_adapter_that_is_there_gets_no_second_one(tiny_model, tmp_path):
    from peft import get_peft_model

    from aligntune.models.load import load_tokenizer
    from aligntune.train.lora import lora
    from aligntune.train.sft import sft_trainer

    chosen = spec(peft=Peft(r=2, alpha=4))
    policy = load_policy(tiny_model, trust_remote_code=False)
    adapted = get_peft_model(policy, lora(chosen.peft))
    rows = trained_on(ROWS["sft"], chosen, tiny_model)
    tokenizer = load_tokenizer(tiny_model)
    trainer = sft_trainer(adapted, tokenizer, rows, None, chosen, place(tmp_path))
    assert list(trainer.model.peft_config) == ["default"]
    assert trainer.model is adapted

"""What the online trainers rely on in TRL beyond its public interface.

A failure here after an update of TRL says which assumption to look at, before a training is wrong.
"""

from dataclasses import fields
from inspect import signature

import pytest
import torch
from rollouts import make, place, spec
from trl import GRPOConfig, GRPOTrainer

from aligntune.train.online import online_trainer
from aligntune.train.rollout import OnlineConfig, Rollout

WRAPPED = {
    "_calculate_rewards": ["inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_and_score_completions": ["inputs"],
    "_compute_loss": ["model", "inputs"],
    "_get_train_sampler": ["dataset"],
    "_get_eval_sampler": ["eval_dataset"],
    "_save_checkpoint": ["model", "trial"],
    "_load_optimizer_and_scheduler": ["checkpoint"],
}
ROLLOUT = {
    "prompt_ids",
    "prompt_mask",
    "completion_ids",
    "completion_mask",
    "advantages",
    "num_items_in_batch",
    "old_per_token_logps",
    "ref_per_token_logps",
}


@pytest.fixture(autouse=True)
def reward(monkeypatch):
    def toy(samples):
        return [float(len(sample.completion)) for sample in samples]

    monkeypatch.setattr("aligntune.train.judge.scorer", lambda reward: toy)


@pytest.mark.parametrize("name", WRAPPED)
def test_signatures_of_wrapped_methods(name):
    assert [*signature(getattr(GRPOTrainer, name)).parameters][1:] == WRAPPED[name]


def test_log_probabilities_are_asked_for_with_the_same_first_arguments():
    parameters = [*signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters]
    assert parameters[1:6] == [
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
    ]


class Spy(Rollout):
    spread = False

    def shape_rollout(self, out, rewards, inputs):
        self.seen = {key: (value.dtype, tuple(value.shape)) for key, value in out.items()}
        self.rows, self.rewards = inputs, rewards
        if self.spread:
            width = out["completion_ids"].size(1)
            out["advantages"] = out["advantages"][:, None].expand(-1, width)
        return out

    def extra_loss(self, inputs):
        self.had_gradient = self.logps.requires_grad
        self.loss_shape = tuple(self.logps.shape)
        assert self.beta == self.args.beta


def run(path, folder, spread=False, **changes):
    kind = type("Spy", (Spy,), {"spread": spread})
    settings = {"max_steps": 4, "num_iterations": 2, "learning_rate": 1e-3} | changes
    trainer = make(
        lambda *args: online_trainer(*args, kind=kind),
        path,
        spec("grpo", **settings),
        place(folder),
    )
    trainer.train()
    return trainer


def test_what_is_in_a_rollout(tiny_model, tmp_path):
    trainer = run(tiny_model, tmp_path)
    rows, width = trainer.seen["completion_ids"][1]
    assert set(trainer.seen) == ROLLOUT
    assert rows == len(trainer.rows) == len(trainer.rewards) == 16
    assert trainer.seen["advantages"] == (torch.float32, (rows,))
    for name in ("completion_mask", "old_per_token_logps", "ref_per_token_logps"):
        assert trainer.seen[name][1] == (rows, width)
    assert trainer.seen["num_items_in_batch"][1] == ()
    assert trainer.had_gradient
    assert trainer.loss_shape == (rows, width)
    assert isinstance(trainer._step, int)
    assert [*trainer._buffered_inputs[0]] == [*trainer.seen]


def test_an_advantage_per_token_is_as_good_as_one_per_answer(tiny_model, tmp_path):
    losses = [
        [row["loss"] for row in run(tiny_model, tmp_path / str(spread), spread).state.log_history
         if "loss" in row]
        for spread in (False, True)
    ]  # fmt: skip
    assert losses[0] == losses[1]


def test_one_answer_per_prompt_is_refused_last_of_all(tmp_path):
    shared = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    one = OnlineConfig(num_generations=1, **shared)
    two = GRPOConfig(num_generations=2, **shared)
    skipped = {"num_generations", "logging_dir"}
    for field in fields(GRPOConfig):
        if field.name not in skipped:
            assert getattr(one, field.name) == getattr(two, field.name), field.name


def test_other_mistakes_are_still_refused(tmp_path):
    with pytest.raises(ValueError, match="must be divisible"):
        OnlineConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, num_generations=3)

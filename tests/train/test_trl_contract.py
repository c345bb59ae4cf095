"""What the online trainers rely on in TRL beyond its public interface.

A failure here after an update of TRL says which assumption to look at, before a training is wrong.
"""

import dataclasses
from inspect import getsource, signature

import offline
import pytest
import torch
import transformers
import trl
from places import place
from rollouts import make, spec
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from aligntune.config.train import Gbmpo
from aligntune.models.load import load_policy
from aligntune.train import dpo, sft
from aligntune.train.online import online_trainer
from aligntune.train.policy import TRAINERS
from aligntune.train.rollout import OnlineConfig, Rollout
from aligntune.train.token_scores import FIELDS

WRAPPED = {
    "_calculate_rewards": ["inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_and_score_completions": ["inputs"],
    "_compute_loss": ["model", "inputs"],
    "_get_train_sampler": ["dataset"],
    "_get_eval_sampler": ["eval_dataset"],
    "_generate_single_turn": [
        "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images",
    ],
    "_prepare_inputs": ["generation_batch"],
    "_save_checkpoint": ["model", "trial"],
    "_load_optimizer_and_scheduler": ["checkpoint"],
}  # fmt: skip
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


def toy(samples):
    return [float(len(sample.completion)) for sample in samples]


@pytest.fixture(autouse=True)
def reward(monkeypatch):
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: toy)


CHANGED = "TRL {version} has changed what the online trainers build on: {what}. Look at {where}"


def changed(what, where):
    return CHANGED.format(version=trl.__version__, what=what, where=where)


@pytest.mark.parametrize("name", WRAPPED)
def test_signatures_of_wrapped_methods(name):
    method = getattr(GRPOTrainer, name, None)
    assert method is not None, changed(f"there is no {name}", f"Rollout.{name}")
    found = [*signature(method).parameters][1:]
    said = changed(f"{name} takes {found}, not {WRAPPED[name]}", f"Rollout.{name}")
    assert found == WRAPPED[name], said


def test_log_probabilities_are_asked_for_with_the_same_first_arguments():
    name = "_get_per_token_logps_and_entropies"
    expected = ["model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"]
    found = [*signature(getattr(GRPOTrainer, name)).parameters][1:6]
    assert found == expected, changed(f"{name} takes {found}", f"{name} in rollout.py and ppo.py")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_metrics", dict), ("_step", int), ("num_generations", int), ("num_iterations", int),
        ("max_completion_length", int), ("beta", float), ("epsilon_low", float),
        ("epsilon_high", float), ("loss_type", str), ("scale_rewards", str),
        ("importance_sampling_level", str), ("eos_token_ids", list | tuple | set),
        ("reward_weights", torch.Tensor), ("reward_func_names", list), ("reward_funcs", list),
        ("current_gradient_accumulation_steps", int), ("use_vllm", bool), ("_is_vlm", bool),
        ("aux_loss_enabled", bool), ("temperature", float), ("top_p", float), ("top_k", int),
        ("model_wrapped", torch.nn.Module),
    ],
)  # fmt: skip
def test_attributes_that_are_read(trained, name, kind):
    assert hasattr(trained, name), changed(f"there is no {name}", "rollout.py")
    found = type(getattr(trained, name)).__name__
    said = changed(f"{name} is a {found}", "rollout.py")
    assert isinstance(getattr(trained, name), kind), said


def test_the_sampler_can_be_seeded_by_epoch(trained):
    sampler = GRPOTrainer._get_train_sampler(trained)
    said = changed("its sampler has no generator and seed", "Epochs in rollout.py")
    assert isinstance(sampler.generator, torch.Generator), said
    assert sampler.seed == trained.args.seed, said


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


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aligntune.train.reward_functions.scorer", lambda reward: toy)
        return run(tiny_model, tmp_path_factory.mktemp("contract"))


def test_what_is_in_a_rollout(trained):
    trainer = trained
    found = set(trainer.seen)
    said = changed(f"a rollout has {sorted(found ^ ROLLOUT)} more or less", "refill.Batch")
    assert found == ROLLOUT, said
    rows, width = trainer.seen["completion_ids"][1]
    assert rows == len(trainer.rows) == len(trainer.rewards) == 16
    assert trainer.seen["advantages"] == (torch.float32, (rows,))
    for name in ("completion_mask", "old_per_token_logps", "ref_per_token_logps"):
        assert trainer.seen[name][1] == (rows, width)
    assert trainer.seen["num_items_in_batch"][1] == ()
    assert trainer.had_gradient
    assert trainer.loss_shape == (rows, width)
    assert isinstance(trainer._step, int)
    assert [*trainer._buffered_inputs[0]] == [*trainer.seen]


PER_TOKEN = "advantages of shape (B, T) are no longer as good as equal ones of shape (B,)"


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_an_advantage_per_token_is_as_good_as_one_per_answer(tiny_model, tmp_path, loss_type):
    """The first of two equivalences that PPO and token weights stand on."""
    changes = {"loss_type": loss_type, "per_device_batch_size": 8, "gradient_accumulation_steps": 2}
    by_answer, by_token = (
        told(run(tiny_model, tmp_path / str(spread), spread, **changes)) for spread in (False, True)
    )
    assert by_answer == by_token, changed(PER_TOKEN, "Ppo.shape_rollout")


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo"])
def test_kl_that_is_added_to_the_loss_is_as_good_as_trls_own(tiny_model, tmp_path, loss_type):
    """The second, which the divergences of gbmpo stand on: with two micro-batches per step."""
    kl = Gbmpo(divergence="kl", estimator="sampled_is", coefficient=0.5)
    found = []
    for algo, own in (("grpo", {"beta": 0.5}), ("gbmpo", {"gbmpo": kl})):
        wanted = spec(
            algo, max_steps=4, learning_rate=1e-3, loss_type=loss_type, scale_rewards="none",
            num_iterations=2, per_device_batch_size=8, gradient_accumulation_steps=2, **own,
        )  # fmt: skip
        trainer = make(TRAINERS[algo], tiny_model, wanted, place(tmp_path / algo))
        trainer.train()
        found.append(told(trainer))
    said = changed("its KL term is no longer k3 in the loss", "Rollout.extra_loss and _own_kl")
    for theirs, ours in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-7), said


def told(trainer):
    """[losses, gradient norms] of its steps."""
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 4
    assert min(row["grad_norm"] for row in rows) > 0
    return [[row[name] for row in rows] for name in ("loss", "grad_norm")]


def test_one_answer_per_prompt_is_refused_last_of_all(tmp_path):
    shared = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    one = OnlineConfig(num_generations=1, **shared)
    two = GRPOConfig(num_generations=2, **shared)
    skipped = {"num_generations", "logging_dir"}
    for field in dataclasses.fields(GRPOConfig):
        if field.name not in skipped:
            assert getattr(one, field.name) == getattr(two, field.name), field.name


def test_other_mistakes_are_still_refused(tmp_path):
    with pytest.raises(ValueError, match="must be divisible"):
        OnlineConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, num_generations=3)


@pytest.mark.parametrize("trainer", [trl.SFTTrainer, trl.DPOTrainer, trl.RewardTrainer])
def test_offline_trainers_count_tokens_where_a_resume_goes_on_counting(trainer):
    source = getsource(trainer)
    said = changed("tokens are counted elsewhere", "ContinueCount in callbacks.py")
    assert "self._total_train_tokens += " in source, said


@pytest.mark.parametrize("algo", ["sft", "dpo"])
def test_the_head_is_asked_for_what_the_plain_one_says(tiny_model, tmp_path, monkeypatch, algo):
    asked = []

    def spy(model, **given):
        asked.append(given)
        return add_fused_lm_head(model, **given)

    monkeypatch.setattr(f"trl.trainer.{algo}_trainer.add_fused_lm_head", spy)
    offline.make(tiny_model, offline.spec(algo), place(tmp_path))
    scored = {"sft": sft.SCORED, "dpo": dpo.SCORED}[algo]
    said = changed(f"its trainer makes its head with {asked}", f"SCORED in {algo}.py")
    assert asked[0] == {"outputs": scored}, said
    assert asked[1:] in ([], [{}]), said  # of a live reference


def test_the_head_has_the_same_fields_and_ways_to_call_it(tiny_model):
    fields = {field.name for field in dataclasses.fields(FusedCausalLMOutput)}
    said = changed(f"its head says {sorted(fields)}", "FIELDS in token_scores.py and lm_head.py")
    assert fields == {*FIELDS, "loss", "label_mask", "aux_loss"}, said
    model = load_policy(tiny_model, trust_remote_code=False)
    add_fused_lm_head(model)
    code = model.forward.__func__.__code__
    taken = {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]} - {"self"}
    said = changed(f"its head takes {sorted(taken)}", "lm_head.py")
    assert taken == {"fused_lm_head", "labels", "shift_labels", "num_items_in_batch"}, said


def test_a_packed_batch_says_where_rows_begin():
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    made = collate(
        [
            {"input_ids": [5, 6, 7, 8], "seq_lengths": [3, 1]},
            {"input_ids": [9, 9], "seq_lengths": [2]},
        ]
    )
    said = changed(f"a packed batch is {made}", "padding_free.py")
    assert made["cu_seq_lens_q"].tolist() == [0, 3, 4, 6], said
    assert made["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]], said
    assert made["labels"].tolist() == [[-100, 6, 7, -100, -100, 9]], said
    assert "attention_mask" not in made, said


def test_the_head_of_the_policy_computes_what_scoring_without_padding_hands_on():
    source = getsource(GRPOTrainer.__init__)
    said = changed("its head computes other fields", "SCORED in quick.py")
    assert 'outputs=("log_probs", "entropy")' in source, said


def test_an_epoch_is_a_method_that_can_be_left_out():
    source = getsource(transformers.Trainer)
    said = changed("there is no _run_epoch(model=...)", "Finite in loop.py")
    assert "self._run_epoch(\n                model=model," in source, said

"""The quicker ways to sample and to score change no training beyond rounding."""

from functools import partial

import pytest
import torch
from places import place
from rollouts import ROWS, curve, gain, letters, make, run, spec, varied
from tokens import trained_on

from aligntune.config.algo import ONLINE
from aligntune.config.train import Peft
from aligntune.errors import ConfigError, Interrupted
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.train.logprobs import bare
from aligntune.train.loop import fit
from aligntune.train.packed import can_pack
from aligntune.train.policy import TRAINERS
from aligntune.train.shared_prompt import Shared

needs_bf16 = pytest.mark.skipif(not can_pack(), reason="this CPU or torch has no bf16 products")

OFF = {
    "sampler": "transformers", "generation_copy": False, "shared_prompts": False,
    "lm_head": "chunked", "padding_free": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: varied)


def settings(algo, **changes):
    """Two micro-batches per step and two passes over a rollout, with a reference."""
    passes = "num_ppo_epochs" if algo == "ppo" else "num_iterations"
    weight = {"kl_coef": 0.1} if algo == "ppo" else {"beta": 0.1}
    given = {
        "max_steps": 4, "per_device_batch_size": 8, "gradient_accumulation_steps": 2,
        "num_generations": 4, "learning_rate": 1e-3, passes: 2, "max_completion_length": 6,
    }  # fmt: skip
    return spec(algo, **given | weight | changes)


def curves(made):
    return {
        name: curve(made, f"train/{name}")
        for name in ("loss", "grad_norm", "entropy", "reward", "completions/mean_length")
    }


@pytest.mark.parametrize("peft", [None, Peft(r=4)], ids=["full", "lora"])
def test_generate_computes_as_training_does(tiny_model, tmp_path, peft):
    wanted = spec("grpo", peft, sampler="transformers", max_steps=1)
    wanted = wanted.model_copy(update={"precision": "bf16"})
    trainer = run(TRAINERS["grpo"], tiny_model, wanted, place(tmp_path))
    found = set()
    layer = bare(trainer.model).model.layers[0].mlp.gate_proj
    layer.register_forward_hook(lambda _, given, made: found.add(made.dtype))
    trainer._generate_single_turn([[5, 6, 7]] * 2, None, {}, 2)
    assert found == {torch.bfloat16}


@pytest.mark.parametrize(
    ("algo", "peft"),
    [("grpo", None), ("dapo", Peft(r=4)), ("ppo", None), ("counterfactual-grpo", None)],
)
def test_shared_prompts_train_alike(tiny_model, tmp_path, algo, peft):
    found = []
    for asked in (True, False):
        made = place(tmp_path / str(asked))
        wanted = settings(algo, peft=peft, shared_prompts=asked, sampler="transformers")
        trainer = run(TRAINERS[algo], tiny_model, wanted, made)
        assert trainer.ways.shared is asked
        assert all(isinstance(batch, Shared) is asked for batch in trainer.scored)
        found.append(curves(made))
    for name in ("reward", "completions/mean_length"):
        assert found[0][name] == found[1][name]
    for name in ("loss", "grad_norm", "entropy"):
        assert found[0][name] == pytest.approx(found[1][name], rel=2e-3, abs=1e-5), name
    assert max(found[0]["grad_norm"]) > 0


@pytest.mark.parametrize("algo", sorted(ONLINE))
def test_every_algorithm_samples_and_scores_the_quick_way(tiny_model, tmp_path, algo):
    trainer = make(TRAINERS[algo], tiny_model, settings(algo), place(tmp_path))
    assert trainer.ways.sampler
    assert trainer.ways.shared


@needs_bf16
def test_a_reference_in_bf16_is_tried_in_fp32(tiny_model, tmp_path, monkeypatch):
    """Beside TRL's head, too. This model's logits are so small that a nat is much."""
    monkeypatch.setattr("aligntune.train.shared_prompt.CLOSE", 1e-5)
    wanted = settings("grpo", lm_head="chunked", padding_free=False, shared_prompts=True)
    trainer = make(
        TRAINERS["grpo"], tiny_model, wanted.model_copy(update={"precision": "bf16"}),
        place(tmp_path),
    )  # fmt: skip
    assert trainer.ref_model is not None
    assert trainer.ways.shared
    assert not trainer.ways.lighter.padding_free


@needs_bf16
@pytest.mark.parametrize("peft", [None, Peft(r=4)], ids=["full", "lora"])
def test_bf16_beside_a_reference_is_quick_too(tiny_model, tmp_path, peft):
    """TRL has wrapped the reference in autocast by then, where nothing is found the same again."""
    wanted = settings("grpo", peft=peft, max_steps=2, num_iterations=1)
    trainer = run(
        TRAINERS["grpo"], tiny_model, wanted.model_copy(update={"precision": "bf16"}),
        place(tmp_path),
    )  # fmt: skip
    ways = trainer.ways
    assert ways.sampler
    assert ways.copy
    assert ways.shared
    assert ways.lighter.plain_head
    assert ways.lighter.padding_free
    # The policy of the first step is the reference.
    assert curve(place(tmp_path), "train/kl")[0] == pytest.approx(0.0, abs=1e-3)


def test_answers_to_one_prompt_are_in_the_same_micro_batch(tiny_model, tmp_path):
    trainer = make(TRAINERS["grpo"], tiny_model, settings("grpo"), place(tmp_path))
    trainer.model.train()
    rows = [row for row in list(trainer.train_dataset)[:4] for _ in range(4)]
    seen = []
    for step in range(2):
        trainer._step = step
        seen.append(trainer._prepare_inputs(rows)["prompt_ids"])
    assert trainer._together
    counts = [prompts.unique(dim=0, return_counts=True)[1].tolist() for prompts in seen]
    assert counts == [[4, 4], [4, 4]]


def test_all_of_a_rollout_is_scored_in_the_same_way(tiny_model, tmp_path):
    """Whatever is scored later has other lengths; the two ways round differently."""
    trainer = make(TRAINERS["grpo"], tiny_model, settings("grpo"), place(tmp_path))
    trainer.model.train()
    assert trainer._shares(30, 4)
    assert trainer._shares(1, 400)
    trainer._together = None
    assert not trainer._shares(1, 400)
    assert not trainer._shares(30, 4)


@needs_bf16
@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_a_run_that_samples_from_a_copy_resumes_within_a_rollout(tiny_model, tmp_path, algo):
    wanted = settings(algo, save_steps=1).model_copy(update={"precision": "bf16"})
    whole, parts = place(tmp_path / "whole"), tmp_path / "parts"
    trainer = run(TRAINERS[algo], tiny_model, wanted, whole)
    assert trainer.ways.copy
    steps = iter([False, False, True])
    stopped = place(parts, stopping=lambda: next(steps, True))
    halved = make(TRAINERS[algo], tiny_model, wanted, stopped)
    with pytest.raises(Interrupted):
        fit(halved, wanted, stopped, rows=16)
    resumed = place(parts)
    assert 0 < len(curve(resumed, "train/loss")) < 4
    again = run(TRAINERS[algo], tiny_model, wanted, resumed)
    assert curves(resumed) == curves(whole)
    pairs = zip(trainer.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_copy_that_cannot_be_sampled_from_is_an_error(tiny_model, tmp_path):
    wanted = settings("grpo", generation_copy=True, sampler="transformers")
    with pytest.raises(ConfigError, match="generation_copy"):
        make(TRAINERS["grpo"], tiny_model, wanted, place(tmp_path))


@pytest.mark.parametrize("asked", [True, "auto"])
def test_prompts_are_not_shared_by_another_attention(tiny_model, tmp_path, asked):
    wanted = settings("grpo", shared_prompts=asked)
    policy = load_policy(tiny_model, trust_remote_code=False, attn_implementation="eager")
    given = (trained_on(ROWS, wanted, tiny_model), None, wanted, place(tmp_path))
    build = partial(TRAINERS["grpo"], policy, load_tokenizer(tiny_model), *given)
    if asked == "auto":
        assert not build().ways.shared
        return
    with pytest.raises(ConfigError, match="shared_prompts"):
        build()


@pytest.mark.parametrize("shorter", [True, False])
def test_prompts_are_not_shared_where_a_window_is_shorter_than_a_row(tiny_model, tmp_path, shorter):
    """An answer would see more of its prompt than in a row of its own."""
    wanted = settings("grpo")
    longest = wanted.train.max_prompt_length + wanted.train.max_completion_length
    policy = load_policy(tiny_model, trust_remote_code=False)
    policy.config.sliding_window = longest - shorter
    given = (trained_on(ROWS, wanted, tiny_model), None, wanted, place(tmp_path))
    trainer = TRAINERS["grpo"](policy, load_tokenizer(tiny_model), *given)
    assert trainer.ways.shared is not shorter
    assert trainer.ways.sampler


def test_off_is_off(tiny_model, tmp_path):
    wanted = settings("grpo", **OFF).model_copy(update={"precision": "bf16"})
    trainer = make(TRAINERS["grpo"], tiny_model, wanted, place(tmp_path))
    assert trainer.ways == type(trainer.ways)()
    assert trainer.model.config._attn_implementation == "sdpa"


@needs_bf16
@pytest.mark.slow
@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_both_ways_learn(tiny_model, tmp_path, monkeypatch, algo, quick):
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: letters)
    ways = {} if quick else OFF
    weight = {"kl_coef": 0.0} if algo == "ppo" else {"beta": 0.0}
    wanted = spec(algo, num_generations=8, **weight, **ways)
    made = place(tmp_path)
    run(TRAINERS[algo], tiny_model, wanted.model_copy(update={"precision": "bf16"}), made)
    assert gain(made) > 0.1

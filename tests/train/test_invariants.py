"""What the loss of the GRPO family is, whatever TRL does to compute it (algorithms.md, 1.4-8)."""

import math

import pytest
import torch
from places import place
from rollouts import curve, make, run, spec, varied
from surrogate import clipped_surrogate, entropy
from torch.nn.functional import pad

from aligntune.losses.policy import importance_ratio
from aligntune.train.policy import TRAINERS


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: varied)


@pytest.fixture
def rollout(tiny_model, tmp_path):
    """A trainer, one round of its answers, and their log-probabilities."""

    def rollout(algo, **changes):
        wanted = spec(algo, num_generations=4, beta=0.0, max_resampling=0, **changes)
        trainer = make(TRAINERS[algo], tiny_model, wanted, place(tmp_path / "out"))
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        rows = [row for row in list(trainer.train_dataset)[:4] for _ in range(4)]
        out = trainer._generate_and_score_completions(rows)
        return trainer, out, logps(trainer, out)

    return rollout


def scored(trainer, out, **options):
    return trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([out["prompt_ids"], out["completion_ids"]], dim=1),
        torch.cat([out["prompt_mask"], out["completion_mask"]], dim=1),
        out["completion_ids"].size(1),
        **options,
    )


def logps(trainer, out):
    with torch.no_grad():
        return scored(trainer, out)[0]


def gradient(trainer, out):
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, out)
    loss.backward()
    return float(loss), [p.grad.clone() for p in trainer.model.parameters()]


def assert_equal(one, other, tolerance=1e-6):
    assert one[0] == pytest.approx(other[0], abs=tolerance)
    for ours, theirs in zip(one[1], other[1], strict=True):
        assert torch.allclose(ours, theirs, atol=tolerance)


@pytest.mark.parametrize("algo", ["grpo", "dr-grpo", "dapo", "gspo"])
def test_trls_loss_is_that_of_the_paper(rollout, algo):
    """Off the policy that sampled, with ratios on both sides of both bounds."""
    trainer, out, now = rollout(algo, overlong_buffer=0, steps_per_generation=1)
    size = 6e-4 if algo == "gspo" else 0.5
    noise = size * torch.linspace(-1, 1, now.numel()).view_as(now)
    out = out | {"old_per_token_logps": now + noise}
    trainer.model.zero_grad()
    mask = out["completion_mask"]
    logps, *_ = scored(trainer, out)
    ratio = importance_ratio(
        logps, out["old_per_token_logps"], mask, trainer.importance_sampling_level
    )
    bounds = {"low": trainer.epsilon_low, "high": trainer.epsilon_high}
    assert float(ratio.min()) < 1 - bounds["low"]
    assert float(ratio.max()) > 1 + bounds["high"]
    per_token = clipped_surrogate(ratio, out["advantages"][:, None], **bounds)
    loss = trainer.aggregate(per_token.expand_as(now), out)
    loss.backward()
    ours = float(loss.detach()), [p.grad.clone() for p in trainer.model.parameters()]
    assert_equal(ours, gradient(trainer, out))
    assert max(float(one.abs().max()) for one in ours[1]) > 1e-4


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_log_probabilities_and_entropies_are_those_at_the_temperature(rollout, temperature):
    trainer, out, _ = rollout("grpo", temperature=temperature)
    with torch.no_grad():
        logps, entropies, *_ = scored(trainer, out, compute_entropy=True)
        ids = torch.cat([out["prompt_ids"], out["completion_ids"]], dim=1)
        mask = torch.cat([out["prompt_mask"], out["completion_mask"]], dim=1)
        width = out["completion_ids"].size(1)
        logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1]
    expected = (logits / temperature).log_softmax(-1)
    chosen = expected.gather(-1, out["completion_ids"][..., None]).squeeze(-1)
    counted = out["completion_mask"].bool()
    assert torch.allclose(logps[counted], chosen[counted], atol=1e-5)
    assert torch.allclose(entropies[counted], entropy(logits / temperature)[counted], atol=1e-5)


@pytest.mark.parametrize("algo", ["grpo", "dapo"])
@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.5, 1, -1.2), (1.5, -1, 1.5), (0.5, 1, -0.5), (0.5, -1, 0.8), (1.0, 2, -2.0)],
)
def test_the_clipped_surrogate(rollout, algo, ratio, advantage, expected):
    trainer, out, now = rollout(algo, epsilon=0.2, epsilon_high=0.2, overlong_buffer=0)
    changed = out | {
        "old_per_token_logps": now - math.log(ratio),
        "advantages": torch.full_like(out["advantages"], advantage),
    }
    loss, _ = gradient(trainer, changed)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_clip_higher_clips_above_alone(rollout):
    trainer, out, now = rollout("dapo", overlong_buffer=0)
    for ratio, expected in ((1.25, -1.25), (1.5, -1.28)):
        changed = out | {
            "old_per_token_logps": now - math.log(ratio),
            "advantages": torch.ones_like(out["advantages"]),
        }
        assert gradient(trainer, changed)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("algo", ["grpo", "dr-grpo", "dapo", "gspo"])
def test_padding_never_reaches_the_loss(rollout, algo):
    trainer, out, now = rollout(algo)
    plain = out | {"old_per_token_logps": now - 0.1}
    wide = dict(plain)
    for name in ("completion_ids", "completion_mask", "old_per_token_logps"):
        wide[name] = pad(plain[name], (0, 3), value=1 if name == "completion_ids" else 0)
    assert_equal(gradient(trainer, plain), gradient(trainer, wide))


@pytest.mark.parametrize("algo", ["grpo", "dr-grpo", "gspo", "dapo"])
@pytest.mark.parametrize(("reward", "answers"), [(1.0, 8), (0.3, 7)])
def test_equal_rewards_have_no_gradient(tiny_model, tmp_path, monkeypatch, algo, reward, answers):
    """Seven times 0.3 has a mean of 0.3 + 3e-8."""
    monkeypatch.setattr(
        "aligntune.train.reward_functions.scorer", lambda _: lambda s: [reward] * len(s)
    )
    made = place(tmp_path / "out")
    changes = {"overlong_buffer": 0, "max_resampling": 0, "beta": 0.0, "num_generations": answers}
    wanted = spec(algo, max_steps=2, per_device_batch_size=2 * answers, **changes)
    run(TRAINERS[algo], tiny_model, wanted, made)
    assert curve(made, "train/grad_norm") == [0.0, 0.0]
    assert set(curve(made, "train/frac_reward_zero_std")) == {1.0}


def test_gspo_is_grpo_for_answers_of_one_token(rollout):
    found = []
    for algo in ("grpo", "gspo"):
        trainer, out, now = rollout(
            algo, max_completion_length=1, epsilon=0.2, epsilon_high=0.2, steps_per_generation=1
        )
        noise = torch.linspace(-0.3, 0.3, now.numel()).view_as(now)
        found.append(gradient(trainer, out | {"old_per_token_logps": now + noise}))
    assert_equal(*found)


def test_gspos_ratio_is_the_geometric_mean_of_the_tokens(rollout):
    trainer, out, now = rollout("gspo", epsilon=0.9, epsilon_high=9.0, steps_per_generation=1)
    noise = torch.linspace(-0.3, 0.3, now.numel()).view_as(now)
    mask = out["completion_mask"]
    mean = (noise * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    uneven = gradient(trainer, out | {"old_per_token_logps": now + noise})
    even = gradient(trainer, out | {"old_per_token_logps": now + mean.expand_as(now)})
    assert_equal(uneven, even)
    expected = -(torch.exp(-mean.squeeze(1)) * out["advantages"]).mean()
    assert uneven[0] == pytest.approx(float(expected), abs=1e-5)


def test_dr_grpo_divides_by_the_limit_alone(rollout):
    trainer, out, now = rollout("dr-grpo")
    changed = out | {"old_per_token_logps": now, "advantages": torch.ones_like(out["advantages"])}
    counted = float(out["completion_mask"].sum())
    limit = len(out["advantages"]) * trainer.max_completion_length
    assert gradient(trainer, changed)[0] == pytest.approx(-counted / limit, rel=1e-5)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_are_trls_own(rollout, monkeypatch, scale):
    trainer, out, _ = rollout("grpo", scale_rewards=scale)
    rewards = trainer._totals.view(-1, 4)
    spread = {"group": rewards.std(1, keepdim=True), "batch": rewards.std()}.get(scale, 1 - 1e-4)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-4)
    assert torch.allclose(out["advantages"].view(-1, 4), expected, atol=1e-6)
    monkeypatch.setattr(type(trainer), "_compare", lambda *_: None)
    torch.manual_seed(3)
    rows = [row for row in list(trainer.train_dataset)[:4] for _ in range(4)]
    theirs = trainer._generate_and_score_completions(rows)["advantages"]
    monkeypatch.undo()
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: varied)
    torch.manual_seed(3)
    ours = trainer._generate_and_score_completions(rows)["advantages"]
    assert torch.allclose(ours, theirs, atol=1e-6)

"""Every online algorithm learns a toy task to nine tenths of its best reward, whatever the seed.

From rewards that say nothing of the answer it learns nothing.
"""

import random

import pytest
from places import place
from rollouts import curve, digits, letters, run, spec

from aligntune.train.policy import TRAINERS

pytestmark = pytest.mark.slow

CHANGES = {
    "ppo": {"num_ppo_epochs": 4, "kl_coef": 0.0, "max_steps": 480},
    "grpo": {"beta": 0.0},
    "dr-grpo": {},
    "dapo": {"overlong_buffer": 0},
    "gspo": {"per_device_batch_size": 4, "max_steps": 480},
    "gbmpo": {"gbmpo": {"coefficient": 1e-2}},
    "counterfactual-grpo": {"max_completion_length": 16},
    "bolt": {"bolt": {"curriculum": True}},
}
WITH_ANSWERS = {"counterfactual-grpo"}
"""Start from a model that answers behind a marker, which others need not, and learn what to
answer."""
SHUFFLED = {"ppo": {"max_steps": 120}}
"""Four epochs of noise per step lead to some answer or other in the end, as likely one of letters.
From rewards that are right these steps are enough, too."""
LEARNED = {"counterfactual-grpo": 0.85}
"""Where it is not nine tenths. Of one seed in three all answers end up alike, eight of their nine
characters digits; without a difference among them nothing more can be learned."""
FIRST, LAST = 4, 15
"""Steps that are averaged at the ends of a run."""


def shuffled(judge):
    def shuffled(samples):
        scores = judge(samples)
        random.Random(sum(map(hash, scores))).shuffle(scores)
        return scores

    return shuffled


@pytest.fixture
def ends(tiny_model, worker, tmp_path, monkeypatch):
    """Trains, and gives the mean rewards at the start and at the end of the run."""

    def ends(algo, seed, change=lambda judge: judge, **given):
        start, judge = (worker, digits) if algo in WITH_ANSWERS else (tiny_model, letters)
        judge = change(judge)
        monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: judge)
        settings = {"max_steps": 120, "learning_rate": 1e-2} | CHANGES[algo] | given
        made = place(tmp_path / "out")
        wanted = spec(algo, **settings).model_copy(update={"seed": seed})
        run(TRAINERS[algo], start, wanted, made)
        rewards = curve(made)
        return sum(rewards[:FIRST]) / FIRST, sum(rewards[-LAST:]) / LAST

    return ends


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("algo", CHANGES)
def test_the_task_is_learned(ends, algo, seed):
    first, last = ends(algo, seed)
    assert first < 0.7
    assert last >= LEARNED.get(algo, 0.9)


@pytest.mark.parametrize("algo", CHANGES)
def test_nothing_is_learned_from_shuffled_rewards(ends, algo):
    first, last = ends(algo, 1, shuffled, **SHUFFLED.get(algo, {}))
    assert last < max(first, 0.5) + 0.25

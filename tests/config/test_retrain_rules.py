"""Settings of retraining and notifications that contradict others, or do nothing."""

import pytest

from aligntune.config.load import read
from aligntune.config.rules import warnings
from aligntune.errors import ConfigError

CONFIG = """
algo: sft
model: {name_or_path: owner/model}
datasets: [{name: owner/rows}]
"""


@pytest.fixture
def loaded(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return lambda *settings: read([path], settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["retrain.start_from=champion"], r"retrain\.start_from: without promotion"),
        (["retrain.approval=required"], r"retrain\.approval: nothing would be promoted"),
    ],
)
def test_a_registry_without_champions_has_none_to_start_from_or_approve(loaded, settings, message):
    loaded(*settings)
    with pytest.raises(ConfigError, match=message):
        loaded(*settings, "registry.promote=never")


def test_an_adapter_for_the_champion_cannot_be_pushed_alone(loaded):
    pushed = ["logging={push_to_hub: true, hub_model_id: me/model}", "peft={merge: false}"]
    loaded(*pushed)
    with pytest.raises(ConfigError, match=r"peft\.merge: the adapter is for the champion"):
        loaded(*pushed, "retrain.start_from=champion")


def test_nobody_is_told_twice(loaded):
    one = "{block: slack-webhook/team, on: [failed]}"
    loaded(f"notifications=[{one}, {{block: slack-webhook/team, on: [promoted]}}]")
    with pytest.raises(ConfigError, match="slack-webhook/team is told of failed already"):
        loaded(f"notifications=[{one}, {{block: slack-webhook/team}}]")


def test_a_notification_for_nothing_or_from_no_block_is_refused(loaded):
    with pytest.raises(ConfigError, match=r"notifications\.0\.on"):
        loaded("notifications=[{block: slack-webhook/team, on: []}]")
    with pytest.raises(ConfigError, match=r"notifications\.0\.block"):
        loaded("notifications=[{block: team}]")


def test_post_train_tells_nobody(loaded):
    with pytest.raises(ConfigError, match="post-train tells nobody"):
        loaded("deployment.flow=post-train", "notifications=[{block: slack-webhook/team}]")


def test_a_time_for_an_answer_that_nobody_is_asked_for_is_a_warning(loaded):
    def warned(*settings):
        found = loaded(*settings)
        return [message for _, message in warnings(found.config, found.places.keys())]

    timeout = "retrain.approval_timeout=60"
    assert "nobody is asked" in " ".join(warned(timeout))
    assert not warned(timeout, "retrain.approval=required")

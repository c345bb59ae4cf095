"""Messages through real blocks of a real Prefect server, received on loopback."""

import asyncio
import logging

import pytest

from aligntune.config.schedule import Notification
from aligntune.errors import ConfigError

from .conftest import SECRET

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def received(receiver):
    receiver.got.clear()
    receiver.status = 200
    return receiver


def ending(outcome="promoted", **more):
    from flows.ending import Ending

    known = {"run": "nightly", "model": "tiny.policy", "version": "3", "why": "better: nll"}
    return Ending(outcome, **(known | more))


def tell(notifications, said):
    from flows.notify import tell

    asyncio.run(tell(notifications, said))


def test_a_message_says_what_ran_what_changed_the_numbers_and_where(blocks, received):
    from flows.ending import Measured

    row = Measured(
        "exact_match", "58.3 % (48 to 67)", "50.0 % (41 to 59)", "champion", "+8.3 (+1 to +15)",
        "held",
    )  # fmt: skip
    said = ending(
        measured=[row],
        changes=["data: rows.jsonl: sha256 aa (6 rows) -> sha256 bb (7 rows)"],
        links={"MLflow": "http://mlflow/1"},
    )
    tell(blocks, said)
    assert len(received.got) == 2
    for message in received.messages():
        assert message["title"] == "nightly: tiny.policy v3 promoted"
        text = message["message"]
        assert "better: nll" in text
        assert "exact_match 58.3 % (48 to 67), champion 50.0 %" in text
        assert "improvement +8.3 (+1 to +15)" in text
        assert "rows.jsonl: sha256 aa (6 rows) -> sha256 bb (7 rows)" in text
        assert "MLflow: http://mlflow/1" in text


@pytest.mark.parametrize(
    ("outcome", "told"),
    [("promoted", 1), ("rejected", 1), ("waiting", 1), ("failed", 1), ("nothing-new", 0)],
)
def test_those_are_told_whom_an_outcome_is_for(blocks, received, outcome, told):
    tell(blocks[:1], ending(outcome))
    assert len(received.got) == told


def test_on_chooses_the_outcomes(blocks, received):
    only = [Notification(block="custom-webhook/ops", on=("nothing-new",))]
    tell(only, ending("promoted"))
    assert not received.got
    tell(only, ending("nothing-new"))
    assert received.messages()[0]["title"] == "nightly: tiny.policy v3 nothing new"


@pytest.mark.parametrize("status", [403, 500])
def test_what_cannot_be_sent_is_a_warning_without_the_secret(blocks, received, caplog, status):
    received.status = status
    caplog.set_level(logging.DEBUG)
    tell(blocks, ending())
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("nobody was told by custom-webhook/ops" in line for line in warned)
    assert any("nobody was told by slack-webhook/team" in line for line in warned)
    assert str(status) in " ".join(warned)
    assert SECRET not in caplog.text


def test_a_receiver_that_is_away_is_a_warning(blocks, caplog):
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    CustomWebhookNotificationBlock(name="gone", url=f"http://127.0.0.1:9/{SECRET}").save("gone")
    caplog.set_level(logging.DEBUG)
    tell([Notification(block="custom-webhook/gone")], ending())
    assert "nobody was told by custom-webhook/gone: ConnectError" in caplog.text
    assert SECRET not in caplog.text


def test_a_block_that_is_deleted_meanwhile_is_a_warning(blocks, caplog):
    tell([Notification(block="slack-webhook/nobody")], ending())
    assert "Prefect has no block 'slack-webhook/nobody'" in caplog.text


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("slack-webhook/nobody", r"notifications\[1\].block: Prefect has no block"),
        ("no-such-type/x", "Prefect has no block 'no-such-type/x'; `prefect block ls`"),
        ("secret/mute", "sends no messages"),
    ],
)
def test_a_block_that_is_not_there_is_found_before_anything_runs(blocks, block, said):
    from flows.notify import check_blocks

    asyncio.run(check_blocks(blocks))
    with pytest.raises(ConfigError, match=said):
        asyncio.run(check_blocks([blocks[0], Notification(block=block)]))


@pytest.mark.parametrize(
    ("name", "told"), [("Cancelled", ["nightly: stopped"]), ("Interrupted", [])]
)
def test_who_cancels_is_told_once(blocks, received, prefect, tmp_path, name, told):
    """A flow that had time to end by itself has told already."""
    from prefect.states import Cancelled

    ended(prefect, tmp_path, Cancelled(name=name, message="by somebody"), "stopped")
    assert [message["title"] for message in received.messages()] == told


def test_a_failure_of_others_code_is_told_without_the_password_in_it(
    blocks, received, prefect, tmp_path
):
    from prefect.states import Failed

    said = f"Flow run encountered an exception: OperationalError: postgresql://me:{SECRET}@db/x"
    ended(prefect, tmp_path, Failed(message=said), "failed")
    (message,) = received.messages()
    assert "OperationalError: postgresql://" in message["message"]
    assert SECRET not in message["message"]


def ended(prefect, tmp_path, state, outcome):
    """Calls the hook for a flow run that ended so."""
    from flows.notify import tell_failure
    from flows.retrain import retrain

    config = tmp_path / "run.yaml"
    config.write_text(
        "algo: sft\nmodel: {name_or_path: owner/model}\ndatasets: [{name: owner/rows}]\n"
        "logging: {run_name: nightly}\n"
        f"notifications: [{{block: custom-webhook/ops, on: [{outcome}]}}]\n"
    )
    flow_run = prefect._ask(
        lambda client: client.create_flow_run(
            retrain, parameters={"configs": [str(config)]}, state=state
        )
    )
    asyncio.run(tell_failure(retrain, flow_run, state))

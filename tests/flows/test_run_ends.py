"""What a command that waited for a run of a deployment exits with, and what it says of its end."""

import pytest
from prefect.client.schemas.objects import State, StateType

from flows.deployments import _reason, exit_code

FAILED = "Flow run encountered an exception: {}"


@pytest.mark.parametrize(
    ("type_", "message", "code"),
    [
        (StateType.COMPLETED, None, 0),
        (StateType.CANCELLED, "another goes on", 75),
        (StateType.CRASHED, "killed", 69),
        (StateType.FAILED, FAILED.format("ConfigError: run.yaml: wrong"), 78),
        (StateType.FAILED, FAILED.format("DataError: nothing is left"), 65),
        (StateType.FAILED, FAILED.format("Diverged: nan"), 79),
        (StateType.FAILED, FAILED.format("KeyError: 'x'"), 70),
        (StateType.FAILED, None, 70),
    ],
)
def test_a_watched_run_ends_the_command_as_if_it_had_run_here(type_, message, code):
    assert exit_code(State(type=type_, message=message)) == code


def test_a_reason_is_what_we_said_and_not_what_prefect_says_around_it():
    state = State(type=StateType.FAILED, message=FAILED.format("DataError: nothing is left"))
    assert _reason(state) == "nothing is left"

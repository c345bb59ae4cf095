"""What a run does when its terminal goes: it saves, and nothing that it says then fails."""

import os
import pty
import signal
import sys

import pytest

from aligntune.interrupt import stop_on_signals
from aligntune.rewards.workers import Pool

SAVES = """
import sys, time
from aligntune.interrupt import stop_on_signals
with stop_on_signals() as stopping:
    print("ready", flush=True)
    for _ in range(3000):
        if stopping():
            break
        time.sleep(0.01)
    print("saved", flush=True)
    print("saved", file=sys.stderr, flush=True)
    sys.exit(75 if stopping() else 1)
"""


def test_the_end_of_the_terminal_asks_to_stop_and_what_is_said_then_does_not_fail():
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", SAVES])
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 100)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 75


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_below_nohup_the_end_of_the_terminal_means_nothing(handler):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with stop_on_signals() as stopping:
            if handler == signal.SIG_DFL:  # which must not end this process should it fail
                assert signal.getsignal(signal.SIGHUP) != handler
            os.kill(os.getpid(), signal.SIGHUP)
            assert stopping() == (handler == signal.SIG_DFL)
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_step_that_a_signal_lets_finish_has_its_rewards(number):
    """A terminal's signals reach the processes that judge, too."""
    pool = Pool("formulas", "math_verify")
    (first,) = pool.ask([("1/2", "$0.5$")], 10, 1)
    os.kill(pool._idle[0]._process.pid, number)
    assert [first] == pool.ask([("1/2", "$0.5$")], 10, 1) == ["equal"]

"""When a child has to end, and what of its output goes where."""

import io
import os

import pytest

from aligntune import heartbeat
from aligntune.heartbeat import Signs, Standing
from aligntune.output import Calm, Log, lines
from aligntune.supervise import Limits, Supervisor, computed_by


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pulse(tmp_path):
    file = tmp_path / "alive"
    heartbeat.watched(file)
    yield file
    heartbeat._watched.clear()


def supervisor(clock, pulse, share, **limits):
    """Over a child that uses `share` of a core."""
    return Supervisor(
        1, Signs(pulse), Limits(**limits), clock, computed=lambda _: clock.now * share
    )


def test_an_idle_child_hangs_after_its_silence_and_a_busy_one_after_four_times_as_long(
    clock, pulse
):
    for share, least, most in ((0.0, 9.9, 10.1), (0.5, 39.9, 40.1)):
        clock.now = 0.0
        watch = supervisor(clock, pulse, share, silence=10.0)
        assert watch.hanging() is None  # the file is new, which is a sign
        clock.now = least
        assert watch.hanging() is None
        clock.now = most
        assert "launch.hang_timeout: 10 s" in watch.hanging()
    assert watch.overdue() is None


def test_signs_of_life_put_it_off(clock, pulse):
    watch = supervisor(clock, pulse, 0.0, silence=10.0)
    for _ in range(5):
        clock.now += 9
        os.utime(pulse, ns=(0, int(clock.now)))
        assert watch.hanging() is None
    clock.now += 11
    assert watch.hanging() is not None


def test_without_limits_nothing_is_ended(clock, pulse):
    watch = supervisor(clock, pulse, 0.0)
    clock.now = 1e9
    assert watch.hanging() is None
    assert watch.overdue() is None


def test_time_is_over(clock, pulse):
    watch = supervisor(clock, pulse, 1.0, timeout=60.0)
    clock.now = 59.0
    assert watch.overdue() is None
    clock.now = 60.0
    assert watch.overdue() == "its time is over (launch.timeout: 60 s)"


def test_time_of_this_session_is_counted():
    assert computed_by(os.getsid(0)) > 0
    assert computed_by(2**22 + 1) == 0


def test_signs_are_rare_and_say_how_far_it_is(pulse, monkeypatch):
    signs = Signs(pulse)
    assert signs.fresh()
    assert not signs.fresh()
    assert signs.standing() is None
    os.utime(pulse, ns=(0, 0))
    heartbeat.beat("a hook's", arguments=1)
    first = pulse.stat().st_mtime_ns
    assert first > 0
    for _ in range(100):
        heartbeat.beat()
    assert pulse.stat().st_mtime_ns == first
    heartbeat.tell(3, 7, {"loss": 0.5})  # which does not wait for the other kind
    heartbeat.tell(4, 7, {"loss": 0.4})
    assert signs.standing() == Standing(3, 7, {"loss": 0.5})
    heartbeat.tell(7, 7, {})
    assert signs.standing() == Standing(7, 7, {})
    assert signs.fresh()


def test_nobody_watches(tmp_path):
    heartbeat.beat()
    heartbeat.tell(1, 2, {})
    assert not list(tmp_path.iterdir())


def test_a_log_does_not_grow_without_end(tmp_path):
    log = Log(tmp_path / "logs" / "sft.txt", largest=1_000)
    for number in range(1_000):
        log.write(f"line {number}")
    kept = sorted(path.name for path in log.path.parent.iterdir())
    assert kept == ["sft.txt", "sft.txt.1"]
    assert sum(path.stat().st_size for path in log.path.parent.iterdir()) < 2_100
    assert log.path.read_text().endswith("line 999\n")


def test_a_log_that_cannot_be_written_is_said_once(tmp_path, caplog):
    (tmp_path / "logs").write_text("a file")
    log = Log(tmp_path / "logs" / "sft.txt")
    log.write("one")
    log.write("two")
    assert len(caplog.records) == 1


def test_of_a_bar_the_last_is_a_line_and_what_has_no_end_comes_in_parts():
    stream = io.StringIO("one\n 1%\r 2%\r 3%\r\n\n" + "x" * 70_000, newline="\n")
    found = list(lines(stream))
    assert found[:3] == ["one", " 3%", ""]
    assert [len(line) for line in found[3:]] == [65_536, 70_000 - 65_536]


def test_a_flood_is_thinned_out_and_its_end_is_said(clock, tmp_path):
    said = []
    calm = Calm(said.append, tmp_path / "log.txt", often=2.0, at_once=10, last=3, clock=clock)
    for number in range(1_000):
        clock.now += 0.001
        calm(f"line {number}")
    assert said[:10] == [f"line {number}" for number in range(10)]
    assert len(said) <= 12 + 2
    clock.now += 10
    calm("later")
    assert said[-1] == "later"
    assert said[-2].endswith(f"lines more are in {tmp_path / 'log.txt'}")
    counted = sum(int(line.split()[1]) for line in said if line.startswith("..."))
    assert counted + sum(line.startswith("line") for line in said) == 1_000
    for number in range(100):
        calm(f"end {number}")
    calm.close()
    assert said[-3:] == ["end 97", "end 98", "end 99"]

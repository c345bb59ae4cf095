"""The table says what was found, by how much a goal is missed, and what failed."""

import dataclasses
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks import __main__ as bench
from benchmarks import plots, table
from benchmarks.figures import Curve, Figure, Found, Profile, in_turns, medians, read
from benchmarks.results import Result, Results, known

HERE = Path(__file__).parent
FASTER = Figure("SFT step", 320.0, 200.0, "tok/s", "TRL's default", 1.6, False)
CHEAPER = Figure("validate", 0.3, 0.4, "s", "trl --help", 0.75, True, limit="0.69: pydantic")
FOUND = Found(
    [FASTER, CHEAPER],
    [Curve("Data", "ours", (10.0, 100.0), (1.0, 9.0), "rows", "s")],
    [Profile("SFT step", {"forward": 3.0, "backward": 5.0}, {"forward": 3.0, "backward": 3.0})],
    {"model": "tiny"},
)


def results(*each: Result) -> Results:
    return Results("a machine, 2 cores, 8 GiB", "Python 3.11", False, each)


@pytest.mark.parametrize(
    ("ours", "at_most", "verdict"),
    [
        (1.6, False, "met"),
        (1.5, False, "6 % off, within noise (15%)"),
        (1.2, False, "25 % short"),
        (1.6, True, "met"),
        (1.7, True, "6 % off, within noise (15%)"),
        (2.4, True, "50 % short"),
    ],
)
def test_a_goal_is_met_or_the_row_says_by_how_much_it_is_missed(ours, at_most, verdict):
    figure = dataclasses.replace(FASTER, ours=ours, peer=1.0, at_most=at_most)
    assert table.verdict(figure) == verdict


def test_a_row_has_both_sides_their_ratio_the_goal_and_the_limit():
    assert table.cells(CHEAPER) == (
        "validate", "0.300 s", "0.400 s, trl --help", "0.750", "≤ 0.75", "met", "0.69: pydantic",
    )  # fmt: skip


def test_a_missed_goal_without_a_reason_is_called_that():
    missed = dataclasses.replace(FASTER, ours=100.0)
    assert table.limit(missed) == "no reason is given"
    assert table.limit(dataclasses.replace(missed, note="memory bound.")) == "memory bound"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (4.561, "4.56"), (99.96, "100.0"), (12_345.0, "12,300")],
)
def test_numbers_have_three_digits(value, text):
    assert table.number(value) == text


def test_what_a_topic_prints_is_what_the_table_reads(capsys):
    FOUND.print()
    assert read(capsys.readouterr().out) == FOUND


def test_results_are_kept_for_the_same_machine_versions_and_sizes_only(tmp_path):
    path = tmp_path / "figures.json"
    here = known(path, small=True)
    one = here.with_result(Result("sft", "2026-01-31", 3.0, FOUND))
    both = one.with_result(Result("dpo", "2026-01-31", 3.0, None, "ended with 1"))
    both.write(path)
    assert known(path, small=True) == both
    assert known(path, small=False).results == ()
    dataclasses.replace(both, machine="another").write(path)
    assert known(path, small=True).results == ()


def test_a_topic_that_is_measured_again_keeps_its_place():
    first = Result("sft", "2026-01-31", 3.0, None, "ended with 1")
    other = Result("dpo", "2026-01-31", 3.0, FOUND)
    again = dataclasses.replace(first, found=FOUND, error="")
    assert results(first, other).with_result(again).results == (again, other)


def test_the_table_goes_between_the_markers_of_the_readme_and_nowhere_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    found = results(Result("sft", "2026-01-31", 3.0, FOUND), Result("dpo", "2026-02-01", 1.0, None))
    table.put_into(readme, found)
    text = readme.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n| what | ours")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    assert "| dpo |  |  |  |  | failed |" in text
    assert "2026-01-31 to 2026-02-01: a machine, 2 cores, 8 GiB; Python 3.11" in text
    table.put_into(readme, found)
    assert readme.read_text() == text


def test_a_readme_without_markers_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("text")
    with pytest.raises(SystemExit, match="has no <!-- figures -->"):
        table.put_into(readme, results())
    assert readme.read_text() == "text"


def test_growth_and_profiles_are_drawn_in_the_report(tmp_path):
    found = results(Result("sft", "2026-01-31", 3.0, FOUND), Result("x", "2026-01-31", 1.0, None))
    bench.write(found, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "≤ 0.75" in page
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn == {"data-s.svg", "sft-step.svg"}
    first = (tmp_path / "data-s.svg").read_bytes()
    plots.draw(found, tmp_path)
    assert (tmp_path / "data-s.svg").read_bytes() == first


def test_sides_take_turns_and_the_first_round_does_not_count():
    order = []
    spent = iter([100.0, 100.0, 1.0, 5.0, 3.0, 5.0, 2.0, 5.0])

    def measure(work):
        work()
        return next(spent)

    sides = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    taken = in_turns(sides, 3, measure)
    assert order == ["a", "b"] * 4
    assert medians(taken) == {"a": 2.0, "b": 5.0}


def test_every_script_that_finds_figures_is_a_topic():
    scripts = {
        path.stem
        for path in HERE.glob("*.py")
        if re.search(r"^    .*Found\(", path.read_text(), re.M)
    }
    own = {"figures", "results", "test_table"}
    assert scripts - own == set(bench.TOPICS)


def failing(tmp_path, monkeypatch, code):
    monkeypatch.setattr(bench, "HERE", tmp_path / "benchmarks")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "made.py").write_text(code)
    return bench.measured("made", tmp_path, small=True)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise SystemExit('no model')", "ended with 1; see"),
        ("print('hello')", "printed no figures; see"),
        ("", "printed no figures; see"),
    ],
)
def test_a_topic_that_fails_says_where_its_log_is(tmp_path, monkeypatch, code, error):
    result = failing(tmp_path, monkeypatch, code)
    assert result.found is None
    assert result.error.startswith(error)
    assert (tmp_path / "made.log").exists()


def test_a_topic_that_hangs_is_ended_with_what_it_has_started(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "LONGEST", 2)
    code = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, file=sys.stderr, flush=True)
time.sleep(600)
"""
    result = failing(tmp_path, monkeypatch, code)
    assert result.error.startswith("not done in ")
    started = (tmp_path / "made.log").read_text().split()
    if not started:
        pytest.skip("too busy to start it in time")
    end = time.monotonic() + 60
    while alive(int(started[0])) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(int(started[0]))


def alive(pid):
    """Whether the process is there and no zombie that nobody waits for."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_the_cheap_topics_are_measured_and_a_failure_is_the_exit_code(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--small", "--output", str(tmp_path)]
    topics = ["--only", "front_door", "overhead", "tracking"]
    found = subprocess.run(
        [*command, *topics], capture_output=True, text=True, check=False,
        env=bench.os.environ | {"PYTHONPATH": f"{HERE.parent}:{bench.ROOT}"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    for what in ("aligntune --help", "SFT of five minutes", "1,000 metrics to SQLite"):
        assert f"| {what}" in found.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "figures.json", "front_door.log", "overhead.log", "report.html", "table.md", "tracking.log",
    }  # fmt: skip

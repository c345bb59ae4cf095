"""All benchmarks, one after the other: what each found, as a table with plots.

    PYTHONPATH=tests python -m benchmarks                      # at most 30 minutes on two cores
    PYTHONPATH=tests python -m benchmarks --only sft grpo      # the others keep what they found
    PYTHONPATH=tests python -m benchmarks --only --readme      # measure nothing, write the table

Each topic runs in a process of its own on one thread. A topic that fails is named in the table, and
the exit code is 1; a goal that is missed is not a failure.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import plots, table
from benchmarks.figures import read
from benchmarks.results import Result, Results, known

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOPICS = (
    "front_door",
    "overhead",
    "tracking",
    "sft",
    "dpo",
    "grpo",
    "data",
    "evaluation",
    "growth",
    "memory",
)
"""In the order of the table."""
LONGEST = 40 * 60
"""Seconds after which a topic is ended."""


def measured(topic: str, folder: Path, *, small: bool) -> Result:
    """What `python -m benchmarks.TOPIC` prints last; all it says is in `folder`."""
    command = [sys.executable, "-m", f"benchmarks.{topic}", *(["--small"] if small else [])]
    paths = [str(HERE.parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    began = time.monotonic()
    log = folder / f"{topic}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, env=environment, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            printed, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            return _ended(topic, began, "", f"not done in {LONGEST // 60:g} minutes; see {log}")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and with it what it has started
                process.wait()
        file.write(printed)
    if process.returncode:
        return _ended(topic, began, "", f"ended with {process.returncode}; see {log}")
    return _ended(topic, began, printed, f"printed no figures; see {log}")


def _ended(topic: str, began: float, printed: str, otherwise: str) -> Result:
    lines = printed.strip().splitlines()
    try:
        found = read(lines[-1]) if lines else None
    except (ValueError, KeyError, TypeError):
        found = None
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return Result(topic, today, time.monotonic() - began, found, "" if found else otherwise)


def write(results: Results, folder: Path) -> None:
    """figures.json, table.md, the plots, and report.html with all of it."""
    from aligntune.report.templates import environment

    results.write(folder / "figures.json")
    (folder / "table.md").write_text(table.markdown(results))
    drawn = [(title, path.read_text()) for title, path in plots.draw(results, folder)]
    page = environment().from_string((HERE / "report.html.j2").read_text())
    html = page.render(
        told=table.told(results),
        columns=table.COLUMNS,
        rows=list(table.rows(results)),
        results=results.results,
        plots=[(title, svg[svg.index("<svg") :]) for title, svg in drawn],
    )
    (folder / "report.html").write_text(html)


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=TOPICS, metavar="TOPIC")
    parser.add_argument("--small", action="store_true", help="Sizes that only show that it works.")
    parser.add_argument("--readme", action="store_true", help="Put the table into README.md.")
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    given = parser.parse_args()
    if given.readme and given.small:
        parser.error("--readme takes figures, and --small has none")
    return given


def main() -> None:
    given = _arguments()
    folder: Path = given.output
    folder.mkdir(parents=True, exist_ok=True)
    results = known(folder / "figures.json", small=given.small)
    topics = TOPICS if given.only is None else given.only
    for number, topic in enumerate(topics, 1):
        say(f"{number}/{len(topics)} {topic} ...")
        result = measured(topic, folder, small=given.small)
        results = results.with_result(result)
        results.write(folder / "figures.json")
        say(f"    {result.seconds:.0f} s{f', failed: {result.error}' if result.error else ''}")
    write(results, folder)
    if given.readme:
        table.put_into(ROOT / "README.md", results)
    sys.stdout.write(table.markdown(results))
    say(f"report: {folder / 'report.html'}")
    failed = [result.topic for result in results.results if result.found is None]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

"""A sweep's plan and its results in the terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from aligntune.config.naming import printable
from aligntune.console import table
from aligntune.plan import Plan
from aligntune.report.compared import Score
from aligntune.report.words import difference_unit, measure, percent, signed, signed_span, span
from aligntune.show import from_here
from aligntune.sweep.points import short
from aligntune.sweep.results import PAGE, Outcome, Results
from aligntune.sweep.runs import Run, Sweep, sharing


def show_plan(sweep: Sweep, plans: Sequence[Plan], console: Console) -> None:
    """Which runs there are, and which stages of each have to be run."""
    found = sharing(plans)
    rows = [
        (
            run.name,
            *_settings(run, sweep),
            ", ".join(kinds["run"]) or "-",
            ", ".join(kinds["shared"]) or "-",
            len(kinds["there"]),
        )
        for run, kinds in zip(sweep.runs, found, strict=True)
    ]
    keys = [axis.key for axis in sweep.axes]
    columns = ("run", *(short(key, keys) for key in keys), "stages to run", "shared", "there")
    if sweep.trials:
        _say(
            console,
            f"{sweep.trials} runs that Optuna chooses as it goes; so would runs with each value:",
        )
    console.print(table("", columns, rows))
    total = sum(len(plan.stages) for plan in plans)
    to_run = sum(len(kinds["run"]) for kinds in found)
    there = sum(len(kinds["there"]) for kinds in found)
    shared = total - to_run - there
    _say(
        console,
        f"\n{len(plans)} runs of {total} stages in all: {to_run} to run, {shared} shared with a "
        f"run before, {there} there already",
    )


def plan_record(sweep: Sweep, plans: Sequence[Plan]) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "sweep": sweep.name,
        "metric": sweep.metric,
        "trials": sweep.trials,
        "runs": [
            {"name": run.name, "settings": dict(run.point), **kinds}
            for run, kinds in zip(sweep.runs, sharing(plans), strict=True)
        ],
    }


def show_results(
    sweep: Sweep,
    outcomes: Sequence[Outcome],
    found: Results | None,
    candidate: Sequence[str],
    console: Console,
) -> None:
    """Every run with what it measured, the best first, and what that is worth."""
    keys = [axis.key for axis in sweep.axes]
    metric = found.metric if found else "result"
    ranked = list(found.ranked) if found else []
    rows = [
        (o.run.name, *_settings(o.run, sweep), *_measured(o, found))
        for o in [*ranked, *(outcome for outcome in outcomes if outcome not in ranked)]
    ]
    columns = ("run", *(short(key, keys) for key in keys), metric, "against the best")
    console.print()
    console.print(table("", columns, rows))
    for line in told(sweep, found, candidate):
        _say(console, line)


def told(sweep: Sweep, found: Results | None, candidate: Sequence[str]) -> Iterator[str]:
    """What there is to say of the best run, a line each."""
    if found is None:
        yield "\nno run is the best: none has a result, or they share no metric"
        return
    best, count = found.best, len(found.ranked)
    score = found.scores[best.name]
    yield f"\nbest     {best.name}: {found.metric} {_value(score)}"
    if found.lead:
        yield f"lead     {_lead(found, found.lead)}"
        yield (
            f"note     it is the best of {count} by the same {score.count} rows that measured it, "
            "so its score is optimistic: measure it on others before you rely on it"
        )
    yield from candidate
    if found.comparison:
        yield f"compare  {from_here(sweep.folder / PAGE)}"


def _lead(found: Results, lead: Score) -> str:
    second = found.ranked[1].run.name
    if lead.paired is None:
        return f"not known: it and {second}, the second, have no {found.metric} by the same rows"
    paired, unit = lead.paired, lead.unit
    number = f"{signed(paired.difference, unit)} {difference_unit(unit)}".rstrip()
    interval = f"{signed_span(paired.low, paired.high, unit)}"
    level = percent(found.comparison.confidence if found.comparison else 0.95)
    apart = "" if paired.low > 0 or paired.high < 0 else ": they cannot be told apart"
    return f"{number} over {second}, the second ({level} interval {interval}){apart}"


def _settings(run: Run, sweep: Sweep) -> tuple[str, ...]:
    return tuple(printable(run.point[axis.key]) for axis in sweep.axes)


def _measured(outcome: Outcome, found: Results | None) -> tuple[str, str]:
    if outcome.error:
        return "failed", printable(str(outcome.error))
    score = found.scores.get(outcome.run.name) if found else None
    if score is None:
        return "not measured", "-"
    if score.paired is None:
        return _value(score), "-"
    bounds = signed_span(score.paired.low, score.paired.high, score.unit)
    difference = signed(score.paired.difference, score.unit)
    return _value(score), f"{difference} ({bounds}) {score.paired.verdict}"


def _value(score: Score) -> str:
    return f"{measure(score.mean, score.unit)} ({span(score.low, score.high, score.unit)})"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

"""How a retraining ended, in words for people: the flow run's page, messages, the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aligntune.config.schedule import Outcome
from aligntune.pipeline import final
from aligntune.report.words import inline, measure, signed, signed_span, span
from aligntune.session import Session

STATES: Mapping[Outcome, str] = {
    "promoted": "Promoted",
    "rejected": "Rejected",
    "inconclusive": "Inconclusive",
    "waiting": "AwaitingApproval",
    "refused": "Refused",
    "nothing-new": "NothingNew",
    "failed": "Failed",
    "stopped": "Interrupted",
}
"""What the state of a flow run is called in Prefect."""
VERDICTS: Mapping[str, Outcome] = {
    "promote": "waiting",
    "reject": "rejected",
    "inconclusive": "inconclusive",
}
"""What becomes of a candidate that is not made champion."""
MOST_CHANGES = 20
"""Changes that are listed."""


@dataclass(frozen=True)
class Measured:
    """One condition of the decision."""

    metric: str
    candidate: str
    """`58.3 % (48.5 to 67.7)`."""
    other: str
    """The same of what it was compared with; a dash for a limit of the value."""
    against: str
    improvement: str
    """`+8.2 (+1.0 to +15.4)`, in the metric's good direction; a dash for a limit."""
    state: str
    """held, missed or open."""


@dataclass(frozen=True)
class Ending:
    outcome: Outcome
    why: str
    """One sentence."""
    run: str
    """`logging.run_name`."""
    model: str = ""
    """The registered model."""
    version: str = ""
    """The candidate's."""
    measured: Sequence[Measured] = ()
    changes: Sequence[str] = ()
    """What is not as it was when the champion was trained."""
    links: Mapping[str, str] = field(default_factory=dict)
    state: str = ""
    """What the flow run's state is called, where that is not what the outcome says."""

    @property
    def title(self) -> str:
        """`nightly: tiny.policy v3 promoted`."""
        what = f"{self.model} v{self.version} " if self.version else ""
        return f"{self.run}: {what}{TITLES[self.outcome]}"


TITLES: Mapping[Outcome, str] = {
    "promoted": "promoted",
    "rejected": "rejected",
    "inconclusive": "inconclusive, not promoted",
    "waiting": "waits for approval",
    "refused": "not approved",
    "nothing-new": "nothing new",
    "failed": "failed",
    "stopped": "stopped",
}


def markdown(ending: Ending) -> str:
    """The ending as a page."""
    return "\n".join(_page(ending))


def plain(ending: Ending) -> str:
    """The ending as a message that reads well without being rendered."""
    lines = [ending.why]
    if ending.measured:
        lines += ["", "Measured:"]
        lines += [f"- {_line(row)}" for row in ending.measured]
    if ending.changes:
        lines += ["", "What changed:", *(f"- {line}" for line in _few(ending.changes))]
    if ending.links:
        lines += ["", *(f"{name}: {where}" for name, where in ending.links.items())]
    return "\n".join(lines)


def measured(session: Session) -> list[Measured]:
    """Every test of the run's decision, with what both sides scored."""
    candidate = _metrics(session, final(session.plan.config))
    rows = []
    for test in session.artifact("decide").read("decision.json")["tests"]:
        own, unit, against = candidate[test["metric"]], test["unit"], test["against"]
        limited = against is None
        other = None if limited else _metrics(session, against)[test["metric"]]
        bounds = signed_span(test["low"], test["high"], unit)
        rows.append(
            Measured(
                metric=test["metric"],
                candidate=_value(own, unit),
                other=_value(other, unit) if other else "-",
                against=against or f"{test['want']} {measure(test['threshold'], unit)}",
                improvement="-" if limited else f"{signed(test['found'], unit)} ({bounds})",
                state=test["state"],
            )
        )
    return rows


def _metrics(session: Session, label: str) -> dict[str, Any]:
    document = session.artifact(f"evaluate-{label}").read("evaluation.json")
    return dict(document["metrics"])


def _value(found: Mapping[str, Any], unit: str) -> str:
    return f"{measure(found['mean'], unit)} ({span(found['low'], found['high'], unit)})"


def _line(row: Measured) -> str:
    if row.other == "-":
        return f"{row.metric} {row.candidate}, {row.against}: {row.state}"
    return (
        f"{row.metric} {row.candidate}, {row.against} {row.other}, improvement "
        f"{row.improvement}: {row.state}"
    )


def _page(ending: Ending) -> Iterator[str]:
    yield from (f"# {inline(ending.title)}", "", inline(ending.why), "")
    if ending.measured:
        yield "| metric | candidate | compared with | its value | improvement | gate |"
        yield "| --- | ---: | --- | ---: | ---: | --- |"
        for row in ending.measured:
            cells = (
                row.metric, row.candidate, row.against, row.other, row.improvement, row.state,
            )  # fmt: skip
            yield f"| {' | '.join(map(inline, cells))} |"
        yield from ("", "Intervals of improvements are one-sided bounds at the gate's confidence.")
        yield ""
    if ending.changes:
        yield from ("## What changed since the champion", "")
        yield from (f"- {inline(line)}" for line in _few(ending.changes))
        yield ""
    yield from (f"- {name}: {_link(where)}" for name, where in ending.links.items())


def _few(changes: Sequence[str]) -> list[str]:
    left = len(changes) - MOST_CHANGES
    return [*changes[:MOST_CHANGES], *([f"... and {left} more"] if left > 0 else [])]


def _link(where: str) -> str:
    return f"<{where}>" if where.startswith(("http://", "https://")) else f"`{where}`"

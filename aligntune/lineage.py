"""What a trained model learned from, small enough to stay with its registered version, and how that
differs from what would be learned from now."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from aligntune.artifacts import Artifact, ancestors
from aligntune.data.urls import public

SHOWN_DIGEST = 12
"""Characters of a digest or commit that a person sees."""


class Node(NamedTuple):
    """A stage, finished or planned."""

    name: str
    """`<kind>-<key>`."""
    inputs: Mapping[str, str]
    """Role -> name."""
    identity: Mapping[str, Any]
    """Everything the key digests."""

    @property
    def kind(self) -> str:
        return self.name.rpartition("-")[0]


@dataclass(frozen=True)
class Source:
    """One dataset that a model learned from, or was kept apart from."""

    stage: str
    """The data stage that reads it: `data`, `sft-data`, `eval-data`."""
    name: str
    digest: str
    """`sha256:...` of files, `commit:...` on the hub."""
    rows: int | None = None
    """Read from it; None where nobody has read it yet."""

    def __str__(self) -> str:
        kind, _, digest = self.digest.partition(":")
        rows = "" if self.rows is None else f" ({self.rows:,} rows)"
        return f"{kind} {digest[:SHOWN_DIGEST]}{rows}"


@dataclass(frozen=True)
class Lineage:
    stages: Mapping[str, str]
    """Label -> name of every stage that the model is made from."""
    sources: tuple[Source, ...]

    def to_json(self) -> str:
        record = {"stages": dict(self.stages), "sources": [asdict(s) for s in self.sources]}
        return json.dumps(record, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Lineage":
        record = json.loads(text)
        return cls(record["stages"], tuple(Source(**source) for source in record["sources"]))


@dataclass(frozen=True)
class Known:
    """What the registry knows of one version."""

    version: str
    key: str
    """Of the stage that trained it."""
    artifact: str
    aliases: tuple[str, ...]
    started_from: tuple[str, str] | None
    """Version and key of what its training went on from; None where that was a base model."""
    evidence: Mapping[str, Any] | None
    """What `decide` wrote about it; None where nothing was decided."""
    lineage: Lineage | None
    """None where that was not recorded."""
    metrics: Mapping[str, float]
    """`exact_match`, and its interval as `exact_match/low` and `exact_match/high`."""
    promoted: str
    """When and by what it became champion; empty where it never did."""
    refused: str
    """Who did not approve it, when and why; empty where nobody was asked or it was approved."""
    run_id: str | None
    """MLflow's, of the run that trained it."""

    @property
    def verdict(self) -> str:
        return str(self.evidence["verdict"]) if self.evidence else ""


@dataclass(frozen=True)
class Change:
    """A dataset that is new, gone or has other content."""

    before: Source | None
    after: Source | None

    def __str__(self) -> str:
        known = self.after or self.before
        assert known is not None, "one of them is there"
        old, new = self.before or "not used", self.after or "not used any more"
        return f"{known.stage}: {known.name}: {old} -> {new}"


def lineage_of(policy: Artifact) -> Lineage:
    """What a finished model was made from."""
    line = [policy, *ancestors(policy)]
    nodes = [Node(made.name, made.manifest.inputs, made.manifest.identity) for made in line]
    rows = {made.name: _rows(made) for made in line}
    return lineage(policy.name, nodes, rows)


def lineage(
    top: str, nodes: Iterable[Node], rows: Mapping[str, list[int]] | None = None
) -> Lineage:
    """What the stage called `top` is made from, among `nodes`; `rows` are those of the sources of
    data stages that exist, in the order of the config."""
    known = {node.name: node for node in nodes}
    labels: dict[str, str] = {}
    waiting = [(known[top].kind, top)]
    while waiting:
        label, name = waiting.pop(0)
        if name in labels.values() or name not in known:
            continue
        labels[label] = name
        own = "" if name == top else f"{label}-"
        waiting += [(_label(role, given, own), given) for role, given in known[name].inputs.items()]
    sources = [
        source
        for label, name in labels.items()
        for source in _sources(label, known[name], (rows or {}).get(name, []))
    ]
    return Lineage(labels, tuple(sources))


def changed(before: Lineage, after: Lineage) -> list[Change]:
    """The datasets that are not the same, those that are trained on first."""
    old, new = _by_place(before.sources), _by_place(after.sources)
    found = [Change(old.get(place), new.get(place)) for place in {**new, **old}]
    different = [c for c in found if _digest(c.before) != _digest(c.after)]
    return sorted(different, key=lambda change: "eval-data" in str(change))


def _label(role: str, name: str, own: str) -> str:
    kind = name.rpartition("-")[0]
    if kind == "data":
        return "eval-data" if role == "evaluation" else f"{own}data"
    return role if kind in ("model", "tokenizer", "fetch") else kind


def _sources(label: str, node: Node, rows: list[int]) -> Iterator[Source]:
    if node.kind != "data" or "config" not in node.identity:
        return
    for i, dataset in enumerate(node.identity["config"]["datasets"]):
        parts = [dataset["subset"], dataset["split"] if dataset["split"] != "train" else None]
        more = ", ".join(part for part in parts if part)
        name = public(dataset["name"]) + (f" ({more})" if more else "")
        count = rows[i] if i < len(rows) else None
        yield Source(label, name, node.identity["sources"][f"datasets[{i}]"], count)


def _rows(made: Artifact) -> list[int]:
    found = made.manifest.facts.get("sources", ())
    return [int(source["read"]) for source in found if source["kind"] == "train"]


def _by_place(sources: Iterable[Source]) -> dict[tuple[str, str, int], Source]:
    """By stage, name, and how often the same was there before."""
    found: dict[tuple[str, str, int], Source] = {}
    for source in sources:
        times = sum(place[:2] == (source.stage, source.name) for place in found)
        found[source.stage, source.name, times] = source
    return found


def _digest(source: Source | None) -> str | None:
    return source.digest if source else None

"""Whether a retraining would find anything that nobody has decided on yet, and what is new."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aligntune.artifacts import find_named
from aligntune.config.run import RunConfig
from aligntune.config.slices import DecideSlice
from aligntune.identity import differences
from aligntune.lineage import Change, Known, Lineage, Node, changed, lineage
from aligntune.paths import Paths, database_file, one_registry, tracking_uri
from aligntune.pipeline import Champion, final
from aligntune.plan import Plan, plan
from aligntune.slicing import policy_name

CHAMPION = "champion"


@dataclass(frozen=True)
class Wanted:
    """What a run would decide on, and by what: all that a decision rests on."""

    model: str
    """Name of the artifact that would be the candidate."""
    evaluations: Mapping[str, str]
    """Model label -> name of the artifact with its scores on the held-out rows."""
    gates: Sequence[Mapping[str, Any]]
    confidence: float
    champion: Mapping[str, str] | None
    """{version, key} of what it is compared with."""

    @classmethod
    def of(cls, planned: Plan) -> "Wanted":
        decide = planned["decide"].stage
        spec = decide.config
        assert isinstance(spec, DecideSlice)
        against = {"version": spec.champion or "", "key": spec.champion_key or ""}
        return cls(
            model=planned[final(planned.config)].stage.name,
            evaluations=dict(decide.inputs),
            gates=[gate.model_dump(mode="json") for gate in spec.gates],
            confidence=spec.confidence,
            champion=against if spec.champion else None,
        )

    def rests_on(self, evidence: Mapping[str, Any]) -> bool:
        """Whether a decision that was recorded is the one that would be made."""
        return bool(
            evidence["candidate"]["model"] == self.model
            and evidence["evaluations"] == self.evaluations
            and evidence["gates"] == self.gates
            and evidence["confidence"] == self.confidence
            and evidence["champion"] == self.champion
        )


@dataclass(frozen=True)
class Looked:
    """What a retraining would do, and whether that was done already."""

    plan: Plan
    champion: Known | None
    decided: Known | None
    """The version that the run would train, if it was decided on as the run would."""
    lineage: Lineage
    """Of what would be trained."""

    @property
    def unpushed(self) -> bool:
        """Whether the champion is what was decided on, and only has not come to the hub yet."""
        stages = {planned.stage.label: planned for planned in self.plan.stages}
        here = "push" in stages and all(
            planned.artifact for label, planned in stages.items() if label != "push"
        )
        promoted = self.decided is not None and CHAMPION in self.decided.aliases
        return here and promoted and stages["push"].artifact is None

    @property
    def waits(self) -> bool:
        """Whether what was decided on has passed, and nobody has promoted or refused it."""
        made = self.decided
        return bool(
            made
            and made.verdict == "promote"
            and not (made.promoted or made.refused or CHAMPION in made.aliases)
        )

    @property
    def unpromoted(self) -> bool:
        """Whether what waits waits for no person: its run was stopped before it moved the aliases,
        or had to ask somebody whom this config does not ask."""
        return self.waits and self.plan.config.registry.promote == "auto"

    @property
    def nothing_new(self) -> bool:
        return self.decided is not None and not self.unpushed and not self.unpromoted

    @property
    def changes(self) -> list[Change]:
        """The datasets that are not those that the champion learned from."""
        before = self.champion.lineage if self.champion else None
        return changed(before, self.lineage) if before else []


def look(config: RunConfig) -> Looked:
    """What retraining `config` would do now. Reads sources and the registry; trains nothing.

    Raises:
        ConfigError: the config has nothing to compare, or a source does not exist.
        ServiceError: the hub or the registry failed.
    """
    versions = known(config, policy_name(config))
    champion = next((v for v in versions if CHAMPION in v.aliases), None)
    planned = _plan(config, champion)
    decided = already(Wanted.of(planned), versions)
    nodes = [Node(p.stage.name, p.stage.inputs, p.stage.identity) for p in planned.stages]
    made = lineage(planned[final(config)].stage.name, nodes)
    return Looked(planned, champion, decided, made)


def already(wanted: Wanted, versions: Sequence[Known]) -> Known | None:
    """The version of which `wanted` would say nothing new.

    It does not matter what was decided, nor what has become of it since: a rejected candidate
    would be rejected again, and one that somebody rolled back would undo that.
    """
    decided = (version for version in versions if version.evidence)
    return next((v for v in decided if wanted.rests_on(v.evidence or {})), None)


def says(looked: Looked) -> str:
    """Why there is nothing to do, in one sentence."""
    champion, decided = looked.champion, looked.decided
    assert decided is not None
    count = len(looked.lineage.sources)
    seen = f"{count} dataset{'s' if count != 1 else ''}, base model, settings and gates are those"
    if champion and champion.version == decided.version:
        return f"{seen} that champion v{champion.version} was trained with and decided by"
    now = f"champion v{champion.version} stays" if champion else "there is no champion yet"
    return f"{seen} of v{decided.version}, which {_fate(decided)}; {now}"


def _fate(decided: Known) -> str:
    if decided.verdict != "promote":
        how = {"reject": "was rejected", "inconclusive": "was not shown to be better"}
        return how[decided.verdict]
    if decided.refused:
        return f"was not approved ({decided.refused})"
    if decided.promoted:
        return "was the champion and has been replaced since"
    return "has passed its gates and waits to be approved"


def settings_changed(looked: Looked) -> list[str]:
    """Which settings are not those that the champion was trained with, as far as its artifacts are
    on this disk; else which stages have changed."""
    before = looked.champion.lineage if looked.champion else None
    if before is None:
        return []
    found: dict[str, None] = {}
    stages = {planned.stage.name: planned.stage for planned in looked.plan.stages}
    for label, name in looked.lineage.stages.items():
        old = before.stages.get(label)
        if old in (None, name) or name not in stages:
            continue
        if stages[name].kind == "fetch":  # another champion to go on from is no setting
            continue
        made = find_named(looked.plan.paths.stages, str(old))
        if made is None:
            found[f"{label}: changed"] = None
            continue
        parts = ("version", "config", "environment")
        was = {part: made.manifest.identity.get(part) for part in parts}
        now = {part: stages[name].identity[part] for part in parts}
        found |= {f"{label}: {field}": None for field in differences(was, now)}
    return list(found)


def _plan(config: RunConfig, champion: Known | None) -> Plan:
    """The run from where it starts.

    A champion that these settings and data gave from where *it* started is not trained on the same
    rows once more.
    """
    if champion is None or config.retrain.start_from == "base":
        return plan(config)
    before = Champion(*champion.started_from) if champion.started_from else None
    again = plan(config, start=before)
    if again[final(config)].stage.key == champion.key:
        return again
    return plan(config, start=Champion(champion.version, champion.key))


def known(config: RunConfig, name: str) -> list[Known]:
    """The versions of a registered model, from first to last; none where there is no registry yet.

    Raises:
        ServiceError: the registry failed.
    """
    uri = tracking_uri(Paths.of(config).root)
    one_registry(uri)
    file = database_file(uri)
    if file and not file.exists():
        return []
    from aligntune.registry import known_versions

    return known_versions(uri, name)


def is_champion(config: RunConfig, name: str, version: str) -> bool:
    """Whether that version is the champion now.

    Raises:
        ServiceError: the registry failed.
    """
    return any(v.version == version and CHAMPION in v.aliases for v in known(config, name))

"""Which registered version is the champion, and why: promotion, rollback, and what there is.

`champion` is what runs, `previous` what ran before it, `candidate` the newest. There is a champion
at every instant: an alias is moved and never taken away, and `previous` goes first. A move is
written down before it begins, so that whoever comes next completes one that was killed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligntune.aliased import AGAINST
from aligntune.artifacts import Artifact, timestamp
from aligntune.config.slices import PromoteSlice
from aligntune.errors import DataError, ServiceError
from aligntune.papers import check_version, refuse_unknown
from aligntune.paths import Place
from aligntune.registry import (
    ARTIFACT,
    CHAMPION,
    EVALUATED,
    EVIDENCE,
    FILES,
    PREVIOUS,
    PROMOTED,
    REFUSED,
    Client,
    holder,
    is_registered,
    key_of,
    version_of,
)
from aligntune.store import asking
from aligntune.track import connect

MOVING = "aligntune.moving"
"""A tag of the registered model: aliases that are being moved, as JSON."""
VERDICT, WHY = "aligntune.decision", "aligntune.decision.why"
LONGEST_TAG = 5_000
"""Characters of a sentence in a tag; MLflow takes more, other registries do not."""
ROLLBACK = "rollback"
LONGEST_FILE = 200
"""Characters of a name in a file's."""
AGAIN = "run the same command again"


@dataclass(frozen=True)
class Book:
    """One registered model, locked against other promotions from this output directory."""

    client: Client
    name: str
    completed: str | None
    """What a move that had been killed was for, if there was one."""

    def aliases(self) -> dict[str, str]:
        found = self.client.get_registered_model(self.name).aliases
        return {alias: str(version) for alias, version in found.items()}

    def tags(self, version: str) -> dict[str, str]:
        return dict(self.client.get_model_version(self.name, version).tags)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        for tag, value in tags.items():
            self.client.set_model_version_tag(self.name, version, tag, value)

    def move(self, champion: str, how: str) -> None:
        """Make `champion` the champion, and the champion the previous one."""
        before = self.aliases().get(CHAMPION)
        aliases = {PREVIOUS: before, CHAMPION: champion} if before else {CHAMPION: champion}
        said = {"aliases": aliases, "how": how, "at": timestamp()}
        self.client.set_registered_model_tag(self.name, MOVING, json.dumps(said))
        _complete(self.client, self.name)


def _complete(client: Client, name: str) -> str | None:
    """Carry out the move that is written down, however far it got; returns what it is for."""
    written = client.get_registered_model(name).tags.get(MOVING)
    if not written:
        return None
    move = json.loads(written)
    champion, how = move["aliases"][CHAMPION], str(move["how"])
    there = {v: version_of(client, name, v) for v in move["aliases"].values()}
    if there[champion] is None:  # deleted since, and nobody could promote anything any more
        client.delete_registered_model_tag(name, MOVING)
        return None
    for alias, version in move["aliases"].items():
        if there[version]:
            client.set_registered_model_alias(name, alias, version)
    client.set_model_version_tag(name, champion, PROMOTED, f"{move['at']} {how}")
    client.delete_registered_model_tag(name, MOVING)
    return how


def lock_of(name: str, root: Path) -> Path:
    """The file that is locked while the aliases of `name` move; registries take names that are no
    file's."""
    return root / f".promotion-{re.sub(r'[^A-Za-z0-9._-]', '-', name)[:LONGEST_FILE]}.lock"


@contextmanager
def locked(name: str, uri: str, root: Path, missing: str | None = None) -> Iterator[Book]:
    """The registered model `name`, without an unfinished move; `missing` is what to say where
    there is none.

    Raises:
        ServiceError: the registry failed.
        DataError: it has no such model.
    """
    from filelock import FileLock

    with asking(AGAIN):
        client = connect(uri, root)
        if not is_registered(client, name):
            raise DataError(
                missing or f"there is no registered model {name!r}; `aligntune models` lists them"
            )
    with FileLock(lock_of(name, root)), asking(AGAIN):
        yield Book(client, name, _complete(client, name))


def settle(
    config: PromoteSlice, inputs: Mapping[str, Artifact], uri: str, root: Path
) -> dict[str, Any]:
    """Record the decision on the candidate's version, and promote it if it passed, the policy is
    `auto` and nobody has refused it on this evidence. Returns the facts of the stage.

    Raises:
        ServiceError: the registry failed.
        Overtaken: another promotion came first.
        DataError: the registry has lost the version.
    """
    decision = inputs["decision"].read("decision.json")
    version = str(inputs["register"].manifest.facts["versions"][config.candidate])
    passed = config.policy == "auto" and decision["verdict"] == "promote"
    lost = (
        f"{config.name} v{version} is not in the registry any more; remove "
        f"{inputs['register'].path} and run the same command again, it registers anew"
    )
    with locked(config.name, uri, root, lost) as book:
        found = version_of(book.client, book.name, version)
        if found is None or found.tags.get(ARTIFACT) != decision["candidate"]["model"]:
            raise DataError(lost)
        _record(book, version, decision)
        refused = book.tags(version).get(REFUSED)
        if passed and not refused and book.aliases().get(CHAMPION) != version:
            check(book, version, decision)
            _install(book, version, "by its evidence", Place(uri, root))
        held = {alias: v for alias, v in book.aliases().items() if v == version}
    return {
        "registered_model": config.name,
        "version": version,
        "verdict": decision["verdict"],
        "why": decision["why"],
        "promoted": CHAMPION in held,
        "aliases": held,
    }


class Overtaken(DataError):
    """The champion is not the one that the evidence is about."""


def promote(
    name: str,
    version: str,
    uri: str,
    root: Path,
    *,
    reason: str | None = None,
    approved: str | None = None,
) -> str:
    """Make `version` the champion, and say so. With a `reason` whatever the evidence says;
    `approved` is by whom and why, to be remembered beside the evidence.

    Raises:
        DataError: there is no such version, or the evidence is missing, not about this model,
            champion or data, or against it.
        ServiceError: the registry failed.
    """
    with locked(name, uri, root) as book:
        if version_of(book.client, name, version) is None:
            raise DataError(f"{name} has no version {version!r}; `aligntune models` lists them")
        champion = book.aliases().get(CHAMPION)
        if champion == version:
            return f"{name} v{version} is the champion already"
        if reason is None:
            found = book.tags(version).get(EVIDENCE)
            if not found:
                raise DataError(
                    f"{name} v{version} has no evidence: nothing was decided about it; run its "
                    "pipeline with `registry.promote: manual`, or give --force and --reason"
                )
            check(book, version, json.loads(found))
        by = f"by its evidence, approved by {approved}" if approved else "by its evidence"
        _install(book, version, f"forced: {reason}" if reason else by, Place(uri, root))
    before = f", v{champion} is the previous one" if champion else ""
    return f"{name} v{version} is the champion{before}"


def refuse(name: str, version: str, uri: str, root: Path, said: str) -> None:
    """Record on a version that it was not approved: `said` is by whom and why. No alias moves.

    Raises:
        DataError: there is no such version.
        ServiceError: the registry failed.
    """
    with locked(name, uri, root) as book:
        if version_of(book.client, name, version) is None:
            raise DataError(f"{name} has no version {version!r}; `aligntune models` lists them")
        book.tag(version, {REFUSED: f"{timestamp()} {said}"[:LONGEST_TAG]})


def rollback(name: str, uri: str, root: Path) -> str:
    """Make the previous champion the champion again, and say so; a second time undoes the first.

    Raises:
        DataError: there is no previous one, or its files are not what was registered and signed.
        ServiceError: the registry failed.
    """
    with locked(name, uri, root) as book:
        aliases = book.aliases()
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if (book.completed or "").startswith(ROLLBACK):
            return (
                f"{name} v{champion} is the champion again: the rollback that stopped is complete"
            )
        if previous is None or champion == previous:
            raise DataError(f"{name} has no previous champion to go back to")
        _install(book, previous, ROLLBACK, Place(uri, root))
    before = f", v{champion} is the previous one" if champion else "; there was none any more"
    return f"{name} v{previous} is the champion again{before}"


def check(book: Book, version: str, decision: Mapping[str, Any]) -> None:
    """That `decision` allows to promote `version` now.

    Raises:
        Overtaken: the champion is not the one that it was compared with.
        DataError: it is about another model or other data, or it does not say `promote`.
    """
    tags, what = book.tags(version), f"{book.name} v{version}"
    if decision["candidate"]["model"] != tags.get(ARTIFACT):
        raise DataError(
            f"the evidence is about {decision['candidate']['model']}, but {what} is "
            f"{tags.get(ARTIFACT)}; decide again by running its pipeline"
        )
    if decision["data"] != tags.get(EVALUATED):
        raise DataError(
            f"the evidence for {what} is from rows {decision['data'][:12]}, but its metrics are "
            f"from rows {tags.get(EVALUATED, 'none')[:12]}; decide again by running its pipeline"
        )
    champion = holder(book.client, book.name, CHAMPION)
    compared = decision["champion"]
    now = {"version": str(champion.version), "key": key_of(champion)} if champion else None
    if now != compared:
        then, here = (f"v{side['version']}" if side else "none" for side in (compared, now))
        raise Overtaken(
            f"{what} was compared with champion {then}, and the champion is {here} now; run its "
            "pipeline again, it compares with that"
        )
    if decision["verdict"] != "promote":
        raise DataError(
            f"the evidence does not allow {what} ({decision['verdict']}): {decision['why']}; "
            "--force with a --reason overrules it"
        )


def _record(book: Book, version: str, decision: Mapping[str, Any]) -> None:
    """The evidence on the version. What it was compared with comes first: a run that is killed
    after the aliases moved finds by it what it had been doing. A refusal was of other evidence."""
    evidence = json.dumps(decision, separators=(",", ":"))
    known = book.tags(version)
    tags = {REFUSED: ""} if known.get(REFUSED) and known.get(EVIDENCE) != evidence else {}
    tags |= {
        AGAINST: json.dumps(decision["champion"]) if decision["champion"] else "",
        EVIDENCE: evidence,
        WHY: decision["why"][:LONGEST_TAG],
        VERDICT: decision["verdict"],
    }
    book.tag(version, {tag: value for tag, value in tags.items() if known.get(tag) != value})


def _install(book: Book, version: str, how: str, place: Place) -> None:
    book.move(version, how + _vouched(book, version, place))
    if book.aliases().get(CHAMPION) != version:
        raise ServiceError(
            f"another promotion of {book.name} came from elsewhere at the same time; {AGAIN}"
        )


def _vouched(book: Book, version: str, place: Place) -> str:
    """Whose signature a version has, for a sentence, empty where none was asked for. Refuses a
    version as `check_version` does."""
    found = book.client.get_model_version(book.name, version)
    what, digest = f"{book.name} v{version}", found.tags.get(FILES)
    if not digest:  # it is none of ours
        refuse_unknown(what)
        return ""
    known = {"artifact": found.tags[ARTIFACT], "digest": digest}
    signer = check_version(what, known, found.source, place.uri, place.root / "stages")
    return f", signed by key {signer}" if signer else ""

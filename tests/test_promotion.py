"""Champion, previous, candidate: on a real SQLite registry, with small synthetic evaluations."""

import functools
import json
import multiprocessing
import queue
import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from keys import keys
from manifests import manifest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from aligntune import aliased, courier, promotion, registry
from aligntune.artifacts import LINKED, Artifact, commit, find, partial
from aligntune.config.slices import DecideSlice, FetchSlice, PromoteSlice
from aligntune.errors import ConfigError, DataError, Interrupted, ServiceError
from aligntune.evaluate.compare import Resampling, measure, write
from aligntune.evaluate.decide import decide
from aligntune.evaluate.document import document
from aligntune.evaluate.metrics import METRICS
from aligntune.stages import KINDS
from aligntune.work import Work

NAME = "tiny.policy"
N = 80
ROWS = [{"prompt": [{"role": "user", "content": f"{n}?"}], "answer": "7"} for n in range(N)]
HOW = Resampling(0.95, 300, 1)
BASE = np.random.default_rng(0).normal(3.0, 0.5, N)


class World:
    """An output directory in which models are made without training."""

    def __init__(self, root: Path) -> None:
        self.root, self.stages = root, root / "stages"
        self.uri = f"sqlite:///{root / 'mlflow.db'}"
        self.base = self.evaluation("base", BASE)

    @property
    def client(self):
        return MlflowClient(self.uri, self.uri)

    @property
    def aliases(self):
        held = self.client.get_registered_model(NAME).aliases
        return {alias: str(version) for alias, version in held.items()}

    def commit(self, kind, key, facts=None, inputs=None):
        known = {"facts": facts or {}, "inputs": inputs or {}}
        return commit(partial(self.stages, kind, key), manifest(kind, key, **known))

    def model(self, name):
        folder = partial(self.stages, "sft", name) / "model"
        folder.mkdir()
        (folder / "model.safetensors").write_text(f"weights of {name}")
        (folder / "config.json").write_text("{}")
        return self.commit("sft", name, {"data_digests": {"train": "d1"}})

    def evaluation(self, name, nll, rows=ROWS, model="model-x", tokens="t1"):
        out = partial(self.stages, "evaluate", name)
        column = [float(value) for value in nll]
        measured = {
            "nll": measure("nll", METRICS["nll"], column, N, range(N), {}, HOW),
        }
        conditions = {"rows": len(rows), "rows_sha256": str(hash(str(rows)))}
        found = document(conditions, tokens, HOW, {"nll": METRICS["nll"]}, measured)
        write(out, rows, [None] * N, {"nll": column}, found)
        return self.commit("evaluate", name, inputs={"model": model})

    def candidate(self, name, gain, seed=1, rows=ROWS):
        """A registered model whose nll is lower than the base's by `gain`, and its evaluation."""
        nll = BASE - gain + np.random.default_rng(seed).normal(0, 0.05, N)
        made = self.model(name)
        measured = self.evaluation(f"e{name}", nll, rows, made.name)
        facts = registry.register(
            NAME, {"sft": made, "evaluate-sft": measured}, self.uri, self.root
        )
        return {"register": self.commit("register", name, facts), "sft": measured, "name": name}

    def decide(self, candidate, champion=None, evaluation=None, gates=()):
        """The decision stage of a candidate, against a champion (version, key) or base."""
        version, key = champion or (None, None)
        spec = DecideSlice(
            candidate="sft", champion=version, champion_key=key, gates=gates,
            confidence=HOW.confidence, resamples=HOW.resamples, seed=1,
        )  # fmt: skip
        inputs = {"base": self.base, "sft": candidate["sft"]}
        inputs |= {"champion": evaluation} if evaluation else {}
        tag = f"d{candidate['name']}{key or ''}"
        decide(spec, inputs, partial(self.stages, "decide", tag))
        return self.commit("decide", tag)

    def settle(self, candidate, decision, policy="auto"):
        config = PromoteSlice(name=NAME, candidate="sft", policy=policy, tracking_uri="local")
        inputs = {"register": candidate["register"], "decision": decision}
        return promotion.settle(config, inputs, self.uri, self.root)

    def champion(self, gain=0.5, name="one"):
        """The first champion, which had only the base model to beat."""
        first = self.candidate(name, gain)
        assert self.settle(first, self.decide(first))["promoted"]
        return first

    def against_champion(self, name, gain, first, policy="auto", seed=2):
        made = self.candidate(name, gain, seed)
        decision = self.decide(made, ("1", first["name"]), first["sft"])
        return made, decision, self.settle(made, decision, policy)


@pytest.fixture
def world(tmp_path, empty_registry):
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    return World(tmp_path)


def tags(world, version):
    return world.client.get_model_version(NAME, version).tags


def test_worse_and_equal_are_rejected_and_better_is_promoted(world):
    first = world.champion()
    assert world.aliases == {"candidate": "1", "champion": "1"}
    _, _, worse = world.against_champion("worse", 0.3, first)
    _, _, equal = world.against_champion("equal", 0.5, first, seed=1)
    _, _, alike = world.against_champion("alike", 0.5, first)
    assert (worse["verdict"], worse["promoted"]) == ("reject", False)
    assert (equal["verdict"], equal["promoted"]) == ("reject", False)
    assert (alike["verdict"], alike["promoted"]) == ("inconclusive", False)
    assert world.aliases == {"candidate": "4", "champion": "1"}
    _, _, better = world.against_champion("better", 0.7, first)
    assert (better["verdict"], better["promoted"]) == ("promote", True)
    assert world.aliases == {"candidate": "5", "champion": "5", "previous": "1"}
    assert better["aliases"] == {"candidate": "5", "champion": "5"}


def test_rollback_restores_and_a_second_one_undoes_it(world):
    world.against_champion("better", 0.7, world.champion())
    said = promotion.rollback(NAME, world.uri, world.root)
    assert said == f"{NAME} v1 is the champion again, v2 is the previous one"
    assert world.aliases == {"candidate": "2", "champion": "1", "previous": "2"}
    promotion.rollback(NAME, world.uri, world.root)
    assert world.aliases["champion"] == "2"


def test_only_what_a_key_vouches_for_becomes_champion_again(world, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNTUNE_SIGNING_KEY", str(keys(tmp_path, "mine")[0]))
    world.against_champion("better", 0.7, world.champion())
    before = world.aliases
    signature = next((world.root / "mlartifacts").rglob("SHA256SUMS.sig"))
    signed = {path: path.read_bytes() for path in world.root.rglob(signature.name)}
    for path in signed:
        path.write_bytes(b"0" * 64)
    with pytest.raises(DataError, match="is not the signature of key"):
        promotion.rollback(NAME, world.uri, world.root)
    for path, found in signed.items():
        path.write_bytes(found)
    monkeypatch.setenv("ALIGNTUNE_TRUSTED_KEY", str(keys(tmp_path, "other")[1]))
    with pytest.raises(DataError, match="is not the signature of key"):
        promotion.rollback(NAME, world.uri, world.root)
    monkeypatch.delenv("ALIGNTUNE_TRUSTED_KEY")
    weights = world.stages / "sft-one" / "model" / "model.safetensors"
    text = weights.read_text()
    weights.chmod(0o644)
    weights.write_text(text.upper())
    with pytest.raises(DataError, match="sft-one is not as its stage made it"):
        promotion.rollback(NAME, world.uri, world.root)
    assert world.aliases == before
    weights.write_text(text)
    promotion.rollback(NAME, world.uri, world.root)
    assert (world.aliases["champion"], world.aliases["previous"]) == ("1", "2")
    assert "rollback, signed by key" in tags(world, "1")["aligntune.promoted"]


def test_a_version_that_no_run_registered_is_vouched_for_by_nobody(world, tmp_path, monkeypatch):
    world.against_champion("better", 0.7, world.champion())
    world.client.delete_model_version_tag(NAME, "1", "aligntune.sha256")
    monkeypatch.setenv("ALIGNTUNE_TRUSTED_KEY", str(keys(tmp_path, "mine")[1]))
    with pytest.raises(DataError, match=r"not registered by a run.*unset ALIGNTUNE_TRUSTED_KEY"):
        promotion.rollback(NAME, world.uri, world.root)
    with pytest.raises(DataError, match="not registered by a run"):
        promotion.promote(NAME, "1", world.uri, world.root, reason="it was good")
    monkeypatch.delenv("ALIGNTUNE_TRUSTED_KEY")
    promotion.rollback(NAME, world.uri, world.root)
    assert world.aliases["champion"] == "1"


def test_rolling_back_works_where_somebody_has_deleted_the_champion(world):
    first = world.champion()
    world.against_champion("better", 0.7, first)
    world.client.delete_model_version(NAME, "2")
    said = promotion.rollback(NAME, world.uri, world.root)
    assert said == f"{NAME} v1 is the champion again; there was none any more"
    assert world.aliases["champion"] == "1"
    with pytest.raises(DataError, match="no previous champion"):
        promotion.rollback(NAME, world.uri, world.root)


def test_there_is_nothing_to_roll_back_to_at_first(world):
    world.champion()
    with pytest.raises(DataError, match="no previous champion"):
        promotion.rollback(NAME, world.uri, world.root)
    with pytest.raises(DataError, match="no registered model 'other'"):
        promotion.rollback("other", world.uri, world.root)


def test_the_evidence_is_on_the_version(world):
    _, decision, facts = world.against_champion("better", 0.7, world.champion())
    found = tags(world, "2")
    assert found["aligntune.decision"] == "promote"
    assert found["aligntune.decision.why"] == facts["why"]
    stored = json.loads((decision.path / "decision.json").read_text())
    assert json.loads(found["aligntune.decision.json"]) == stored
    assert stored["champion"] == {"version": "1", "key": "one"}
    assert stored["tests"][0]["wins"] > 60
    assert found["aligntune.promoted"].endswith("by its evidence")


def test_a_manual_policy_leaves_the_last_step_to_a_person(world):
    _, _, facts = world.against_champion("better", 0.7, world.champion(), policy="manual")
    assert (facts["verdict"], facts["promoted"]) == ("promote", False)
    assert world.aliases["champion"] == "1"
    said = promotion.promote(NAME, "2", world.uri, world.root)
    assert said == f"{NAME} v2 is the champion, v1 is the previous one"
    assert "already" in promotion.promote(NAME, "2", world.uri, world.root)
    assert world.aliases == {"candidate": "2", "champion": "2", "previous": "1"}


def test_promotion_is_refused_without_evidence_or_against_it(world):
    first = world.champion()
    world.against_champion("worse", 0.3, first)
    world.candidate("undecided", 0.9)
    with pytest.raises(DataError, match="v3 has no evidence"):
        promotion.promote(NAME, "3", world.uri, world.root)
    with pytest.raises(DataError, match=r"does not allow .* v2 \(reject\): worse: nll"):
        promotion.promote(NAME, "2", world.uri, world.root)
    assert world.aliases["champion"] == "1"
    promotion.promote(NAME, "3", world.uri, world.root, reason="the old one is on fire")
    assert world.aliases["champion"] == "3"
    assert tags(world, "3")["aligntune.promoted"].endswith("forced: the old one is on fire")


def test_promotion_is_refused_when_the_champion_has_changed_since(world):
    first = world.champion()
    late, decision, _ = world.against_champion("late", 0.7, first, policy="manual")
    world.against_champion("quick", 0.6, first)
    with pytest.raises(DataError, match="compared with champion v1, and the champion is v3 now"):
        promotion.promote(NAME, "2", world.uri, world.root)
    with pytest.raises(promotion.Overtaken, match="is v3 now"):
        world.settle(late, decision)
    work = Work(
        key="x", config=PromoteSlice(name=NAME, candidate="sft", policy="auto", tracking_uri="x"),
        sources={}, inputs={"register": late["register"], "decision": decision},
        out=world.root / "promote", root=world.root, tracking_uri=world.uri,
        progress=lambda *_: None, stopping=lambda: False,
    )  # fmt: skip
    with pytest.raises(Interrupted, match="is v3 now; run its pipeline again"):
        KINDS["promote"].run(work)
    assert world.aliases["champion"] == "3"


def test_promotion_is_refused_on_evidence_from_other_rows(world):
    made, _, _ = world.against_champion("better", 0.7, world.champion(), policy="manual")
    other = world.evaluation("other", BASE - 0.7, [*ROWS[1:], ROWS[0]], "sft-better")
    policy = find(world.stages, "sft", "better")
    registry.register(NAME, {"sft": policy, "evaluate-sft": other}, world.uri, world.root)
    with pytest.raises(DataError, match=r"evidence for .* is from rows"):
        promotion.promote(NAME, "2", world.uri, world.root)
    with pytest.raises(DataError, match="cannot be compared: rows_sha256"):
        world.decide(made | {"sft": other, "name": "x"}, ("1", "one"), world.base)


def test_promotion_is_refused_on_evidence_about_another_model(world):
    _, decision, _ = world.against_champion("better", 0.7, world.champion(), policy="manual")
    world.candidate("other", 0.7)
    text = (decision.path / "decision.json").read_text()
    world.client.set_model_version_tag(NAME, "3", "aligntune.decision.json", text)
    with pytest.raises(DataError, match=r"evidence is about sft-better, but .* v3 is sft-other"):
        promotion.promote(NAME, "3", world.uri, world.root)


@pytest.mark.parametrize("reason", [None, "because"])
@pytest.mark.parametrize("version", ["99", "newest"])
def test_a_version_that_is_not_there_moves_nothing(world, version, reason):
    world.champion()
    with pytest.raises(DataError, match=f"has no version '{version}'"):
        promotion.promote(NAME, version, world.uri, world.root, reason=reason)
    assert world.aliases == {"candidate": "1", "champion": "1"}


def test_a_move_to_a_version_that_was_deleted_holds_up_nobody(world):
    first = world.champion()
    moving = json.dumps({"aliases": {"previous": "1", "champion": "99"}, "how": "x", "at": "y"})
    world.client.set_registered_model_tag(NAME, "aligntune.moving", moving)
    assert world.against_champion("better", 0.7, first)[2]["promoted"]
    assert world.aliases == {"candidate": "2", "champion": "2", "previous": "1"}


def test_a_version_that_the_registry_lost_says_how_to_register_anew(world):
    first = world.candidate("one", 0.5)
    decision = world.decide(first)
    world.client.delete_registered_model(NAME)
    with pytest.raises(DataError, match=r"v1 is not in the registry any more; remove .*register-o"):
        world.settle(first, decision)
    world.candidate("another", 0.5)
    with pytest.raises(DataError, match="v1 is not in the registry any more"):
        world.settle(first, decision)
    assert "aligntune.decision" not in tags(world, "1"), "no evidence on another's version"


@pytest.mark.parametrize("name", ["other", "it's", "a/b"])
def test_a_model_that_is_not_registered_is_named(world, name):
    with pytest.raises(DataError, match="there is no registered model"):
        promotion.rollback(name, world.uri, world.root)


def test_versions_of_every_page_are_found_beside_models_that_are_not_ours(world, monkeypatch):
    for name in ("it's", "a", "b"):
        world.client.create_registered_model(name)
    world.champion()
    world.candidate("two", 0.6)
    for search in ("search_registered_models", "search_model_versions"):
        whole = getattr(MlflowClient, search)
        monkeypatch.setattr(MlflowClient, search, functools.partialmethod(whole, max_results=1))
    found = registry.all_versions(world.uri)
    assert {name: [v["version"] for v in those] for name, those in found.items()} == {
        NAME: ["1", "2"]
    }


class Killed(BaseException):
    pass


WRITES = (
    "set_registered_model_tag", "set_registered_model_alias", "set_model_version_tag",
    "delete_registered_model_tag",
)  # fmt: skip


@pytest.fixture
def kill_after(monkeypatch, world):
    """Lets so many calls that write succeed, and looks at who holds what after each."""

    def kill_after(calls):
        left, seen = [calls], []

        def dying(real):
            def call(*arguments, **options):
                if not left[0]:
                    raise Killed
                left[0] -= 1
                done = real(*arguments, **options)
                seen.append(world.aliases)
                return done

            return call

        for name in WRITES:
            monkeypatch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
        return seen

    return kill_after


def _calls(number, quick):
    """Every number of calls; those that are not `quick` only in the slow run."""
    slow = pytest.mark.slow
    return [pytest.param(n, marks=[] if n in quick else slow) for n in range(number)]


EVERY_PROMOTION = _calls(10, quick=(1, 6, 7))
EVERY_ROLLBACK = _calls(6, quick=(2, 4))


def finished(action):
    try:
        action()
    except Killed:
        return False
    return True


@pytest.mark.parametrize("calls", EVERY_PROMOTION)
def test_a_promotion_that_is_killed_anywhere_is_completed_by_the_next_run(
    world, kill_after, monkeypatch, calls
):
    first = world.champion()
    made = world.candidate("better", 0.7, seed=2)
    decision = world.decide(made, ("1", "one"), first["sft"])
    seen = kill_after(calls)
    done = finished(lambda: world.settle(made, decision))
    assert done == (calls >= 9), "nine calls are a promotion"
    monkeypatch.undo()
    assert {held.get("champion") for held in seen} <= {"1", "2"}, "a champion at every instant"
    assert all("1" in held.values() for held in seen), "and a way back to the one before"
    found = registry.champion_of(world.uri, NAME)
    same = "whatever moved already, the next run asks the same question"
    assert found.opponent("better") == ("1", "one"), same
    facts = world.settle(made, decision)
    assert facts["promoted"]
    assert world.aliases == {"candidate": "2", "champion": "2", "previous": "1"}
    assert not world.client.get_registered_model(NAME).tags.get("aligntune.moving")
    assert tags(world, "2")["aligntune.promoted"]


@pytest.mark.parametrize("calls", EVERY_ROLLBACK)
def test_a_rollback_that_is_killed_anywhere_is_completed_and_not_undone(
    world, kill_after, monkeypatch, calls
):
    world.against_champion("better", 0.7, world.champion())
    seen = kill_after(calls)
    done = finished(lambda: promotion.rollback(NAME, world.uri, world.root))
    assert done == (calls >= 5)
    monkeypatch.undo()
    assert {held.get("champion") for held in seen} <= {"1", "2"}
    assert all("2" in held.values() for held in seen)
    if not done:
        promotion.rollback(NAME, world.uri, world.root)
    assert world.aliases == {"candidate": "2", "champion": "1", "previous": "2"}


def _promote_at_once(root, version, gate, results):
    gate.wait()
    try:
        promotion.promote(NAME, version, f"sqlite:///{root / 'mlflow.db'}", root)
        results.put(("promoted", version))
    except DataError as error:
        results.put((str(error), version))


def _in_processes():
    spawn = multiprocessing.get_context("spawn")
    return spawn.Process, spawn.Barrier(2), spawn.Queue()


def _in_threads():
    return threading.Thread, threading.Barrier(2), queue.Queue()


@pytest.mark.parametrize(
    "at_once", [_in_threads, pytest.param(_in_processes, marks=pytest.mark.slow)]
)
def test_two_promotions_at_once_leave_one_champion(world, at_once):
    first = world.champion()
    for name, seed in (("two", 2), ("three", 3)):
        world.against_champion(name, 0.7, first, policy="manual", seed=seed)
    start, gate, results = at_once()
    both = [
        start(target=_promote_at_once, args=(world.root, version, gate, results))
        for version in ("2", "3")
    ]
    for one in both:
        one.start()
    told = dict(results.get(timeout=200) for _ in both)
    for one in both:
        one.join(60)
    winner = told.pop("promoted")
    ((refusal, loser),) = told.items()
    assert {winner, loser} == {"2", "3"}
    assert f"compared with champion v1, and the champion is v{winner} now" in refusal
    assert (world.aliases["champion"], world.aliases["previous"]) == (winner, "1")


def test_a_version_is_fetched_from_the_artifact_or_else_downloaded(world, tmp_path):
    world.champion()
    one = registry.fetch(NAME, "1", world.uri, world.root, tmp_path / "linked")
    (tmp_path / "got").mkdir()
    other = registry.fetch(NAME, "1", world.uri, tmp_path / "elsewhere", tmp_path / "got" / "model")
    assert one == other
    for folder in ("linked", "got/model"):
        assert (tmp_path / folder / "model.safetensors").read_text() == "weights of one"
    assert one["source"] == f"models:/{NAME}/1"


def test_a_version_whose_files_were_changed_is_refused(world, tmp_path):
    world.champion()
    (file,) = (world.root / "mlartifacts").rglob("model.safetensors")
    file.write_text("something else")
    (tmp_path / "got").mkdir()
    place = (world.uri, tmp_path / "elsewhere", tmp_path / "got" / "model")
    with pytest.raises(DataError, match=r"model\.safetensors changed"):
        registry.fetch(NAME, "1", *place)
    (file.parent / "SHA256SUMS").unlink()
    with pytest.raises(ServiceError, match="not have the files that were registered"):
        registry.fetch(NAME, "1", *place)


def test_a_champion_whose_files_are_gone_says_how_to_go_on(world, tmp_path):
    world.champion()
    shutil.rmtree(world.root / "mlartifacts")
    (tmp_path / "got").mkdir()
    with pytest.raises(ConfigError, match=r"files of .* are not in .*; put them back, or .*rollb"):
        registry.fetch(NAME, "1", world.uri, tmp_path / "elsewhere", tmp_path / "got" / "model")


def test_a_champion_is_waited_for_where_the_registry_is_away(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(courier, "PATIENCE", 1.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    work = Work(
        key="x", config=FetchSlice(name=NAME, version="1", key="x", tracking_uri="away"),
        sources={}, inputs={}, out=tmp_path / "fetch", root=tmp_path,
        tracking_uri="http://127.0.0.1:9", progress=lambda *_: None, stopping=lambda: False,
    )  # fmt: skip
    with pytest.raises(ServiceError, match="MLflow failed"):
        KINDS["fetch"].run(work)
    assert "trying again" in caplog.text


def test_a_version_says_what_it_was_made_from_and_what_it_went_on_from(world):
    first = world.candidate("one", 0.5)
    second, measured = world.model("two"), world.evaluation("etwo", BASE, model="sft-two")
    fetched = {"config": {"name": NAME, "version": "1", "key": first["name"]}}
    start = world.commit("fetch", "start")
    start = Artifact(start.path, start.manifest.model_copy(update={"identity": fetched}))
    inputs = {"sft": second, "evaluate-sft": measured, "start": start}
    made = registry.register(NAME, inputs, world.uri, world.root)
    assert made["versions"] == {"sft": "2"}
    one, two = registry.known_versions(world.uri, NAME)
    assert (one.started_from, two.started_from) == (None, ("1", "one"))
    assert two.lineage.stages == {"sft": "sft-two"}
    assert world.client.get_model_version(NAME, "2").tags["aligntune.parent_version"] == "1"


def test_a_refusal_is_kept_on_the_version_and_an_approval_with_the_promotion(world):
    first = world.champion()
    world.against_champion("two", 0.7, first, policy="manual")
    promotion.refuse(NAME, "2", world.uri, world.root, "Ada: too terse")
    assert world.aliases["champion"] == "1"
    assert registry.known_versions(world.uri, NAME)[1].refused.endswith("UTC Ada: too terse")
    promotion.promote(NAME, "2", world.uri, world.root, approved="Ada: after all")
    assert world.aliases["champion"] == "2"
    promoted = registry.known_versions(world.uri, NAME)[1].promoted
    assert promoted.endswith("by its evidence, approved by Ada: after all")
    with pytest.raises(DataError, match="no version '9'"):
        promotion.refuse(NAME, "9", world.uri, world.root, "Ada")


def test_what_a_person_refused_is_not_promoted_by_the_same_evidence_but_by_other(world):
    first = world.champion()
    made, decision, _ = world.against_champion("two", 0.7, first, policy="manual")
    promotion.refuse(NAME, "2", world.uri, world.root, "Ada: too terse")
    assert not world.settle(made, decision)["promoted"]
    assert world.aliases["champion"] == "1"
    assert registry.known_versions(world.uri, NAME)[1].refused
    gates = ({"metric": "nll", "min_delta": 0.01},)
    again = world.decide({**made, "name": "again"}, ("1", first["name"]), first["sft"], gates)
    assert not world.settle(made, again, policy="manual")["promoted"]
    assert not registry.known_versions(world.uri, NAME)[1].refused
    assert world.settle(made, again)["promoted"]


def test_a_fetched_start_gets_the_tokenizer_of_the_run_and_leaves_its_own_alone(world, tmp_path):
    made = world.candidate("one", 0.5)
    folder = partial(world.stages, "tokenizer", "t") / "tokenizer"
    folder.mkdir()
    (folder / "config.json").write_text('{"template": "new"}')
    (folder / "chat_template.jinja").write_text("new")
    tokenizer = world.commit("tokenizer", "t")
    out = tmp_path / "start"
    registry.fetch(NAME, "1", world.uri, world.root, out, tokenizer)
    assert (out / "config.json").read_text() == '{"template": "new"}'
    assert (out / "chat_template.jinja").read_text() == "new"
    assert (out / "model.safetensors").read_text() == "weights of one"
    source = world.stages / f"sft-{made['name']}" / "model"
    assert (source / "config.json").read_text() == "{}"


def test_the_registry_s_file_says_the_same_of_its_champion_as_mlflow(world):
    def agree(expected):
        for key in ("one", "better", "another"):
            held = aliased.holder(world.uri + "?timeout=3", NAME, "champion")
            asked = registry.champion_of(world.uri, NAME)
            here, there = (one.opponent(key) if one else None for one in (held, asked))
            assert here == there == expected[key]

    agree(dict.fromkeys(("one", "better", "another")))
    first = world.champion()
    agree({"one": None, "better": ("1", "one"), "another": ("1", "one")})
    made = world.candidate("better", 0.7, seed=2)
    world.settle(made, world.decide(made, ("1", "one"), first["sft"]))
    agree({"one": ("2", "better"), "better": ("1", "one"), "another": ("2", "better")})
    world.client.delete_model_version(NAME, "2")
    agree(dict.fromkeys(("one", "better", "another")))


def test_a_store_that_is_no_file_of_mlflow_is_left_to_mlflow(world, tmp_path, monkeypatch):
    empty = tmp_path / "other.db"
    sqlite3.connect(empty).close()
    empty.write_bytes(b"")
    as_uri = world.uri.replace("sqlite:///", "sqlite:///file:") + "?uri=true"
    for uri in ("http://127.0.0.1:1", as_uri, f"sqlite:///{empty}"):
        with pytest.raises(aliased.Unreadable):
            aliased.holder(uri, NAME, "champion")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team")
    with pytest.raises(aliased.Unreadable):
        aliased.holder(world.uri, NAME, "champion")


def test_an_upload_that_breaks_off_leaves_no_second_model(world, monkeypatch):
    made, finalize, broken = world.model("cut"), MlflowClient.finalize_logged_model, []

    def breaks_off(*given):
        if len(broken) < 2:
            broken.append(given)
            raise MlflowException("the connection broke off")
        return finalize(*given)

    monkeypatch.setattr(MlflowClient, "finalize_logged_model", breaks_off)
    for _ in range(2):
        with pytest.raises(ServiceError, match="broke off"):
            registry.register(NAME, {"sft": made}, world.uri, world.root)
    facts = registry.register(NAME, {"sft": made}, world.uri, world.root)
    assert facts["versions"] == {"sft": "1"}
    (kept,) = (world.root / "mlartifacts" / "models").iterdir()
    assert world.client.get_logged_model(kept.name).status == "READY"


def test_weights_enter_the_local_store_by_link_and_what_people_edit_by_copy(world):
    made = world.model("big")
    shutil.rmtree(made.path)
    out = partial(world.stages, "sft", "big")
    (out / "model").mkdir()
    (out / "model" / "model.safetensors").write_bytes(b"w" * LINKED)
    (out / "model" / "config.json").write_text("{}")
    made = world.commit("sft", "big", {"data_digests": {}})
    registry.register(NAME, {"sft": made}, world.uri, world.root)
    (kept,) = (world.root / "mlartifacts").rglob("model.safetensors")
    assert kept.samefile(made.path / "model" / "model.safetensors")
    assert kept.stat().st_mode & 0o222 == 0
    kept.with_name("config.json").write_text('{"edited": true}')
    fetched = world.root / "fetched"
    registry.fetch(NAME, "1", world.uri, world.root, fetched)
    assert (fetched / "config.json").read_text() == "{}"
    assert find(world.stages, "sft", "big", verify=True)

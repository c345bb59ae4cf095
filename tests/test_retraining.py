"""What is new to a retraining and what is not: on a real registry, without training anything."""

import json
import shutil

import pytest
from mlflow import MlflowClient

from aligntune import aliased, registry
from aligntune.config.load import load
from aligntune.errors import ServiceError
from aligntune.lineage import Lineage, Source, changed
from aligntune.retraining import look, says, settings_changed
from aligntune.slicing import policy_name
from aligntune.versions import listed, place

CONFIG = """
algo: dpo
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 96}}
sft:
  datasets: [{{name: {folder}/worked.jsonl}}]
datasets: [{{name: {folder}/pairs.jsonl}}]
train: {{max_steps: 2}}
evaluation: {{datasets: [{{name: {folder}/test.jsonl}}]}}
registry: {{name: tiny, gates: [{{metric: nll}}]}}
logging: {{output_dir: {folder}/output, run_name: nightly}}
"""
PAIR = {"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}
TURN = {"prompt": "2 + 2?", "completion": "4"}


@pytest.fixture
def world(tmp_path, tiny_model, empty_registry, monkeypatch):
    return World(tmp_path, tiny_model, empty_registry, monkeypatch)


class World:
    """A config with its data, and a registry in which runs are written down as they would be."""

    def __init__(self, folder, model, empty_registry, monkeypatch):
        self.folder, self.path = folder, folder / "run.yaml"
        self.path.write_text(CONFIG.format(model=model, folder=folder))
        self.write("pairs.jsonl", [PAIR])
        self.write("worked.jsonl", [TURN])
        self.write("test.jsonl", [{"prompt": "3 + 3?", "completion": "6"}])
        shutil.copyfile(empty_registry, folder / "mlflow.db")
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        self.client = MlflowClient(uri, uri)
        self.client.create_registered_model("tiny.policy")

    def write(self, name, rows):
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def look(self, *settings):
        return look(load([self.path], settings))

    def ran(self, verdict, *settings, **tags):
        """Register what a run would train now, with its decision; returns the version."""
        looked = self.look(*settings)
        stages = {p.stage.label: p.stage for p in looked.plan.stages}
        final, decide = stages["dpo"], stages["decide"]
        spec, start = decide.config, stages.get("start")
        against = {"version": spec.champion, "key": spec.champion_key} if spec.champion else None
        evidence = {
            "verdict": verdict,
            "candidate": {"stage": "dpo", "model": final.name},
            "champion": against,
            "evaluations": dict(decide.inputs),
            "confidence": spec.confidence,
            "gates": [gate.model_dump(mode="json") for gate in spec.gates],
        }
        came = {"version": start.config.version, "key": start.config.key} if start else None
        made = self.client.create_model_version(
            "tiny.policy",
            source=str(self.folder),
            tags={
                registry.KEY: final.key,
                registry.ARTIFACT: final.name,
                registry.EVIDENCE: json.dumps(evidence),
                aliased.AGAINST: json.dumps(against) if against else "",
                registry.STARTED: json.dumps(came) if came else "",
                registry.LINEAGE: looked.lineage.to_json(),
                **tags,
            },
        )
        version = str(made.version)
        if verdict == "promote" and not tags:
            self.promote(version)
        return version

    def promote(self, version):
        self.client.set_model_version_tag("tiny.policy", version, registry.PROMOTED, "now")
        self.client.set_registered_model_alias("tiny.policy", "champion", version)


def test_a_first_run_is_news_and_needs_no_registry(world, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    looked = world.look()
    assert not looked.nothing_new
    assert looked.champion is None
    assert not (world.folder / "output").exists()


def test_the_same_again_is_nothing_new(world):
    world.ran("promote")
    looked = world.look()
    assert looked.nothing_new
    assert "3 datasets" in says(looked)
    assert "champion v1" in says(looked)


@pytest.mark.parametrize(
    "settings",
    [
        ["logging.output_dir=elsewhere"],
        ["logging.run_name=other"],
        ["logging.level=DEBUG"],
        ["logging.save_steps=7"],
        ["evaluation.sample_count=1"],
        ["launch.data_workers=2"],
        ["retrain.approval=required"],
        ["schedules=[{cron: 0 3 * * *}]"],
    ],
)
def test_what_influences_no_result_is_nothing_new(world, settings, monkeypatch):
    world.ran("promote")
    monkeypatch.chdir(world.folder)
    assert world.look(*settings).nothing_new


@pytest.mark.parametrize(
    "settings",
    [
        ["registry.gates.0.min_delta=0.1"],
        ["registry.gates=[]"],
        ["evaluation.confidence=0.9"],
        ["evaluation.max_samples=3"],
        ["train.beta=0.3"],
        ["sft.train.max_steps=9"],
        ["seed=1"],
        ["peft={}"],
    ],
)
def test_what_influences_training_or_the_decision_is_new(world, settings):
    world.ran("promote")
    assert not world.look(*settings).nothing_new


@pytest.mark.parametrize(
    ("file", "row", "stage"),
    [
        ("pairs.jsonl", PAIR, "data"),
        ("worked.jsonl", TURN, "sft-data"),
        ("test.jsonl", TURN, "eval-data"),
    ],
)
def test_a_changed_row_is_new_and_said_to_be(world, file, row, stage):
    world.ran("promote")
    old = world.look().lineage
    world.write(file, [{**row, "prompt": "9 + 9?"}])
    looked = world.look()
    assert not looked.nothing_new
    (change,) = looked.changes
    before = next(source for source in old.sources if source.stage == stage)
    assert str(change).startswith(f"{stage}: {world.folder / file}: sha256 ")
    assert before.digest.partition(":")[2][:12] in str(change)
    assert change.after.digest != change.before.digest


@pytest.mark.parametrize("verdict", ["reject", "inconclusive"])
def test_a_candidate_that_was_not_promoted_is_not_tried_again(world, verdict):
    world.ran("promote")
    world.write("pairs.jsonl", [PAIR, {**PAIR, "prompt": "5 + 5?"}])
    world.ran(verdict)
    looked = world.look()
    assert looked.nothing_new
    assert looked.decided.version == "2"
    assert "champion v1 stays" in says(looked)


def test_a_first_candidate_that_was_rejected_is_not_tried_again(world):
    world.ran("reject")
    looked = world.look()
    assert looked.nothing_new
    assert "there is no champion yet" in says(looked)


def test_a_rejected_candidate_is_tried_against_another_champion(world):
    world.ran("promote")
    world.write("pairs.jsonl", [PAIR, {**PAIR, "prompt": "5 + 5?"}])
    world.ran("reject")
    forced = world.client.create_model_version(
        "tiny.policy", source=str(world.folder), tags={registry.KEY: "from-elsewhere"}
    )
    world.promote(str(forced.version))
    assert not world.look().nothing_new


def test_a_rollback_is_not_undone(world):
    world.ran("promote")
    world.write("pairs.jsonl", [PAIR, {**PAIR, "prompt": "5 + 5?"}])
    world.ran("promote")
    assert world.look().decided.version == "2"
    world.promote("1")
    looked = world.look()
    assert looked.nothing_new
    assert "v2, which was the champion and has been replaced since" in says(looked)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({registry.REFUSED: ""}, "has passed its gates and waits to be approved"),
        ({registry.REFUSED: "now me: too slow"}, "was not approved (now me: too slow)"),
    ],
)
def test_a_candidate_that_waits_or_was_refused_is_not_trained_again(world, tags, said):
    world.ran("promote", **tags)
    looked = world.look("registry.promote=manual")
    assert looked.nothing_new
    assert looked.waits == (not tags[registry.REFUSED])
    assert said in says(looked)


def test_one_that_passed_and_was_not_promoted_is_unless_a_person_is_asked_or_has_refused(world):
    """Its run was killed between the evidence and the aliases."""
    version = world.ran("promote", **{registry.REFUSED: ""})
    assert not world.look().nothing_new
    world.client.set_model_version_tag("tiny.policy", version, registry.REFUSED, "now me: slow")
    assert world.look().nothing_new


class TestFromTheChampion:
    SETTING = "retrain.start_from=champion"

    def test_without_a_champion_it_starts_from_base(self, world):
        assert "start" not in [p.stage.label for p in world.look(self.SETTING).plan.stages]

    def test_the_same_data_is_not_trained_on_again(self, world):
        world.ran("promote", self.SETTING)
        assert world.look(self.SETTING).nothing_new
        world.write("worked.jsonl", [TURN, {**TURN, "prompt": "5 + 5?"}])
        world.ran("promote", self.SETTING)
        assert world.look(self.SETTING).nothing_new
        assert says(world.look(self.SETTING)).endswith(
            "champion v2 was trained with and decided by"
        )

    def test_new_data_is_trained_on_from_the_champion(self, world):
        world.ran("promote", self.SETTING)
        world.write("worked.jsonl", [TURN, {**TURN, "prompt": "5 + 5?"}])
        plan = world.look(self.SETTING).plan
        start = plan["start"].stage
        assert (start.config.version, start.config.name) == ("1", "tiny.policy")
        assert plan["sft"].stage.inputs["model"] == start.name
        assert plan["register"].stage.inputs["start"] == start.name
        assert plan["evaluate-base"].stage.inputs["model"] == plan["model"].stage.name
        assert policy_name(plan.config) == "tiny.policy"

    def test_a_rejected_candidate_is_not_tried_again(self, world):
        world.ran("promote", self.SETTING)
        world.write("worked.jsonl", [TURN, {**TURN, "prompt": "5 + 5?"}])
        world.ran("reject", self.SETTING)
        assert world.look(self.SETTING).nothing_new

    def test_other_gates_decide_anew_about_the_champion_itself(self, world):
        world.ran("promote", self.SETTING)
        looked = world.look(self.SETTING, "registry.gates.0.min_delta=0.1")
        assert not looked.nothing_new
        assert looked.plan["dpo"].stage.key == looked.champion.key

    def test_after_a_rollback_the_same_data_is_nothing_new(self, world):
        world.ran("promote", self.SETTING)
        world.write("worked.jsonl", [TURN, {**TURN, "prompt": "5 + 5?"}])
        world.ran("promote", self.SETTING)
        world.promote("1")
        looked = world.look(self.SETTING)
        assert looked.nothing_new
        assert looked.decided.version == "2"


def test_a_registry_that_is_away_is_an_error_and_not_news(world, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ServiceError, match="MLflow failed"):
        world.look()


def test_a_database_with_options_is_the_registry_that_it_is_without(world, monkeypatch):
    world.ran("promote")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{world.folder}/mlflow.db?timeout=30")
    assert world.look().champion.version == "1"
    where = place(str(world.folder / "output"))
    assert [model.name for model in listed(where, None)] == ["tiny.policy"]


def test_settings_of_artifacts_that_are_gone_are_told_by_stage(world):
    world.ran("promote")
    assert settings_changed(world.look("train.beta=0.3")) == ["dpo: changed"]


def test_sources_that_came_and_went_are_changes():
    old = Lineage({}, (Source("data", "a", "sha256:1", 5), Source("data", "b", "sha256:2", 6)))
    new = Lineage({}, (Source("data", "b", "sha256:2", 6), Source("data", "c", "sha256:3", None)))
    assert [str(change) for change in changed(old, new)] == [
        "data: c: not used -> sha256 3",
        "data: a: sha256 1 (5 rows) -> not used any more",
    ]
    assert Lineage.from_json(old.to_json()) == old

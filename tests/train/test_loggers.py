"""Curves go where the config says, each point once."""

import importlib
import json
import sys

import pytest
from offline import run, spec
from places import at_look, place
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aligntune.errors import ConfigError, Interrupted
from aligntune.journal import read
from aligntune.train.loggers import missing

WANDB = """
import json, os, pathlib
class errors:
    class Error(Exception): pass
class Config(dict):
    def update(self, values, allow_val_change=False): dict.update(self, values)
class Run:
    name = id = url = "x"
    def __init__(self): self.summary = {}
    def _label(self, code): pass
    def finish(self): _note({"finish": True}); globals().update(run=None)
run, config = None, Config()
def _note(what):
    with open(os.environ["NOTES"], "a") as file: file.write(json.dumps(what) + chr(10))
def init(**settings):
    if "REFUSE" in os.environ: raise errors.Error("no API key")
    globals().update(run=Run())
    _note(settings)
    return run
def log(values): _note(values)
def define_metric(*_, **__): pass
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A package that notes down what transformers and we do with it; reads the notes."""
    package = tmp_path / "site" / "wandb"
    (package / "sdk" / "lib").mkdir(parents=True)
    (package / "__init__.py").write_text(WANDB)
    (package / "sdk" / "__init__.py").touch()
    (package / "sdk" / "lib" / "__init__.py").touch()
    (package / "sdk" / "lib" / "config_util.py").write_text("class ConfigError(Exception): pass\n")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    for name in ("WANDB_DIR", "WANDB_PROJECT", "WANDB_LOG_MODEL", "WANDB_WATCH"):
        monkeypatch.delenv(name, raising=False)
    # TRL has imported it if it was there.
    made = importlib.import_module("wandb")
    monkeypatch.setattr("trl.trainer.base_trainer.wandb", made, raising=False)
    yield lambda: [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    for name in [name for name in sys.modules if name.split(".")[0] == "wandb"]:
        del sys.modules[name]


def curve(folder, name):
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def losses(setting):
    return [(row.step, row.metrics["train/loss"]) for row in read(setting.out / "metrics.jsonl")
            if "train/loss" in row.metrics]  # fmt: skip


def test_tensorboard_has_the_curves_of_the_journal(tiny_model, tmp_path):
    made = place(tmp_path)
    run(tiny_model, spec(loggers=("tensorboard", "mlflow")), made)
    written = curve(tmp_path, "train/loss")
    assert [step for step, _ in written] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in written] == pytest.approx([loss for _, loss in losses(made)])


def test_a_resumed_run_has_every_point_once(tiny_model, tmp_path):
    chosen = spec(loggers=("tensorboard",))
    with pytest.raises(Interrupted):
        run(tiny_model, chosen, place(tmp_path, at_look(5)))
    for checkpoint in (tmp_path / "work" / "checkpoints").glob("step-*5"):
        (checkpoint / "model.safetensors").write_bytes(b"damaged")  # so it goes on from step 4
    run(tiny_model, chosen, place(tmp_path))
    assert [step for step, _ in curve(tmp_path, "train/loss")] == [1, 2, 3, 4, 5, 6]


def test_a_writer_is_closed_also_when_training_fails(tiny_model, tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    closed = []
    close = SummaryWriter.close
    monkeypatch.setattr(SummaryWriter, "close", lambda self: (closed.append(1), close(self)))

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, spec(loggers=("tensorboard",)), place(tmp_path, fail))
    assert closed


def test_without_loggers_nothing_is_written(tiny_model, tmp_path):
    run(tiny_model, spec(max_steps=1), place(tmp_path))
    assert not (tmp_path / "tensorboard").exists()


def test_wandb_gets_one_run_per_stage_in_the_scratch_directory(tiny_model, tmp_path, wandb):
    run(tiny_model, spec(loggers=("wandb",), max_steps=2), place(tmp_path / "out"))
    first, *points, last = wandb()
    assert first["name"] == "sft-key"
    assert first["dir"] == str(tmp_path / "out" / "work")
    assert (first["project"], first["resume"]) == ("aligntune", "allow")
    steps = [point["train/global_step"] for point in points if "train/loss" in point]
    assert steps == [1, 2]
    assert last == {"finish": True}


def test_a_resumed_stage_continues_its_wandb_run(tiny_model, tmp_path, wandb):
    chosen = spec(loggers=("wandb",), max_steps=2)
    with pytest.raises(Interrupted):
        run(tiny_model, chosen, place(tmp_path / "out", lambda: True))
    run(tiny_model, chosen, place(tmp_path / "out"))
    runs = [note["id"] for note in wandb() if "id" in note]
    assert len(runs) == 2
    assert runs[0] == runs[1]


def test_wandb_without_a_login_is_a_mistake_in_the_settings(
    tiny_model, tmp_path, wandb, monkeypatch
):
    monkeypatch.setenv("REFUSE", "1")
    with pytest.raises(ConfigError, match="wandb: no API key; log in with `wandb login`"):
        run(tiny_model, spec(loggers=("wandb",), max_steps=1), place(tmp_path))


def test_a_logger_that_is_not_installed_is_named(tiny_model, tmp_path, monkeypatch):
    assert missing(("tensorboard", "mlflow")) == []
    monkeypatch.setattr("aligntune.train.loggers.find_spec", lambda name: None)
    assert missing(("tensorboard", "mlflow", "wandb")) == ["tensorboard", "wandb"]
    with pytest.raises(ConfigError, match="`pip install wandb`"):
        run(tiny_model, spec(loggers=("wandb",)), place(tmp_path))

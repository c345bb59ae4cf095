"""Whatever a run, a model, a revision or a setting is called: nothing is written elsewhere."""

import os
import random
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aligntune.config.dump import dump
from aligntune.config.load import load
from aligntune.config.overrides import override
from aligntune.errors import AlignTuneError
from aligntune.hub import commit_of
from aligntune.paths import Paths
from aligntune.pipeline import steps
from aligntune.promotion import lock_of
from aligntune.slicing import policy_name
from aligntune.sweep.points import name as run_name

COUNT = 5_000 if os.environ.get("ALIGNTUNE_SECURITY_ALL") else 100
SEED = int(os.environ.get("ALIGNTUNE_SECURITY_SEED", "1"))
PIECES = [
    "..", "/", "\\", "../", "..\\", "/etc/passwd", "~", "~root", "$HOME", "${HOME}", "%2e%2e%2f",
    ".", "", " ", "\n", "\r", "\t", "\x00", "\x1b[2J", "\u2215", "\uff0e\uff0e\uff0f", "\u202e",
    "é", "CON", "NUL.txt", "aux", "-rf", "--help", "*", "?", "`id`", "$(id)", ";", "|", "&", "'",
    '"', "<", "a" * 300, "name", "x", "owner/name", "main", "refs/pr/1", ":", "::", "file://",
    "http://h/x", "@", "#", "=", ",", "{", "}", "[", "]", "{{ x }}", "models:/m@a", "\ud800", "C:",
    "\\\\host\\share",
]  # fmt: skip
ALWAYS = ("..", "../..", "/etc/passwd", "../../../../../x", "x/../../../../../y", "..\\..\\x")
"""Paths without any other odd character, of which few are drawn."""
FIELDS = (
    "logging.run_name", "logging.sweep", "logging.hub_model_id", "registry.name", "model.revision",
    "model.name_or_path", "datasets.0.name", "datasets.0.subset", "datasets.0.split",
    "deployment.name", "deployment.tags.0",
)  # fmt: skip
CONFIG = """
algo: dpo
model: {{name_or_path: owner/model}}
datasets: [{{name: owner/data}}]
deployment: {{tags: [x]}}
logging: {{output_dir: {output}, run_name: run}}
"""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {
    "os.mkdir": (0,), "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,), "os.remove": (0,),
    "os.rmdir": (0,), "os.truncate": (0,), "shutil.rmtree": (0,),
}  # fmt: skip


def names():
    yield from ALWAYS
    drawn = random.Random(SEED)
    for _ in range(COUNT):
        yield "".join(drawn.choices(PIECES, k=drawn.randint(1, 5)))


class Escaped(BaseException):
    """Something was about to be written elsewhere."""


class Witness:
    """Sees to it that this process changes nothing outside of `roots`, as long as there are any: it
    stops what would."""

    def __init__(self):
        self.roots, self.seen = (), 0
        sys.addaudithook(self._hook)

    def _hook(self, event, args):
        if not self.roots:
            return
        paths = [args[at] for at in CHANGES.get(event, ())]
        if event == "open" and isinstance(args[0], str | bytes) and args[2] & WRITES:
            paths.append(args[0])
        for path in map(os.fsdecode, paths):
            self.seen += 1
            place = Path(os.path.abspath(path))
            if not any(place.is_relative_to(root) for root in self.roots):
                raise Escaped(path)

    @contextmanager
    def within(self, *roots):
        self.roots = roots
        try:
            yield
        finally:
            self.roots = ()


@pytest.fixture(scope="module")
def witness():
    return Witness()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that knows every revision of everything."""
    from huggingface_hub import constants

    class Info:
        sha = "a" * 40

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("aligntune.hub._offline", lambda: False)
    monkeypatch.setattr("aligntune.hub._info", lambda *_: Info)
    return tmp_path / "cache"


def leave_traces(config):
    """What a run of `config` writes under names that come from it."""
    paths = Paths.of(config)
    for step in steps(config, tracking_uri="local", hub_endpoint="https://hub"):
        (paths.stages / f"{step.kind}-0123456789ab").mkdir(parents=True, exist_ok=True)
        link = paths.run / "stages" / step.label
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_text("")
    (paths.run / "config.yaml").write_text(dump(config))
    (paths.root / "sweeps" / (config.logging.sweep or "x")).mkdir(parents=True, exist_ok=True)
    lock_of(policy_name(config), paths.root).write_text("")
    lock_of(f"{config.model.name_or_path}/{config.datasets[0].name}", paths.root).write_text("")
    commit_of(config.model.name_or_path, "model", config.model.revision)


def test_nothing_is_written_outside_the_output_directory(tmp_path, hub, witness):
    file, output = tmp_path / "run.yaml", tmp_path / "out"
    file.write_text(CONFIG.format(output=output))
    taken = dict.fromkeys(FIELDS, 0)
    for name in names():
        for field in FIELDS:
            with suppress(AlignTuneError), witness.within(output, hub):
                leave_traces(load([file], [override(field, name)]))
                taken[field] += 1
    assert witness.seen > COUNT
    assert all(taken[field] for field in ("logging.run_name", "model.revision", "datasets.0.name"))


def test_a_run_of_a_sweep_has_a_safe_name(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG.format(output=tmp_path / "out"))
    for name in list(names())[:300]:
        made = run_name("run", {"datasets.0.name": name})
        assert load([file], [f"logging.run_name={made}"]).logging.run_name == made


def test_the_witness_sees_what_is_written(tmp_path, witness):
    (tmp_path / "out").mkdir()
    with witness.within(tmp_path / "out"):
        (tmp_path / "out" / "file").write_text("x")
        with pytest.raises(Escaped):
            (tmp_path / "out" / ".." / "else").mkdir()
        with pytest.raises(Escaped):
            (tmp_path / "file").write_text("x")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}

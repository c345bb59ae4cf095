"""One run with secrets around it and hostile texts in it: interrupted, continued, pushed, and once
more with a bug in it and MLflow away. Then all that it left is searched."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import TOKEN, LoopbackHub
from pages import HOSTILE, Page
from waits import wait_for_checkpoint

import aligntune

HERE = Path(__file__).parent
ALL = bool(os.environ.get("ALIGNTUNE_SECURITY_ALL"))
"""The large size: every hostile text is in the data, and not every fifth."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

CONFIG = """
algo: dpo
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 160}}
sft:
  datasets: [{{name: "{rows}"}}]
  train: {{per_device_batch_size: 2, max_steps: 4, learning_rate: 1e-3}}
datasets: [{{name: "{pairs}"}}]
train: {{per_device_batch_size: 2, max_steps: 24, learning_rate: 1e-4}}
evaluation:
  datasets: [{{name: "{rows}"}}]
  max_new_tokens: 4
  resamples: 100
cleaning: {{decontaminate: null, duplicates: keep}}
sample_logging: {{interval_steps: 8, max_new_tokens: 4}}
registry: {{name: tiny}}
logging:
  output_dir: {output}
  run_name: scene
  save_steps: 2
  push_to_hub: true
  hub_model_id: me/scene
"""
TERMINAL = ["\x1b[31mred\x1b[0m \x1b]0;title\x07", "\x9b2J over\rwritten \u202eback"]
CANARIES = {
    "HF_TOKEN": TOKEN,
    "MLFLOW_TRACKING_PASSWORD": "canary-mlflow-7f3a",
    "MLFLOW_TRACKING_TOKEN": "canary-mltoken-1b9c",
    "WANDB_API_KEY": "canary-wandb-90de",
    "AWS_ACCESS_KEY_ID": "AKIACANARY7F3A1B9C0D",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-55ab",
    "AWS_SESSION_TOKEN": "canary-session-61cd",
    "PREFECT_API_KEY": "canary-prefect-72ef",
    "PREFECT_API_AUTH_STRING": "admin:canary-auth-83fa",
    "OPENAI_API_KEY": "canary-openai-94ab",
    "GITHUB_TOKEN": "canary-github-a5bc",
    "PGPASSWORD": "canary-postgres-b6cd",
}
IN_URL, IN_NETRC = "canary-url-c7de", "canary-netrc-d8ef"


class Scene:
    """Everything that the runs left, below one folder."""

    def __init__(self, folder: Path, model: Path, hub: LoopbackHub) -> None:
        self.folder, self.hub = folder, hub
        self.witness = folder / "witness.jsonl"
        for name in ("home", "tmp"):
            (folder / name).mkdir()
        (folder / "home" / ".netrc").write_text(f"machine 127.0.0.1 login me password {IN_NETRC}\n")
        texts = HOSTILE if ALL else HOSTILE[::5]
        texts = [text.encode("utf-8", "replace").decode() for text in [*TERMINAL, *texts]]
        texts = [text for text in texts if "\x00" not in text]  # no row may have one
        rows, pairs = folder / "<img src=x onerror=alert(1)>.jsonl", folder / "pairs.jsonl"
        rows.write_text("".join(_line(prompt=t, completion=t) for t in texts))
        pairs.write_text("".join(_line(prompt=t, chosen=t, rejected=t + "x") for t in texts))
        self.config = folder / "scene.yaml"
        self.config.write_text(
            CONFIG.format(model=model, rows=rows, pairs=pairs, output=folder / "out")
        )
        own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        own["PYTHONPATH"] = str(Path(aligntune.__file__).parent.parent)
        self.variables = os.environ | hub.env(folder / "tmp") | CANARIES | own
        self.variables |= {"ALIGNTUNE_WITNESS": str(self.witness), "TERM": "xterm"}

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(HERE / "audited.py"), "train", "-c", str(self.config), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.variables | variables,
            cwd=self.folder,
        )

    def end(self, process: subprocess.Popen[str], name: str) -> int:
        said, _ = process.communicate(timeout=900)
        (self.folder / f"{name}.log").write_text(said)
        return process.returncode

    def files(self) -> list[Path]:
        """What was written: not what was given."""
        given = {self.config, self.folder / "home" / ".netrc"}
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return [path for path in found if path not in given and path.suffix != ".safetensors"]


def _line(**row: str) -> str:
    return json.dumps(row) + "\n"


@pytest.fixture(scope="module")
def scene(tmp_path_factory, tiny_model):
    with LoopbackHub() as hub:
        made = Scene(tmp_path_factory.mktemp("scene"), tiny_model, hub)
        first = made.start()
        wait_for_checkpoint(made.folder / "out", first, "dpo")
        first.send_signal(signal.SIGTERM)
        assert made.end(first, "interrupted") == 75, (made.folder / "interrupted.log").read_text()
        assert made.end(made.start(), "finished") == 0, (made.folder / "finished.log").read_text()
        away = {"MLFLOW_TRACKING_URI": f"http://me:{IN_URL}@127.0.0.1:9", "ALIGNTUNE_BUG": "dpo"}
        changed = ("--set", "train.beta=0.2", "--set", "registry.enabled=false")
        assert made.end(made.start(*changed, **away), "crashed") == 70
        for name, content in hub.files("model", "me/scene").items():
            if not name.endswith(".safetensors"):
                target = made.folder / "hub" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        yield made


def test_no_secret_is_in_anything_that_the_runs_left(scene):
    secrets = [*CANARIES.values(), IN_URL, IN_NETRC]
    files = scene.files()
    kinds = {"mlflow.db", "report.html", "README.md", "crashed.log", "config.yaml", "record.json"}
    assert kinds <= {path.name for path in files}, "the search looked at everything"
    assert any(path.parent.name == "tmp" and path.suffix == ".log" for path in files), "a traceback"
    found = [
        (secret, path)
        for path in files
        for content in [path.read_bytes()]
        for secret in secrets
        if secret.encode() in content
    ]
    assert found == []


def test_nothing_is_unpickled_and_torch_loads_only_what_the_run_wrote(scene):
    lines = [json.loads(line) for line in scene.witness.read_text().splitlines()]
    assert [line for line in lines if "class" in line] == []
    loads = [Path(line["loads"]) for line in lines if "loads" in line]
    loads = [path for path in loads if path.suffix not in (".py", ".pyc")]  # imports on the way
    assert loads, "the run was resumed, which loads the optimizer"
    stages = (scene.folder / "out" / "stages").resolve()
    assert {path for path in loads if stages not in path.resolve().parents} == set()


def test_the_witness_sees_what_is_unpickled(tmp_path):
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps(Path))
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import audited, pickle\n"
        f"audited.watch({str(tmp_path / 'seen')!r})\n"
        f"pickle.load(open({str(evil)!r}, 'rb'))\n"
        "import torch\n"
        f"file = {str(tmp_path / 'x.pt')!r}\n"
        "torch.save({'a': 1}, file); torch.load(file)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    lines = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert "pathlib.Path" in {line.get("class") for line in lines}
    assert str(tmp_path / "x.pt") in {line.get("loads") for line in lines}


def test_no_text_is_an_element_of_a_page(scene):
    pages = [path for path in scene.files() if path.suffix == ".html"]
    assert len(pages) >= 4
    for path in pages:
        page = Page(path.read_text(encoding="utf-8"))
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"script", "img", "iframe", "object", "form", "base", "math"}, path
        handlers = [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
        assert handlers == [], path
        assert not [link for link in page.links() if "script:" in link], path


def test_no_text_moves_the_cursor_of_a_terminal(scene):
    for name in ("interrupted", "finished", "crashed"):
        said = (scene.folder / f"{name}.log").read_text()
        odd = {c for c in said if not c.isprintable() and c not in "\n\r\t"}
        assert odd == set(), name

"""An output directory as many runs of one pipeline leave it, written in no time."""

import copy
import json
from pathlib import Path

from aligntune.artifacts import MANIFEST, FileRecord, Manifest, key_of
from aligntune.config.dump import dump
from aligntune.config.load import load
from aligntune.config.run import RunConfig
from aligntune.plan import Plan, plan

CONFIG = """\
algo: dpo
model: {name_or_path: MODEL}
sft:
  datasets: [{name: "arithmetic:"}]
  train: {max_steps: 10, learning_rate: 2.0e-4}
datasets: [{name: "arithmetic:"}]
train: {max_steps: 10, beta: 0.5}
registry: {promote: never}
logging: {output_dir: OUTPUT}
"""
FILES = ("metrics.jsonl", "samples.jsonl", "model/config.json", "model/model.safetensors",
         "model/tokenizer.json", "model/tokenizer_config.json", "model/generation_config.json",
         "model/chat_template.jinja", "environment.txt", "report.json")  # fmt: skip
"""Of every stage, each with one byte in it."""


def build(output: Path, model: Path, runs: int) -> RunConfig:
    """`runs` runs below `output` that differ in dpo's beta; the config of one that is not there.

    They share what comes before dpo: model, tokenizer, sft and the data.
    """
    output.mkdir(parents=True, exist_ok=True)
    file = output / "run.yaml"
    file.write_text(CONFIG.replace("MODEL", str(model)).replace("OUTPUT", str(output)))
    config = load([file])
    template, text = plan(config), dump(config)
    for number in range(runs):
        beta = 1 + number / 1000
        folder = output / "runs" / f"run-{number}"
        folder.mkdir(parents=True)
        names = _stages(template, output / "stages", beta)
        rows = [{"stage": label, "artifact": name} for label, name in names.items()]
        (folder / "plan.json").write_text(json.dumps(rows))
        (folder / "config.yaml").write_text(text.replace("beta: 0.5", f"beta: {beta}"))
        (folder / "status.json").write_text(
            json.dumps({"state": "finished", "started": f"2026-01-01 {number:06d}"})
        )
    return config


def _stages(template: Plan, stages: Path, beta: float) -> dict[str, str]:
    """Label -> name of each stage, which are finished now."""
    names: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for planned in template.stages:
        stage = planned.stage
        identity = copy.deepcopy(dict(stage.identity))
        identity["inputs"] = {role: renamed[name] for role, name in stage.inputs.items()}
        if stage.label == template.config.algo:
            identity["config"]["train"]["beta"] = beta
        key = key_of(identity)
        names[stage.label] = renamed[stage.name] = f"{stage.kind}-{key}"
        _finish(stages / f"{stage.kind}-{key}", stage.kind, key, identity)
    return names


def _finish(folder: Path, kind: str, key: str, identity: dict) -> None:
    if folder.exists():
        return
    (folder / "model").mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("x")
    manifest = Manifest(
        kind=kind, key=key, identity=identity, inputs=identity["inputs"], environment={},
        metrics={f"metric_{number}": 0.5 for number in range(10)}, started="", finished="",
        seconds=1.0, files=dict.fromkeys(FILES, FileRecord(sha256="0" * 64, size=1)),
    )  # fmt: skip
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2))

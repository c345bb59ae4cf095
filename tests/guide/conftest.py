"""A hub that has what the guide names: the models and datasets of its examples, made small."""

import json

import pytest
from loopback_hub import LoopbackHub
from tiny import build_tiny_gpt2

FIRST = "\n\nHuman: Hi, {0}\n\nAssistant: Hello\n\nHuman: What is {0}?\n\nAssistant:"


@pytest.fixture(scope="session")
def hub_root(tmp_path_factory):
    """DialoGPT is a GPT-2: no chat template, no padding token, 1024 learned positions."""
    root = tmp_path_factory.mktemp("guide-hub")
    for seed, size in enumerate(("small", "medium")):
        build_tiny_gpt2(root / "models" / "microsoft" / f"DialoGPT-{size}", context=1024, seed=seed)
    pairs = [
        {"chosen": FIRST.format(i) + f" {i} is nice.", "rejected": FIRST.format(i) + " No."}
        for i in range(1200)
    ]
    _write(root / "datasets" / "Anthropic" / "hh-rlhf", pairs)
    tasks = [
        {"instruction": f"Name {i}", "input": "", "output": f"It is {i}.", "text": "..."}
        for i in range(1200)
    ]
    _write(root / "datasets" / "tatsu-lab" / "alpaca", tasks)
    return root


def _write(folder, rows):
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def hub(hub_root):
    with LoopbackHub(hub_root) as running:
        yield running

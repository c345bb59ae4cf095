"""The real `datasets` library against the loopback hub, in a process of its own."""

import gzip
import json
from pathlib import Path

import pytest
from loopback_hub import LoopbackHub
from own_process import printed

REAL_TREE = Path(__file__).parents[2] / "shared" / "hub"
LOAD = """
import json
from datasets import load_dataset, load_dataset_builder
from aligntune import hub
answers = []
for name, subset, split, kwargs in CASES:
    commit = hub.commit_of(name, "dataset", None)
    load = dict(revision=commit, **kwargs)
    files = load_dataset_builder(name, subset, **load).config.data_files[split]
    names = [file.split("@" + commit + "/")[1] for file in files]
    hub.download_dataset(name, commit, names)
    rows = hub.retrying(lambda: load_dataset(name, subset, split=split, **load), name)
    answers.append([len(rows), rows.column_names, rows[0]])
print(json.dumps(answers))
"""


def load(cases, env):
    return json.loads(printed(f"CASES = {cases!r}\n{LOAD}", env=env))


@pytest.fixture
def dataset_tree(tmp_path):
    """Small sets in the shapes of the real ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path / "tree" / "datasets"
    pairs = root / "Anthropic" / "hh-rlhf" / "harmless-base"
    pairs.mkdir(parents=True)
    for split, count in (("train", 3), ("test", 2)):
        rows = [json.dumps({"chosen": f"a{i}", "rejected": f"b{i}"}) for i in range(count)]
        (pairs / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    maths = root / "openai" / "gsm8k" / "main"
    maths.mkdir(parents=True)
    for split, count in (("train", 4), ("test", 2)):
        table = pa.table({"question": ["1+1?"] * count, "answer": ["#### 2"] * count})
        pq.write_table(table, maths / f"{split}-00000-of-00001.parquet")
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n"
    card += "  - {split: train, path: main/train-*}\n  - {split: test, path: main/test-*}\n---\n"
    (maths.parent / "README.md").write_text(card)
    demo = root / "llamafactory" / "demo_data"
    demo.mkdir(parents=True)
    (demo / "alpaca_en_demo.json").write_text(json.dumps([{"instruction": "x", "output": "y"}]))
    return root.parent


def test_datasets_loads_gzip_in_a_folder_parquet_by_card_and_json(dataset_tree, tmp_path):
    cases = [
        ("Anthropic/hh-rlhf", None, "train", {"data_dir": "harmless-base"}),
        ("openai/gsm8k", "main", "test", {}),
        ("llamafactory/demo_data", None, "train", {"data_files": "alpaca_en_demo.json"}),
    ]
    with LoopbackHub(dataset_tree) as server:
        server.fail(503, method="GET", path="/resolve/.*parquet")
        pairs, maths, demo = load(cases, server.env(tmp_path))
        assert server.count("GET", r"/resolve/.*test-00000") == 2, "one refusal and one download"
    assert pairs == [3, ["chosen", "rejected"], {"chosen": "a0", "rejected": "b0"}]
    assert maths[:2] == [2, ["question", "answer"]]
    assert demo == [1, ["instruction", "output"], {"instruction": "x", "output": "y"}]


@pytest.mark.skipif(not REAL_TREE.is_dir(), reason="the real data of ../shared/hub is not here")
def test_datasets_loads_the_real_sets(tmp_path):
    cases = [
        ("Anthropic/hh-rlhf", None, "train", {"data_dir": "harmless-base"}),
        ("openai/gsm8k", None, "test", {"data_dir": "main"}),
        ("llamafactory/demo_data", None, "train", {"data_files": "dpo_en_demo.json"}),
        ("google/IFEval", None, "train", {}),
        ("openai/openai_humaneval", None, "test", {}),
    ]
    with LoopbackHub(REAL_TREE) as server:
        answers = load(cases, server.env(tmp_path))
    assert [rows for rows, _, _ in answers] == [1500, 500, 240, 300, 100]

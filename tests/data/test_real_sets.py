"""Parts of public sets, where they are: ../shared/hub/datasets beside the project."""

import gzip
import json
import os
import sys
from pathlib import Path

import pytest
from data.conftest import DEFAULTS, PREPARE
from loopback_hub import LoopbackHub
from own_process import printed

from aligntune.data.rows import question_of

HUB = Path(__file__).parents[3] / "shared" / "hub" / "datasets"
pytestmark = pytest.mark.skipif(not HUB.is_dir(), reason="../shared/hub/datasets is not here")

HH = {"name": str(HUB / "Anthropic/hh-rlhf/harmless-base/train.jsonl.gz")}
GSM8K = {"name": str(HUB / "openai/gsm8k/main/train-00000-of-00001.parquet")}


def demo(name):
    return {"name": str(HUB / "llamafactory/demo_data" / f"{name}_en_demo.json")}


@pytest.mark.parametrize(
    ("dataset", "layout", "kept", "rejected"),
    [
        (HH, "transcripts", 1491, 9),
        (GSM8K, "question_answer", 7473, 0),
        (demo("alpaca"), "alpaca", 799, 0),
        (demo("dpo"), "preference_conversations", 240, 0),
        (demo("kto"), "unpaired_messages", 240, 0),
        ({"name": str(HUB / "google/IFEval/ifeval_input_data.jsonl")}, "prompt", 300, 0),
    ],
    ids=["hh-rlhf", "gsm8k", "alpaca", "dpo", "kto", "ifeval"],
)
def test_a_public_set_is_recognised_and_almost_all_of_it_kept(
    run_stage, dataset, layout, kept, rejected
):
    every = {"duplicates": "keep", "decontaminate": None}
    made = run_stage(dataset, heldout_fraction=0.05, cleaning=every)
    (source,) = made.facts["sources"]
    assert (source["format"], source["kept"], source["invalid"]) == (layout, kept, rejected)
    assert not set(map(question_of, made.train)) & set(map(question_of, made.heldout))


def test_hh_keeps_every_turn_and_says_what_is_wrong_with_the_rest(run_stage):
    made = run_stage(HH)
    assert max(len(row["prompt"]) for row in made.train) >= 7
    assert {row["reason"] for row in made.rejected} == {
        "a turn is empty",
        "`chosen` and `rejected` answer different prompts",
        "the prompt's roles do not alternate and end with the user",
    }
    assert not any("\n\nHuman:" in turn["content"] for row in made.train for turn in row["chosen"])


@pytest.mark.parametrize("percent", [100, 90, 80, 70, 60, 50])
def test_a_small_sample_of_hh_goes_through(run_stage, percent):
    sample = {"percent": percent, "max_samples": 120}
    made = run_stage({**HH, **sample, "task_type": "conversation"})
    assert len(made.train) + made.metrics["invalid"] + made.metrics["duplicates"] == 120


def test_gsm8k_has_its_results_as_references(run_stage):
    row = run_stage(GSM8K, task="prompt").train[0]
    assert row["answer"].replace(",", "").lstrip("-").replace(".", "").isdecimal()
    text = run_stage(GSM8K).train[0]["messages"][-1]["content"]
    assert text.rpartition("#### ")[2] == row["answer"]


ON_THE_HUB = [
    # (dataset, rows read, layout, valid rows)
    ({"name": "Anthropic/hh-rlhf", "subset": "harmless-base"}, 1500, "transcripts", 1491),
    (
        {"name": "Anthropic/hh-rlhf", "subset": "harmless-base", "split": "test"},
        300, "transcripts", 299,
    ),
    ({"name": "openai/gsm8k", "subset": "main"}, 7473, "question_answer", 7473),
    ({"name": "openai/gsm8k", "subset": "main", "split": "test"}, 500, "question_answer", 500),
    (
        {"name": "llamafactory/demo_data", "subset": "alpaca_en_demo.json"},
        799, "alpaca", 799,
    ),
    (
        {"name": "llamafactory/demo_data", "subset": "dpo_en_demo.json"},
        240, "preference_conversations", 240,
    ),
    (
        {"name": "llamafactory/demo_data", "subset": "kto_en_demo.json"},
        240, "unpaired_messages", 240,
    ),
    ({"name": "google/IFEval"}, 300, "prompt", 300),
]  # fmt: skip


def test_under_their_hub_names_every_row_arrives(tmp_path):
    every = {"duplicates": "keep", "decontaminate": None}
    with LoopbackHub(HUB.parent) as hub:
        said = printed(
            PREPARE,
            json.dumps([dataset for dataset, *_ in ON_THE_HUB]),
            json.dumps(DEFAULTS | {"cleaning": every}),
            env=hub.env(tmp_path) | {"PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=tmp_path,
        )
    found = json.loads(said.splitlines()[-1])
    assert [[each["read"], each["format"], each["kept"]] for each in found] == [
        expected for _, *expected in ON_THE_HUB
    ]
    assert all(each["fingerprint"].startswith("commit:") for each in found)


def test_hh_dialogues_keep_every_turn(run_stage):
    """As many turns as the text has markers, of every dialogue that is kept."""
    with gzip.open(HH["name"], "rt") as file:
        texts = [json.loads(line)["chosen"] for line in file if line.strip()]
    made = run_stage(HH, cleaning={"duplicates": "keep"})
    told = {row["chosen"][0]["content"]: len(row["prompt"]) + 1 for row in made.train}
    counted = 0
    for text in texts:
        markers = text.count("\n\nHuman:") + text.count("\n\nAssistant:")
        answer = text.rpartition("\n\nAssistant:")[2].strip()
        counted += told.get(answer) == markers
    assert counted >= 1480

"""What would stop a run on this machine is known before it starts, and by a glance at files."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aligntune import doctor, needs
from aligntune.config.naming import dotted
from aligntune.config.run import RunConfig

ROW = {"question": "q", "chosen": "c", "rejected": "r"}


def problems(algo="dpo", **sections):
    base = {
        "algo": algo,
        "model": {"name_or_path": "owner/model"},
        "datasets": [{"name": "owner/data"}],
        "rewards": [] if algo == "dpo" else [{"reward_type": "length"}],
    }
    return {dotted(p.path): p.message for p in needs.problems(RunConfig(**base | sections))}


def written(path):
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist([ROW]), path)
        return
    text = json.dumps(ROW) + "\n"
    if name.endswith(("csv", "tsv")):
        mark = "," if name.endswith("csv") else "\t"
        text = mark.join(ROW) + "\n" + mark.join(ROW.values()) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet"])
def test_columns_that_a_local_file_does_not_have_are_named(tmp_path, name):
    written(tmp_path / name)
    dataset = {"name": str(tmp_path / name), "columns": {"prompt": "question"}}
    assert problems(datasets=[dataset]) == {}
    found = problems(datasets=[dataset | {"columns": {"prompt": "questoin"}}])
    assert "unknown column 'questoin'; did you mean 'question'" in found["datasets.0.columns"]


def test_of_several_files_any_may_have_a_column_and_one_array_tells_nothing(tmp_path):
    written(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"question": "q", "other": 1}\n')
    dataset = {"name": f"{tmp_path}/*", "columns": {"prompt": "other"}}
    assert problems(datasets=[dataset]) == {}
    (tmp_path / "c.json").write_text(json.dumps([ROW]))
    assert problems(datasets=[dataset | {"columns": {"prompt": "none"}}]) == {}


def test_a_file_is_read_no_further_than_its_beginning(tmp_path):
    """What comes after it would be an error."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,chosen\n" + b'x,"never closed\n')
    found = problems(datasets=[{"name": str(path), "columns": {"prompt": "nope"}}])
    assert "unknown column 'nope'" in found["datasets.0.columns"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_columns_that_the_algorithm_cannot_learn_from_are_named(tmp_path, name):
    """Before a model is fetched, and for every list of data."""
    written(tmp_path / name)
    pairs = {"name": str(tmp_path / name)}
    model = {"objective": "bradley_terry", "datasets": [pairs]}
    assert problems(datasets=[pairs], sft={"datasets": [pairs]}, reward_model=model) == {}
    other = pairs | {"columns": {"x": "chosen", "y": "question"}}
    sections = {
        "datasets": [other],
        "sft": {"datasets": [other]},
        "evaluation": {"datasets": [other]},
        "reward_model": {"datasets": [other]},
    }
    for at, section in sections.items():
        found = problems(**{at: section})
        ((key, message),) = found.items()
        assert key == dotted((at, *([] if at == "datasets" else ["datasets"]), 0, "columns"))
        assert "has the columns rejected, x, y, which are no layout we know" in message
    asked = problems(datasets=[pairs | {"format": "alpaca"}])["datasets.0.format"]
    assert "but `format: alpaca` needs instruction, output" in asked


def test_columns_the_wrong_way_round_are_turned(tmp_path):
    written(tmp_path / "a.jsonl")
    dataset = {"name": str(tmp_path / "a.jsonl"), "columns": {"question": "prompt"}}
    message = problems(datasets=[dataset])["datasets.0.columns"]
    assert "it is new name: column, so write {prompt: question}" in message


def test_a_layout_that_there_is_not_is_named():
    found = problems(datasets=[{"name": "owner/data", "format": "alpacca"}])
    assert found == {"datasets.0.format": "unknown format 'alpacca'; did you mean 'alpaca'?"}


def test_a_directory_that_is_no_model_is_named(tmp_path):
    (tmp_path / "model").mkdir()
    found = problems(model={"name_or_path": str(tmp_path)})["model.name_or_path"]
    assert f"{tmp_path} has no config.json" in found
    (tmp_path / "config.json").write_text("{}")
    assert problems(model={"name_or_path": str(tmp_path)}) == {}


@pytest.mark.parametrize("installed", [True, False])
def test_vllm_and_flash_attention_need_a_gpu_and_their_packages(monkeypatch, installed):
    monkeypatch.setattr("aligntune.needs.has_gpu", lambda: False)
    monkeypatch.setattr("aligntune.needs.find_spec", lambda name: name if installed else None)
    model = {"name_or_path": "owner/model", "attn_implementation": "flash_attention_2"}
    found = problems("grpo", model=model, train={"vllm": {}})
    assert found.keys() >= {"model.attn_implementation", "train.vllm"}
    words = "needs a GPU" if installed else "pip install"
    assert all(words in message for message in found.values())
    monkeypatch.setattr("aligntune.needs.has_gpu", lambda: True)
    assert ("train.vllm" in problems("grpo", train={"vllm": {}})) is not installed


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("s3://bucket/out", "'s3://bucket/out' is an address"),
        ("file", "is a file; name a directory"),
        ("file/below", "is a file; name a directory"),
        ("closed/below", "may not be written to"),
    ],
)
def test_an_output_directory_that_cannot_be_is_named_by_validate_and_doctor(
    tmp_path, monkeypatch, output, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: "closed" not in str(path))  # not for root
    assert words in problems(logging={"output_dir": output})["logging.output_dir"]
    (*_, disk) = doctor._room(output)
    assert (disk.state, disk.what) == ("missing", "disk")
    assert words in disk.says
    assert problems(logging={"output_dir": "new/below"}) == {}
    assert not (tmp_path / "new").exists()

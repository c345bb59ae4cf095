"""Hub datasets, through the real `datasets` library and a hub on the loopback interface."""

import gzip
import json
import os
import sys

import pytest
from data.conftest import DEFAULTS, PREPARE
from loopback_hub import LoopbackHub
from own_process import printed

READ = """
import json, sys
from aligntune.config.data import Dataset
from aligntune.data.sources import fingerprint, read
from aligntune.errors import AlignTuneError
answers = []
for item in json.loads(sys.argv[1]):
    pinned = item.pop("pinned", None)
    dataset = Dataset(**item)
    try:
        pinned = pinned or fingerprint(dataset)
        rows = read(dataset, pinned)
        answers.append([pinned, list(rows.at(range(0, rows.count, 2)))])
    except AlignTuneError as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps(answers))
"""
CARD = (
    b"---\nconfigs:\n- {config_name: a, data_files: a.jsonl}\n"
    b"- {config_name: b, data_files: b.jsonl}\n---\n"
)


def lines(text, count):
    return "".join(json.dumps({"prompt": f"{text}{i}"}) + "\n" for i in range(count)).encode()


def read(hub, tmp_path, *datasets, **environment):
    """What a process of its own, in `tmp_path`, reads of each: [fingerprint, every other row]."""
    return told(hub, tmp_path, [READ, json.dumps(datasets)], environment)


def told(hub, tmp_path, program, environment):
    tmp_path.mkdir(exist_ok=True)
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    env = hub.env(tmp_path) | path | environment
    return json.loads(printed(*program, env=env, cwd=tmp_path))


@pytest.fixture
def hub():
    with LoopbackHub() as server:
        server.commit("dataset", "me/configs", {"README.md": CARD, "a.jsonl": lines("a", 3)})
        server.commit("dataset", "me/configs", {"b.jsonl": lines("b", 5)})
        folders = {
            "help/train.jsonl.gz": gzip.compress(lines("h", 3)),
            "help/test.jsonl.gz": gzip.compress(lines("t", 1)),
            "harm/train.jsonl.gz": gzip.compress(lines("x", 1)),
        }
        server.commit("dataset", "me/folders", folders)
        yield server


def test_rows_of_a_configuration_and_of_a_folder(hub, tmp_path):
    same_name_here = tmp_path / "me" / "configs"
    same_name_here.mkdir(parents=True)
    (same_name_here / "b.jsonl").write_bytes(lines("local", 2))
    hub.fail(503, path="/resolve/", times=1)
    configs, folders = (hub.commits(f"me/{name}", "dataset")[-1] for name in ("configs", "folders"))
    assert read(
        hub,
        tmp_path,
        {"name": "me/configs", "subset": "b"},
        {"name": "me/folders", "subset": "help"},
        {"name": "me/folders", "subset": "help", "split": "test"},
        {"name": "me/configs", "subset": "a", "columns": {"question": "prompt"}},
    ) == [
        [f"commit:{configs}", [{"prompt": "b0"}, {"prompt": "b2"}, {"prompt": "b4"}]],
        [f"commit:{folders}", [{"prompt": "h0"}, {"prompt": "h2"}]],
        [f"commit:{folders}", [{"prompt": "t0"}]],
        [f"commit:{configs}", [{"question": "a0"}, {"question": "a2"}]],
    ]


def test_wrong_names_are_explained(hub, tmp_path):
    hub.commit("dataset", "me/script", {"script.py": b"x = 1"})
    a = {"name": "me/configs", "subset": "a"}
    cases = [
        ({**a, "subset": "c"}, "'me/configs': unknown subset 'c'; choose from a, b"),
        ({"name": "me/configs"}, "'me/configs' needs a `subset`, one of 'a', 'b'"),
        (
            {"name": "me/folders", "subset": "help", "split": "tset"},
            "'me/folders': unknown split 'tset'; did you mean 'test'?",
        ),
        ({"name": "me/script"}, "'me/script': Dataset scripts are no longer supported"),
        ({"name": "me/none"}, "'me/none' (datasets.name) is not on the hub"),
        ({**a, "revision": "v9"}, "'me/configs' (datasets.name) has no such branch"),
        (
            {**a, "columns": {"question": "promt"}},
            "'me/configs', `columns`: unknown column 'promt'; did you mean 'prompt'?",
        ),
    ]
    answers = read(hub, tmp_path, *(dataset for dataset, _ in cases))
    for (_, message), answer in zip(cases, answers, strict=True):
        assert str(answer).startswith(f"ConfigError: dataset {message}")


def test_without_the_hub_only_the_pinned_commit_is_read_from_the_cache(hub, tmp_path):
    """`datasets` itself would take whatever it loaded last."""
    b = {"name": "me/configs", "subset": "b"}
    online = read(hub, tmp_path, b)
    newer = hub.commit("dataset", "me/configs", {"b.jsonl": lines("new", 9)})
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    again, *others = read(
        hub, tmp_path, b, {**b, "subset": "a"}, {**b, "pinned": f"commit:{newer}"}, **offline
    )
    assert [again] == online
    for answer in others:
        assert answer.startswith("ServiceError: dataset 'me/configs': this subset of commit")
    hub.fail("cut", path="/me/configs", times=10**6)
    (cut,) = read(hub, tmp_path, {**b, "pinned": f"commit:{newer}"}, ALIGNTUNE_HUB_BUDGET="1")
    assert cut.startswith("ServiceError: the hub did not serve dataset 'me/configs' within 1 s")


def test_slices_of_splits(hub, tmp_path):
    name = {"name": "me/configs", "subset": "b"}
    first, several, wrong = read(
        hub,
        tmp_path,
        {**name, "split": "train[:2]"},
        {**name, "split": "train[60%:]+train[:1]"},
        {**name, "split": "test[:2]+train"},
    )
    assert [row["prompt"] for row in first[1]] == ["b0"]
    assert [row["prompt"] for row in several[1]] == ["b3", "b0"]
    assert "unknown split 'test'; choose from train" in wrong


def test_what_is_no_text_is_not_opened(hub, tmp_path):
    """An image that is not there, and a sound that nothing here can play."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"prompt": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"},
             "sounds": {"feature": {"_type": "Audio"}, "_type": "List"},
             "level": {"_type": "Json"}}  # fmt: skip
    nowhere = {"bytes": None, "path": "none.png"}
    rows = [{"prompt": f"p{n}", "image": nowhere, "sounds": [nowhere], "level": '{"of": 1}'}
            for n in range(3)]  # fmt: skip
    described = json.dumps({"info": {"features": kinds}})
    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = [pa.string(), media, pa.list_(media), pa.json_()]
    schema = pa.schema(list(zip(kinds, types, strict=True)))
    path = tmp_path / "train.parquet"
    schema = schema.with_metadata({"huggingface": described})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    hub.commit("dataset", "me/seen", {"train.parquet": path.read_bytes()})
    stream = {"name": "me/seen", "streaming": True, "max_samples": 3}
    for _, found in read(hub, tmp_path, {"name": "me/seen"}, stream):
        assert sorted(row.pop("prompt")[0] for row in found) == ["p", "p"]
        assert [row["image"]["bytes"] for row in found] == [None, None]
        assert [row["level"] for row in found] == [{"of": 1}, {"of": 1}]
        assert found[0]["sounds"][0]["path"].endswith("none.png")


def test_a_file_of_a_repository_is_a_subset(hub, tmp_path):
    named, missing = read(
        hub,
        tmp_path,
        {"name": "me/folders", "subset": "help/test.jsonl.gz"},
        {"name": "me/folders", "subset": "none.jsonl"},
    )
    assert [row["prompt"] for row in named[1]] == ["t0"]
    assert missing.startswith("ConfigError: dataset 'me/folders': unknown subset 'none.jsonl'")


def test_a_streamed_sample_is_seeded_and_reads_no_more_than_it_needs(hub, tmp_path):
    shards = {f"part-{n}.jsonl": lines(f"p{n}-", 1_000) for n in range(40)}
    hub.commit("dataset", "me/huge", shards)
    stream = {"name": "me/huge", "streaming": True, "max_samples": 6}
    (first,) = read(hub, tmp_path, stream)
    (again,) = read(hub, tmp_path / "other", stream)
    assert first == again
    assert len(first[1]) == 3
    fetched = sum(hub.count("GET", rf"resolve/.*part-{n}\.") > 0 for n in range(40))
    assert fetched < 40


def test_a_streamed_sample_may_hold_more_bad_rows_than_its_source(hub, tmp_path):
    """As any other small sample may; all that is read of it is what was drawn."""
    rows = [{"prompt": f"p{n}", "completion": "" if n == 7 else "c"} for n in range(50)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    hub.commit("dataset", "me/huge", {"train.jsonl": text.encode()})
    streamed = {"name": "me/huge", "streaming": True, "max_samples": 50}
    program = [PREPARE, json.dumps([streamed]), json.dumps(DEFAULTS)]
    (found,) = told(hub, tmp_path, program, {})
    assert (found["invalid"], found["kept"]) == (1, 49)

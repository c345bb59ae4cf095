"""Names of datasets: what identifies their content, and how their rows are read."""

import gzip
import hashlib
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntune.config.data import Dataset
from aligntune.data.rows import Unreadable
from aligntune.data.sources import fingerprint, read
from aligntune.errors import AlignTuneError, ConfigError, DataError

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}\nü"} for i in range(5)]


def rows_of(name, **settings):
    dataset = Dataset(name=str(name), **settings)
    found = read(dataset, fingerprint(dataset))
    return list(found.at(range(found.count)))


def write(path, rows):
    lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    cells = ["prompt,completion", *(f'"{r.get("prompt")}","{r.get("completion")}"' for r in rows)]
    kind, _, packed = path.name.partition(".")[2].partition(".")
    table = pa.Table.from_pylist(rows)
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=2)
    elif "arrow" in (kind, packed):
        make = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with make(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    else:
        text = {
            "json": json.dumps(rows, indent=1).encode(),
            "csv": "\n".join(cells).encode("utf-8-sig"),
            "tsv": "\n".join(cells).replace(",", "\t").encode(),
        }.get(kind, lines)
        with pa.output_stream(path, compression="detect") as file:
            file.write(text)
    return path


SUFFIXES = [
    "jsonl", "jsonl.gz", "jsonl.zst", "ndjson", "json", "json.gz", "json.zst", "csv", "csv.gz",
    "tsv", "parquet", "arrow", "stream.arrow",
]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, suffix):
    path = write(tmp_path / f"rows.{suffix}", ROWS)
    assert rows_of(path) == ROWS


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(wanted=st.sets(st.integers(0, 4)))
@settings(max_examples=10, deadline=None)
def test_any_rows_can_be_asked_for(tmp_path_factory, suffix, wanted):
    path = write(tmp_path_factory.mktemp("files") / f"rows.{suffix}", ROWS)
    dataset = Dataset(name=str(path))
    found = read(dataset, fingerprint(dataset))
    assert list(found.at(sorted(wanted))) == [ROWS[index] for index in sorted(wanted)]


def test_json_may_have_an_object_per_line_and_rows_may_differ(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, "x"]}\n\n{"b": {"c": null}}\n')
    dataset = Dataset(name=str(path))
    found = read(dataset, fingerprint(dataset))
    assert (found.columns, found.count) == (("a", "b"), 2)
    assert list(found.at([1])) == [{"b": {"c": None}}]


def test_csv_cells_stay_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\n1+6,007\nnull,NA\n")
    assert rows_of(path) == [
        {"question": "1+6", "answer": "007"},
        {"question": "null", "answer": "NA"},
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"a": 1},\n {"a": 2},\n]', r"a\.json:[23]:\d+: not valid JSON"),
        ("a.json", b'[{"a": 1},\n\n "\xff"]', r"a\.json:3: byte 0xff is not UTF-8"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), r"a\.jsonl: is UTF-16; save the file as UTF-8"),
        ("a.jsonl.gz", b"not gzip", r"a\.jsonl\.gz: cannot be read: .*incorrect header"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-20],
            r"cannot be read: Truncated compressed stream",
        ),
        ("a.parquet", b"PAR1 nonsense", r"a\.parquet: cannot be read: "),
        ("a.csv", b"a,a\n1,2\n", r"a\.csv:1: two columns have the same name"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), r"a\.csv: is UTF-16; save the file as UTF-8"),
        ("a.json", '[{"a": 1}]'.encode("utf-16-le"), r"a\.json: is UTF-16"),
        ("a.csv", b'a,b\n1,2\n3,"4\n5,6\n', r"a\.csv:3: a quote is opened and never closed"),
        ("a.csv", b'a,"b"c\n1,2\n', r"a\.csv:1: text follows the quote that ends a cell"),
        ("a.json", b'{\n "data": [\n  {"a": 1}\n ]\n}\n', r"is one object with the keys data"),
        ("a.jsonl", b'{\n "a": 1\n}\n{\n "a": 2\n}\n', r"rows go over several lines; write"),
        ("a.csv", b"a,\xff\n1,2\n", r"a\.csv:1: .*not UTF-8; save the file as UTF-8"),
        ("a.jsonl", b"\n \n", r"a\.jsonl' \(train\) has no rows"),
        ("a.json", b"[]", r"a\.json' \(train\) has no rows"),
        ("a.csv", b"", r"a\.csv' \(train\) has no rows"),
        ("a.csv", b"a,b\n", r"has no rows"),
    ],
)
def test_a_broken_file_is_a_data_error_that_says_where(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        rows_of(path)


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: two columns have the same name"):
        rows_of(tmp_path / "a.parquet")


def test_text_that_is_not_utf8_is_wrong_in_its_own_row_only(tmp_path):
    cells = pa.array([b"good", b"bad \xff", b"fine"])
    table = pa.table({"a": cells.view(pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    first, second, third = rows_of(tmp_path / "a.parquet")
    assert (first, third) == ({"a": "good"}, {"a": "fine"})
    assert second == Unreadable("byte 0xff is not UTF-8")


def test_integers_keep_every_digit(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": {2**64 + 1}, "b": [{-(2**70)}], "c": 1e30}}\n')
    assert rows_of(path) == [{"a": 2**64 + 1, "b": [-(2**70)], "c": 1e30}]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
@settings(max_examples=30, deadline=None)
def test_the_place_of_a_row_is_its_line_whatever_lines_are_blank(tmp_path_factory, filled):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_text("".join('{"a": 1}\n' if full else " \n" for full in [*filled, True]))
    dataset = Dataset(name=str(path))
    found = read(dataset, fingerprint(dataset))
    lines = [number for number, full in enumerate([*filled, True], start=1) if full]
    assert [found.place(i) for i in range(found.count)] == [f"a.jsonl:{line}" for line in lines]


def test_files_of_two_kinds_are_no_dataset(tmp_path):
    write(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "c"}])
    write(tmp_path / "b.jsonl", [{"chosen": "p", "rejected": "c"}])
    with pytest.raises(DataError, match=r"a\.jsonl has the columns prompt, completion but b"):
        rows_of(tmp_path / "*.jsonl")


def test_a_damaged_page_of_parquet_is_a_data_error(tmp_path):
    path = write(tmp_path / "a.parquet", [{"a": f"{i}" * 50} for i in range(2000)])
    damaged = bytearray(path.read_bytes())
    damaged[200:400] = bytes(200)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read"):
        rows_of(path)


def test_columns_are_renamed_and_the_new_name_wins(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"q": "x", "prompt": "old", "kept": 1}, {"kept": 2}])
    dataset = Dataset(name=str(path), columns={"prompt": "q", "again": "q"})
    found = read(dataset, fingerprint(dataset))
    assert set(found.columns) == {"kept", "prompt", "again"}
    assert list(found.at([0, 1])) == [{"kept": 1, "prompt": "x", "again": "x"}, {"kept": 2}]


def test_an_unknown_column_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "x"}])
    with pytest.raises(ConfigError, match=r"`columns`: unknown column 'qestion'; did you mean 'qu"):
        rows_of(path, columns={"prompt": "qestion"})


def test_a_file_is_identified_by_its_content(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", ROWS)
    expected = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(path), "a.jsonl", "./a.jsonl", "~/a.jsonl"):
        assert fingerprint(Dataset(name=name)) == expected


def test_a_file_that_changed_since_the_plan_is_not_read(tmp_path):
    dataset = Dataset(name=str(write(tmp_path / "a.jsonl", ROWS)))
    planned = fingerprint(dataset)
    write(tmp_path / "a.jsonl", ROWS[:2])
    with pytest.raises(DataError, match="has changed since the run was planned"):
        read(dataset, planned)


def test_a_generator_is_identified_by_its_version():
    assert fingerprint(Dataset(name="arithmetic:", split="test")) == "procedural:arithmetic:1"


def test_generated_rows_are_read():
    assert len(rows_of("arithmetic:", params={"count": 7})) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "./none.jsonl"}, r"'./none.jsonl' does not exist; /.*/none\.jsonl was looked"),
        ({"name": "none.parquet"}, r"does not exist; /.*/none\.parquet was looked for"),
        ({"name": "./empty/"}, "is a directory without data files; /"),
        ({"name": "none/*.jsonl"}, r"'none/\*\.jsonl' does not exist; /"),
        ({"name": "a.jsonl", "streaming": True}, "`streaming` is for hub datasets"),
        ({"name": "a.jsonl", "eval_split": "x"}, "`eval_split` is for datasets with splits"),
        ({"name": "owner/name", "streaming": True}, "say how much with `max_samples`"),
        ({"name": "no.such.module:rows"}, "there is no module 'no.such.module' on the Python"),
        ({"name": "no_module:rows"}, "there is no module 'no_module' here, and unknown generator"),
        ({"name": "mlflow:123"}, "no MLflow to ask; set MLFLOW_TRACKING_URI"),
        ({"name": "nope://bucket/a.jsonl"}, "nope:// cannot be read; use a protocol that fsspec"),
        ({"name": "~no-such-user/a.jsonl"}, r"does not exist; /.*/~no-such-user/a\.jsonl was"),
        ({"name": "empty"}, r"a directory here and .* hub .*; write \./empty/ for the directory"),
        ({"name": "a.txt"}, r"unknown kind of file; its name must end in one of \.jsonl, "),
        ({"name": "./a.txt"}, r"unknown kind of file; its name must end in one of \.jsonl, "),
        ({"name": "a.jsonl", "split": "test"}, "a file is one split, so `split` must be 'train'"),
        ({"name": "a.jsonl", "subset": "x"}, "`subset` is for hub datasets; remove it"),
        ({"name": "a.jsonl", "revision": "x"}, "`revision` is for hub datasets"),
        ({"name": "a.jsonl", "params": {"count": 1}}, "`params` is for generators"),
        ({"name": "owner/name", "params": {"count": 1}}, "`params` is for generators"),
        ({"name": "arithmetic:", "subset": "x"}, "'arithmetic:': `subset` is for hub datasets"),
        ({"name": "arithmetic:", "params": {"cuont": 1}}, "'arithmetic:': params.cuont: unknown"),
        ({"name": "aritmetic:"}, "unknown generator 'aritmetic'; did you mean 'arithmetic'"),
    ],
)
def test_what_is_wrong_with_a_name_is_known_before_rows_are_read(
    tmp_path, monkeypatch, settings, message
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=message):
        fingerprint(Dataset(**settings))


def test_an_unknown_split_of_a_generator_is_refused():
    with pytest.raises(ConfigError, match="'arithmetic:': unknown split 'validation'; choose from"):
        rows_of("arithmetic:", split="validation")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": 2,}\n', "not valid JSON: "),
        ("a.jsonl", b'{"a": 1}\n\n[1]\n', "an array and not an object"),
        ("a.jsonl", b'{"a": 1}\n\n"x"\n', "a string and not an object"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": "\xff"}\n', "byte 0xff is not UTF-8"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": ' + b"[" * 10**6, "not valid JSON|nested too deep"),
        ("a.csv", b"a,b\n1,2\n3\n", "1 cells, but the header has 2"),
        ("a.csv", b"a,b\n1,2\n1,\xff\n", "text is not UTF-8"),
        ("a.json", b'[{"a": 1}, 7]', "a number and not an object"),
    ],
)
def test_a_broken_row_does_not_hide_the_others(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    dataset = Dataset(name=str(path))
    found = read(dataset, fingerprint(dataset))
    good, bad = found.at([0, 1])
    assert str(good["a"]) == "1"
    assert isinstance(bad, Unreadable)
    assert re.search(reason, bad.reason)
    assert found.place(1) == ("a.json row 2" if name == "a.json" else f"{name}:3")


def test_only_python_reads_nan_and_the_row_stays_as_it_was(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": NaN, "b": 1}\n')
    (row,) = rows_of(path)
    assert row["a"] != row["a"]
    assert row["b"] == 1


def test_a_glob_and_a_directory_are_their_files_by_name(tmp_path):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for name, start in (("b.jsonl", 2), ("a.jsonl.gz", 0), ("sub/c.parquet", 4)):
        write(folder / name, [{"n": start}, {"n": start + 1}])
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.jsonl").write_text("{}")
    assert [row["n"] for row in rows_of(f"{folder}/")] == [0, 1, 2, 3, 4, 5]
    assert [row["n"] for row in rows_of(folder / "*.jsonl*")] == [0, 1, 2, 3]
    dataset = Dataset(name=str(folder / "**" / "*"))
    found = read(dataset, fingerprint(dataset))
    assert [row["n"] for row in found.at([1, 4])] == [1, 4]
    assert [found.place(i) for i in (1, 2, 4)] == [
        "a.jsonl.gz:2", "b.jsonl:1", "sub/c.parquet row 1",
    ]  # fmt: skip
    before = fingerprint(dataset)
    write(folder / "b.jsonl", [{"n": 9}])
    assert fingerprint(dataset) != before


def test_a_url_is_fetched_once_per_content(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/b.jsonl", b'{"prompt": "p", "completion": "2"}')
    memory.pipe("/bucket/a.jsonl", b'{"prompt": "p", "completion": "1"}')
    assert [row["completion"] for row in rows_of("memory://bucket/*.jsonl")] == ["1", "2"]
    assert len(list((tmp_path / "cache").rglob("*.jsonl"))) == 2
    rows_of("memory://bucket/a.jsonl")
    assert len(list((tmp_path / "cache").rglob("*.jsonl"))) == 2
    first = fingerprint(Dataset(name="memory://bucket/a.jsonl"))
    memory.pipe("/bucket/a.jsonl", b'{"prompt": "p", "completion": "3"}')
    assert fingerprint(Dataset(name="memory://bucket/a.jsonl")) != first
    for missing in ("memory://bucket/none.jsonl", f"zip://a.jsonl::{tmp_path}/none.zip"):
        with pytest.raises(ConfigError, match="there is no such file"):
            rows_of(missing)


def test_a_server_is_a_source_and_its_password_is_not_shown(tmp_path, monkeypatch):
    from aligntune.data.urls import public

    address = "https://me:secret@host/a.jsonl?token=x"
    assert public(address) == "https://host/a.jsonl"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(AlignTuneError) as refused:
        rows_of("http://me:secret@127.0.0.1:9/a.jsonl?token=x")
    assert "secret" not in str(refused.value)
    assert "token" not in str(refused.value)


def test_a_function_makes_rows_and_its_source_is_part_of_what_they_are(tmp_path, monkeypatch):
    module = tmp_path / "own_rows.py"
    module.write_text(
        "def rows(count=2):\n"
        "    for n in range(count):\n"
        "        yield {'prompt': f'p{n}', 'completion': 'c'}\n"
        "def broken():\n"
        "    yield 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [row["prompt"] for row in rows_of("own_rows:rows", params={"count": 3})] == [
        "p0", "p1", "p2",
    ]  # fmt: skip
    first = fingerprint(Dataset(name="own_rows:rows"))
    assert fingerprint(Dataset(name="own_rows:rows", params={"count": 3})) != first
    with pytest.raises(DataError, match="item 1 is int; yield dicts"):
        rows_of("own_rows:broken")
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'wrong'.*\(count=2\)"):
        rows_of("own_rows:rows", params={"wrong": 1})
    with pytest.raises(ConfigError, match="cannot be imported"):
        rows_of("own_rows:none")
    module.write_text(module.read_text() + "# another\n")
    assert fingerprint(Dataset(name="own_rows:rows")) != first


def test_the_dataset_of_an_mlflow_run_is_a_source(tmp_path, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.entities import Dataset as Logged
    from mlflow.entities import DatasetInput, InputTag

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    path = write(tmp_path / "rows.parquet", ROWS)
    client = MlflowClient(store)
    run_id = client.create_run("0").info.run_id
    for name in ("one", "two"):
        source = json.dumps({"uri": str(path)})
        logged = Logged(name=name, digest="d", source_type="local", source=source)
        tags = [InputTag("mlflow.data.context", f"{name}-context")]
        client.log_inputs(run_id, [DatasetInput(logged, tags)])
    assert rows_of(f"mlflow:{run_id}/one") == ROWS
    assert rows_of(f"mlflow:{run_id}/two-context") == ROWS
    with pytest.raises(ConfigError, match="has 2 datasets; name one of one, one-context, two"):
        rows_of(f"mlflow:{run_id}")
    with pytest.raises(ConfigError, match="has no dataset 'three'"):
        rows_of(f"mlflow:{run_id}/three")
    with pytest.raises(ConfigError, match="MLflow has no run 'none'"):
        rows_of("mlflow:none")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("train.jsonl", "test.jsonl"),
        ("train.jsonl", "val.jsonl"),
        ("train.jsonl", "eval.jsonl"),
        ("training.jsonl", "held-out.jsonl"),
        ("a-train-00.jsonl", "a-validation-00.jsonl"),
        ("train/0.jsonl", "test/0.jsonl"),
    ],
)
def test_a_directory_of_several_splits_is_refused(tmp_path, one, other):
    for name in (one, other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, [{"prompt": "p", "completion": "c"}])
    for place in (f"{tmp_path}/", f"local://{tmp_path}/**/*.jsonl"):
        with pytest.raises(ConfigError, match=r"has different splits, .*name the files of one"):
            rows_of(place)
    assert rows_of(tmp_path / f"{one[:7]}*") == [{"prompt": "p", "completion": "c"}]


@pytest.mark.parametrize("shards", [1, 2])
def test_what_is_called_alike_is_of_one_split_whatever_it_is_called(tmp_path, shards):
    for shard in range(shards):
        write(tmp_path / f"train_eval-{shard}.jsonl", [{"prompt": "p", "completion": "c"}])
    assert rows_of(f"{tmp_path}/") == [{"prompt": "p", "completion": "c"}] * shards


def test_what_datasets_saves_beside_rows_is_no_data(tmp_path):
    from datasets import Dataset as Table

    Table.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert rows_of(f"{tmp_path / 'saved'}/") == ROWS


SHEETS = {
    "semicolons": "prompt;completion\r\na;b, c\r\n",
    "tabs": "prompt\tcompletion\na\tb, c\n",
    "a first line that says the delimiter": "sep=;\r\nprompt;completion\r\na;b, c\r\n",
    "commas, with others in a heading": 'prompt,completion,"x;y;z"\na,"b, c",\n',
    "columns without a heading": 'prompt,completion,,\na,"b, c",,\n',
    "empty rows": 'prompt,completion\na,"b, c"\n,\n,\n',
    "line ends of old": 'prompt,completion\ra,"b, c"\r',
}


@pytest.mark.parametrize("text", SHEETS.values(), ids=SHEETS.keys())
def test_what_spreadsheets_export_is_read(tmp_path, text):
    path = tmp_path / "sheet.csv"
    path.write_bytes(text.encode())
    (row,) = rows_of(path)
    assert (row["prompt"], row["completion"]) == ("a", "b, c")


def test_a_cell_without_a_heading_is_kept_and_rows_are_found_by_line(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("sep=;\nprompt;completion;\n;;\na;b;a note\n")
    dataset = Dataset(name=str(path))
    found = read(dataset, fingerprint(dataset))
    assert list(found.at([0])) == [{"prompt": "a", "completion": "b", "column 3": "a note"}]
    assert found.place(0) == "sheet.csv:4"


def test_columns_of_a_function_have_names(tmp_path, monkeypatch):
    (tmp_path / "numbered.py").write_text("def rows():\n    yield {1: 'p'}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="item 1 has a column whose name is not text"):
        rows_of("numbered:rows")


@pytest.mark.parametrize("size", [1, 40, 1 << 20])
@pytest.mark.parametrize("wanted", [range(6), [0, 3], [5], []])
def test_how_much_of_a_file_is_read_at_a_time_changes_no_row(tmp_path, monkeypatch, size, wanted):
    monkeypatch.setattr("aligntune.data.files.READ", size)
    rows = [{"prompt": f"q{i}", "n": 10**19 * (i == 3)} for i in range(6)]
    lines = [json.dumps(row) for row in rows]
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + "\n  \n".join(lines[:4]) + "\r\n\n" + "\n".join(lines[4:]))
    dataset = Dataset(name=str(path))
    found = read(dataset, fingerprint(dataset))
    assert (found.count, found.columns) == (6, ("prompt", "n"))
    assert list(found.at(wanted)) == [rows[index] for index in wanted]
    assert [found.place(i).split(":")[1] for i in range(6)] == ["1", "3", "5", "7", "9", "10"]

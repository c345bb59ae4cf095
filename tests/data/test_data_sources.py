"""Names of datasets: what identifies their content, and how their rows are read."""

import gzip
import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntune.config.data import Dataset
from aligntune.data.sources import fingerprint, read
from aligntune.errors import ConfigError, DataError

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}\nü"} for i in range(5)]


def rows_of(name, **settings):
    dataset = Dataset(name=str(name), **settings)
    found = read(dataset, fingerprint(dataset))
    return list(found.at(range(found.count)))


def write(path, rows):
    lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    match path.name.partition(".")[2]:
        case "jsonl":
            path.write_bytes(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case "json":
            path.write_text(json.dumps(rows, indent=1))
        case "json.gz":
            path.write_bytes(gzip.compress(json.dumps(rows).encode()))
        case "csv":
            cells = ["prompt,completion", *(f'"{r["prompt"]}","{r["completion"]}"' for r in rows)]
            path.write_text("\n".join(cells), encoding="utf-8-sig")
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


SUFFIXES = ["jsonl", "jsonl.gz", "json", "json.gz", "csv", "parquet"]


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
        ("a.jsonl", b'{"a": 1}\n\n{"a": 2,}\n', r"a\.jsonl:3:\d+: not valid JSON: "),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"a\.jsonl:2: this line is an array"),
        ("a.jsonl", b'{"a": 1}\n"x"\n', r"a\.jsonl:2: this line is a string"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"a\.jsonl:2: byte 0xff is not UTF-8"),
        ("a.json", b'[{"a": 1},\n {"a": 2},\n]', r"a\.json:[23]:\d+: not valid JSON"),
        ("a.json", b'[{"a": 1},\n\n "\xff"]', r"a\.json:3: byte 0xff is not UTF-8"),
        ("a.json", b'[{"a": 1}, 7]', r"a\.json: item 2 is a number"),
        ("a.json", b'{\n"data": []}', r"a\.json:2:1: not valid JSON: .* one array"),
        ("a.jsonl", b'{"a": ' + b"[" * 10**6, r"a\.jsonl:1: JSON nested too deep"),
        ("a.jsonl.gz", b"not gzip", r"a\.jsonl\.gz: cannot be read: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99)[:-20], r"cannot be read: .*ended before"),
        ("a.parquet", b"PAR1 nonsense", r"a\.parquet: cannot be read: "),
        ("a.csv", b"a,b\n1,2\n3\n", r"a\.csv: cannot be read: CSV parse error: Expected 2 col"),
        ("a.csv", b"a,a\n1,2\n", r"a\.csv:1: two columns have the same name"),
        ("a.csv", b"a,b\n1,\xff\n", r"a\.csv: cannot be read: .*invalid UTF8"),
        ("a.jsonl", b"\n \n", r"a\.jsonl' \(train\) has no rows"),
        ("a.json", b"[]", r"a\.json' \(train\) has no rows"),
        ("a.csv", b"", r"a\.csv: cannot be read: Empty CSV file"),
        ("a.csv", b"a,b\n", r"has no rows"),
    ],
)
def test_a_broken_file_is_a_data_error_that_says_where(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        rows_of(path)


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
        ({"name": "../"}, "is a directory; name a file in /"),
        ({"name": "./a.txt"}, r"unknown kind of file; its name must end in one of \.jsonl, "),
        ({"name": "a.jsonl", "split": "test"}, "a file is one split, so `split` must be 'train'"),
        ({"name": "a.jsonl", "subset": "x"}, "`subset` is for hub datasets; remove it"),
        ({"name": "a.jsonl", "revision": "x"}, "`revision` is for hub datasets"),
        ({"name": "a.jsonl", "params": {"count": 1}}, "`params` is for generators"),
        ({"name": "owner/name", "params": {"count": 1}}, "`params` is for generators"),
        ({"name": "arithmetic:", "subset": "x"}, "'arithmetic:': `subset` is for hub datasets"),
        ({"name": "arithmetic:", "params": {"cuont": 1}}, "'arithmetic:': params.cuont: unknown"),
        ({"name": "aritmetic:"}, "unknown generator 'aritmetic'; did you mean 'arithmetic'"),
        ({"name": "s3://bucket/a.jsonl"}, "unknown generator 's3'; choose from arithmetic, rea"),
    ],
)
def test_what_is_wrong_with_a_name_is_known_before_rows_are_read(
    tmp_path, monkeypatch, settings, message
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ConfigError, match=message):
        fingerprint(Dataset(**settings))


def test_an_unknown_split_of_a_generator_is_refused():
    with pytest.raises(ConfigError, match="'arithmetic:': unknown split 'validation'; choose from"):
        rows_of("arithmetic:", split="validation")

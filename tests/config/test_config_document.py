"""The YAML reader: positions, and what it does with files that are broken or hostile."""

import re
import time

import pytest
import yaml

from aligntune.config import reader, script
from aligntune.config.document import parse_document, read_document
from aligntune.config.load import load
from aligntune.errors import ConfigError

MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 9)
)
ALIAS_BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
HOSTILE = {
    "deep list": b"a: " + b"[" * 100_000,
    "deep mapping": b"{a: " * 100_000,
    "deep block": b"".join(b" " * i + b"a:\n" for i in range(1000)),
    "deep dashes": b"a:\n " + b"- " * 100_000,
    "deep questions": b"? " * 100_000,
    "merge bomb": MERGE_BOMB.encode(),
    "alias bomb": ALIAS_BOMB.encode(),
    "merge without an alias": b"a: {<<: {b: 1}}\n",
    "recursive alias": b"a: &a [*a]\n",
    "python object": b"a: !!python/object/apply:os.system ['true']\n",
    "string tag": b"a: !!str 1\n",
    "bare tag": b"a: ! 1\n",
    "binary": bytes(range(256)) * 40,
    "utf-16": "algo: sft\n".encode("utf-16"),
    "utf-16 without a mark": "algo: sft\n".encode("utf-16-le"),
    "NUL": b"algo: s\0ft\n",
    "escaped NUL": b'algo: "s\\0ft"\n',
    "escaped surrogate": b'algo: "\\ud800"\n',
    "escape beyond unicode": b'algo: "\\UFFFFFFFF"\n',
    "escape sequence": b"algo: \x1b[2J\n",
    "two documents": b"algo: sft\n---\nalgo: dpo\n",
    "text after the end": b"algo: sft\n...\nalgo\n",
    "empty": b"",
    "only a comment": b"# nothing\n",
    "only a separator": b"---\n",
    "list at the top": b"- algo: sft\n",
    "word at the top": b"algo\n",
    "number at the top": b"1\n",
    "duplicate key": b"algo: sft\nseed: 1\nalgo: dpo\n",
    "number as key": b"1: a\n",
    "null as key": b": a\n",
    "list as key": b"[a]: a\n",
    "mapping as key": b"? {a: 1}\n: a\n",
    "2 MiB": b"# " + b"x" * (2 << 20),
    "a line of colons": b"a: " * 300_000,
    "a line of quotes": b"a: " + b'"' * 1_000_001,
    "a line of commas": b"a: [" + b"," * 1_000_000,
    "old directive": b"%YAML 9.9\n---\na: 1\n",
    "long directive": b"%YAML " + b"9" * 10_000 + b".1\n---\na: 1\n",
}
"""Name -> bytes that are no config."""


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_one_explained_error_at_once(data, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(data)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        with pytest.raises(ConfigError) as caught:
            read_document(path)
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.1
    first = str(caught.value).splitlines()[0]
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+: [^;]+; .+", first)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).replace("\n", "").isprintable()


WITHOUT_LIBYAML = [
    "deep list",
    "merge bomb",
    "escaped surrogate",
    "escape beyond unicode",
    "binary",
]
WITHOUT_LIBYAML += [
    "long directive",
    "two documents",
    "list as key",
    "duplicate key",
    "recursive alias",
]


@pytest.mark.parametrize("name", WITHOUT_LIBYAML)
def test_pyyaml_without_libyaml_refuses_the_same(name, monkeypatch):
    monkeypatch.setattr(reader, "LOADER", yaml.SafeLoader)
    with pytest.raises(ConfigError, match=r"^run\.yaml:\d+:\d+: "):
        parse_document(HOSTILE[name], "run.yaml")


def test_the_largest_files_that_are_allowed_are_read():
    items = reader.MAX_ITEMS - 10
    assert len(parse_document(b"a: [" + b"1," * items + b"]", "x").values["a"]) == items
    text = "x" * (script.MAX_BYTES - 10)
    assert parse_document(f"a: {text}".encode(), "x").values == {"a": text}
    deepest = reader.MAX_DEPTH - 1
    parse_document(b"a: " + b"[" * deepest + b"]" * deepest, "x")
    with pytest.raises(ConfigError, match="nested deeper than 32 levels"):
        parse_document(b"a: " + b"[" * (deepest + 1) + b"]" * (deepest + 1), "x")


def test_a_file_over_1_mib_is_not_even_parsed(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"a: 1\n#" + b"x" * script.MAX_BYTES)
    with pytest.raises(ConfigError, match="larger than 1 MiB; give a config, not data"):
        read_document(path)


@pytest.mark.parametrize(
    "data",
    [b"a: [" + b"1," * 200_000 + b"]\n", b"".join(b"k%x: 1\n" % i for i in range(90_000))],
    ids=["items", "keys"],
)
def test_too_many_items_are_refused(data):
    with pytest.raises(ConfigError, match=r"more than 50,000 items; shorten the file"):
        parse_document(data, "run.yaml")


def test_thousands_of_unknown_keys_are_reported_in_a_few_lines(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"".join(b"seed%d: 1\n" % i for i in range(20_000)))
    with pytest.raises(ConfigError) as caught:
        load([path])
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 19983 more"


def test_every_key_and_item_knows_where_it_starts():
    text = "algo: dpo\nmodel:\n  name_or_path: x\ndatasets:\n  - name: a\n  - {name: b, split: c}\n"
    assert parse_document(text.encode(), "run.yaml").marks == {
        (): (1, 1),
        ("algo",): (1, 1),
        ("model",): (2, 1),
        ("model", "name_or_path"): (3, 3),
        ("datasets",): (4, 1),
        ("datasets", 0): (5, 5),
        ("datasets", 0, "name"): (5, 5),
        ("datasets", 1): (6, 5),
        ("datasets", 1, "name"): (6, 6),
        ("datasets", 1, "split"): (6, 15),
    }


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter():
    read = parse_document(b"\xef\xbb\xbfalgo: sft\r\nseed: 1\r\n", "x")
    assert read.values == {"algo": "sft", "seed": 1}
    assert (read.marks[("algo",)], read.marks[("seed",)]) == ((1, 1), (2, 1))


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("d:\n - x\n max: 1\n", "3:2: this does not belong to the list item", " max: 1"),
        ("a: b: c\n", "1:5: a ': ' where no key can stand; put the value in quotes", "a: b: c"),
        ("a:\n\tb: 1\n", "2:1: no value can start with this character", " b: 1"),
        ("a: @x\n", "1:4: no value can start with this character", "a: @x"),
        ("b: 1\na: [1, 2\n", "2:4: this list is not closed", "a: [1, 2"),
        ("a: {b: 1\n\n\n", "1:4: this mapping is not closed", "a: {b: 1"),
        ("a: 'x\nb: 1\n", "1:4: this quote is never closed", "a: 'x"),
        ('a: "\\q"\n', "1:5: this backslash escape does not exist", 'a: "\\q"'),
        ("a: 1\nb\nc: 1\n", "2:1: there is no ': ' after this", "b"),
        ("a:\n  b: 1\n c: 2\n", "3:2: this does not line up", " c: 2"),
        ("a: 1\nb: 2\na: 3\n", "3:1: the key 'a' is already on line 1; keep one", "a: 3"),
        ("a: *b\n", "1:4: there is no anchor '&b' above this alias; add it, or put", "a: *b"),
        ("a: [&b 1, &b 2]\n", "1:11: a second anchor 'b'; choose another", "a: [&b 1, &b 2]"),
        ("a: &b [1, *b]\n", "1:11: the alias '*b' stands inside what", "a: &b [1, *b]"),
        ("<<: {a: 1}\n", "1:1: merge keys are not supported; write the", "<<: {a: 1}"),
        ("a: [${X}]\n", '1:6: a reference in [] or {} needs quotes; write "${N', "a: [${X}]"),
        (
            "a: caf\u00e9\x07\n",
            "1:8: the character U+0007 is not allowed; remove it",
            "a: caf\u00e9",
        ),
    ],
)
def test_a_syntax_error_says_what_to_do_and_shows_the_line(text, message, line):
    with pytest.raises(ConfigError) as caught:
        parse_document(text.encode(), "run.yaml")
    what, shown, caret = str(caught.value).splitlines()
    assert what.startswith(f"run.yaml:{message}")
    assert shown == f"    {line}"
    assert caret.index("^") == 3 + int(what.split(":")[2])


def test_a_syntax_error_in_a_long_line_shows_the_part_around_it():
    with pytest.raises(ConfigError) as caught:
        parse_document(b"a: [" + b"1, " * 200 + b"@, " + b"2, " * 200 + b"]", "run.yaml")
    _, shown, caret = str(caught.value).splitlines()
    assert len(shown) < 110
    assert shown[caret.index("^")] == "@"


def test_bytes_that_are_not_utf_8_are_named_with_their_offset():
    with pytest.raises(ConfigError, match=r"^x:2:5: byte 0xe9 \(offset 14\) is not UTF-8; save"):
        parse_document("algo: sft\na: \u00e9\n".encode("latin-1").replace(b"a: ", b"a: b"), "x")


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path):
    for path, reason in [
        (tmp_path / "none.yaml", "no such file or directory"),
        (tmp_path, "is a directory"),
        (tmp_path / "a\0b", "no file can have this name"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            read_document(path)


def test_a_file_name_cannot_speak_to_the_terminal(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_document(tmp_path / "\x1b[2J\n.yaml")
    assert str(caught.value).isprintable()


def test_an_alias_stands_for_a_copy_of_what_its_anchor_names():
    text = "a: &a {x: [1, &n no], y: ~}\nb: *a\nc: [*a, *n, &k key]\n*k : {z: *n}\n"
    document = parse_document(text.encode(), "run.yaml")
    a = {"x": [1, "no"], "y": None}
    assert document.values == {"a": a, "b": a, "c": [a, "no", "key"], "key": {"z": "no"}}
    assert document.values["b"] is not document.values["a"]
    marks = document.marks
    assert (marks["b",], marks["b", "x"], marks["b", "x", 1]) == ((2, 1), (1, 8), (1, 15))
    assert (marks["c", 0], marks["c", 0, "y"], marks["c", 1]) == ((3, 5), (1, 23), (3, 9))
    assert (marks["key",], marks["key", "z"]) == ((4, 1), (4, 7))


def test_a_config_can_share_a_section(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "algo: dpo\nmodel: {name_or_path: a}\ndatasets: &data\n  - name: b\n    max_samples: 0\n"
        "sft: {datasets: *data}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load([path])
    assert [line.removeprefix(f"{path}:")[:30] for line in str(caught.value).splitlines()] == [
        "5:5: datasets.0.max_samples: g",
        "5:5: sft.datasets.0.max_sample",
    ]
    assert load([path], ["datasets.0.max_samples=1", "sft=null"]).datasets[0].name == "b"


def test_aliases_count_as_what_they_stand_for():
    shared = "a: &a [" + "1," * 9_000 + "]\nb: ["
    assert len(parse_document(f"{shared}*a,*a,*a,*a]".encode(), "x").values["b"]) == 4
    with pytest.raises(ConfigError, match=r"^x:2:17: more than 50,000 items"):
        parse_document(f"{shared}*a,*a,*a,*a,*a]".encode(), "x")

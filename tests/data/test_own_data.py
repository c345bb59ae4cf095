"""What people's own files have in them: the data stage from the file to its report."""

import json
import tracemalloc

import pytest

from aligntune.data import batch
from aligntune.data.batch import Work, tokenizer_in
from aligntune.data.formats import reader
from aligntune.data.report import read
from aligntune.errors import DataError
from aligntune.report.data import facts

DEEP = "[" * 900 + "]" * 900
ALL = {"max_invalid": 1}


def test_rows_that_are_nested_too_deep_to_be_shown_are_still_named(run_stage, tmp_path):
    """What reads JSON goes deeper than what writes it."""
    path = tmp_path / "rows.jsonl"
    good = '{"prompt": "p", "completion": "c"}'
    path.write_text(f'{{"prompt": {DEEP}, "completion": "c"}}\n{good}\n')
    made = run_stage({"name": str(path)}, cleaning=ALL)
    assert [row["place"] for row in made.rejected] == ["rows.jsonl:1"]
    path.write_text(f'{{"x": {"[" * 1010 + "]" * 1010}}}\n')
    with pytest.raises(DataError, match="has the columns x, which are no layout"):
        run_stage({"name": str(path)})


def test_a_quote_is_never_left_out_of_a_cell(run_stage, tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text(
        'prompt\tcompletion\n"To be" is whose?\tShakespeare\'s\n"say ""hi"""\thi\nsay "yo"\tyo\n'
    )
    made = run_stage({"name": str(path)}, cleaning=ALL)
    asked = sorted(row["messages"][0]["content"] for row in made.train)
    assert asked == ['say "hi"', 'say "yo"']
    (lost,) = made.rejected
    assert (lost["place"], lost["cause"]) == ("rows.tsv:2", "invalid")
    assert "text follows the quote" in lost["reason"]


def test_columns_that_no_message_is_made_of_are_named(run_stage, write_jsonl):
    row = {"question": "q", "response": "a", "context": "c", "level": 3, "source": "web"}
    made = run_stage({"name": write_jsonl([row, row | {"question": "r"}])})
    (source,) = read(made.out).sources
    assert source.unread == ("level", "source")
    assert "in no message, but in `sample.columns`: level, source" in facts(source)
    old = json.loads((made.out / "report.json").read_text())
    del old["sources"][0]["unread"]
    (made.out / "report.json").write_text(json.dumps(old))
    assert read(made.out).sources[0].unread == ()


def test_a_block_of_long_conversations_is_tokenised_in_parts(tiny_model, monkeypatch):
    """Before each answer stands the whole conversation: all of a block at once were gigabytes."""
    rows = [
        (at, {"messages": [
            {"role": role, "content": f"{at} {turn} and so on"}
            for turn in range(12) for role in ("user", "assistant")
        ]})
        for at in range(96)
    ]  # fmt: skip
    layout = reader(["messages"], "conversation")
    assert layout
    work = Work(layout, "prompt", False, tiny_model, False, 64, "end")
    tokenizer_in(tiny_model, False)
    assert batch.TOGETHER <= 256

    def peak(together):
        monkeypatch.setattr(batch, "TOGETHER", together)
        tracemalloc.start()
        made = work(rows)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return made, most

    (few, low), (all_, high) = peak(4), peak(96)
    assert few == all_
    assert low < high / 2

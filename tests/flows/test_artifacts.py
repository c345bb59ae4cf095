"""A stage as Markdown: whatever a model wrote stays inside its code block."""

import asyncio
import re
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifests import manifest

from aligntune.artifacts import Artifact
from aligntune.run import Done


@pytest.fixture
def evaluation(environment, tmp_path):
    """Makes a finished evaluation whose model wrote these answers."""

    def make(*answers):
        prompt = [{"role": "user", "content": "2 + 2?"}]
        rows = [{"prompt": prompt, "reference": "4", "completion": text} for text in answers]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "predictions.parquet")
        known = {"metrics": {"a|b": 0.5}, "finished": "today", "seconds": 1.5}
        return Artifact(tmp_path, manifest("evaluate", "0" * 12, **known))

    return make


def markdown(artifact, url=None, samples=5):
    from flows.artifacts import stage_markdown

    return stage_markdown(
        Done("sft", "sft-0", False, 1.5, "record", "abc"), artifact, url, samples=samples
    )


def outside_code(text):
    """The lines that a Markdown reader does not take as code."""
    shown, fence = [], None
    for line in text.splitlines():
        ticks = re.match(r"`{3,}", line)
        if fence is None and ticks:
            fence = ticks[0]
        elif fence is not None and ticks and line.strip("`") == "" and len(line) >= len(fence):
            fence = None
        elif fence is None:
            shown.append(line)
    assert fence is None
    return "\n".join(shown)


@pytest.mark.parametrize("ticks", [3, 4, 9])
def test_an_answer_cannot_leave_its_code_block(evaluation, ticks):
    fence = "`" * ticks
    text = markdown(evaluation(f"x\n{fence}\n<script>alert(1)</script>\n{fence}text\n# title"))
    assert "<script>" in text
    assert "script" not in outside_code(text)
    assert "title" not in outside_code(text)


def test_long_answers_are_cut_and_say_so(evaluation):
    text = markdown(evaluation("y" * 50_000))
    assert len(text) < 3_000
    assert "(50000 characters)" in text


def test_as_many_samples_as_asked_and_none_that_were_not_generated(evaluation):
    made = evaluation("one", None, "three", "four")
    assert markdown(made, samples=3).count("## Sample") == 2
    assert "## Sample" not in markdown(made, samples=0)


def test_the_mlflow_run_is_a_link_where_it_has_an_address(evaluation):
    made = evaluation("one")
    assert "MLflow run: `abc`\n" in markdown(made)
    assert "[`abc`](http://host/#/x)" in markdown(made, "http://host/#/x")


def test_a_metric_name_cannot_break_the_table(evaluation):
    assert r"| a\|b | 0.5 |" in markdown(evaluation("one"))


def test_a_server_that_is_gone_is_waited_for_once_and_then_shortly(environment, monkeypatch):
    from flows import artifacts as shown

    monkeypatch.setattr(shown, "PATIENCE", 3.0)
    monkeypatch.setattr(shown, "SHORT_PATIENCE", 0.05)
    monkeypatch.setattr(shown, "_prefect", shown._Prefect())

    def seconds(delay):
        began = time.monotonic()
        asyncio.run(shown.kept(asyncio.sleep(delay)))
        return time.monotonic() - began

    assert not shown.away()
    assert seconds(60) >= 3
    assert sum(seconds(60) for _ in range(6)) < 18
    assert shown.away()
    assert seconds(60) < 3
    seconds(0)
    assert not shown.away()


def test_a_server_may_be_gone_for_hours(monkeypatch):
    """A long training shows its progress every few seconds."""
    from flows import artifacts as shown

    monkeypatch.setattr(shown, "SHORT_PATIENCE", 0.05)
    monkeypatch.setattr(shown, "_prefect", shown._Prefect(failures=5_000))
    asyncio.run(shown.kept(asyncio.sleep(60)))
    assert shown._prefect.failures == 5_001

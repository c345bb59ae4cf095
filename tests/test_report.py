"""The report of a run: what it says, what it must never do, and odd data."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from own_process import printed
from pages import HOSTILE, Page, filled_with

from aligntune.data.report import CAUSES, DataReport, SourceReport, histogram
from aligntune.report import words
from aligntune.report.page import render, write
from aligntune.report.types import (
    Answer,
    Curve,
    DataRow,
    Difference,
    EvaluationRow,
    Fact,
    GateRow,
    LineageRow,
    Link,
    RewardRow,
    RunReport,
    SampleRow,
    StageRow,
    TrainingSample,
    Versus,
)


def row(model: str, mean: float, **changes: Any) -> EvaluationRow:
    base = EvaluationRow("exact_match", model, mean, mean - 0.02, mean + 0.03, 200, True, "%")
    return replace(base, **changes)


GAIN = Difference(0.35, 0.281, 0.417, "better")
SOURCE = SourceReport(
    name="sums.jsonl", split="train", kind="train", fingerprint="sha256:3f9a", format="alpaca",
    task="sft", read=2000, not_sampled=0, dropped=dict.fromkeys(CAUSES, 20), truncated=0, kept=1900,
    train=1900, heldout=0, lengths=histogram([3, 9, 33]), looked_at=1900, labels={"yes": 3},
    languages={"en": 1.0}, samples=("user: What is 1 + 1?",), reasons=(("empty", 2, "line 7"),),
)  # fmt: skip
REPORT = RunReport(
    title="sums",
    command="aligntune train --config sums.yaml",
    config_yaml="algo: dpo\nseed: 42\n",
    started="2026-03-02T08:14:05+00:00",
    finished="2026-03-02T08:39:41+00:00",
    seconds=1536.4,
    stages=(
        StageRow("data", "data", "3f9a0c1d22be", "reused", "same inputs as run first", 2.3),
        StageRow(
            "dpo", "dpo", "0b44efc18d77", "run", "train.beta changed", 512.0,
            {f"metric_{i}": i / 7 for i in range(8)}, "https://mlflow.example/#/runs/3c4d",
        ),
    ),
    evaluations=(row("base", 0.04), row("dpo", 0.39, difference=GAIN)),
    samples=(
        SampleRow(
            [{"role": "user", "content": "What is 47 + 38?"}],
            {"base": Answer("75", correct=False), "dpo": Answer("85", correct=True)},
            "85",
        ),
        SampleRow([{"role": "user", "content": "Sing."}], {"base": Answer("La")}),
    ),
    curves=(Curve("dpo", "loss", [1, 2, 3], [0.7, 0.5, 0.6]),),
    data=(DataRow("sums.jsonl", "train", 1900, "sha256:3f9a", "12 duplicates dropped"),),
    lineage=(Fact("Base model", "tiny"), Fact("Registered", "v3", "https://mlflow.example/v3")),
    links=(Link("MLflow run", "https://mlflow.example/#/runs/9a9a"),),
    versus=(Versus("exact_match", "dpo", GAIN, 0.004, 70, 125, 5, "%", 0.1),),
    gates=(
        GateRow("exact_match", "improvement", 0.0, "base", 0.35, 0.29, 0.41, "held", "%", 0.001),
        GateRow("safety", "at least", 0.9, "", 0.85, 0.8, 0.9, "missed", "%", None),
    ),
    rewards=(RewardRow("grpo", "length", 0.5, 0.1, 0.4, 0.05, 0.45, 0.2, 12),),
    training_samples=(TrainingSample("grpo", "What is 1 + 1?", {4: "two", 12: ""}),),
    data_reports=(
        ("data", DataReport("sft", {"train": 1900}, {"train": "3f9a"}, "All.", 512, (SOURCE,))),
    ),
    family=(LineageRow("dpo", "dpo-0b44", ("data",), ("evaluate-dpo",), ("first", "second")),),
)  # fmt: skip


@pytest.mark.parametrize("payload", HOSTILE)
def test_no_text_becomes_anything_but_text(payload):
    page = Page(render(filled_with(REPORT, payload)))
    harmless = Page(render(filled_with(REPORT, "harmless")))
    assert page.skeleton() == harmless.skeleton()
    assert page.links() == []
    assert page.oddities == []
    shown = re.sub(r"\s+", " ", words.visible(payload))
    # Every field but the urls; names in plots and fingerprints, which are cut, are not counted on.
    assert page.text.count(shown) >= harmless.text.count("harmless") - 3


def test_the_page_has_no_script_no_handler_and_no_external_resource():
    html = render(REPORT)
    page = Page(html)
    assert not {tag for tag, _ in page.elements} & {"script", "img", "iframe", "object", "form"}
    for tag, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on") or name in ("src", "style")]
        if tag == "link":
            assert attrs["href"] == "data:,"
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style


def test_the_browser_is_told_to_load_and_run_nothing():
    policies = [
        attrs["content"] or ""
        for tag, attrs in Page(render(REPORT)).elements
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; ")
    assert "script-src" not in policies[0]


def test_links_are_the_given_ones_and_no_others():
    assert set(Page(render(REPORT)).links()) == {
        "https://mlflow.example/#/runs/9a9a",
        "https://mlflow.example/#/runs/3c4d",
        "https://mlflow.example/v3",
    }


def test_a_data_row_links_to_its_own_report_and_nowhere_else():
    def links(page):
        return Page(render(replace(REPORT, data=(replace(REPORT.data[0], page=page),)))).links()

    inside = "stages/sft-data/report.html"
    assert inside in links(inside)
    for outside in ("stages/../report.html", "/etc/passwd", "stages//x.example/report.html"):
        assert outside not in links(outside)


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "ftp://x", "http:/x", "http://[", None])
def test_what_no_browser_should_follow_is_no_link(url):
    assert words.web(url) == ""


def test_a_password_in_a_link_is_left_out():
    report = replace(REPORT, links=(Link("MLflow", "http://me:secret@host:5000/#/runs/1?a=b&c=d"),))
    html = render(report)
    assert "secret" not in html
    assert "http://host:5000/#/runs/1?a=b&c=d" in Page(html).links()


def test_the_headline_says_what_changed_by_how_much_and_how_sure_it_is():
    text = Page(render(REPORT)).text
    assert "exact_match 4.0 % → 39.0 %" in text
    assert "better +35.0 points, 95 % interval +28.1 to +41.7" in text
    assert "base → dpo, 200 held-out rows, higher is better" in text


def test_a_metric_without_unit_or_in_another_unit_is_no_percentage():
    change = Difference(-1.9623, -2.05, -1.87, "better", against="sft")
    rows = [row("base", 2.4134, metric="nll", unit="nats/token", higher_is_better=False)]
    rows += [replace(rows[0], model="dpo", mean=0.4511, difference=change)]
    text = Page(render(replace(REPORT, evaluations=tuple(rows)))).text
    assert "nll 2.413 → 0.451 nats/token" in text
    assert "better -1.962 nats/token vs sft, 95 % interval -2.050 to -1.870" in text
    plain = tuple(replace(row, unit="") for row in rows)
    assert "better -1.962 vs sft, 95" in Page(render(replace(REPORT, evaluations=plain))).text


def test_models_are_compared_with_all_before_them():
    text = Page(render(REPORT)).text
    assert "dpo vs base +35.0 (+28.1 to +41.7) 0.004 70, 125, 5 10.0 % better" in text
    unknown = replace(REPORT, versus=(replace(REPORT.versus[0], detectable=None),))
    assert "Detectable" not in Page(render(unknown)).text


def test_gates_say_what_was_wanted_and_found():
    text = Page(render(REPORT)).text
    assert "improvement over base above 0.0 points +35.0 (29.0 to 41.0) 0.001 held" in text
    assert re.search(r"safety at least 90\.0 % 85\.0 % \(80\.0 to 90\.0\) . missed", text)


def test_rewards_samples_sources_and_lineage_are_on_the_page():
    text = Page(render(REPORT)).text
    for part in (
        "length grpo 0.500 0.100 0.400 0.0500 0.450 0.200 12",
        "grpo What is 1 + 1? step 4 two step 12 (empty answer)",
        "data: 1 source, lengths, samples",
        "sums.jsonl sha256:3f9a alpaca 2,000 20 20 20 20 20 1,900 1,900",
        "invalid: empty (2 rows, the first is line 7)",
        "user: What is 1 + 1?",
        "dpo dpo-0b44 data evaluate-dpo first, second",
    ):
        assert part in text


def test_a_run_that_was_stopped_says_by_what():
    text = Page(render(replace(REPORT, error="dpo: the loss is nan", evaluations=()))).text
    assert "Stopped before the end. dpo: the loss is nan" in text
    assert "Not finished" in text


def test_a_run_that_evaluated_nothing_says_so():
    bare = replace(REPORT, evaluations=(), samples=(), curves=(), data=(), lineage=(), links=())
    bare = replace(bare, versus=(), rewards=(), training_samples=(), data_reports=(), family=())
    page = Page(render(bare))
    assert "Nothing was evaluated in this run." in page.text
    assert "Sample answers" not in page.text
    assert "svg" not in {tag for tag, _ in page.elements}


def test_answers_are_marked_right_wrong_or_not_at_all():
    text = Page(render(REPORT)).text
    assert "base ✗ wrong 75" in text
    assert "dpo ✓ right 85" in text
    assert "user Sing. base La" in text


def test_a_long_text_is_cut_and_says_so():
    answer = Answer("x" * (words.LONGEST_TEXT + 1234))
    report = replace(REPORT, samples=(SampleRow([], {"base": answer}),))
    assert "x… (1,234 more characters)" in Page(render(report)).text


def test_tables_and_pictures_can_be_read_aloud():
    elements = Page(render(REPORT)).elements
    assert all("scope" in attrs for tag, attrs in elements if tag == "th")
    for index, (tag, attrs) in enumerate(elements):
        if tag == "svg":
            assert attrs["role"] == "img"
            assert elements[index + 1][0] == "title"
    named = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(named) == len(set(named))


def test_the_same_report_gives_the_same_bytes(tmp_path: Path):
    code = (
        "import os, runpy, sys; sys.stdout.reconfigure(encoding='utf-8');"
        "sys.path.insert(0, os.path.dirname(sys.argv[1]));"
        "report = runpy.run_path(sys.argv[1])['REPORT'];"
        "import aligntune.report.page; sys.stdout.write(aligntune.report.page.render(report))"
    )
    again = printed(code, __file__)
    write(REPORT, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(REPORT) == again


def test_text_that_no_file_may_hold_is_replaced(tmp_path: Path):
    write(filled_with(REPORT, "a\ud800b\x00c\x1bd\te"), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a\ufffdb\ufffdc\ufffdd\te" in text
    assert "\x00" not in text


@pytest.mark.parametrize("values", [[], [math.nan], [math.nan, -math.inf]])
def test_a_curve_with_nothing_to_draw_says_so(values):
    curve = Curve("sft", "loss", range(len(values)), values)
    assert "No finite values." in Page(render(replace(REPORT, curves=(curve,)))).text

"""A comparison in the terminal, as a page, and from the command line."""

import io
import math
import re
from dataclasses import replace

import pytest
from pages import HOSTILE, Page, filled_with
from rich.console import Console

from aligntune.compare.comparison import compared
from aligntune.compare.resolve import listed, resolved
from aligntune.compare.show import show_comparison, show_runs, sparkline
from aligntune.errors import ResourceError
from aligntune.report.compare import render, write
from aligntune.report.compared import Line, Overlay


@pytest.fixture
def made(past):
    scores = {"exact_match": [0.0, 1.0, 0.0, 1.0], "rewards/a_reward_with_a_long_name": [0.1] * 4}
    past.run("first", beta=0.1, scores=scores, answers=["1", "2", "3", "4"])
    past.run("second", beta=0.2, scores=scores, answers=["1", "2", "3", "five"])
    return compared(resolved(["first", "second"], [], past.output), past.output, 2)


def shown(draw, *arguments, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    draw(*arguments, console)
    return console.export_text()


def test_all_of_it_is_told_in_eighty_columns(made):
    text = shown(show_comparison, made)
    assert max(map(len, text.splitlines())) <= 80
    for line in (
        "A  first   dpo",
        "train.beta  0.1 (A)  0.2 (B)",
        "shared by all: data",
        "  A    50.0 %  15.0 to 85.0",
        "loss (dpo)      A    0.7    0.5   ",
        "? question 3",
        "B: five",
    ):
        assert line in text
    # A result and its difference stay in one line.
    whole = r"B +50\.0 % +15\.0 to 85\.0 +0\.0 \(-\S+ to \+\S+\) +1\.000 +inconclusive\n"
    assert re.search(whole, text)


def test_twenty_runs_fit_too(past):
    for number in range(20):
        past.run(f"a-run-with-quite-a-long-name-{number}", beta=number)
    names = [f"a-run-with-quite-a-long-name-{number}" for number in range(20)]
    many = compared(resolved(names, [], past.output), past.output, 1)
    assert max(map(len, shown(show_comparison, many).splitlines())) <= 80
    assert max(map(len, shown(show_runs, listed(past.output, [])).splitlines())) <= 80


def test_no_text_moves_the_cursor_or_is_markup(made):
    text = shown(show_comparison, filled_with(made, "\x1b[2J[bold]x[/bold]\x07"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]x[/bold]" in text


def test_a_curve_is_drawn_on_the_scale_of_all():
    up, down = Line((0,), range(4), [0.0, 1.0, 2.0, 3.0]), Line((1,), range(2), [3.0, math.nan])
    assert sparkline(up, [up, down], "0123") == "0123"
    assert sparkline(down, [up, down], "0123") == "3 "
    assert len(sparkline(Line((0,), range(999), [1.0] * 999), [up])) <= 24


@pytest.mark.parametrize("payload", HOSTILE)
def test_no_text_on_the_page_becomes_anything_but_text(made, payload):
    page = Page(render(filled_with(made, payload)))
    harmless = Page(render(filled_with(made, "harm\nless" if "\n" in payload else "harmless")))
    assert page.skeleton() == harmless.skeleton()
    assert page.links() == []
    assert page.oddities == []
    assert not {tag for tag, _ in page.elements} & {"script", "img", "iframe", "object", "form"}


def test_the_page_says_what_the_terminal_says(made):
    text = Page(render(made)).text
    for part in (
        "first, second",
        "train.beta 0.1 0.2",
        "50.0 % (15.0 to 85.0)",
        "p-values are corrected for 2 tests after Holm",
        "inconclusive",
        "question 3",
        "B second five",
        "by all",
    ):
        assert part in text


def test_a_chart_has_a_line_per_run_and_counts_what_is_not_finite(made):
    lines = tuple(Line((n,), [1, 2, 3], [1.0, math.nan, n]) for n in range(2))
    html = render(replace(made, overlays=(Overlay("dpo", "train/loss", lines),)))
    assert html.count('class="curve"') == 2
    assert "2 values not finite" in Page(html).text
    empty = Overlay("dpo", "train/loss", (Line((0,), [1], [math.nan]),))
    assert "No finite values." in Page(render(replace(made, overlays=(empty,)))).text


def test_the_page_is_written_whole_or_not_at_all(made, tmp_path):
    write(made, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == render(made)
    with pytest.raises(ResourceError, match="name a file in a directory that exists"):
        write(made, tmp_path / "nowhere" / "page.html")

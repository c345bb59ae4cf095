"""`aligntune runs` and `aligntune compare`, as typed."""

import json

import pytest
from past import Past


@pytest.fixture
def past(tmp_path):
    made = Past(tmp_path / "out")
    made.run("first", beta=0.1)
    made.run("second", beta=0.2)
    return made


def test_the_commands_print_tables_json_and_pages(run, past, tmp_path):
    at = ("--output-dir", past.output)
    code, out, _ = run("runs", *at, "--filter", "train.beta>0.1", "--json")
    assert (code, [row["name"] for row in json.loads(out)]) == (0, ["second"])
    code, out, _ = run("runs", *at, "--limit", 1)
    assert (code, out.count("finished")) == (0, 1)
    assert "no run below" in run("runs", "--output-dir", tmp_path / "none")[1]
    code, out, _ = run("compare", "first", "second", *at, "--json")
    assert (code, json.loads(out)["config"][0]["key"]) == (0, "train.beta")
    code, out, _ = run("compare", "--filter", "algo=dpo", *at)
    assert (code, "Results" in out) == (0, True)
    page = tmp_path / "page.html"
    assert run("compare", "first", "second", *at, "--html", page)[0] == 0
    assert page.read_text(encoding="utf-8").lstrip().startswith("<!DOCTYPE html>")
    code, _, err = run("compare", "first", "secnd", *at)
    assert (code, "did you mean 'second'" in err) == (78, True)
    assert run("compare", "first", *at)[0] == 78

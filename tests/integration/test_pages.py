"""Real runs on hostile rows: their pages in a browser, and what compare makes of them."""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import HOSTILE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
PAYLOADS = [
    *(text.replace("alert(1)", "document.title='RAN'") for text in HOSTILE if text.isprintable()),
    "<script>document.title='RAN'</script>",
    "<img src=x onerror=\"document.title='RAN'\">",
    "</script><script>document.title='RAN'</script>",
    "</textarea><script>document.title='RAN'</script>",
    "</style></title></svg><script>document.title='RAN'</script>",
    "<svg><script>document.title='RAN'</script></svg>",
    "<details open ontoggle=document.title='RAN'>x",
    "<video><source onerror=document.title='RAN'>",
    "<body onload=document.title='RAN'>",
    "<input autofocus onfocus=document.title='RAN'>",
]
CONFIG = """
algo: dpo
model: {{name_or_path: {model}, precision: fp32, max_seq_length: 256}}
datasets: [{{name: {rows}}}]
train: {{per_device_batch_size: 4, max_steps: 2, learning_rate: 1e-4}}
cleaning: {{duplicates: keep, decontaminate: null}}
evaluation:
  datasets: [{{name: {rows}}}]
  max_new_tokens: 4
  sample_count: 100
  resamples: 200
registry: {{name: tiny}}
sample_logging: {{num_samples: 2, interval_steps: 1}}
logging: {{output_dir: {output}, run_name: first}}
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def output(tiny_model, tmp_path_factory):
    """Two runs on rows that are full of scripts, and a page that compares them."""
    folder = tmp_path_factory.mktemp("pages")
    rows = folder / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps(
                {"prompt": text, "chosen": f"{text} yes", "rejected": f"{text} no", "answer": text}
            )
            + "\n"
            for text in PAYLOADS
        )
    )
    config, output = folder / "run.yaml", folder / "out"
    config.write_text(CONFIG.format(model=tiny_model, rows=rows, output=output))
    run("train", "--config", config)
    run("train", "--config", config, "--run-name", "second", "--set", "train.beta=0.7")
    run("compare", "first", "second", "--output-dir", output, "--html", output / "compare.html",
        "--samples", 100)  # fmt: skip
    return output


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "aligntune", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(page: Path, profile: Path) -> str:
    """The page's elements after a browser has run what it runs."""
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--virtual-time-budget=3000", f"--user-data-dir={profile}", page.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout


@needs_chromium
def test_the_browser_would_say_that_a_script_ran(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<title>calm</title><p><img src=x onerror=\"document.title='RAN'\"></p>")
    assert "<title>RAN</title>" in loaded(page, tmp_path / "profile")


@needs_chromium
@pytest.mark.parametrize("name", ["runs/first/report.html", "compare.html"])
def test_no_text_of_a_dataset_runs_in_a_browser(output, name, tmp_path):
    """Nor without the policy in the page's head that forbids scripts: the text is only text."""
    page = output / name
    text = page.read_text(encoding="utf-8")
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r"<meta http-equiv=[^>]*>", "", text), encoding="utf-8")
    assert "Content-Security-Policy" not in bare.read_text(encoding="utf-8")
    for shown in (page, bare):
        found = loaded(shown, tmp_path / "profile")
        (title,) = re.findall(r"<title>([^<]*)</title>", found[: found.index("<body")])
        assert "RAN" not in title
        assert re.search("first|Comparison", title)
        assert "<script" not in found.lower()
        assert " onerror=" not in re.sub(r">[^<]*<", "><", found)
    text = html.unescape(found)
    assert sum(payload.strip() in text for payload in PAYLOADS) == len(PAYLOADS)


def test_every_page_is_one_file(output):
    for page in (output / "runs" / "first" / "report.html", output / "compare.html"):
        tags = re.findall(r"<[a-z][^>]*>", page.read_text(encoding="utf-8"))
        named = [value for tag in tags for value in re.findall(r'\s(?:src|href)="([^"]*)"', tag)]
        assert all(value.startswith(("#", "data:,", "stages/")) for value in named)


def test_two_real_runs_are_compared_by_name_and_by_mlflow_id(output):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{output / 'mlflow.db'}")
    where = client.get_experiment_by_name("aligntune").experiment_id
    ids = {
        found.info.run_name: found.info.run_id
        for found in client.search_runs([where], "tags.`aligntune.role` = 'pipeline'")
    }
    at = ("--output-dir", output)
    by_name = json.loads(run("compare", "first", "second", *at, "--json"))
    assert json.loads(run("compare", ids["first"], ids["second"], *at, "--json")) == by_name
    assert [change["key"] for change in by_name["config"]] == ["train.beta"]
    shared = [stage["label"] for stage in by_name["stages"] if stage["same"]]
    assert shared == ["model", "tokenizer", "eval-data", "data", "evaluate-base"]
    paired = [score["paired"] for score in by_name["scores"] if score["run"] == "B"]
    assert paired
    assert all(0 <= found["adjusted"] <= 1 for found in paired)
    listed = json.loads(run("runs", *at, "--filter", "train.beta>0.5", "--json"))
    assert [(row["name"], row["state"]) for row in listed] == [("second", "finished")]
    # What MLflow alone has, where the directories are out of reach.
    shutil.move(output, output.with_name("moved"))
    try:
        moved = output.with_name("moved")
        shutil.move(moved / "runs", moved / "hidden-runs")
        shutil.move(moved / "stages", moved / "hidden-stages")
        gone = json.loads(
            run("compare", ids["first"], ids["second"], "--output-dir", moved, "--json")
        )
    finally:
        shutil.move(moved / "hidden-runs", moved / "runs")
        shutil.move(moved / "hidden-stages", moved / "stages")
        shutil.move(moved, output)
    assert "train.beta" in [change["key"] for change in gone["config"]]
    assert [(s["metric"], s["mean"]) for s in gone["scores"]] == [
        (s["metric"], pytest.approx(s["mean"])) for s in by_name["scores"]
    ]
    assert {overlay["metric"] for overlay in gone["overlays"]} >= {"train/loss"}

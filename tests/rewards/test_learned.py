"""Rewards that a model gives, with models made here."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import build_tiny_judge, build_tokenizer

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError
from aligntune.rewards import scorer
from aligntune.rewards.pretrained import chosen
from aligntune.rewards.sources import fingerprint, local
from aligntune.rewards.types import Sample

SAMPLES = [Sample("one", "two three"), Sample("four", "five " * 30), Sample("a", "b")]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """(number of labels, safe or not) -> the directory of a model."""

    def build(labels, safe=True):
        path = build_tiny_judge(tmp_path_factory.mktemp("classifier"), labels=labels)
        if labels == 2:
            file = path / "config.json"
            named = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}}
            file.write_text(json.dumps(json.loads(file.read_text()) | named))
        if not safe:
            torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
            (path / "model.safetensors").unlink()
        return str(path)

    return build


def test_a_reward_model_gives_its_raw_score_whatever_the_batch(classifier):
    name = classifier(1)
    one = scorer(Reward(reward_type="model", model_name=name, params={"batch_size": 1}))(SAMPLES)
    all_ = scorer(Reward(reward_type="model", model_name=name))(SAMPLES)
    assert one == pytest.approx(all_, abs=1e-5)
    assert len(set(one)) == 3


def test_a_classifier_gives_the_probability_of_the_label(classifier):
    name = classifier(2)
    default = scorer(Reward(reward_type="sentiment", model_name=name))(SAMPLES)
    negative = Reward(reward_type="sentiment", model_name=name, params={"label": "negative"})
    assert [a + b for a, b in zip(default, scorer(negative)(SAMPLES), strict=True)] == (
        pytest.approx([1, 1, 1])
    )


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A classifier whose labels may both hold, and whose first two positions are the padding's."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    path = tmp_path_factory.mktemp("roberta")
    tokenizer = build_tokenizer(vocab_size=400, context=64)
    tokenizer.model_max_length, tokenizer.chat_template = int(1e30), None
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=66, type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id, problem_type="multi_label_classification",
        id2label={0: "insult", 1: "toxic"},
    )  # fmt: skip
    model = RobertaForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.out_proj.weight, std=1.0)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return model.eval(), tokenizer, str(path)


def test_labels_that_do_not_exclude_each_other_are_sigmoids(roberta):
    model, tokenizer, name = roberta
    judge = scorer(Reward(reward_type="model", model_name=name, params={"label": "toxic"}))
    logits = model(**tokenizer("a\n\nb", return_tensors="pt")).logits
    assert judge([Sample("a", "b")]) == pytest.approx([logits.sigmoid()[0, 1].item()], abs=1e-5)
    assert logits.sigmoid().sum().item() != pytest.approx(1, abs=1e-3)


def test_what_is_too_long_for_the_positions_loses_its_start(roberta):
    _, _, name = roberta
    judge = scorer(Reward(reward_type="model", model_name=name, params={"label": "toxic"}))
    start, other, end = judge(
        [
            Sample("x", "five " * 200 + "end"),
            Sample("another", "five " * 200 + "end"),
            Sample("x", "five " * 200 + "no"),
        ]
    )
    assert start == pytest.approx(other, abs=1e-6)
    assert start != pytest.approx(end, abs=1e-6)


def test_a_classifier_without_that_label_is_explained(classifier):
    found = scorer(Reward(reward_type="safety", model_name=classifier(2)))
    with pytest.raises(ConfigError, match="labels negative, positive; say which"):
        found(SAMPLES)


def test_pickled_weights_are_refused(classifier):
    found = scorer(Reward(reward_type="model", model_name=classifier(1, safe=False)))
    with pytest.raises(ConfigError, match="no safetensors"):
        found(SAMPLES)


def test_a_language_model_is_no_reward_model(tiny_model):
    found = scorer(Reward(reward_type="model", model_name=str(tiny_model)))
    with pytest.raises(ConfigError, match="has no weights for score"):
        found(SAMPLES)


def test_a_gpu_that_is_not_there_is_explained(classifier):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for skipped in ("stop", "skip"):
        absent = Reward(
            reward_type="model", model_name=classifier(1), device="cuda:0", on_error=skipped
        )
        with pytest.raises(ConfigError, match="no GPU here"):
            scorer(absent)


def test_the_gpu_is_that_of_the_process_and_not_of_the_thread_that_judges(monkeypatch):
    """torch's current GPU is 0 in every new thread, whichever the process trains on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    own = torch.device("cuda", 1)
    assert [chosen(name) for name in ("auto", "cuda", "cuda:1")] == [own] * 3
    assert chosen("cuda:0") != own
    assert chosen("cpu") == torch.device("cpu")


def test_a_tokenizer_that_pads_on_the_left_changes_no_score(tmp_path):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    tokenizer = build_tokenizer(vocab_size=400, context=64)
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"padding_side": "left"}))
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64, num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = GPT2ForSequenceClassification(config)
    torch.nn.init.normal_(model.transformer.wpe.weight, std=1.0)
    torch.nn.init.normal_(model.score.weight, std=1.0)
    model.save_pretrained(tmp_path)
    alone, together = (
        scorer(Reward(reward_type="model", model_name=str(tmp_path), params={"batch_size": size}))
        for size in (1, 3)
    )
    assert alone(SAMPLES) == pytest.approx(together(SAMPLES), abs=1e-4)


def test_the_fingerprint_follows_the_weights_and_the_code(classifier, tmp_path, monkeypatch):
    one, two = (Reward(reward_type="model", model_name=classifier(n)) for n in (1, 2))
    assert fingerprint(one, "") == fingerprint(one, "") != fingerprint(two, "")
    assert fingerprint(Reward(reward_type="length"), "") == ""
    assert local(one, fingerprint(one, ""), tmp_path / "into", uri="") == one
    assert local(Reward(reward_type="length"), "", tmp_path, uri="") == Reward(reward_type="length")
    monkeypatch.setenv("HOME", str(Path(one.model_name).parent))
    home = one.model_copy(update={"model_name": "~/" + Path(one.model_name).name})
    assert local(home, fingerprint(home, ""), tmp_path / "into", uri="") == one
    module = tmp_path / "mine.py"
    monkeypatch.syspath_prepend(tmp_path)
    module.write_text("def f(samples): return []\n")
    before = fingerprint(Reward(reward_type="mine:f"), "")
    module.write_text("def f(samples): return [1]\n")
    assert fingerprint(Reward(reward_type="mine:f"), "") != before

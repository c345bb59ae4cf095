"""Counterfactual GRPO: what masking a span does to the answer, and learning with that."""

import json

import pytest
import torch
from places import place
from rollouts import curve, digits, gain, make, run, spec

from aligntune.config.logging import SampleLogging
from aligntune.config.train import Counterfactual
from aligntune.train.online import online_trainer
from aligntune.train.policy import TRAINERS

TEXTS = [
    "one two three four five. 1 + 2 = 3\n#### 3",
    "the cat sat on a mat. the moon is in the sky.\n#### 7",
    "3 + 4 = 7. #### 7",
    "no marker at all",
]


@pytest.fixture(autouse=True)
def reward(monkeypatch):
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda _: digits)


def trainer_with(tiny_model, folder, **section):
    settings = {"num_generations": 2, "counterfactual": Counterfactual(**section)}
    chosen = spec("counterfactual-grpo", **settings)
    trainer = make(TRAINERS["counterfactual-grpo"], tiny_model, chosen, place(folder))
    trainer.model.train()
    return trainer


@pytest.fixture
def trainer(tiny_model, tmp_path):
    return trainer_with(tiny_model, tmp_path / "by-hand")


def rollout(tokenizer, texts, left=0, right=0, prompt="say red"):
    """`texts` as TRL would have sampled them, with more padding."""
    tokenizer.padding_side = "right"
    completions = tokenizer([text + tokenizer.eos_token for text in texts])["input_ids"]
    longest = max(map(len, completions)) + right
    ids, pad = tokenizer.encode(prompt), tokenizer.pad_token_id
    rows, width = len(texts), left + len(ids)
    return {
        "prompt_ids": torch.tensor([[pad] * left + ids] * rows),
        "prompt_mask": torch.tensor([[0] * left + [1] * (width - left)] * rows),
        "completion_ids": torch.tensor([c + [pad] * (longest - len(c)) for c in completions]),
        "completion_mask": torch.tensor(
            [[1] * len(c) + [0] * (longest - len(c)) for c in completions]
        ),
        "advantages": torch.tensor([1.0, -2.0, 0.5, 3.0][:rows]),
    }


def shaped(trainer, out):
    """Weights: advantages per token for an advantage of 1."""
    result = trainer.shape_rollout(dict(out), torch.zeros(len(out["advantages"])), [])
    return result["advantages"] / out["advantages"][:, None]


def layouts(trainer, out):
    lengths = out["completion_mask"].sum(1).tolist()
    rows = zip(out["completion_ids"].tolist(), lengths, strict=True)
    return [trainer._layout(ids[:length]) for ids, length in rows]


def test_weights_have_mean_one_and_differ_where_there_is_an_answer(trainer):
    out = rollout(trainer.processing_class, TEXTS)
    weights, mask = shaped(trainer, out), out["completion_mask"]
    means = (weights * mask).sum(1) / mask.sum(1)
    assert means.tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert [float(row[m.bool()].std()) > 0.05 for row, m in zip(weights, mask, strict=True)] == [
        True,
        True,
        True,
        False,
    ]
    assert torch.equal(weights[3], torch.ones_like(weights[3]))


def test_a_span_drops_what_the_answers_tokens_lose_without_it(trainer):
    """By hand, one row at a time, without padding: from the first answer token to the last, the
    end of sequence excluded."""
    out = rollout(trainer.processing_class, TEXTS)
    trainer.model.eval()
    for row, found in enumerate(layouts(trainer, out)):
        if found is None:
            continue
        length = int(out["completion_mask"][row].sum())
        prompt = out["prompt_ids"][row]

        def score(ids, prompt=prompt, found=found):
            with torch.no_grad():
                logits = trainer.model(input_ids=torch.cat([prompt, ids])[None]).logits
            logps = logits.log_softmax(-1)[0, len(prompt) - 1 :]
            return sum(float(logps[t, ids[t]]) for t in range(*found.answer))

        whole = out["completion_ids"][row, :length]
        assert found.answer[1] == length - 1
        expected = []
        for start, end in found.spans:
            masked = whole.clone()
            masked[start:end] = trainer.processing_class.pad_token_id
            expected.append(score(whole) - score(masked))
        got = trainer._drops(out, layouts(trainer, out))[row]
        assert got == pytest.approx(expected, abs=1e-4)
        assert max(map(abs, got)) > 1e-3


def test_padding_on_either_side_changes_no_weight(trainer):
    tokenizer = trainer.processing_class
    plain = rollout(tokenizer, TEXTS)
    expected = shaped(trainer, plain)
    padded = shaped(trainer, rollout(tokenizer, TEXTS, left=5, right=9))
    width = expected.size(1)
    assert torch.allclose(padded[:, :width], expected, atol=1e-4)
    assert torch.equal(padded[:, width:], torch.ones_like(padded[:, width:]))


def test_a_single_completion_is_weighted_too(trainer):
    tokenizer = trainer.processing_class
    alone = shaped(trainer, rollout(tokenizer, TEXTS[:1]))
    among = shaped(trainer, rollout(tokenizer, TEXTS))
    assert torch.allclose(alone, among[:1, : alone.size(1)], atol=1e-4)
    assert float(alone.std()) > 0.05


def test_dropout_does_not_reach_the_weights(trainer):
    trainer.model.config.attention_dropout = 0.5
    for layer in trainer.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    out = rollout(trainer.processing_class, TEXTS)
    assert torch.equal(shaped(trainer, out), shaped(trainer, out))
    assert trainer.model.training


def test_masking_a_span_of_mask_tokens_drops_nothing(trainer):
    out = rollout(trainer.processing_class, TEXTS[:1])
    (found,) = layouts(trainer, out)
    for start, end in found.spans:
        out["completion_ids"][0, start:end] = trainer.processing_class.pad_token_id
    drops = trainer._drops(out, [found])
    assert drops[0] == pytest.approx([0.0] * len(found.spans), abs=1e-6)


def test_only_completions_with_an_advantage_are_looked_at(trainer):
    out = rollout(trainer.processing_class, TEXTS[:2])
    out["advantages"] = torch.tensor([0.0, 0.0])
    result = trainer.shape_rollout(dict(out), torch.zeros(2), [])["advantages"]
    assert torch.equal(result, torch.zeros_like(result))
    assert "importance/drop" not in trainer._metrics["train"]
    out["advantages"] = torch.tensor([0.3, 0.3])
    assert float(shaped(trainer, out).std()) > 0.05


def test_a_completion_that_is_masked_out_is_left_alone(trainer):
    out = rollout(trainer.processing_class, TEXTS[:2])
    out["completion_mask"][0] = 0
    assert torch.equal(shaped(trainer, out)[0], torch.ones_like(out["completion_ids"][0] * 1.0))


def planted(cause):
    """A language model that finds any answer likely behind the token `cause`, else unlikely."""

    def score(model, ids, mask, keep, **_):
        seen = ((ids == cause) & mask.bool()).any(1)
        logps = torch.where(seen, -0.1, -3.0)[:, None].expand(-1, keep)
        return logps, None, None

    return score


@pytest.mark.parametrize("mode", ["counterfactual", "inverted"])
def test_the_span_that_causes_the_answer_weighs_most(tiny_model, tmp_path, mode):
    trainer = trainer_with(tiny_model, tmp_path, mode=mode)
    tokenizer = trainer.processing_class
    text = "one two three four five. the moon is in the sky. the cat sat on a mat.\n#### 7"
    out = rollout(tokenizer, [text])
    (cause,) = tokenizer.encode(" sky")
    trainer._get_per_token_logps_and_entropies = planted(cause)
    (found,) = layouts(trainer, out)
    (weights,) = shaped(trainer, out)
    (drops,) = trainer._drops(out, [found])
    answer = found.answer[1] - found.answer[0]
    assert drops == pytest.approx([0.0, 2.9 * answer, 0.0], abs=1e-4)
    inside = torch.zeros(found.answer[0], dtype=torch.bool)
    inside[slice(*found.spans[1])] = True
    reasoning = weights[: found.answer[0]]
    high, low = reasoning[inside], reasoning[~inside]
    if mode == "inverted":
        high, low = low, high
    assert high.unique().numel() == low.unique().numel() == 1
    assert float(high[0] / low[0]) == pytest.approx(2.0 / 1.25)


def test_spans_are_shown_with_what_the_answer_loses_without_them(trainer):
    tokenizer = trainer.processing_class
    answers = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    prompts = [[5, 6], [5, 6, 7], [5], [8]]
    shown = trainer.explain(prompts, answers)
    assert shown[3] == {}
    assert [span["text"] for span in shown[0]["spans"]] == ["one two three four five.", "1 + 2 = 3"]
    (alone,) = trainer.explain(prompts[:1], answers[:1])
    for span, other in zip(alone["spans"], shown[0]["spans"], strict=True):
        assert span["drop"] == pytest.approx(other["drop"], abs=1e-3)
    assert any(abs(span["drop"]) > 1e-3 for span in alone["spans"])


def test_the_samples_of_a_run_have_them(worker, tmp_path):
    asked = SampleLogging(max_new_tokens=16, prompts=("say red",), interval_steps=1, temperature=0)
    settings = {"max_steps": 1, "max_completion_length": 16, "learning_rate": 1e-6}
    chosen = spec("counterfactual-grpo", **settings)
    chosen = chosen.model_copy(update={"sample_logging": asked})
    made = place(tmp_path)
    run(TRAINERS["counterfactual-grpo"], worker, chosen, made)
    (row,) = map(json.loads, (made.out / "samples.jsonl").read_text().splitlines())
    assert "####" in row["completion"]
    assert [set(span) for span in row["spans"]] in ([], [{"text", "drop"}])


def test_random_weights_ask_no_model(tiny_model, tmp_path):
    trainer = trainer_with(tiny_model, tmp_path, mode="random")
    trainer._get_per_token_logps_and_entropies = None
    weights = shaped(trainer, rollout(trainer.processing_class, TEXTS[:1]))[0]
    assert weights.unique().numel() > 10


@pytest.mark.parametrize(
    "section",
    [
        {"mode": "vanilla"},
        {"mode": "counterfactual", "boost": 1.0, "min_weight": 1.0, "answer_weight": 1.0},
        {"answer_markers": ("never said",)},
    ],
    ids=["vanilla", "equal", "no marker"],
)
def test_equal_weights_are_grpo(worker, tmp_path, section):
    shared = {"max_steps": 4, "num_generations": 8, "max_completion_length": 16, "temperature": 1.0}
    settings = spec("counterfactual-grpo", counterfactual=Counterfactual(**section), **shared)
    ours = run(TRAINERS["counterfactual-grpo"], worker, settings, place(tmp_path / "ours"))
    theirs = run(online_trainer, worker, settings, place(tmp_path / "theirs"))
    for name in ("train/loss", "train/grad_norm", "train/reward"):
        expected = curve(place(tmp_path / "theirs"), name)
        assert curve(place(tmp_path / "ours"), name) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    got, expected = ours.model.state_dict(), theirs.model.state_dict()
    assert all(torch.allclose(got[name], expected[name], atol=1e-4) for name in expected)


@pytest.mark.parametrize("changes", [{}, {"num_iterations": 2, "gradient_accumulation_steps": 2}])
def test_the_reward_rises(worker, tmp_path, changes):
    made = place(tmp_path)
    batch = 16 // changes.get("gradient_accumulation_steps", 1)
    settings = spec(
        "counterfactual-grpo",
        num_generations=8,
        max_completion_length=16,
        per_device_batch_size=batch,
        max_steps=40,
        **changes,
    )
    run(TRAINERS["counterfactual-grpo"], worker, settings, made)
    assert gain(made) > 0.2
    assert curve(made, "train/importance/with_answer")[0] > 0.5
    assert curve(made, "train/importance/spans")[0] > 0.3
    assert max(curve(made, "train/importance/weight_variance")) > 0.01
    assert max(curve(made, "train/importance/drop")) > 0

"""Reward models: the loss is the one that is written down, and what it teaches is what it says."""

import json
from types import SimpleNamespace

import pytest
import torch
from places import at_look, place
from safetensors.torch import load_file
from slices import train_slice
from tiny import build_tokenizer
from tokens import trained_on, write_split

from aligntune.config.presets import resolved
from aligntune.config.rewards import Reward
from aligntune.config.train import Peft, Train
from aligntune.errors import ConfigError, DataError, Interrupted
from aligntune.evaluate.reward_model import check_heldout, measure
from aligntune.journal import read
from aligntune.models.head import load_scorer
from aligntune.models.load import load_tokenizer
from aligntune.models.prepare import prepare
from aligntune.models.source import locate
from aligntune.rewards import scorer
from aligntune.rewards.learned import NORMALIZATION
from aligntune.rewards.types import Sample
from aligntune.train.policy import train_policy
from aligntune.train.reward_model import reward_trainer
from aligntune.train.reward_rows import extras, margins, scores

WORDS = ("red", "blue", "sun", "moon", "tree", "sky", "cat", "dog")
HELD_OUT = ("story", "number", "mat", "good")


def said(text):
    return [{"role": "assistant", "content": text}]


def asked(word):
    return [{"role": "user", "content": f"say {word}"}]


def pair(word, **extra):
    row = {"prompt": asked(word), "chosen": said(f"{word} yes"), "rejected": said(f"{word} no")}
    return row | ({"extra": json.dumps(extra)} if extra else {})


def scored(word, text, score):
    messages = [*asked(word), *said(f"{word} {text}")]
    return {"messages": messages, "extra": json.dumps({"score": score})}


def spec(peft=None, objective="bradley_terry", **train):
    settings = {
        "per_device_batch_size": 4,
        "max_steps": 30,
        "learning_rate": 1e-2 if peft else 3e-3,
        "max_length": 64,
        "weight_decay": 0.0,
    } | train
    hyper = resolved(Train(**settings), "reward", peft, 96)
    return train_slice("reward", hyper, peft=peft, objective=objective, save_steps=4)


def data(folder, train, heldout, model):
    for split, rows in (("train", train), ("heldout", heldout)):
        task = "conversation" if "messages" in rows[0] else "preference"
        write_split(folder, rows, task, model, split)
    return folder


def measured(made, folder, spec):
    return measure(made.out / "model", folder, spec, lambda p: scores(extras(p)), lambda *_: None)


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """A reward model that prefers yes to no: (its stage's setting, its data, its spec)."""
    root = tmp_path_factory.mktemp("reward")
    folder = data(root / "data", [*map(pair, WORDS)] * 4, [*map(pair, HELD_OUT)], tiny_model)
    made = place(root / "out")
    wanted = spec()
    train_policy(wanted, tiny_model, folder, made)
    return made, folder, wanted


@pytest.fixture
def loss(tiny_model, tmp_path):
    """The loss that TRL computes of given scores."""

    def loss(chosen, rejected, margin=None, **train):
        wanted = spec(**train)
        rows = trained_on([pair("red")], wanted, tiny_model)
        trainer = reward_trainer(
            load_scorer(tiny_model, wanted), load_tokenizer(tiny_model), rows, None, wanted,
            place(tmp_path / "out"),
        )  # fmt: skip
        logits = torch.cat([torch.as_tensor(chosen), torch.as_tensor(rejected)])[:, None]
        inputs = {"input_ids": None, "attention_mask": torch.ones(2, 1)}
        if margin is not None:
            inputs["margin"] = torch.tensor([margin])
        return trainer.compute_loss(lambda **_: SimpleNamespace(logits=logits), inputs)

    return loss


@pytest.mark.parametrize(
    ("chosen", "rejected", "margin", "centering", "expected"),
    [
        (0.3, 0.3, None, 0.0, 0.693147),
        (1.0, 0.0, None, 0.0, 0.313262),
        (2.0, 1.0, None, 0.01, 0.403262),
        (1.0, 0.0, 1.0, 0.0, 0.693147),
        (7.0, 6.0, None, 0.0, 0.313262),
    ],
    ids=["equal", "one apart", "centering", "margin", "constant"],
)
def test_the_loss_has_its_golden_values(loss, chosen, rejected, margin, centering, expected):
    found = loss([chosen], [rejected], margin, center_rewards_coefficient=centering)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_a_constant_is_seen_by_the_centering_term_alone(loss):
    plain, shifted = (
        loss([c + 1.0], [c], center_rewards_coefficient=0.01).item() for c in (0.0, 5.0)
    )
    assert shifted - plain == pytest.approx(0.01 * (11**2 - 1), abs=1e-5)


def test_the_gradients_of_a_pair_sum_to_zero(loss):
    chosen, rejected = (torch.tensor([value], requires_grad=True) for value in (0.4, -0.2))
    loss(chosen, rejected).backward()
    assert chosen.grad.item() == pytest.approx(-rejected.grad.item())
    assert chosen.grad.item() < 0


def test_pairs_of_one_prompt_are_counted_as_one(trained, tiny_model, tmp_path):
    made, _, wanted = trained
    twice = [pair(word) for word in HELD_OUT for _ in "12"]
    found = measured(made, data(tmp_path / "data", [pair("red")], twice, tiny_model), wanted)
    assert found.metrics["accuracy/count"] == len(HELD_OUT)


def test_it_learns_and_is_measured_on_what_was_held_out(trained):
    made, folder, wanted = trained
    found = measured(made, folder, wanted).metrics
    assert found["accuracy"] > 0.9
    assert found["accuracy/count"] == len(HELD_OUT)
    assert found["margin"] > 0
    curve = [row.metrics["train/loss"] for row in read(made.out / "metrics.jsonl")]
    assert curve[-1] < 0.2 < 0.6 < curve[0]


def test_lora_trains_the_head_too_and_leaves_a_whole_model(tiny_model, tmp_path):
    from transformers import AutoModelForSequenceClassification

    folder = data(tmp_path / "data", [*map(pair, WORDS)] * 4, [*map(pair, HELD_OUT)], tiny_model)
    made, wanted = place(tmp_path / "out"), spec(Peft(r=8, alpha=32))
    train_policy(wanted, tiny_model, folder, made)
    assert measured(made, folder, wanted).metrics["accuracy"] > 0.9
    before = load_scorer(tiny_model, wanted).score.weight
    model = AutoModelForSequenceClassification.from_pretrained(made.out / "model")
    assert model.config.num_labels == 1
    assert not torch.equal(model.score.weight, before)
    assert "lora" not in "".join(load_file(made.out / "model" / "model.safetensors"))


def test_a_resumed_training_ends_with_the_same_weights(tiny_model, tmp_path):
    folder = data(tmp_path / "data", [*map(pair, WORDS)], [pair("mat")], tiny_model)
    wanted = spec(Peft(r=4, alpha=8), max_steps=7, per_device_batch_size=2)
    whole = place(tmp_path / "whole")
    train_policy(wanted, tiny_model, folder, whole)
    halved = place(tmp_path / "halved", at_look(5))
    with pytest.raises(Interrupted, match="after step 5 of 7"):
        train_policy(wanted, tiny_model, folder, halved)
    train_policy(wanted, tiny_model, folder, place(tmp_path / "halved"))
    one, two = (load_file(m.out / "model" / "model.safetensors") for m in (whole, halved))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_regression_learns_the_scores(tiny_model, tmp_path):
    texts = {"yes": 4.0, "no": 1.0}
    rows = [scored(word, text, score) for word in WORDS for text, score in texts.items()]
    held = [scored(word, text, score) for word in HELD_OUT for text, score in texts.items()]
    folder = data(tmp_path / "data", rows * 4, held, tiny_model)
    made, wanted = place(tmp_path / "out"), spec(objective="regression", max_steps=60)
    summary = train_policy(wanted, tiny_model, folder, made)
    found = measured(made, folder, wanted).metrics
    assert found["r2"] > 0.8
    assert found["correlation"] > 0.9
    assert summary["final_error"] < 0.5


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"stars": 3}, "stars"),
        ({"score": "high"}, "score"),
        ({"score": float("nan")}, "score"),
        ({}, "no other"),
    ],
)
def test_a_row_without_a_score_is_explained(other, said):
    with pytest.raises(DataError, match=rf"row 1 .* no number in `score`, but {said}.*; say which"):
        scores([{"score": 1.5}, other])


def test_what_is_too_long_loses_its_start(tiny_model):
    row = {**pair("red"), "prompt": [{"role": "user", "content": "blue " * 80 + "red"}]}
    (made,) = trained_on([row], spec(), tiny_model)
    tokenizer = load_tokenizer(tiny_model)
    assert len(made["chosen_ids"]) == 64
    for name, text in (("chosen_ids", "red yes"), ("rejected_ids", "red no")):
        assert tokenizer.decode(made[name]).rstrip().endswith(f"{text}<|im_end|>")


@pytest.mark.parametrize(
    ("others", "scale", "expected"),
    [
        ([{"margin": 2}, {}], 1.0, [2.0, 0.0]),
        ([{"margin": 2}, {"margin": 1}], 0.5, [1.0, 0.5]),
        ([{"score_chosen": 9, "score_rejected": 1}, {"score_chosen": 5, "score_rejected": 3}],
         1.0, [1.0, 0.25]),
        ([{"score_chosen": 1, "score_rejected": 4}], 1.0, [0.0]),
        ([{"margin": 3}], 0.0, [0.0]),
        ([{"margin": float("inf")}, {"margin": 1}], 1.0, [0.0, 1.0]),
    ],
)  # fmt: skip
def test_margins_come_from_their_column_or_from_ratings(others, scale, expected):
    assert margins(others, scale) == pytest.approx(expected)


def test_a_margin_reaches_the_loss(tiny_model, tmp_path):
    wanted = spec(margin_scale=2.0)
    rows = trained_on([pair("red", margin=1.5)] * 4, wanted, tiny_model)
    trainer = reward_trainer(
        load_scorer(tiny_model, wanted), load_tokenizer(tiny_model), rows, None, wanted,
        place(tmp_path / "out"),
    )  # fmt: skip
    assert next(iter(trainer.get_train_dataloader()))["margin"].tolist() == [3.0] * 4


def test_a_new_head_is_small_and_the_same_for_the_same_seed(tiny_model):
    one, two = (load_scorer(tiny_model, spec()).score.weight for _ in range(2))
    other = load_scorer(tiny_model, spec().model_copy(update={"seed": 2})).score.weight
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.std().item() == pytest.approx(33**-0.5, rel=0.4)


def test_a_classifier_keeps_a_head_of_one_output_and_loses_any_other(trained, tmp_path):
    from transformers import AutoModelForSequenceClassification

    made, *_ = trained
    kept = load_scorer(made.out / "model", spec())
    weights = load_file(made.out / "model" / "model.safetensors")
    assert torch.equal(kept.score.weight, weights["score.weight"])
    kept.config.num_labels, kept.score = 3, torch.nn.Linear(32, 3, bias=False)
    kept.save_pretrained(tmp_path / "three")
    one = load_scorer(tmp_path / "three", spec())
    assert one.score.weight.shape == (1, 32)
    assert torch.equal(one.model.norm.weight, kept.model.norm.weight)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "three")
    assert again.config.num_labels == 3


def test_an_encoder_that_has_no_causal_form_becomes_a_reward_model(tmp_path):
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    tokenizer = build_tokenizer(vocab_size=400, context=128)
    config = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=128, num_labels=3,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    DebertaV2ForSequenceClassification(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    base = tmp_path / "base"
    prepare(locate(str(tmp_path / "encoder")), base, chat_template=None, trust_remote_code=False)
    folder = data(tmp_path / "data", [*map(pair, WORDS)] * 4, [*map(pair, HELD_OUT)], base)
    made, wanted = place(tmp_path / "out"), spec(max_steps=2)
    train_policy(wanted, base, folder, made)
    assert measured(made, folder, wanted).metrics["accuracy/count"] == len(HELD_OUT)
    judge = scorer(Reward(reward_type="model", model_name=str(made.out / "model")))
    assert len(set(judge([Sample("say a", "b"), Sample("say a", "c d e")]))) == 2


def test_a_model_with_holes_in_its_body_is_refused(tiny_model, tmp_path):
    import shutil

    from safetensors.torch import save_file

    shutil.copytree(tiny_model, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="no weights for 1 parameters"):
        load_scorer(tmp_path / "model", spec())


def test_padding_on_the_right_changes_no_score(trained):
    from transformers import AutoModelForSequenceClassification

    from aligntune.evaluate.reward_model_scores import score_sequences

    made, *_ = trained
    model = AutoModelForSequenceClassification.from_pretrained(made.out / "model")
    rows = [[7, 8, 9], list(range(10, 60)), [11] * 20]

    def found(batch):
        return score_sequences(model, rows, batch_size=batch, progress=lambda *_: None)

    assert found(1) == pytest.approx(found(3), abs=1e-5)


def test_the_judge_of_a_run_scores_as_training_did(trained):
    """Text in the chat template through the saved tokenizer against the data stage's tokens."""
    from aligntune.data import tokens
    from aligntune.evaluate.reward_model import _load
    from aligntune.evaluate.reward_model_scores import score_sequences

    made, folder, _ = trained
    name = str(made.out / "model")
    found = scorer(Reward(reward_type="model", model_name=name))(
        [Sample(f"say {word}", f"{word} yes", conversation=asked(word)) for word in HELD_OUT]
    )
    rows = tokens.read(folder / "heldout.tokens.parquet").column(0).to_pylist()
    expected = score_sequences(
        _load(made.out / "model", trust_remote_code=False), [one["ids"] for one, _ in rows],
        batch_size=2, progress=lambda *_: None,
    )  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_judge_sees_the_whole_conversation(trained):
    made, *_ = trained
    judge = scorer(Reward(reward_type="model", model_name=str(made.out / "model")))
    system = {"role": "system", "content": "You are a cat."}
    with_system, without = judge(
        [
            Sample("a", "b", conversation=[system, *asked("a")]),
            Sample("a", "b", conversation=asked("a")),
        ]
    )
    assert with_system != without


def test_normalised_scores_have_mean_0_and_deviation_1_on_reference_answers(trained):
    made, folder, wanted = trained
    stored = measured(made, folder, wanted).normalization
    (made.out / "model" / NORMALIZATION).write_text(json.dumps(stored))
    name, samples = str(made.out / "model"), [Sample(f"say {w}", f"{w} yes") for w in HELD_OUT]
    judge = scorer(Reward(reward_type="model", model_name=name, params={"normalize": True}))
    found = torch.tensor(judge(samples))
    assert found.mean().item() == pytest.approx(0, abs=1e-4)
    assert found.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    plain = torch.tensor(scorer(Reward(reward_type="model", model_name=name))(samples))
    assert torch.allclose(found * stored["std"] + stored["mean"], plain, atol=1e-4)


def test_it_is_measured_in_the_precision_that_it_judges_in(trained):
    made, folder, wanted = trained
    rounded = wanted.model_copy(update={"precision": "bf16"})
    assert measured(made, folder, rounded) == measured(made, folder, wanted)


def test_without_held_out_rows_training_does_not_start(tmp_path):
    with pytest.raises(DataError, match="no row is held out to measure the reward model"):
        check_heldout(tmp_path)

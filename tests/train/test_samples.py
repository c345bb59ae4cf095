"""Samples show what the model says, and training does not notice."""

import json
import logging
import random

import numpy as np
import pytest
import rollouts
import torch
from offline import WORDS, make, run, spec
from places import at_look, place
from tiny import build_tiny_gpt2
from tokens import write_split

from aligntune.config.algo import ONLINE
from aligntune.config.logging import SampleLogging
from aligntune.config.rewards import Reward
from aligntune.config.train import Peft
from aligntune.errors import Interrupted
from aligntune.models.load import load_tokenizer
from aligntune.models.prepare import prepare
from aligntune.models.source import locate
from aligntune.train.loop import fit
from aligntune.train.policy import TRAINERS
from aligntune.train.samples import Asked, LogSamples, _random, first_prompts, log_samples

EVERY_2 = SampleLogging(num_samples=2, max_new_tokens=5, interval_steps=2)
ASKED = Asked([{"role": "user", "content": "x"}])
DROPOUT = Peft(r=4, alpha=8, dropout=0.3)


def samples(setting):
    file = setting.out / "samples.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def steps(setting):
    return [row["step"] for row in samples(setting)]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("algo", "peft"), [("sft", None), ("sft", DROPOUT), ("dpo", DROPOUT)])
def test_weights_are_the_same_bits_with_and_without(
    tiny_model, tmp_path, algo, peft, precision, checkpointing
):
    after = []
    for name, logging_ in (("without", None), ("with", EVERY_2)):
        chosen = spec(algo, peft, sample_logging=logging_, max_steps=3, precision=precision,
                      gradient_checkpointing=checkpointing)  # fmt: skip
        after.append(run(tiny_model, chosen, place(tmp_path / name)))
    assert not (tmp_path / "without" / "samples.jsonl").exists()
    assert len(samples(place(tmp_path / "with"))) == 4
    plain, looked = (trainer.model.state_dict() for trainer in after)
    assert all(torch.equal(plain[name], looked[name]) for name in plain)
    tokenizers = [trainer.processing_class.backend_tokenizer.to_str() for trainer in after]
    assert tokenizers[0] == tokenizers[1]


@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_online_training_does_not_notice_either(tiny_model, tmp_path, algo):
    asked = SampleLogging(num_samples=1, max_new_tokens=4, prompts=("say red",), interval_steps=1)
    after = []
    for name, logging_ in (("without", None), ("with", asked)):
        changes = {"sample_logging": logging_, "rewards": (Reward(reward_type="repetition"),)}
        chosen = rollouts.spec(algo, max_steps=3).model_copy(update=changes)
        trained = rollouts.run(TRAINERS[algo], tiny_model, chosen, place(tmp_path / name))
        after.append(trained.model.state_dict())
    assert steps(place(tmp_path / "with")) == [1, 2, 3]
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])


def test_every_random_state_goes_on_where_it_was():
    def draw():
        return torch.rand(()).item(), np.random.rand(), random.random()

    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = draw()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    with _random(9):
        torch.rand(3), np.random.rand(3), random.random()
    assert draw() == expected


def test_the_mode_of_every_module_is_left_alone(tiny_model, tmp_path):
    chosen = spec(sample_logging=EVERY_2)
    trainer = make(tiny_model, chosen, place(tmp_path))
    (callback,) = log_samples(chosen, [ASKED], trainer.processing_class, tmp_path)
    model = trainer.model.train()
    model.model.norm.eval()
    generation = model.generation_config
    trainer.state.global_step, trainer.state.max_steps = 2, 9
    callback.on_step_end(trainer.args, trainer.state, trainer.control, model=model)
    assert len(samples(place(tmp_path))) == 1
    assert model.training
    assert not model.model.norm.training
    assert model.generation_config is generation


@pytest.mark.parametrize(
    ("interval", "share", "expected"),
    [(2, None, [2, 4, 5]), (None, 0.6, [3, 5]), (None, None, [2, 4, 5]), (3, 0.8, [3, 4, 5]),
     (None, 0.01, [1, 2, 3, 4, 5]), (None, 1, [5]), (9, None, [5])],
)  # fmt: skip
def test_when(tiny_model, tmp_path, interval, share, expected):
    wanted = SampleLogging(
        num_samples=1, max_new_tokens=2, interval_steps=interval, percent_of_max_steps=share
    )
    run(tiny_model, spec(sample_logging=wanted, max_steps=5), place(tmp_path))
    assert steps(place(tmp_path)) == expected


def test_the_configs_prompts_come_before_those_of_the_rows(tiny_model, tmp_path):
    asked = SampleLogging(num_samples=2, max_new_tokens=3, prompts=("hello", "you?", "third"))
    run(tiny_model, spec(sample_logging=asked, max_steps=1), place(tmp_path / "own"))
    assert [row["prompt"] for row in samples(place(tmp_path / "own"))] == ["hello", "you?"]
    run(tiny_model, spec(sample_logging=EVERY_2, max_steps=1), place(tmp_path / "rows"))
    assert [row["prompt"] for row in samples(place(tmp_path / "rows"))] == ["say red", "say blue"]


def test_the_prompts_of_rows_are_those_held_out_where_there_are_some(tiny_model, tmp_path):
    def split(name):
        rows = [{"prompt": [{"role": "user", "content": name}], "answer": "7"}] * 3
        write_split(tmp_path, rows, "prompt", tiny_model, name)

    split("train")
    asked = first_prompts(EVERY_2, tmp_path)
    assert [one.prompt[0]["content"] for one in asked] == ["train"] * 2
    assert [one.answer for one in asked] == ["7", "7"]
    split("heldout")
    assert first_prompts(EVERY_2, tmp_path)[0].prompt[0]["content"] == "heldout"
    assert first_prompts(None, tmp_path) == []


@pytest.mark.parametrize("algo", ["sft", "dpo"])
def test_rewards_that_are_not_optimised_score_the_samples(tiny_model, tmp_path, algo, caplog):
    shown = (Reward(reward_type="length", params={"min_length": 1}), Reward(reward_type="math"))
    chosen = spec(algo, sample_logging=EVERY_2, max_steps=2)
    chosen = chosen.model_copy(update={"shown_rewards": shown})
    with caplog.at_level(logging.INFO, "aligntune"):
        run(tiny_model, chosen, place(tmp_path))
    first, second = samples(place(tmp_path))
    assert list(first["rewards"]) == ["length", "math"]
    assert all(0 <= row["rewards"]["length"] <= 1 for row in (first, second))
    assert first["rewards"]["math"] is None  # the row has no answer to compare with
    assert "math -" in caplog.text


@pytest.mark.parametrize("algo", sorted(ONLINE))
def test_what_is_optimised_scores_the_samples(tiny_model, tmp_path, monkeypatch, algo):
    seen = []

    def judge(batch):
        seen.extend(batch)
        return [float(len(sample.completion)) for sample in batch]

    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda reward: judge)
    asked = EVERY_2.model_copy(update={"interval_steps": 1})
    wanted = rollouts.spec(algo, max_steps=1).model_copy(update={"sample_logging": asked})
    made = place(tmp_path)
    trainer = rollouts.make(TRAINERS[algo], tiny_model, wanted, made)
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "say sun"}]
    fit(trainer, wanted, made, rows=16, prompts=[Asked(prompt, "sun", '{"level": 3}')])
    (row,) = samples(made)
    assert row["rewards"]["judge"] == len(row["completion"])
    assert (seen[-1].prompt, seen[-1].answer, seen[-1].columns) == ("say sun", "sun", {"level": 3})


def test_a_score_is_of_the_answer_and_not_of_the_padding_behind_it(tiny_model, tmp_path):
    lengths, tokenizer = [], load_tokenizer(tiny_model)

    def judge(*, completion_ids, **_):
        lengths.append([len(ids) for ids in completion_ids])
        return [1.0 for _ in completion_ids]

    chosen = spec(sample_logging=EVERY_2)
    trainer = make(tiny_model, chosen, place(tmp_path))
    (callback,) = log_samples(chosen, [ASKED, ASKED], tokenizer, tmp_path, [judge])
    end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    answers = torch.tensor([[5, end, padding, padding], [5, 6, 7, 8]])
    trainer.model.generate = lambda input_ids, **_: torch.cat([input_ids, answers], dim=1)
    trainer.state.global_step, trainer.state.max_steps = 2, 2
    callback.on_step_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
    assert lengths == [[2, 4]]


def test_samples_show_what_was_learned(tiny_model, tmp_path, caplog):
    wanted = SampleLogging(num_samples=1, max_new_tokens=8, temperature=0, percent_of_max_steps=0.5)
    rows = [
        {
            "messages": [
                {"role": "user", "content": "say red"},
                {"role": "assistant", "content": "red it is"},
            ]
        }
    ] * 4
    chosen = spec(sample_logging=wanted, max_steps=40, learning_rate=1e-2)
    with caplog.at_level(logging.INFO, "aligntune"):
        run(tiny_model, chosen, place(tmp_path), rows)
    assert samples(place(tmp_path))[-1] == {
        "step": 40,
        "prompt": "say red",
        "completion": "red it is",
    }
    assert "samples after step 40\n  say red | red it is" in caplog.text


def test_an_interrupted_run_goes_on_without_duplicates(tiny_model, tmp_path):
    chosen = spec(sample_logging=EVERY_2.model_copy(update={"interval_steps": 1}), save_steps=2)
    whole = place(tmp_path / "whole")
    run(tiny_model, chosen, whole)
    halved = place(tmp_path / "halved", at_look(3))
    with pytest.raises(Interrupted):
        run(tiny_model, chosen, halved)
    # As after a crash: what was written after the last checkpoint, with a torn line.
    with (halved.out / "samples.jsonl").open("a") as file:
        file.write('{"step": 4, "prompt": "x", "completion": "y"}\n{"step": 4, "pro')
    run(tiny_model, chosen, place(tmp_path / "halved"))
    assert steps(halved) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert samples(halved) == samples(whole)


def test_being_stopped_is_not_the_end_of_training(tiny_model, tmp_path):
    last = spec(sample_logging=EVERY_2.model_copy(update={"interval_steps": 100}))
    with pytest.raises(Interrupted):
        run(tiny_model, last, place(tmp_path, lambda: True))
    assert not (tmp_path / "samples.jsonl").exists()


def test_the_tokenizer_keeps_the_settings_that_are_saved_with_it(tiny_model, tmp_path):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer(["red", "blue moon"], padding=True)
    before = tokenizer.backend_tokenizer.to_str()
    log_samples(spec(sample_logging=EVERY_2), [ASKED], tokenizer, tmp_path)
    assert tokenizer.backend_tokenizer.to_str() == before


def test_a_prompt_longer_than_the_model_is_cut_from_its_start(tmp_path):
    """One position more, and GPT-2 has no embedding for it."""
    source = build_tiny_gpt2(tmp_path / "source")
    gpt2 = tmp_path / "model"
    prepare(locate(str(source)), gpt2, chat_template=None, trust_remote_code=False)
    asked = SampleLogging(max_new_tokens=10, prompts=(" ".join(WORDS) * 100,), interval_steps=1)
    run(gpt2, spec(sample_logging=asked, max_steps=1), place(tmp_path))
    assert steps(place(tmp_path)) == [1]


def test_weights_that_overflow_are_not_a_crash_of_the_samples(tiny_model, tmp_path):
    chosen = spec(sample_logging=EVERY_2)
    trainer = make(tiny_model, chosen, place(tmp_path))
    trainer.model.lm_head.weight.data.fill_(float("nan"))
    tokenizer = trainer.processing_class
    callback = LogSamples(EVERY_2, [ASKED], tokenizer, tmp_path / "samples.jsonl", "fp32", 0)
    trainer.state.global_step, trainer.state.max_steps = 2, 2
    callback.on_step_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
    assert steps(place(tmp_path)) == [2]

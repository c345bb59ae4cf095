"""Training ends with better weights or with a reason, never with NaNs or with nothing done."""

import json
import os
import shutil
import signal
import subprocess
import sys

import offline
import pytest
import torch
from offline import spec
from places import at_look, place
from rollouts import curve
from safetensors.torch import load_file, save_file
from tokens import trained_on, write_split
from transformers import AutoConfig, AutoModelForCausalLM

from aligntune.config.train import Peft
from aligntune.errors import DataError, Diverged, Interrupted
from aligntune.journal import read
from aligntune.models.load import load_tokenizer
from aligntune.train.checkpoints import steps
from aligntune.train.policy import train_policy

ROWS, PAIRS = offline.ROWS["sft"], offline.ROWS["dpo"]


@pytest.fixture
def data(tmp_path, tiny_model):
    def write(rows):
        task = "conversation" if "messages" in rows[0] else "preference"
        return write_split(tmp_path / "data", rows, task, tiny_model)

    return write


@pytest.fixture
def setting(tmp_path):
    return lambda: place(tmp_path / "out")


def losses(setting):
    return curve(setting, "train/loss")


@pytest.mark.parametrize("peft", [None, Peft(r=8, alpha=32)], ids=["full", "lora"])
@pytest.mark.parametrize(("algo", "rows"), [("sft", ROWS), ("dpo", PAIRS)])
def test_the_loss_falls_and_the_weights_are_saved(tiny_model, data, setting, algo, rows, peft):
    made = setting()
    rate = 1.5e-2 if peft else 5e-3
    metrics = train_policy(
        spec(algo, peft, max_steps=16, learning_rate=rate), tiny_model, data(rows), made
    )
    curve = losses(made)
    assert sum(curve[-4:]) < 0.95 * sum(curve[:4])
    assert metrics["steps"] == 16
    assert metrics["train_loss"] == pytest.approx(sum(curve) / len(curve))
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_model, made.out / "model")
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (made.out / "adapter").exists() == (peft is not None)


def test_what_trl_turns_on_for_experts_is_not_in_the_saved_config(
    tiny_model, data, setting, tmp_path
):
    """Anyone who loads it would get the router's logits, and their share in the loss."""
    experts = shutil.copytree(tiny_model, tmp_path / "experts")
    settings = json.loads((experts / "config.json").read_text())
    for name in ("model_type", "architectures"):
        settings.pop(name)
    AutoModelForCausalLM.from_config(
        AutoConfig.for_model("mixtral", **settings, num_local_experts=2)
    ).save_pretrained(experts)
    made = setting()
    train_policy(spec(max_steps=1), experts, data(ROWS), made)
    saved = json.loads((made.out / "model" / "config.json").read_text())
    assert (saved["model_type"], saved["output_router_logits"]) == ("mixtral", False)


@pytest.mark.parametrize(("algo", "rows"), [("sft", ROWS), ("dpo", PAIRS)])
def test_a_token_that_the_model_has_no_embedding_for_is_named(
    tiny_model, setting, tmp_path, algo, rows
):
    taught = shutil.copytree(tiny_model, tmp_path / "taught")
    tokenizer = load_tokenizer(taught)
    tokenizer.add_tokens("<image>")
    tokenizer.save_pretrained(taught)
    shown = json.loads(json.dumps(rows).replace("say moon", "say <image>"))
    task = "conversation" if algo == "sft" else "preference"
    data = write_split(tmp_path / "data", shown, task, taught)
    with pytest.raises(DataError, match=r"the train rows have the token '<image>'.*there are 400"):
        train_policy(spec(algo), taught, data, setting())


def test_dpo_starts_at_log_2_because_the_reference_is_the_policy_it_starts_from(
    tiny_model, data, setting
):
    made = setting()
    train_policy(spec("dpo", max_steps=1), tiny_model, data(PAIRS), made)
    assert losses(made)[0] == pytest.approx(0.693147, abs=1e-4)


def test_only_the_assistants_words_are_learned(tiny_model, data, setting):
    from transformers import AutoTokenizer

    from aligntune.models.load import load_policy
    from aligntune.train.sft import sft_trainer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = trained_on(ROWS, spec(), tiny_model)
    policy = load_policy(tiny_model, trust_remote_code=False)
    trainer = sft_trainer(policy, tokenizer, rows, None, spec(), setting())
    batch = next(iter(trainer.get_train_dataloader()))
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        learned = tokenizer.decode(ids[labels != -100])
        assert "it is" in learned
        assert "say" not in learned


def test_every_assistant_turn_is_learned_once(tiny_model):
    roles = ("system", "user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": f"{i}"} for i, role in enumerate(roles)]
    rows = trained_on([{"messages": messages}], spec(), tiny_model)
    tokenizer = load_tokenizer(tiny_model)
    learned = [
        tokenizer.decode([i for i, bit in zip(*row.values(), strict=True) if bit]) for row in rows
    ]
    assert ["2" in learned[0], "4" in learned[1]] == [True, True]
    assert not {"1", "3"} & set("".join(learned))


@pytest.mark.parametrize("algo", ["sft", "dpo"])
def test_a_weight_that_is_not_finite_stops_before_the_first_update(
    tiny_model, data, setting, tmp_path, algo
):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    tensors = load_file(broken / "model.safetensors")
    name = next(n for n in tensors if "down_proj" in n)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    made = setting()
    with pytest.raises(Diverged, match="step 1: the loss"):
        train_policy(spec(algo), broken, data(ROWS if algo == "sft" else PAIRS), made)
    assert not (made.out / "model").exists()
    assert steps(made.work / "checkpoints") == []


def test_a_gradient_that_is_not_finite_stops_although_the_loss_is(tiny_model, data, setting):
    from transformers import AutoTokenizer

    from aligntune.models.load import load_policy
    from aligntune.train.loop import fit
    from aligntune.train.sft import sft_trainer

    rows = trained_on(ROWS, spec(), tiny_model)
    policy = load_policy(tiny_model, trust_remote_code=False)
    weight = policy.get_input_embeddings().weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    made = setting()
    trainer = sft_trainer(policy, tokenizer, rows, None, spec(), made)
    before = weight.detach().clone()
    with pytest.raises(Diverged, match="gradient is not finite"):
        fit(trainer, spec(), made, rows=len(rows))
    assert torch.equal(before, weight)


def test_an_update_that_overflows_reaches_no_checkpoint(tiny_model, data, setting, monkeypatch):
    def overflow(optimizer, *_, **__):
        weight = optimizer.param_groups[0]["params"][0]
        with torch.no_grad():
            weight.view(-1)[0] = float("inf")

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    made = setting()
    with pytest.raises(Diverged, match="is not finite, so there is nothing to save"):
        train_policy(spec().model_copy(update={"save_steps": 1}), tiny_model, data(ROWS), made)
    assert not list(made.out.rglob("*.safetensors"))


@pytest.mark.parametrize("steps_in_all", [3, 30])
def test_a_run_that_learns_nothing_is_no_success(
    tiny_model, data, setting, monkeypatch, steps_in_all
):
    from aligntune.train import guard, loop

    alike = [row | {"rejected": row["chosen"]} for row in PAIRS]
    monkeypatch.setattr(loop, "Still", lambda: guard.Still(patience=5))
    with pytest.raises(
        Diverged, match=rf"in all {min(5, steps_in_all)} steps there was no gradient"
    ):
        train_policy(spec("dpo", max_steps=steps_in_all), tiny_model, data(alike), setting())


def test_rows_that_do_not_fit_are_an_error_and_not_fewer_rows(tiny_model, data, setting):
    long = [
        {
            "messages": [
                {"role": "user", "content": "red " * 100},
                {"role": "assistant", "content": "blue"},
            ]
        }
    ]
    with pytest.raises(DataError, match=r"2 of 10 training rows .* raise\s+train.max_length"):
        train_policy(spec(), tiny_model, data(ROWS + long * 2), setting())


def test_being_asked_to_stop_saves_and_the_next_start_ends_with_the_same_weights(
    tiny_model, data, setting, tmp_path
):
    whole = setting()
    train_policy(spec(), tiny_model, data(ROWS), whole)
    expected = load_file(whole.out / "model" / "model.safetensors")
    out = tmp_path / "again"
    halved = place(out, at_look(3))
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        train_policy(spec(), tiny_model, data(ROWS), halved)
    assert steps(out / "work" / "checkpoints") == [2, 3]
    assert not (out / "model").exists()
    resumed = place(out)
    metrics = train_policy(spec(), tiny_model, data(ROWS), resumed)
    got = load_file(out / "model" / "model.safetensors")
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert losses(resumed) == losses(whole)
    assert metrics["train_loss"] == sum(losses(whole)) / 6


def test_a_stop_in_an_evaluation_takes_no_further_step(tiny_model, data, setting, tmp_path):
    measured = spec().model_copy(update={"eval_steps": 4, "save_steps": 100})
    both = data(ROWS)
    for file in list(both.glob("train.*")):
        shutil.copyfile(file, both / file.name.replace("train", "heldout", 1))
    whole = setting()
    train_policy(measured, tiny_model, both, whole)
    expected = load_file(whole.out / "model" / "model.safetensors")
    out = tmp_path / "again"
    halved = place(out, at_look(5))  # after four steps
    with pytest.raises(Interrupted, match="after step 4 of 6"):
        train_policy(measured, tiny_model, both, halved)
    assert steps(out / "work" / "checkpoints") == [4]
    resumed = place(out)
    train_policy(measured, tiny_model, both, resumed)
    got = load_file(out / "model" / "model.safetensors")
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert losses(resumed) == losses(whole)
    assert curve(whole, "eval/loss")
    assert curve(resumed, "eval/loss") == curve(whole, "eval/loss")


def test_no_checkpoint_holds_a_pickle_of_arguments(tiny_model, data, setting):
    made = setting()
    train_policy(spec(), tiny_model, data(ROWS), made)
    assert steps(made.work / "checkpoints")
    assert not list(made.work.rglob("training_args.bin"))
    assert json.loads((made.out / "model" / "config.json").read_text())["use_cache"] is True


def test_a_signal_asks_to_stop_once_and_the_handler_goes_away():
    from aligntune.interrupt import stop_on_signals

    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping()
    assert signal.getsignal(signal.SIGTERM) is before


def test_signals_that_come_all_at_once_are_one_request(capfd):
    """A handler may interrupt itself, so it may take no lock."""
    from aligntune.interrupt import stop_on_signals

    send = "import os, sys\nfor _ in range(3000): os.kill(int(sys.argv[1]), 15)"
    with stop_on_signals() as stopping:
        sender = subprocess.Popen([sys.executable, "-c", send, str(os.getpid())])
        while sender.poll() is None:
            pass
        assert stopping()
    assert capfd.readouterr().err.count("SIGTERM: finishing this step, then saving") == 1


def test_the_best_checkpoint_is_kept_and_not_the_last(tiny_model, data, setting):
    """What is learned is wrong on the held-out rows, more so with every step."""
    other = {"role": "assistant", "content": "one two three four five six"}
    folder = data([{"messages": [row["messages"][0], other]} for row in ROWS])
    for ending in ("parquet", "tokens.parquet"):
        (folder / f"train.{ending}").rename(folder / f"heldout.{ending}")
    data(ROWS)
    ruinous = spec(max_steps=6, learning_rate=5e-2, lr_scheduler_type="constant")
    wanted = {"save_steps": 1, "eval_steps": 1, "load_best": 1}
    made = setting()
    metrics = train_policy(ruinous.model_copy(update=wanted), tiny_model, folder, made)
    rows = [row for row in read(made.out / "metrics.jsonl") if "eval/loss" in row.metrics]
    best = min(rows, key=lambda row: row.metrics["eval/loss"]).step
    assert best != 6
    assert metrics["best_step"] == best
    kept = load_file(made.out / "model" / "model.safetensors")
    saved = load_file(made.work / "checkpoints" / f"step-{best:06d}" / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in saved.items())


def test_without_held_out_rows_there_is_no_best_and_nothing_is_trained(tiny_model, data, setting):
    made = setting()
    with pytest.raises(DataError, match="no held-out rows to choose the best checkpoint by"):
        train_policy(spec().model_copy(update={"load_best": 2}), tiny_model, data(ROWS), made)
    assert not steps(made.work / "checkpoints")

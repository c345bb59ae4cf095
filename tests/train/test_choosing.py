"""What a stage decides when it starts: it changes nothing but time, and is kept when it goes on."""

import json
import logging
from dataclasses import asdict

import offline
import pytest
import torch
from safetensors.torch import load_file
from tokens import write_split

from aligntune.config.train import Peft
from aligntune.data import report
from aligntune.estimate import choice
from aligntune.estimate.room import Room
from aligntune.train import choosing
from aligntune.train.choosing import settled
from aligntune.train.heap import kept
from aligntune.train.loop import Setting
from aligntune.train.policy import train_policy
from aligntune.train.ranks import Job, read_job, write_job

PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"say {word}"}],
        "chosen": [{"role": "assistant", "content": f"{word} yes"}],
        "rejected": [{"role": "assistant", "content": f"no {word} no"}],
    }
    for word in ("red", "blue", "sun", "moon", "tree", "sky", "cat", "dog")
]
CHATS = [{"messages": [*row["prompt"], *row["chosen"]]} for row in PAIRS]
PLENTY, NOTHING = Room("cpu", 2**36), Room("cpu", 2**10)


def spec(algo="sft", peft=None, checkpointing="auto", precision="fp32", **train):
    own = {"gradient_checkpointing": checkpointing, "precision": precision}
    return offline.spec(algo, peft, **{"max_steps": 4} | own | train)


@pytest.fixture
def data(tmp_path, tiny_model):
    def write(rows, task):
        return write_split(tmp_path / "data", rows, task, tiny_model)

    return write


def trained(model, data, wanted, out):
    """Its weights, and the losses and gradient norms on the way."""
    (out / "work").mkdir(parents=True)
    setting = Setting(out, out / "work", "key", lambda *shown: None, lambda: False)
    train_policy(wanted, model, data, setting)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    curve = [json.loads(line)["metrics"] for line in lines]
    found = [(point["train/loss"], point["train/grad_norm"]) for point in curve]
    return load_file(out / "model" / "model.safetensors"), found


@pytest.mark.parametrize("peft", [None, Peft(r=4, dropout=0.1)], ids=["full", "lora with dropout"])
@pytest.mark.parametrize(
    ("algo", "rows", "task"), [("sft", CHATS, "conversation"), ("dpo", PAIRS, "preference")]
)
def test_with_and_without_checkpointing_every_bit_is_the_same(
    algo, rows, task, peft, tiny_model, data, tmp_path
):
    place = data(rows, task)
    sides = [
        trained(tiny_model, place, spec(algo, peft, asked), tmp_path / str(asked))
        for asked in (True, False)
    ]
    (on, losses), (off, others) = sides
    assert losses == others
    assert all(torch.equal(on[name], off[name]) for name in on)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_and_without_a_kept_heap_every_bit_is_the_same(precision, tiny_model, data, tmp_path):
    place, sides = data(PAIRS, "preference"), []
    for wanted in (True, False):
        with kept(wanted=wanted):
            made = spec("dpo", None, False, precision)
            sides.append(trained(tiny_model, place, made, tmp_path / str(wanted)))
    (on, losses), (off, others) = sides
    assert losses == others
    assert all(torch.equal(on[name], off[name]) for name in on)


def test_in_bf16_losses_and_gradients_agree_too(tiny_model, data, tmp_path):
    place = data(CHATS, "conversation")
    (_, on), (_, off) = [
        trained(tiny_model, place, spec("sft", None, asked, "bf16"), tmp_path / str(asked))
        for asked in (True, False)
    ]
    assert torch.tensor(on) == pytest.approx(torch.tensor(off), rel=1e-3)


def test_what_a_model_does_not_take_is_told(tiny_model, data, tmp_path):
    told = {}
    (tmp_path / "work").mkdir()
    quiet = (lambda *shown: None, lambda: False, {}, told.update)
    wanted = spec(max_steps=1).model_copy(update={"attn_implementation": "eager"})
    setting = Setting(tmp_path, tmp_path / "work", "key", *quiet)
    train_policy(wanted, tiny_model, data(CHATS, "conversation"), setting)
    assert told == {"plain_head": True, "padding_free": False}


@pytest.fixture
def machine(monkeypatch):
    """Makes the machine one with so much free memory."""

    def has(room):
        monkeypatch.setattr(choosing, "room", lambda processes: room)

    return has


def chosen(model, folder, name="work", key="key"):
    job, found = settled(Job(spec(), model, folder, folder / name, key))
    return job.spec, asdict(found)


def begun(work):
    (work / "checkpoints" / "step-000002").mkdir(parents=True)


def test_what_goes_on_from_a_checkpoint_goes_on_as_it_began(machine, tiny_model, tmp_path):
    machine(PLENTY)
    first, facts = chosen(tiny_model, tmp_path)
    assert (first.gradient_checkpointing, facts["gradient_checkpointing"]) == (False, False)
    assert "fit into 70% of" in facts["reasons"]["gradient_checkpointing"]
    begun(tmp_path / "work")
    machine(NOTHING)
    assert chosen(tiny_model, tmp_path) == (first, facts)


@pytest.mark.parametrize("can", [True, False])
def test_all_processes_of_a_stage_keep_their_heap_if_it_is_decided(
    can, machine, tiny_model, tmp_path
):
    machine(Room("cpu", 2**36, keeps_heap=can))
    job, found = settled(Job(spec(), tiny_model, tmp_path, tmp_path / "work", "key"))
    assert job.kept_heap is found.kept_heap is can
    write_job(job, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json").kept_heap is can


def test_what_has_no_checkpoint_yet_decides_again(machine, tiny_model, tmp_path):
    machine(PLENTY)
    chosen(tiny_model, tmp_path)
    machine(NOTHING)
    again, _ = chosen(tiny_model, tmp_path)
    assert again.gradient_checkpointing is True
    assert choice.recall(tmp_path / "work")[0].gradient_checkpointing is True


def test_what_was_moved_here_from_another_stage_is_no_beginning(machine, tiny_model, tmp_path):
    journal = tmp_path / "metrics.jsonl"
    machine(PLENTY)
    chosen(tiny_model, tmp_path, key="other")
    begun(tmp_path / "work")
    journal.write_text('{"step": 1, "time": 0, "metrics": {"train/loss": 9.0}}\n')
    machine(NOTHING)
    first, _ = chosen(tiny_model, tmp_path)
    assert (first.gradient_checkpointing, journal.exists()) == (True, False)
    journal.write_text("")
    machine(PLENTY)
    assert (chosen(tiny_model, tmp_path)[0], journal.exists()) == (first, True)


@pytest.mark.parametrize("damage", [None, "", '{"choice": {"gradient_checkpointing": true}}'])
def test_checkpoints_of_which_nothing_says_how_they_were_made_are_not_gone_on_with(
    damage, machine, tiny_model, tmp_path, caplog
):
    machine(PLENTY)
    chosen(tiny_model, tmp_path)
    begun(tmp_path / "work")
    file = tmp_path / "work" / choice.FILE
    file.unlink()
    if damage is not None:
        file.write_text(damage)
    machine(NOTHING)
    first, _ = chosen(tiny_model, tmp_path)
    assert first.gradient_checkpointing is True
    assert any("choice.json is" in record.getMessage() for record in caplog.records)
    folder = tmp_path / "work" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["quarantine"]
    # It begins anew, and from then on it goes on as that.
    begun(tmp_path / "work")
    machine(PLENTY)
    assert chosen(tiny_model, tmp_path)[0] == first


def test_it_is_said_in_one_line_and_what_will_not_fit_is_said_before(
    machine, tiny_model, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    machine(NOTHING)
    chosen(tiny_model, tmp_path)
    told, warned = (record.getMessage() for record in caplog.records)
    assert "gradient_checkpointing: true (" in told
    assert "0.00 GB are free" in warned
    assert warned.endswith("train an adapter (peft)")
    caplog.clear()
    machine(PLENTY)
    chosen(tiny_model, tmp_path, "other")
    assert len(caplog.records) == 1


def test_rows_are_as_long_as_the_data_stage_found_them(machine, tiny_model, tmp_path, monkeypatch):
    source = {"lengths": {"counts": [3], "mean": 20.0, "max": 31}}
    made = {"rows": {"train": 3}, "sources": [source]}
    (tmp_path / report.FILE).write_text(json.dumps(made))
    asked = []
    monkeypatch.setattr(
        choosing, "choose", lambda *args: asked.append(args) or choice.choose(*args)
    )
    machine(PLENTY)
    chosen(tiny_model, tmp_path)
    assert asked[0][-1] == 31

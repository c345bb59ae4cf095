"""DPO with the reference's log-probabilities from before is DPO with the reference beside it."""

import subprocess
import sys
from pathlib import Path

import offline
import pyarrow.parquet as pq
import pytest
import torch
from offline import ROWS
from places import at_look, place
from safetensors.torch import load_file
from tokens import write_split

from aligntune.config.presets import LOSS_TYPES
from aligntune.config.slices import ReferenceSlice
from aligntune.config.train import Peft
from aligntune.errors import DataError, Diverged, Interrupted, ResourceError
from aligntune.journal import complete_lines, read
from aligntune.models.load import load_tokenizer
from aligntune.models.trainable import load_trainable
from aligntune.train import padding_free, reference
from aligntune.train.dpo import dpo_trainer
from aligntune.train.policy import train_policy
from aligntune.train.ranks import Job, read_job, write_job
from aligntune.train.rows import REFERENCE, training_rows

LONGEST = 64
LONG = [{"role": "user", "content": "one two three four five six seven " * 12}]
PAIRS = ROWS["dpo"]
TOLERANCE = {"fp32": 1e-6, "bf16": 2e-3}
"""Of the loss, of gradients as a share of their norm ten times that: only the padding differs."""


def spec(peft=None, precision="fp32", **train):
    settings = {"per_device_batch_size": 3, "max_length": LONGEST} | train
    return offline.spec("dpo", peft, precision=precision, **settings)


def uneven():
    """Answers of all lengths, and in the middle a prompt that leaves none."""
    rows = [
        row | {"chosen": [{"role": "assistant", "content": "the sun " * (1 + 5 * at)}]}
        for at, row in enumerate(PAIRS)
    ]
    return [*rows[:3], rows[0] | {"prompt": LONG}, *rows[3:]]


@pytest.fixture
def data(tmp_path, tiny_model):
    def write(rows=PAIRS, name="data"):
        folder = write_split(tmp_path / name, rows, "preference", tiny_model)
        return write_split(folder, rows[:2], "preference", tiny_model, split="heldout")

    return write


@pytest.fixture
def job(tmp_path, tiny_model):
    def make(data, name="reference", precision="fp32", processes=1, head="auto", free="auto"):
        wanted = ReferenceSlice(
            max_length=LONGEST,
            precision=precision,
            attn_implementation=None,
            quantization=None,
            trust_remote_code=False,
            lm_head=head,
            padding_free=free,
            processes=processes,
        )
        work = tmp_path / name / "work"
        work.mkdir(parents=True, exist_ok=True)
        return Job(reference.as_training(wanted), tiny_model, data, work, "key", task="reference")

    return make


@pytest.fixture
def computed(job):
    """The folder with what the reference makes of the pairs in `data`."""

    def compute(data, name="reference", stopping=lambda: False, **changes):
        work = job(data, name, **changes)
        reference.begin(work.work)
        count = reference.compute(work, place(work.work.parent, stopping))
        reference.collect(work, work.work.parent, count)
        return work.work.parent

    return compute


def trainer(path, data, wanted, folder, known=None):
    """DPO on `data`, with the reference from `known` or live."""
    rows = training_rows(data, "train", wanted, known)
    model = load_trainable(path, wanted)
    return dpo_trainer(model, load_tokenizer(path), rows, None, wanted, place(folder))


def moved(found):
    """The policy away from the reference, the same way each time."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in found.model.parameters():
            if weight.requires_grad:
                weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return found


def loss_and_gradient(found):
    """Of the first batch."""
    moved(found)
    batch = next(iter(found.get_train_dataloader()))
    with found.compute_loss_context_manager():
        loss = found.compute_loss(found.model, found._prepare_inputs(batch))
    loss.backward()
    gradients = [p.grad.flatten() for p in found.model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)


@pytest.mark.parametrize("peft", [None, Peft(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loss_and_gradient_are_those_of_a_live_reference(
    tiny_model, tmp_path, data, computed, precision, peft
):
    rows = data(uneven())
    known = computed(rows, precision=precision)
    wanted = spec(peft, precision)
    live, cached = (
        trainer(tiny_model, rows, wanted, tmp_path / str(name), name) for name in (None, known)
    )
    assert cached.ref_model is None
    assert (live.ref_model is None) == (peft is not None)
    expected, gradient = loss_and_gradient(live)
    assert abs(expected - 0.6931) > 1e-3, "the policy is not the reference"
    got, other = loss_and_gradient(cached)
    near = TOLERANCE[precision]
    assert got == pytest.approx(expected, abs=near)
    assert (other - gradient).norm() < 10 * near * gradient.norm()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_trls_own_head_and_padding_give_the_same(tiny_model, tmp_path, data, computed, precision):
    rows = data(uneven())
    found = []
    for name, head, free in (("own", "chunked", False), ("plain", "plain", True)):
        known = computed(rows, name, precision=precision, head=head, free=free)
        wanted = spec(precision=precision, lm_head=head, padding_free=free)
        made = trainer(tiny_model, rows, wanted, tmp_path / name, known)
        assert (made.model.config._attn_implementation == padding_free.NAME) == free
        found.append(loss_and_gradient(made))
    (expected, gradient), (got, other) = found
    near = TOLERANCE[precision]
    assert got == pytest.approx(expected, abs=near)
    assert (other - gradient).norm() < 10 * near * gradient.norm()


@pytest.mark.parametrize("loss_type", LOSS_TYPES["dpo"])
def test_every_loss_needs_no_more_of_the_reference(tiny_model, tmp_path, data, computed, loss_type):
    rows = data(uneven())
    wanted = spec(loss_type=loss_type, label_smoothing=0.1)
    known = computed(rows)
    losses = [
        loss_and_gradient(trainer(tiny_model, rows, wanted, tmp_path / str(name), name))[0]
        for name in (None, known)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_each_row_has_its_own_and_one_without_room_has_none(tiny_model, tmp_path, data, computed):
    rows = data(uneven())
    known = computed(rows)
    live = trainer(tiny_model, rows, spec(), tmp_path / "live")
    pairs = training_rows(rows, "train", spec())
    found = pq.read_table(known / "train.parquet").to_pylist()
    assert [at for at, row in enumerate(found) if None in row.values()] == [3]
    for at, row in enumerate(found):
        if at == 3:
            continue
        batch = live.data_collator([pairs[at]])
        alone = [value.item() for value in live.compute_ref_log_probs(live.ref_model, batch)]
        assert [row[name] for name in REFERENCE] == pytest.approx(alone, abs=1e-4)
    assert len({round(row[REFERENCE[0]], 3) for row in found if row[REFERENCE[0]]}) == len(PAIRS)
    kept = trainer(tiny_model, rows, spec(), tmp_path / "kept", known).train_dataset
    assert kept[REFERENCE[0]] == [row[REFERENCE[0]] for row in found if row[REFERENCE[0]]]
    heldout = pq.read_table(known / "heldout.parquet").to_pylist()
    assert heldout == [pytest.approx(row, abs=1e-4) for row in found[:2]]


def test_an_attempt_that_was_stopped_is_gone_on_with_to_the_same_bytes(data, computed, monkeypatch):
    monkeypatch.setattr(reference, "TOKENS", 128)
    rows = data(uneven())
    whole = computed(rows, "whole")
    asked = reference._asked
    with pytest.raises(Interrupted, match="stopped after 2 of"):
        computed(rows, "halved", stopping=at_look(3))
    file = whole.parent / "halved" / "work" / "reference" / "0.jsonl"
    lines = file.read_bytes()
    assert lines.count(b"\n") == 2
    file.write_bytes(lines + b'{"batch": 2, "sp')  # as a process that is killed leaves it
    counted = []
    monkeypatch.setattr(reference, "_asked", lambda *given: counted.append(1) or asked(*given))
    halved = computed(rows, "halved")
    assert file.read_bytes().startswith(lines)
    assert len(counted) == file.read_bytes().count(b"\n") - 2 > 1
    for name in ("train.parquet", "heldout.parquet"):
        assert (halved / name).read_bytes() == (whole / name).read_bytes()


def test_little_of_a_batch_is_padding_and_none_is_too_large():
    lengths = [100 * (1 + at % 7) for at in range(70)] + [0, 5000]
    found = list(reference.batches("train", lengths))
    assert sorted(row for batch in found for row in batch.rows) == [*range(70), 71]
    sizes = [2 * len(batch.rows) * max(lengths[row] for row in batch.rows) for batch in found]
    assert sizes[0] == 2 * 5000
    assert max(sizes[1:]) <= reference.TOKENS
    assert sum(sizes) < 1.1 * 2 * sum(lengths)


def test_a_share_that_is_missing_is_no_row_that_does_not_fit(data, job):
    work = job(data())
    reference.begin(work.work)
    count = reference.compute(work, place(work.work.parent))
    with pytest.raises(ResourceError, match=f"1 of {count + 1} batches"):
        reference.collect(work, work.work.parent, count + 1)


def test_log_probabilities_of_other_rows_are_refused(data, computed):
    known = computed(data(PAIRS[:5], "other"))
    with pytest.raises(DataError, match="is of 5 rows and not of these 8"):
        training_rows(data(), "train", spec(), known)


def test_a_reference_that_is_not_finite_is_refused(tiny_model, tmp_path, data, job):
    import shutil

    from safetensors.torch import save_file

    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    work = job(data())
    work = Job(work.spec, broken, work.data, work.work, work.key, task=work.task)
    reference.begin(work.work)
    with pytest.raises(Diverged, match="log-probabilities are not finite"):
        reference.compute(work, place(work.work.parent))


@pytest.mark.parametrize("peft", [None, Peft(r=8, alpha=32)], ids=["full", "lora"])
def test_it_learns_as_with_a_live_reference(tiny_model, tmp_path, data, computed, peft):
    rows = data()
    wanted = spec(peft, max_steps=12, learning_rate=1.5e-2 if peft else 5e-3)
    curves = {}
    for name, known in (("live", None), ("cached", computed(rows))):
        made = place(tmp_path / name)
        metrics = train_policy(wanted, tiny_model, rows, made, known)
        assert metrics["final_rewards/margins"] > 0.05
        found = read(made.out / "metrics.jsonl")
        curves[name] = [r.metrics["train/loss"] for r in found if "train/loss" in r.metrics]
    assert sum(curves["cached"][-3:]) < 0.9 * sum(curves["cached"][:3])
    assert curves["cached"] == pytest.approx(curves["live"], abs=1e-3)


def test_a_training_that_was_stopped_ends_with_the_same_weights(
    tiny_model, tmp_path, data, computed
):
    rows = data()
    known = computed(rows)
    wanted = spec().model_copy(update={"eval_steps": 2})
    weights = []
    for name, last in (("whole", 0), ("halved", 3), ("halved", 0)):
        made = place(tmp_path / name, at_look(last))
        try:
            train_policy(wanted, tiny_model, rows, made, known)
        except Interrupted:
            continue
        weights.append(load_file(made.out / "model" / "model.safetensors"))
        measured = [r.metrics for r in read(made.out / "metrics.jsonl")]
        assert sum("eval/loss" in metrics for metrics in measured) == 3
    whole, halved = weights
    assert all(torch.equal(whole[name], halved[name]) for name in whole)


def test_a_job_keeps_its_task_and_its_reference_on_the_way(tmp_path, data, job):
    made = job(data(), processes=2)
    write_job(made, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == made
    training = Job(spec(), made.model, made.data, made.work, "k", reference=tmp_path / "known")
    write_job(training, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == training


@pytest.mark.slow
def test_two_processes_share_the_batches_stop_together_and_write_the_same(data, computed, job):
    rows = data([*uneven() * 20])
    one = computed(rows, "one")
    folder = job(rows, "two", processes=2).work.parent
    write_job(job(rows, "two", processes=2), folder / "job.json")
    script = Path(__file__).with_name("train_job.py")
    command = [sys.executable, str(script), str(folder / "job.json"), str(folder)]
    for stop, expected in (("2", 75), ("0", 0)):
        done = subprocess.run([*command, stop], capture_output=True, text=True, timeout=400)
        assert done.returncode == expected, done.stdout + done.stderr
        assert ("stopped after 1 of" in done.stdout) == (expected == 75)
    written = [
        len(complete_lines(folder / "work" / "reference" / f"{rank}.jsonl")) for rank in "01"
    ]
    assert abs(written[0] - written[1]) <= 1 < written[1]
    for name in ("train.parquet", "heldout.parquet"):
        assert (folder / name).read_bytes() == (one / name).read_bytes()
    assert not (folder / "work" / "rank-1").exists()

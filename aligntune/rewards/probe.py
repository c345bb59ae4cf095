"""A function of the user's own is tried before anything is loaded, and not an hour into a run."""

from collections.abc import Sequence
from typing import Any

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError
from aligntune.rewards import function_of
from aligntune.rewards.guard import Wrong, in_words, scored
from aligntune.rewards.protocol import Trl
from aligntune.rewards.types import Sample

SECONDS = 60.0
"""That the trial may take where the reward has no `timeout`."""
ANSWERS = ("It is 4.", "I do not know, but here is a longer answer.")


def probe(reward: Reward, rows: Sequence[Sample] = ()) -> None:
    """Try a reward of the user's own on two samples: on `rows`, or else on two that are made up.

    What it raises counts only where that is its own fault: not with `on_error: skip` or `value`,
    and not where it asks made-up samples for columns, which they do not have.

    Raises:
        ConfigError: it hangs, raises, exits, or returns something else than one score for each.
    """
    if ":" not in reward.reward_type:
        return
    columns = _Columns()
    samples = rows or [
        Sample(
            "What is 2 + 2?",
            text,
            "4",
            columns=columns,
            conversation=({"role": "user", "content": "What is 2 + 2?"},),
            ids=(1, 2, 3),
        )
        for text in ANSWERS
    ]
    told = reward.model_copy(update={"timeout": reward.timeout or SECONDS})
    function = function_of(reward)
    name = f"reward {reward.reward_type!r}, tried on {len(samples)} samples"
    try:
        scored(told, function, samples)
    except KeyboardInterrupt:
        raise
    except Wrong as error:
        raise ConfigError(f"{name}: {error}") from error
    except BaseException as error:
        asked = columns.asked or (not rows and _takes_columns(function))
        if reward.on_error == "stop" and not asked:
            raise ConfigError(f"{name}, failed: {in_words(error)}") from error


def _takes_columns(function: object) -> bool:
    return isinstance(function, Trl) and function.takes_columns


class _Columns(dict[str, Any]):
    """No columns, and whether somebody asked for one."""

    asked = False

    def __missing__(self, name: str) -> Any:
        self.asked = True
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        self.asked = True
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked = True
        return super().get(name, default)

    def __deepcopy__(self, memo: Any) -> "_Columns":
        return self

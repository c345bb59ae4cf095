"""Rewards, by the name a config uses.

To add one: write it in the module for its topic and add a line here. Values are import paths, so a
run loads only the rewards that it names.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, unknown
from aligntune.rewards.types import Function, Sample, Scorer

__all__ = ["REWARDS", "Known", "Sample", "Scorer", "check", "scorer"]


@dataclass(frozen=True)
class Known:
    path: str
    """`package.module:function`."""
    says: str
    label: str | None = None
    """The label whose probability is the score where a `model_name` is given; None if it takes
    none."""


MODEL = "model"
_HERE = "aligntune.rewards"
_LEARNED = {"label": "", "batch_size": 16}
"""The params of a reward with a `model_name`."""

REWARDS: dict[str, Known] = {
    "length": Known(f"{_HERE}.text:length", "1 within a range of words, less outside it"),
    "repetition": Known(f"{_HERE}.text:repetition", "the share of n-grams that are new"),
    "regex": Known(f"{_HERE}.text:matches", "1 where a pattern is found"),
    "think_format": Known(f"{_HERE}.text:think_format", "1 for <think>...</think> and an answer"),
    "overlong": Known(f"{_HERE}.text:overlong", "0, falling to -1 near a limit of words"),
    "math": Known(f"{_HERE}.answers:math", "1 where the last number is the row's answer"),
    "exact_match": Known(f"{_HERE}.answers:exact_match", "1 where the text is the row's answer"),
    "sentiment": Known(
        f"{_HERE}.tone:sentiment",
        "how positive the words are (VADER), or a classifier's probability",
        label="positive",
    ),
    "safety": Known(
        f"{_HERE}.tone:safety",
        "0 for insults and instructions to harm by a list of patterns, or a classifier's",
        label="safe",
    ),
    "helpfulness": Known(
        f"{_HERE}.tone:helpfulness",
        "a rough guess from length, overlap with the prompt and refusals, or a classifier's",
        label="helpful",
    ),
    MODEL: Known("", "the score of a reward model or a classifier's label", label=""),
}


def check(name: str, params: Mapping[str, Any], model_name: str | None) -> None:
    """Raise ConfigError for what is wrong with a reward and can be seen without loading it."""
    if ":" in name:
        if model_name:
            raise ConfigError(f"reward {name!r} is a function; remove `model_name`")
        _importable(name)
        return
    if name not in REWARDS:
        raise ConfigError(unknown("reward", name, REWARDS))
    known = REWARDS[name]
    if name == MODEL and not model_name:
        raise ConfigError(f"reward {name!r} needs `model_name`: a hub id or a directory")
    if model_name and known.label is None:
        raise ConfigError(f"reward {name!r} uses no model; remove `model_name`")
    _check_params(name, _LEARNED if model_name else _settings(known.path), params)


def scorer(reward: Reward) -> Scorer:
    """The reward as a function of samples. Its model is loaded when it is first called.

    Raises:
        ConfigError: as `check`.
    """
    check(reward.reward_type, reward.params, reward.model_name)
    if reward.model_name:
        from aligntune.rewards.learned import judge

        label = str(REWARDS[reward.reward_type].label)
        return judge(
            reward.model_name,
            reward.device,
            reward.reward_type,
            _LEARNED | {"label": label} | reward.params,
        )
    known = REWARDS.get(reward.reward_type)
    function = _function(known.path if known else reward.reward_type)

    def score(samples: Any) -> list[float | None]:
        return list(function(samples, **reward.params))

    score.__name__ = reward.reward_type.rpartition(":")[2]
    return score


def _function(path: str) -> Function:
    module, _, name = path.partition(":")
    function: Function = getattr(import_module(module), name)
    return function


def _importable(path: str) -> None:
    try:
        found = _function(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"reward {path!r} cannot be imported ({error}); write `package.module:function`"
        ) from None
    if not callable(found):
        raise ConfigError(f"reward {path!r} is not a function")


def _settings(path: str) -> dict[str, Any]:
    """The settings of a reward function and their defaults; `empty` for one that has none."""
    return {
        key: parameter.default
        for key, parameter in inspect.signature(_function(path)).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _check_params(name: str, known: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    for key, value in params.items():
        if key not in known and not known:
            raise ConfigError(f"reward {name!r} has no params; remove {key!r}")
        if key not in known:
            raise ConfigError(f"reward {name!r}: " + unknown("param", key, known))
        wanted: Any = (int, float) if isinstance(known[key], int | float) else str
        if not isinstance(value, wanted) or isinstance(value, bool):
            kind = "text" if wanted is str else "a number"
            raise ConfigError(f"reward {name!r}: param {key!r} is {value!r}, and must be {kind}")
    for key, default in known.items():
        if default is inspect.Parameter.empty and key not in params:
            raise ConfigError(f"reward {name!r} needs `params: {{{key}: ...}}`")

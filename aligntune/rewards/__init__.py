"""Rewards, by the name a config uses.

To add one: write it in the module for its topic and add a line here. Values are import paths, so a
run loads only the rewards that it names.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, unknown
from aligntune.rewards.guard import guarded
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
    probed: bool = False
    """Called once without samples when a config is checked: it says what this machine lacks."""


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
    "math": Known(f"{_HERE}.answers:math", "1 where the number it gives is the row's answer"),
    "exact_match": Known(f"{_HERE}.answers:exact_match", "1 where the text is the row's answer"),
    "accuracy": Known(f"{_HERE}.answers:exact_match", "the same as exact_match"),
    "code_syntax": Known(f"{_HERE}.code:code_syntax", "1 for Python that parses"),
    "code_execution": Known(
        f"{_HERE}.code:code_execution",
        "1 where a program passes the row's tests, in a sandbox",
        probed=True,
    ),
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
        _check_keys(name, _settings(_imported(name)), params)
        return
    if name not in REWARDS:
        raise ConfigError(unknown("reward", name, REWARDS))
    known = REWARDS[name]
    if name == MODEL and not model_name:
        raise ConfigError(f"reward {name!r} needs `model_name`: a hub id or a directory")
    if model_name and known.label is None:
        raise ConfigError(f"reward {name!r} uses no model; remove `model_name`")
    if model_name:
        _check_keys(name, _LEARNED, params)
        _check_types(name, _LEARNED, params)
        if params.get("batch_size", 1) < 1:
            raise ConfigError(f"reward {name!r}: param 'batch_size' must be at least 1")
        return
    function = _function(known.path)
    settings = _settings(function)
    _check_keys(name, settings or {}, params)
    _check_types(name, settings or {}, params)
    if params or known.probed:
        function([], **params)  # which says what is wrong with their values


def scorer(reward: Reward) -> Scorer:
    """The reward as a function of samples. Its model is loaded when it is first called.

    Raises:
        ConfigError: as `check`.
    """
    check(reward.reward_type, reward.params, reward.model_name)
    if reward.model_name:
        from aligntune.rewards.learned import judge

        label = str(REWARDS[reward.reward_type].label)
        params = _LEARNED | {"label": label} | reward.params
        score = judge(reward.model_name, reward.device, reward.reward_type, params)
        return guarded(reward, reward.reward_type, score)
    known = REWARDS.get(reward.reward_type)
    function = _function(known.path if known else reward.reward_type)

    name = reward.reward_type.rpartition(":")[2]
    return guarded(reward, name, partial(function, **reward.params))


def _function(path: str) -> Function:
    module, _, name = path.partition(":")
    function: Function = getattr(import_module(module), name)
    return function


def _imported(path: str) -> Function:
    try:
        found = _function(path)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise ConfigError(
            f"reward {path!r} cannot be imported ({type(error).__name__}: {error}); write "
            "`package.module:function`, of a module that can be imported"
        ) from error
    if not callable(found):
        raise ConfigError(f"reward {path!r} is not a function")
    return found


def _settings(function: Function) -> dict[str, Any] | None:
    """The settings of a reward function and their defaults, `empty` for one that has none; None
    where it takes whatever it is given, or does not say, as some that are written in C."""
    try:
        rest = list(inspect.signature(function).parameters.values())[1:]
    except ValueError:
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in rest):
        return None
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {p.name: p.default for p in rest if p.kind in named}


def _check_keys(name: str, known: Mapping[str, Any] | None, params: Mapping[str, Any]) -> None:
    if known is None:
        return
    for key in params:
        if not known:
            raise ConfigError(f"reward {name!r} has no params; remove {key!r}")
        if key not in known:
            raise ConfigError(f"reward {name!r}: " + unknown("param", key, known))
    for key, default in known.items():
        if default is inspect.Parameter.empty and key not in params:
            raise ConfigError(f"reward {name!r} needs `params: {{{key}: ...}}`")


def _check_types(name: str, known: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    for key, value in params.items():
        wanted, kind = (int, "a whole number") if isinstance(known[key], int) else (str, "text")
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ConfigError(f"reward {name!r}: param {key!r} is {value!r}, and must be {kind}")

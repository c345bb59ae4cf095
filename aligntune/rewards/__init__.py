"""Rewards: `check` one of a config, and make a `scorer` of it. `catalogue` lists them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from aligntune.config.rewards import Reward
from aligntune.errors import ConfigError, unknown
from aligntune.rewards.catalogue import MODEL, REWARDS, UNIT, Known
from aligntune.rewards.guard import Guarded
from aligntune.rewards.params import Setting, check_keys, check_types, settings
from aligntune.rewards.protocol import Trl, is_trls, trl_settings
from aligntune.rewards.types import Function, Sample, Scorer

__all__ = [
    "MODEL",
    "REWARDS",
    "Sample",
    "by_model",
    "check",
    "check_gate",
    "function_of",
    "own",
    "scorer",
]

_LEARNED = {
    "label": Setting(str, ""),
    "batch_size": Setting(int, 16),
    "normalize": Setting(bool, False),
}
"""The params of a reward with a `model_name`."""
_EMBEDDED = {"batch_size": _LEARNED["batch_size"]}


def check(name: str, params: Mapping[str, Any], model_name: str | None) -> None:
    """Raise ConfigError for what is wrong with a reward and can be seen without loading it."""
    if ":" in name:
        if model_name:
            raise ConfigError(f"reward {name!r} is a function; remove `model_name`")
        found = _imported(name)
        check_keys(name, trl_settings(found) if is_trls(found) else settings(found), params)
        return
    if name not in REWARDS:
        raise ConfigError(unknown("reward", name, REWARDS))
    known = REWARDS[name]
    if (name == MODEL or known.embeds) and not model_name:
        raise ConfigError(f"reward {name!r} needs `model_name`: a hub id or a directory")
    if model_name and known.label is None:
        raise ConfigError(f"reward {name!r} uses no model; remove `model_name`")
    if model_name:
        allowed = by_model(known)
        check_keys(name, allowed, params)
        check_types(name, allowed, params)
        if params.get("batch_size", 1) < 1:
            raise ConfigError(f"reward {name!r}: param 'batch_size' must be at least 1")
        return
    check_keys(name, own(known), params)
    check_types(name, own(known), params)
    if params or known.probed:
        _function(known.path)([], **params)  # which says what is wrong with their values


def check_gate(reward: Reward) -> None:
    """Raise ConfigError for a gate whose scores are known not to be from 0 to 1."""
    known = REWARDS.get(reward.reward_type)
    own_scores = known is not None and (known.embeds or not reward.model_name)
    if reward.gate and known and own_scores and known.range != UNIT:
        raise ConfigError(
            f"reward {reward.reward_type!r} gives {known.range} scores, and a gate multiplies by "
            "numbers from 0 to 1; remove `gate`, or choose another reward"
        )


def own(known: Known) -> dict[str, Setting]:
    """The params of a built-in reward without a model."""
    return settings(_function(known.path)) or {}


def by_model(known: Known) -> dict[str, Setting]:
    """The params of a built-in reward with a `model_name`."""
    return _EMBEDDED if known.embeds else _LEARNED


def scorer(reward: Reward) -> Scorer:
    """The reward as a function of samples. Its model is loaded when it is first called.

    Raises:
        ConfigError: as `check`.
    """
    check(reward.reward_type, reward.params, reward.model_name)
    if reward.model_name:
        return Guarded(reward, reward.reward_type, _judged(reward, reward.model_name))
    return Guarded(reward, reward.reward_type.rpartition(":")[2], function_of(reward))


def function_of(reward: Reward) -> Callable[[Sequence[Sample]], Any]:
    """The function of a reward without a model, with its params; what it gives may have to be
    awaited, and nothing is done about failures."""
    known = REWARDS.get(reward.reward_type)
    function = _function(known.path if known else reward.reward_type)
    if not known and is_trls(function):
        return Trl(function, reward.params)
    return partial(function, **reward.params)


def _judged(reward: Reward, name: str) -> Scorer:
    """The reward as its model gives it, which is loaded at the first call."""
    known = REWARDS[reward.reward_type]
    defaults = {key: setting.default for key, setting in _LEARNED.items()}
    params = defaults | {"label": known.label} | reward.params
    if known.embeds:
        from aligntune.rewards import embedding

        return embedding.judge(name, reward.device, reward.reward_type, params)
    from aligntune.rewards import learned

    score = learned.judge(name, reward.device, reward.reward_type, params)
    return _inverted(score) if known.inverted else score


def _inverted(score: Scorer) -> Scorer:
    return lambda samples: [None if value is None else 1 - value for value in score(samples)]


def _function(path: str) -> Function:
    module, _, name = path.partition(":")
    function: Function = getattr(import_module(module), name)
    return function


def _imported(path: str) -> Function:
    try:
        found = _function(path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # importing runs the user's code: it may raise anything, or exit
        raise ConfigError(
            f"reward {path!r} cannot be imported ({type(error).__name__}: {error}); write "
            "`package.module:function`, of a module that can be imported"
        ) from error
    if not callable(found):
        raise ConfigError(f"reward {path!r} is not a function")
    return found

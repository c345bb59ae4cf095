"""The columns of a source that no message is made of."""

import json
from collections.abc import Iterable
from typing import Any

import orjson

from aligntune.data.rows import EXTRA, Row
from aligntune.errors import DataError

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Columns that are shown to models which can see or hear."""


def refuse_media(columns: Row) -> None:
    """DataError for a row that is about more than its text, which alone would be learned."""
    for name in MEDIA:
        if not _empty(columns.get(name)):
            raise DataError(
                f"`{name}` is not empty, and only text is learned; leave such rows out, or give "
                f"the column another name with `columns: {{unseen: {name}}}` to learn their text"
            )


def _empty(value: Any) -> bool:
    """Whether there is nothing in it, as in the `{bytes: null, path: null}` of no image."""
    if isinstance(value, list | dict):
        return all(_empty(each) for each in (value.values() if isinstance(value, dict) else value))
    # Not by its truth alone: arrays have none.
    return value is None or value is False or (isinstance(value, str | bytes) and not value)


def extra(columns: Row) -> Row:
    """The columns as JSON, without what JSON cannot hold, such as bytes.

    What is in `extra` already are columns of the source that canonical rows were made of.
    """
    earlier = _object(columns.get(EXTRA))
    columns = {name: columns[name] for name in columns if not earlier or name != EXTRA} | earlier
    kept = {name: encoded for name, value in sorted(columns.items()) if (encoded := _json(value))}
    return {EXTRA: "{" + ",".join(_items(kept.items())) + "}"} if kept else {}


def _items(encoded: Iterable[tuple[str, str]]) -> Iterable[str]:
    return (f"{json.dumps(name, ensure_ascii=False)}:{value}" for name, value in encoded)


def _object(value: Any) -> Row:
    try:
        found = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        return _slowly(value)


def _slowly(value: Any) -> str:
    """Integers beyond 64 bits, which only Python's own writer takes."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return ""

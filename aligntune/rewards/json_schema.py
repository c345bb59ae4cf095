"""A reward for JSON that keeps to a schema."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import regex

from aligntune.errors import ConfigError, DataError
from aligntune.rewards.form import SECONDS
from aligntune.rewards.types import Sample

_FENCED = regex.compile(r"```(?i:json)?[ \t]*\n(.*?)```", regex.DOTALL)
_LONGEST = 100_000
"""Characters of an answer that are read."""
_FAILED = (ValueError, RecursionError, TimeoutError)


def json_schema(
    samples: Sequence[Sample],
    *,
    schema: Mapping[str, Any] | None = None,
    column: str = "schema",
) -> list[float | None]:
    """1 where the answer is JSON that keeps to the JSON Schema (jsonschema's draft 2020-12, or the
    one it names), else 0.

    The JSON is the only fenced block of the answer, or all of it where there is none: words around
    bare JSON score 0, and so do two blocks, a key given twice, and NaN. `schema: {}` asks for any
    JSON. Without `schema` it is the row's `column`, an object or its JSON text; None for a row
    without one. References to other documents are not fetched; patterns that take more than half a
    second score 0.

    Raises:
        ConfigError: the schema of the params is none.
        DataError: that of a row is none.
    """
    if schema is not None:
        keeps = _validator(_text(schema), ConfigError)
        return [_kept(keeps, sample.completion) for sample in samples]
    return [
        None
        if sample.columns.get(column) is None
        else _kept(_validator(_text(sample.columns[column]), DataError), sample.completion)
        for sample in samples
    ]


def _text(schema: Any) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema, sort_keys=True)


@lru_cache(maxsize=256)
def _validator(text: str, kind: type[ConfigError | DataError]) -> Any:
    """One per schema: building it takes far longer than looking at an answer."""
    from jsonschema import Draft202012Validator, SchemaError, validators
    from referencing import Registry

    try:
        schema = json.loads(text)
        draft = validators.validator_for(schema, default=Draft202012Validator)
        draft.check_schema(schema)
    except (ValueError, SchemaError) as error:
        message = getattr(error, "message", str(error))
        raise kind(
            f"reward 'json_schema': the schema {text[:60]!r} is not valid: {message}"
        ) from None
    # An empty registry: the default one fetches what `$ref` names.
    return validators.extend(draft, {"pattern": _pattern})(schema, registry=Registry())


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not regex.search(pattern, instance, timeout=SECONDS):
        yield ValidationError(f"{instance[:60]!r} does not match {pattern!r}")


def _kept(validator: Any, text: str) -> float:
    from referencing.exceptions import Unresolvable

    blocks = _FENCED.findall(text[:_LONGEST])
    if len(text) > _LONGEST or len(blocks) > 1:
        return 0.0
    try:
        value = json.loads(
            blocks[0] if blocks else text, object_pairs_hook=_once, parse_constant=_refused
        )
        return float(validator.is_valid(value))
    except Unresolvable as error:
        raise ConfigError(f"reward 'json_schema': the schema refers to {error}") from None
    except _FAILED:
        return 0.0


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")

"""What every config section is made of."""

from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_before_validator_function


def descriptions(section: type[BaseModel]) -> dict[str, str]:
    """Setting -> the text below it in the source, in one line.

    Pydantic can do the same, but would read the source of every section whenever it is imported.
    """
    import ast
    import inspect
    import textwrap

    (found,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(found, ast.ClassDef)
    return {
        setting.target.id: " ".join(below.value.value.split())
        for setting, below in pairwise(found.body)
        if isinstance(setting, ast.AnnAssign)
        and isinstance(setting.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _describe(schema: dict[str, Any], section: type[BaseModel]) -> None:
    for name, words in descriptions(section).items():
        schema["properties"][name]["description"] = words


class _NoTruth:
    """Refuses true and false where a number is wanted: pydantic would read `max_steps: true` as 1.

    One for all fields, and only for those that hold numbers: a validator of pydantic's is inspected
    anew for each field that it is for, and sections took nearly twice as long to build.
    """

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(_no_truth, handler(kind))


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("bool_refused", "true and false are not allowed here")
    return value


_CHECK = _NoTruth()
_NUMBERS = {int, float}


class Strict(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra=_describe,
        validate_default=True,
        allow_inf_nan=False,
        # Sections are built once, as parts of what is validated.
        defer_build=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for field in cls.model_fields.values():
            kinds = (field.annotation, *get_args(field.annotation))
            if _NUMBERS.intersection(kinds) and bool not in kinds and _CHECK not in field.metadata:
                field.metadata.append(_CHECK)


class Neutral:
    """Marks a field that cannot change what a stage produces, only where or how it is reported."""


T = TypeVar("T")
NeutralField = Annotated[T, Neutral()]
"""`save_steps: NeutralField[int]` keeps `save_steps` out of every stage key."""


def identity(section: BaseModel) -> dict[str, Any]:
    """The fields of `section` that influence results, as JSON values; neutral ones are left out.

    A field counts unless it is marked, so that a new field can at worst cause a needless rerun and
    never a wrong reuse.
    """
    kept: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        if not any(isinstance(mark, Neutral) for mark in field.metadata):
            kept[name] = _plain(getattr(section, name))
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return identity(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value

"""The templates of all pages, and what they can call."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from aligntune.report import words

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment() -> "Environment":
    """Where templates are found, and what they can call."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        words.number, words.measure, words.span, words.signed, words.signed_span,
        words.difference_unit, words.percent, words.duration, words.moment, words.shorten,
        words.web, words.beside,
    )  # fmt: skip
    made.filters.update({function.__name__: function for function in filters})
    return made

"""A config as YAML that loads to an equal one."""

import re
from typing import Any

import yaml

from aligntune.config import scalar
from aligntune.config.environment import escaped
from aligntune.config.run import RunConfig


def dump(config: RunConfig) -> str:
    """`config` with all its defaults as YAML that loads to an equal config."""
    return yaml.dump(
        _escaped(config.model_dump(mode="json")),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )


def _escaped(value: Any) -> Any:
    """`value` with the texts in it, but not the keys, as a file has to have them."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escaped(value) if isinstance(value, str) else value


class _Dumper(yaml.SafeDumper):
    """Writes scalars so that readers of YAML 1.1 and 1.2 agree on them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Readers turn these line breaks into "\n" unless they are written as escapes.
    foreign = any(c in text for c in "\r\x85\u2028\u2029")
    style = '"' if foreign else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _write_float(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(number))


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(float, _write_float)
# Beside the words and numbers of YAML 1.1, which are there already: `5e-5` as text needs quotes.
for _tag, _pattern in {"int": scalar.INT, "float": scalar.FLOAT}.items():
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern.pattern})\Z"), None
    )

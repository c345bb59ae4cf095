"""What a built-in reward is, for people. Loads no model library."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from aligntune.errors import ConfigError, unknown
from aligntune.rewards import REWARDS, by_model, own
from aligntune.rewards.params import Setting, words

_LEARNED = "aligntune.rewards.learned:judge"


def described(name: str) -> str:
    """Its docstring, range, needs and params. ConfigError for a name that is none of ours."""
    if name not in REWARDS:
        raise ConfigError(unknown("reward", name, REWARDS))
    known = REWARDS[name]
    path = known.path or _LEARNED
    lines = [f"{name}: {known.says}", "", _docstring(path), ""]
    lines += [f"range   {known.range}", f"needs   {known.needs or 'nothing'}"]
    if known.path and not known.embeds:
        lines += _listed("params ", own(known))
    if known.label is not None:
        defaults = {"label": Setting(str, known.label)} if known.label else {}
        lines += _listed("params with model_name", by_model(known) | defaults)
    return "\n".join([*lines, f"code    {path}"])


def _listed(title: str, settings: Mapping[str, Setting]) -> Iterator[str]:
    if not settings:
        yield f"{title} none"
        return
    yield title
    for key, setting in settings.items():
        default = "has to be given" if setting.required else f"{setting.default!r}"
        yield f"  {key}: {words(setting.kind)} ({default})"


def _docstring(path: str) -> str:
    """Read and not imported: what a model judges would load torch."""
    module, _, name = path.partition(":")
    spec = find_spec(module)
    assert spec
    assert spec.origin
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    return inspect.cleandoc(ast.get_docstring(found) or "")

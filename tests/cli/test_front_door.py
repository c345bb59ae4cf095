"""The front door answers at once: what commands load, by count, and CPU time against TRL's."""

import statistics

import pytest
from benchmarks.figures import TOLERANCE, in_turns
from benchmarks.front_door import GOALS, commands, seconds
from own_process import printed

from aligntune import shipped

CONFIG = str(shipped.FOLDER / "quickstart.yaml")
HEAVY = {
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "pandas", "pandera",
    "mlflow", "prefect", "matplotlib", "scipy", "huggingface_hub",
}  # fmt: skip
SPARE = 1.1
"""By which the counts of modules below may grow with other versions of Python and libraries."""
ROUNDS = 15

RUN = """
import gc, sys
sys.argv[0] = "aligntune"
from aligntune.cli import main
before = sum(each["collections"] for each in gc.get_stats())
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(sum(each["collections"] for each in gc.get_stats()) - before)
print(*sys.modules)
"""


def after(*command):
    """How often garbage was looked for in a command, and the modules that it loaded."""
    *_, collections, modules = printed(RUN, *command).splitlines()
    return int(collections), set(modules.split())


@pytest.mark.parametrize(
    ("command", "modules"),
    [
        (["--help"], 122),
        (["validate", "--config", CONFIG], 281),
        (["schema"], 215),
        (["plan", "--config", CONFIG], 484),
        (["runs"], 340),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_only_reads_loads_little_and_nothing_heavy(command, modules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collections, loaded = after(*command)
    assert not HEAVY & loaded
    assert len(loaded) <= SPARE * modules
    assert collections == 0


def test_pydantic_looks_for_no_plugins():
    _, loaded = after("validate", "--config", CONFIG)
    assert "pydantic.plugin._schema_validator" in loaded
    assert not {"importlib.metadata", "email.message"} & loaded


def test_garbage_is_looked_for_as_usual_once_there_is_more_to_do():
    code = """
import gc
from aligntune.startup import OBJECTS, quick
usual = gc.get_threshold()
quick()
assert gc.get_threshold()[0] == OBJECTS
kept = [[] for _ in range(OBJECTS + 1_000)]
assert gc.get_threshold() == usual, gc.get_threshold()
assert not gc.callbacks
"""
    printed(code)


@pytest.mark.slow
def test_help_and_validate_cost_a_fraction_of_what_trl_takes_to_say_hello(tmp_path):
    """By the median over rounds of the ratio within a round: a load that comes and goes spoils
    some rounds, and one that stays is on both sides."""
    spent = seconds(tmp_path)
    sides = {name: (lambda command=command: command) for name, command in commands().items()}
    taken = in_turns(sides, ROUNDS, lambda command: spent(*command()))
    for name, goal in GOALS.items():
        ratios = [ours / trl for ours, trl in zip(taken[name], taken["trl --help"], strict=True)]
        assert statistics.median(ratios) <= goal * (1 + TOLERANCE), (name, ratios)

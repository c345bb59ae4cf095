"""The shape of the package, as tests: what may import what, and what must not load early."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from own_process import loaded_by

import aligntune
import flows

PACKAGE = Path(aligntune.__file__).parent
FLOWS = Path(flows.__file__).parent
LAYERS = [
    {"errors", "digest", "extras", "startup", "uncollected"},
    {"config"},
    {
        "artifacts",
        "identity",
        "reasons",
        "checksums",
        "journal",
        "interrupt",
        "exits",
        "aside",
        "processes",
        "heartbeat",
        "output",
        "hub",
        "hub_retry",
        "recorded",
        "registered",
        "aliased",
        "provenance",
        "paths",
        "store",
    },
    {"outbox"},
    {"data", "models", "losses", "estimate", "hub_config"},
    {"rewards"},
    {"train", "evaluate"},
    {
        "track",
        "deliver",
        "machine",
        "courier",
        "lineage",
        "registry",
        "card",
        "publish",
        "report",
        "sbom",
        "papers",
    },
    {"reward_model", "promotion"},
    {
        "stages",
        "stage_models",
        "stage_sources",
        "work",
        "needs",
        "check",
        "shipped",
        "initial",
        "doctor",
    },
    {"pipeline", "slicing", "plan", "forecast", "retraining"},
    {
        "run",
        "session",
        "afterwards",
        "findings",
        "summary",
        "console",
        "show",
        "show_data",
        "show_forecast",
        "supervise",
        "show_deployments",
        "launch",
        "worker",
    },
    {"compare"},
    {
        "versions",
        "direct",
        "evaluating",
        "mirrors",
        "cli_config",
        "cli_retrain",
        "cli_rewards",
        "cli_runs",
        "cli_sync",
        "cli_models",
        "cli_deploy",
        "cli_mirror",
        "cli_verify",
    },
    {"sweep", "cli_sweep"},
    {"cli", "__main__"},
]
HEAVY = {
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "pandas", "pandera",
    "mlflow", "prefect", "matplotlib", "scipy", "huggingface_hub",
}  # fmt: skip
DOORS = {
    "prefect": {"flows"},
    "mlflow": {"store", "track", "deliver", "courier", "machine", "registry", "registered"},
    "trl": {"train"},
    "pandera": {"data"},
    "huggingface_hub": {"hub"},
}
LONGEST_FILE = 400
LONGEST_FUNCTION = 60

SOURCES = sorted([*PACKAGE.rglob("*.py"), *FLOWS.rglob("*.py")])


def room(path: Path) -> str:
    if FLOWS in path.parents:
        return "flows"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level(name: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if name in names), len(LAYERS))


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_imports_point_down_the_layers(path):
    if path == PACKAGE / "__init__.py":
        return
    here = room(path)
    for name in imports(path):
        if name.startswith("aligntune.") and here != "flows":
            there = name.split(".")[1]
            assert level(there) <= level(here), f"{here} imports {name}, which is above it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_each_heavy_package_has_one_door(path):
    for name in imports(path):
        package = name.split(".")[0]
        if package in DOORS:
            assert room(path) in DOORS[package], f"{path.name} imports {package}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_every_room_has_a_floor(path):
    name = room(path)
    assert name in ("flows", "__init__") or level(name) < len(LAYERS), f"add {name} to LAYERS"


LIGHT = ["cli", "errors", "config.load", "pipeline", "plan", "stages", "data.sources"]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module):
    assert not HEAVY & loaded_by(f"aligntune.{module}")


PLANNING = [
    ["plan"],
    ["sweep", "--dry-run", "--set", "train.beta=0.1,0.2", "--optuna", "2", "--metric", "nll"],
]


@pytest.mark.parametrize("verb", PLANNING, ids=lambda verb: verb[0])
def test_planning_a_whole_run_loads_nothing_heavy(verb, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"algo: dpo\nmodel: {{name_or_path: {tmp_path}/model}}\n"
        'datasets: [{name: "arithmetic:"}]\n'
        f"logging: {{output_dir: {tmp_path}/out}}\n"
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    code = (
        "import sys; sys.argv[0] = 'aligntune'\n"
        "from aligntune.cli import main; main(); print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *verb, "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stderr.split())


QUICK = [
    ("--help",),
    ("schema",),
    ("init", "grpo"),
    ("configs",),
    ("configs", "--rewards"),
    ("rewards",),
    ("rewards", "show", "semantic_similarity"),
    ("completion", "bash"),
    ("validate", "--config", "{configs}/quickstart.yaml"),
    ("validate", "--config", "{configs}/grpo.yaml", "--json"),
]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_quick_commands_load_nothing_heavy(arguments):
    filled = [argument.format(configs=PACKAGE.parent / "configs") for argument in arguments]
    code = (
        "import sys; sys.argv[0] = 'aligntune'\n"
        "import atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from aligntune.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *filled], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "click" in done.stderr.split()
    assert not HEAVY & set(done.stderr.split())

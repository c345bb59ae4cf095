"""Whatever a file or an override holds, the outcome is a config or an explained error."""

import json
import os
import random
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligntune.config import rules
from aligntune.config.document import parse_document
from aligntune.config.dump import dump
from aligntune.config.load import load, read
from aligntune.config.repair import repaired
from aligntune.config.run import RunConfig
from aligntune.errors import ConfigError

VALID = """\
# A comment.
algo: dpo
model:
  name_or_path: "HuggingFaceTB/SmolLM2-135M-Instruct"
  precision: auto
  chat_template: |
    {% for m in messages %}{{ m }}{% endfor %}
datasets:
  - name: "arithmetic:"
    max_samples: 100
    params: {seed: 1, low: 0, operators: [+, "-"]}
  - {name: 'Anthropic/hh-rlhf', split: train, columns: {prompt: question}}
train:
  learning_rate: 5e-5
  max_steps: 10
  packing: false
peft:
  target_modules: [q_proj, v_proj]
sft:
  datasets:
  - name: a.jsonl
evaluation: {metrics: [nll, exact_match], confidence: 0.9}
logging: {output_dir: ./output, run_name: null}
seed: 42
"""
TREE = {
    "algo": "dpo",
    "model": {"name_or_path": "x", "precision": "auto"},
    "datasets": [{"name": "a", "columns": {"a": "b"}, "params": {"a": [1]}}],
    "train": {"learning_rate": 5e-5, "max_steps": 1, "packing": False},
    "peft": {"target_modules": ["q"], "r": 1},
    "sft": {"datasets": [{"name": "a"}], "train": {}},
    "evaluation": {"metrics": ["nll"], "confidence": 0.9},
    "logging": {"run_name": "a", "level": "INFO"},
    "seed": 1,
}
TOKENS = [
    *"-:?,[]{}#&*!|>'\"%@`~ \n\t\r\\0.+/=<\0\x1b\x85\u2028\ufeff\U0001f600",
    "- ", ": ", "---\n", "...\n", "<<: ", "&a ", "*a", "!!python/name:os.system ", "!!binary ",
    "\\ud800", "\\x00", "1e999", "9" * 30, ".nan", "-0", "0o777", "null", "true", "[" * 40,
    "{a: " * 40,
    "  ", "    ", "x" * 3000, "seed: 1\n", "${HOME}", "%YAML 1.1\n",
]  # fmt: skip
RAW = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe"]
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from(["", "no", "1e5", "nan", "inf", "x" * 200, "\x00", 2**70, -1, 0, 1e308]),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3) | st.sampled_from(["name", "r"]), st.integers()),
)  # fmt: skip


ROOT = Path(__file__).parents[2]
THOUSANDS = int(os.environ.get("FAULT_CONFIGS", "20000")) // 1_000
GUIDE = ROOT / "tests" / "guide"
SECTIONS = ["algo", "model", "datasets", "train", "rewards", "logging", "sample_logging"]
CORPUS = [
    VALID,
    *((GUIDE / f"{name}.yaml").read_text() for name in ("basic", "sft", "dpo", "ppo")),
    "".join((GUIDE / f"{name}.yaml").read_text() for name in SECTIONS),
    *(path.read_text() for path in sorted((ROOT / "configs").glob("*.yaml"))),
]
VARIABLES = {"FUZZ_N": "3", "FUZZ_T": "text", "FUZZ_E": "", "FUZZ_X": "[a]: {b\n- c: &d"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "run.yaml"


@pytest.fixture(scope="module", autouse=True)
def _variables():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        yield


def outcome(path, overrides=()):
    """A config that survives its own dump, or an error in lines that are safe to print."""
    loaded, error = None, None
    began = time.process_time()
    try:
        loaded = read([path], overrides)
    except ConfigError as caught:
        error = str(caught)
    assert time.process_time() - began < 1
    if loaded:
        assert isinstance(loaded.config, RunConfig)
        messages = [message for _, message in rules.warnings(loaded.config, loaded.places)]
        assert all(map(str.isprintable, [*messages, *map(str, loaded.repairs)]))
        path.write_bytes(dump(loaded.config).encode())
        assert load([path]) == loaded.config
        return loaded.config
    assert re.match(rf"({re.escape(str(path))}:\d+:\d+|--set .*): .+", error.splitlines()[0])
    assert error.replace("\n", "").isprintable()
    assert "Traceback" not in error
    assert len(error) < 20_000
    return None


@st.composite
def damaged(draw):
    data = VALID.encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 0, 1, 2, 8, 60])))
        tokens = st.sampled_from(TOKENS).map(str.encode) | st.sampled_from(RAW)
        copied = st.integers(0, len(data)).map(lambda at, data=data: data[at : at + 40])
        data = data[:start] + draw(st.just(b"") | tokens | copied) + data[stop:]
    return data


@st.composite
def deranged(draw):
    """TREE with a few values replaced, removed or added."""
    tree = json.loads(json.dumps(TREE))
    for _ in range(draw(st.integers(1, 3))):
        inner = tree
        while True:
            steps = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            step = draw(
                st.sampled_from([*steps, "added"] if isinstance(inner, dict) else steps or [0])
            )
            below = inner[step] if step in steps else None
            if not isinstance(below, dict | list) or not below or draw(st.booleans()):
                break
            inner = below
        if isinstance(inner, dict) or step in steps:
            inner[step] = draw(ODD)
    return tree


@settings(max_examples=400, deadline=None, derandomize=True)
@given(damaged())
def test_a_damaged_file_is_a_config_or_an_explained_error(path, data):
    path.write_bytes(data)
    outcome(path)


@settings(
    max_examples=400, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(deranged())
def test_odd_values_are_a_config_or_an_explained_error(path, tree):
    path.write_text(json.dumps(tree), encoding="utf-8")
    outcome(path)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(
            ["algo", "model", "datasets", "train", "peft", "sft", "0", "name", "", "seed"]
        )
        | st.text(max_size=4),
        max_size=4,
    ),
    st.sampled_from(TOKENS) | st.text(max_size=10) | st.sampled_from(["[", "{a: 1}", "'", "5e-5"]),
)
def test_any_override_is_a_config_or_an_explained_error(path, keys, value):
    path.write_text(VALID, encoding="utf-8")
    outcome(path, [".".join(keys) + "=" + value])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_an_explained_error(path, data):
    path.write_bytes(data)
    outcome(path)


WORDS = [
    "${FUZZ_N}", "${FUZZ_T}", "'${FUZZ_X}'", "${FUZZ_E:-1}", "${FUZZ_NONE}", "$${", "${", "${FUZZ_",
    "&a 1", "&b [x, {y: z}]", "*a", "*b", "<<", "null", "~", "true", "no", "0", "-1", "1e400",
    ".nan", "1e-300",
    "0x7fffffffffffffff", "9" * 30, "''", "'a b'", '"\\ud800"', "!!int 1", "[]", "{}",
    "[1, 2]", "{a: 1}", "|", ">+2", "- x", "x" * 2000, "\u202e", "@", "a: b", "%", "1:30", "5e-5",
]  # fmt: skip


def with_other_lines(rng, text):
    """One line left out, repeated, moved, or indented in another way."""
    lines = text.splitlines(keepends=True) or ["\n"]
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2:
            lines[at], lines[to] = lines[to], lines[at]
        case 3:
            lines[at] = " " * rng.randint(1, 3) + lines[at]
        case 4:
            lines[at] = lines[at].removeprefix(" ")
    return "".join(lines)


def with_another_value(rng, text):
    """What follows one `key:` or `-` is something else, or is anchored, or shared."""
    spots = list(re.finditer(r"(?<=[:-] )[^\n]*", text))
    if not spots:
        return text
    spot = rng.choice(spots)
    value = rng.choice([*WORDS, f"&a {spot[0]}", f"&b {spot[0]}"])
    return text[: spot.start()] + value + text[spot.end() :]


def with_another_tree(rng, text):
    """The same settings with one replaced, moved, renamed or wrapped, as JSON."""
    try:
        tree = parse_document(text.encode("utf-8", "replace"), "x").values
    except ConfigError:
        return text
    sections = [tree]
    for section in sections:
        children = section.values() if isinstance(section, dict) else section
        sections += [child for child in children if isinstance(child, dict | list)]
    section = rng.choice([each for each in sections if each] or [{"a": 1}])
    step = rng.choice(list(section) if isinstance(section, dict) else range(len(section)))
    other = rng.choice(
        [None, True, -1, 0, 2**63, 1e308, "", "\0", "\ud800", [], {}, "nan", "x" * 99]
    )
    match rng.randrange(5):
        case 0:
            section[step] = other
        case 1:
            section[step] = rng.choice([[section[step]], {"name": section[step]}])
        case 2:
            del section[step]
        case 3:
            moved = json.loads(json.dumps(rng.choice(sections)))
            section[step] = moved
        case 4 if isinstance(section, dict):
            name = rng.choice(
                [step[1:], f"{step}s", step.upper(), "name", "\x1b", rng.choice(WORDS)]
            )
            section[name] = section.pop(step)
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 2]))


def with_other_characters(rng, text):
    at = rng.randrange(len(text) + 1)
    start = rng.randrange(len(text) + 1)
    new = rng.choice([*TOKENS, *WORDS, text[start : start + 40], ""])
    return text[:at] + new + text[at + rng.choice([0, 0, 1, 2, 30]) :]


def encoded(rng, text):
    if rng.random() < 0.9:
        return text.encode("utf-8", "surrogatepass")
    match rng.randrange(4):
        case 0:
            return text.encode(rng.choice(["utf-16", "utf-32", "utf-7", "utf-8-sig"]), "replace")
        case 1:
            return re.sub("\n", rng.choice(["\r\n", "\r", "\x85", "\u2028"]), text).encode(
                "utf-8", "replace"
            )
        case 2:
            return text.encode("latin-1", "replace")
    data = bytearray(text.encode("utf-8", "replace") or b"x")
    data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


MUTATIONS = [with_other_lines, with_another_value, with_another_tree, with_other_characters]


def mutate(seed):
    rng = random.Random(seed)
    text = rng.choice(CORPUS)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
        text = rng.choice(MUTATIONS)(rng, text)
    return encoded(rng, text)


def is_yaml(data):
    """Whether PyYAML's parser takes it as it stands."""
    try:
        return bool(list(yaml.parse(data.decode("utf-8-sig"), Loader=yaml.CSafeLoader)))
    except (yaml.YAMLError, ValueError):
        return False


def mutated_files(path, seeds):
    """How many of the files that the seeds make are configs; says how long the slowest took."""
    configs, slowest = 0, (0.0, -1)
    for seed in seeds:
        data = mutate(seed)
        path.write_bytes(data)
        began = time.process_time()
        try:
            configs += outcome(path) is not None
            assert not is_yaml(data) or not repaired(data.decode("utf-8-sig"), "x").repairs
        except BaseException as error:
            error.add_note(f"seed {seed}: {data!r}")
            raise
        slowest = max(slowest, (time.process_time() - began, seed))
    print(f"{configs} configs; the slowest took {slowest[0]:.3f} s, seed {slowest[1]}")  # noqa: T201
    return configs


def test_a_thousand_mutated_configs_are_configs_or_explained_errors(path):
    configs = mutated_files(path, range(1_000))
    assert 100 < configs < 900


@pytest.mark.slow
@pytest.mark.parametrize("part", range(THOUSANDS))
def test_thousands_of_mutated_configs_are_configs_or_explained_errors(path, part):
    mutated_files(path, range(1_000 * (part + 1), 1_000 * (part + 2)))


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_the_configs_to_mutate_are_configs(path, number):
    path.write_text(CORPUS[number], encoding="utf-8")
    assert outcome(path)

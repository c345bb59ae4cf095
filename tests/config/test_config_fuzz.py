"""Whatever a file or an override holds, the outcome is a config or an explained error."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligntune.config.load import dump, load
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


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "run.yaml"


def outcome(path, overrides=()):
    """A config that survives its own dump, or an error in lines that are safe to print."""
    config, error = None, None
    try:
        config = load([path], overrides)
    except ConfigError as caught:
        error = str(caught)
    if error is None:
        assert isinstance(config, RunConfig)
        path.write_text(dump(config), encoding="utf-8")
        assert load([path]) == config
        return config
    assert re.match(rf"({re.escape(str(path))}:\d+:\d+|--set .*): .+", error.splitlines()[0])
    assert error.replace("\n", "").isprintable()
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


def test_the_undamaged_file_is_a_config(path):
    path.write_text(VALID, encoding="utf-8")
    assert outcome(path)

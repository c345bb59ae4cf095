"""A resolved config is itself a config, and says exactly the same."""

import re

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aligntune.config.document import parse_document
from aligntune.config.dump import dump
from aligntune.config.load import load
from aligntune.config.run import RunConfig

SCHEMA = RunConfig.model_json_schema()
TRICKY = [
    "no", "on", "1e5", "5e-05", "1_000", "010", "0x1F", "1:30", "null", "~", "", " ", " a ", "a: b",
    "a #b", "#b", "- a", "<<", "=", "---", "...", "{{ x }}", "[", "@x", "%x", "!x", "&a", "*a",
    "'", '"', "\\", "\t", "\n", "a\n", "\n\na", "  a\n b\n", "a\r\nb", "a \nb\n\n", "\x85",
    "a\u2029b", "\ufeff", "\xa0", "\U0001f600", ".inf", ".nan", "1e999", "9" * 30, "2024-01-31",
    "x" * 300, "?", "\u2028", "${HOME}", "$${HOME}", "${", "$", "$$", "${A:-b}",
]  # fmt: skip
ALLOWED = st.characters(
    exclude_categories=["Cs", "Cc"],
    include_characters="\t\n\r\x85",
    exclude_characters="\ufffe\uffff",
)
TEXT = st.sampled_from(TRICKY) | st.text(ALLOWED, max_size=30)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def numbers(schema):
    if schema["type"] == "integer":
        most = schema.get("exclusiveMaximum", 2**63) - 1
        return st.integers(schema.get("minimum", -(2**63)), most)
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    strict = {"exclude_min": "exclusiveMinimum" in schema}
    strict |= {"exclude_max": True} if "exclusiveMaximum" in schema else {}
    return st.floats(least, most, allow_nan=False, allow_infinity=False, **strict)


def values(schema):
    """Values that the schema allows, most of them at least."""
    if "$ref" in schema:
        return values(SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in schema:
        return st.one_of(*map(values, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    match schema["type"]:
        case "number" | "integer":
            return numbers(schema)
        case "string":
            pattern = schema.get("pattern")
            return st.from_regex(pattern.replace("$", r"\Z")) if pattern else TEXT.filter(bool)
        case "array":
            return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
        case "object" if "properties" in schema:
            fields = {name: values(field) for name, field in schema["properties"].items()}
            required = {name: fields.pop(name) for name in schema.get("required", ())}
            return st.fixed_dictionaries(required, optional=fields)
        case "object":
            more = schema["additionalProperties"]
            return st.dictionaries(
                TEXT, values(more) if isinstance(more, dict) else PLAIN, max_size=3
            )
        case kind:
            return {"boolean": st.booleans(), "null": st.none()}[kind]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("dump") / "run.yaml"


def with_text(text):
    return {
        "algo": "dpo",
        "model": {"name_or_path": text or "x", "chat_template": text},
        "datasets": [{"name": "a", "columns": {text: text}, "params": {text: [text, {text: 1.0}]}}],
        "logging": {"run_name": "a"},
    }


@settings(max_examples=150, deadline=None, derandomize=True)
@given(values(SCHEMA))
def test_a_dumped_config_loads_to_an_equal_one(settings):
    settings.setdefault("logging", {})["run_name"] = "a"
    try:
        config = RunConfig.model_validate(settings)
    except ValidationError:
        assume(False)
    # Read without the rules over several settings: most of these configs contradict themselves.
    again = RunConfig.model_validate(parse_document(dump(config).encode(), "run.yaml").values)
    assert again == config
    assert again.model_dump_json() == config.model_dump_json()


@pytest.mark.parametrize("text", TRICKY, ids=ascii)
def test_text_that_looks_like_something_else_survives_a_dump(path, text):
    config = RunConfig.model_validate(with_text(text))
    path.write_bytes(dump(config).encode())
    assert load([path]) == config


@settings(max_examples=100, deadline=None, derandomize=True)
@given(TEXT)
@example("{% for m in messages %}\n  {{ m }}\n{% endfor %}\n")
def test_any_text_survives_a_dump(path, text):
    config = RunConfig.model_validate(with_text(text))
    path.write_bytes(dump(config).encode())
    assert load([path]) == config


def test_a_dump_is_complete_and_pleasant_to_read():
    text = dump(
        RunConfig.model_validate(
            with_text("line one\nline \u4e8c\n") | {"train": {"learning_rate": 1e-6}}
        )
    )
    assert "learning_rate: 1e-06\n" in text
    assert "  chat_template: |\n    line one\n    line \u4e8c\n" in text
    assert [line for line in text.splitlines() if re.match(r"\w", line)][:2] == [
        "algo: dpo",
        "model:",
    ]
    assert text.index("\ntrain:") < text.index("\npeft: null") < text.index("\nseed: 42")
    assert "!!" not in text


@pytest.mark.parametrize("text", ["no", "1e5", "5e-05", "010", "1:30", "null", "a: b", "<<"])
def test_a_reader_of_yaml_1_1_sees_the_same_text(text):
    read = yaml.safe_load(dump(RunConfig.model_validate(with_text(text))))
    assert read["model"]["chat_template"] == text

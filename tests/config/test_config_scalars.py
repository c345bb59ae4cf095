"""What an unquoted word means, in a file and after `--set key=` alike."""

import pytest

from aligntune.config.document import parse_document, parse_value
from aligntune.errors import ConfigError

SCALARS = [
    ("5e-5", 5e-5),
    ("5E-5", 5e-5),
    ("1e-06", 1e-6),
    ("5.e-5", 5e-5),
    ("1e5", 1e5),
    ("1e+5", 1e5),
    ("-1.5e3", -1500.0),
    ("+.5", 0.5),
    (".5", 0.5),
    ("5.", 5.0),
    ("0.0", 0.0),
    ("-0.0", -0.0),
    ("1.10", 1.1),
    ("0", 0),
    ("-7", -7),
    ("+7", 7),
    ("010", 10),
    ("0o10", 8),
    ("0x1F", 31),
    ("9223372036854775807", 2**63 - 1),
    ("-9223372036854775808", -(2**63)),
    ("true", True),
    ("True", True),
    ("TRUE", True),
    ("false", False),
    ("FALSE", False),
    ("null", None),
    ("Null", None),
    ("~", None),
    ("", None),
    ("no", "no"),
    ("No", "No"),
    ("yes", "yes"),
    ("on", "on"),
    ("off", "off"),
    ("y", "y"),
    ("n", "n"),
    ("tRUE", "tRUE"),
    ("nULL", "nULL"),
    ("1:30", "1:30"),
    ("1_000", "1_000"),
    ("0b11", "0b11"),
    ("0x", "0x"),
    ("1e", "1e"),
    ("e5", "e5"),
    (".", "."),
    ("-a", "-a"),
    ("1.2.3", "1.2.3"),
    ("2024-01-31", "2024-01-31"),
    ("nan", "nan"),
    ("inf", "inf"),
    ("<<", "<<"),
    ("=", "="),
    ("\u0665", "\u0665"),
    ("openai/gsm8k", "openai/gsm8k"),
    ("package://p/m.gguf", "package://p/m.gguf"),
    ('"5e-5"', "5e-5"),
    ("'true'", "true"),
    ('""', ""),
    ("'it''s'", "it's"),
    ('"tab\\tquote\\""', 'tab\tquote"'),
]


@pytest.mark.parametrize(("text", "meant"), SCALARS)
def test_a_scalar_in_a_file_has_its_yaml_1_2_type(text, meant):
    value = parse_document(f"key: {text}\n".encode(), "run.yaml").values["key"]
    assert (type(value), repr(value)) == (type(meant), repr(meant))


@pytest.mark.parametrize(("text", "meant"), SCALARS)
def test_an_override_reads_a_scalar_as_a_file_does(text, meant):
    value, references = parse_value(text, "--set")
    assert not references
    assert (type(value), repr(value)) == (type(meant), repr(meant))


@pytest.mark.parametrize(
    "text",
    [
        ".inf",
        "-.INF",
        ".nan",
        ".NaN",
        "1e999",
        "-1e999",
        "9223372036854775808",
        "0x" + "f" * 17,
        "9" * 100_000,
        "1." + "0" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_number_that_cannot_be_held_is_refused(text):
    with pytest.raises(ConfigError, match=r"^run\.yaml:1:6: .*; .*quote it as text"):
        parse_document(f"key: {text}".encode(), "run.yaml")
    with pytest.raises(ConfigError, match=r"^--set: .*; .*quote it as text"):
        parse_value(text, "--set")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[1, no, 5e-5]", [1, "no", 5e-5]),
        ("{r: 8, alpha: 16}", {"r": 8, "alpha": 16}),
        ("[{name: a}]", [{"name": "a"}]),
        ("arithmetic:", "arithmetic:"),
        ("@mine", "@mine"),
        ("a: b", "a: b"),
        ("- a", "- a"),
        ("&a *b !c #d", "&a *b !c #d"),
        ("  7 ", 7),
    ],
)
def test_an_override_is_a_flow_value_or_plain_text(text, meant):
    assert parse_value(text, "--set") == (meant, {})


@pytest.mark.parametrize(
    "text", ["[1, 2", "{a: 1", '"a', "[1] 2", "[*a]", "[&a 1, &a 2]", "[\udcff]", "a\0b"]
)
def test_a_broken_override_value_is_a_config_error_in_one_line(text):
    with pytest.raises(ConfigError) as caught:
        parse_value(text, "--set x")
    assert str(caught.value).startswith("--set x: ")
    assert "\n" not in str(caught.value)

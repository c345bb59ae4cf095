"""References to the environment: what they become, and that what they hold is never shown."""

import pytest

from aligntune.config.document import parse_document, parse_value
from aligntune.config.dump import dump
from aligntune.config.load import load, read
from aligntune.errors import ConfigError

BASE = "algo: dpo\nmodel: {name_or_path: tiny}\ndatasets:\n  - name: pairs.jsonl\n"
SECRET = "hf-s3cr3t"


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    values = {"STEPS": "20", "RATE": "5e-5", "ON": "true", "EMPTY": "", "NAME": "no", "KEY": SECRET}
    values["WIDE"] = " 7\n"
    values |= {"FLOW": "[a, b]", "LINES": "a: 1\nb: 2", "AGAIN": "${NAME}", "HUGE": "9" * 30}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("UNSET", raising=False)


VALUES = [
    ("${STEPS}", 20),
    ("${RATE}", 5e-5),
    ("${WIDE}", 7),
    ("'${WIDE}'", " 7\n"),
    ("${ON}", True),
    ("${EMPTY}", None),
    ("${NAME}", "no"),
    ("${UNSET:-7}", 7),
    ("${UNSET:-}", None),
    ("${EMPTY:-x}", "x"),
    ("${STEPS:-7}", 20),
    ("${UNSET:-a-b c:d$e}", "a-b c:d$e"),
    ('"${STEPS}"', "20"),
    ("'${ON}'", "true"),
    ('"${EMPTY}"', ""),
    ("${STEPS}0", "200"),
    ("${STEPS}${STEPS}", "2020"),
    ("a/${NAME}/${STEPS}", "a/no/20"),
    ("${FLOW}", "[a, b]"),
    ("${LINES}", "a: 1\nb: 2"),
    ("${AGAIN}", "${NAME}"),
    ("$${STEPS}", "${STEPS}"),
    ('"$${"', "${"),
    ("$$${STEPS}", "$${STEPS}"),
    ("a$${b}${STEPS}", "a${b}20"),
    ("$STEPS", "$STEPS"),
    ("a$", "a$"),
    ('"{{ x }}$"', "{{ x }}$"),
]


@pytest.mark.parametrize(("text", "meant"), VALUES)
def test_a_reference_becomes_one_value(text, meant):
    value = parse_document(f"key: {text}\n".encode(), "run.yaml").values["key"]
    assert (type(value), value) == (type(meant), meant)
    assert parse_value(text, "--set")[0] == meant


def test_references_are_filled_in_wherever_a_value_stands_and_never_in_keys():
    text = '${STEPS}: ["${STEPS}", {a: "${NAME}", "${NAME}": "$${"}]\nb: |\n  ${NAME}\n  x\n'
    document = parse_document(text.encode(), "x")
    assert document.values == {
        "${STEPS}": ["20", {"a": "no", "${NAME}": "${"}],
        "b": "no\nx\n",
    }
    assert document.references == {
        ("${STEPS}", 0): "${STEPS}",
        ("${STEPS}", 1, "a"): "${NAME}",
        ("b",): "${NAME}\nx\n",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${UNSET}", "the variable UNSET is not set; set it, or write ${UNSET:-default} here"),
        ("x ${UNSET} ${STEPS}", "the variable UNSET is not set; set it"),
        ("${", "'${' is neither ${NAME} nor ${NAME:-default}; write $${ for a plain ${"),
        ("${}", "'${}' is neither"),
        ("${A B}", "'${A B}' is neither"),
        ("${1A}", "'${1A}' is neither"),
        ("${A-b}", "'${A-b}' is neither"),
        ("${A:b}", "'${A:b}' is neither"),
        ("${STEPS:-${RATE}}", "'${STEPS:-${RATE}' is neither"),
        ("a ${STEPS", "'${STEPS' is neither"),
        (
            "${HUGE}",
            "'${HUGE}' is a number that is not finite or does not fit 64 bits; set another",
        ),
    ],
)
def test_a_wrong_reference_is_an_error_at_its_place(write, text, message):
    with pytest.raises(ConfigError) as caught:
        load([write(BASE + f"train:\n  max_steps: {text}\n")])
    assert str(caught.value).startswith(f"run.yaml:6:14: train.max_steps: {message}")
    with pytest.raises(ConfigError) as caught:
        load([write(BASE)], [f"train.max_steps={text}"])
    assert str(caught.value).startswith(f"--set train.max_steps={text}: {message}")


def test_a_variable_decides_a_setting_in_a_file_and_in_an_override(write):
    path = write(BASE + 'train: {learning_rate: "${RATE}"}\nseed: ${STEPS}\n')
    config = load([path], ["train.max_steps=${STEPS}", 'datasets=[{name: "${NAME}"}]'])
    assert (config.seed, config.train.max_steps, config.datasets[0].name) == (20, 20, "no")
    assert config.train.learning_rate == 5e-5


@pytest.mark.parametrize(
    "line",
    [
        "algo: ${KEY}",
        "algo: ${UNSET:-hf-s3cr3t}",
        "seed: ${KEY}",
        "peft: ${KEY}",
        "rewards: ['${KEY}']",
        "logging: {run_name: '${KEY} x', loggers: '${KEY}'}",
        "train: {max_steps: '${KEY}', learning_rate: 'x${KEY}', bolt: '${KEY}'}",
        "evaluation: {metrics: ['${KEY}'], confidence: '${KEY}'}",
        "peft: {target_modules: '${KEY}'}",
        "a: &x '${KEY}'\nseed: *x",
    ],
)
def test_what_a_variable_holds_is_never_shown(write, line):
    text = BASE.replace("algo: dpo\n", "" if line.startswith("algo") else "algo: dpo\n")
    with pytest.raises(ConfigError) as caught:
        load([write(text + line + "\n")])
    message = str(caught.value)
    shown = "UNSET:-" in line
    assert ("s3cr3t" in message) == shown
    assert "got what '${" in message


def test_an_override_does_not_show_what_it_reaches_into(write):
    with pytest.raises(ConfigError) as caught:
        load([write(BASE + "registry: {name: '${KEY}'}\n")], ["registry.name.x=1"])
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load([write(BASE)], ["logging={level: '${KEY}'}", "seed=${KEY}"])
    assert "s3cr3t" not in str(caught.value)
    assert str(caught.value).count("got what '${KEY}' stands for") == 2


def test_a_number_where_text_belongs_needs_quotes(write):
    said = r"got what '\$\{STEPS\}' stands for; .* write --set 'logging.run_name=\"\$\{STEPS\}\"'"
    with pytest.raises(ConfigError, match=said):
        load([write(BASE + "logging: {run_name: a}\n")], ["logging.run_name=${STEPS}"])
    assert load([write(BASE)], ['logging.run_name="${STEPS}"']).logging.run_name == "20"


def test_a_setting_from_a_later_file_forgets_the_reference(write):
    loaded = read([write(BASE + "seed: ${STEPS}\n")])
    assert loaded.places["seed",].reference == "${STEPS}"
    loaded = read([write(BASE + "seed: ${STEPS}\n")], ["seed=1"])
    assert loaded.places["seed",].reference is None


@pytest.mark.parametrize("value", ["a\x1b[2Jb", "\udcff", "\u0085\x07"])
def test_a_variable_that_is_no_text_is_refused(monkeypatch, value):
    monkeypatch.setenv("BAD", value)
    with pytest.raises(ConfigError, match=r"^x:1:4: a: the variable BAD holds a character that"):
        parse_document(b"a: ${BAD}", "x")


def test_variables_cannot_make_a_small_file_huge(monkeypatch):
    monkeypatch.setenv("BIG", "x" * 100_000)
    with pytest.raises(ConfigError, match="the variables hold more than 1 MiB of text"):
        parse_document(b"a: '" + b"${BIG}" * 100_000 + b"'", "x")
    with pytest.raises(ConfigError, match="the variables hold more than 1 MiB of text"):
        parse_document(b"a: [&b '${BIG}'" + b", *b" * 40_000 + b"]", "x")
    with pytest.raises(ConfigError, match="is neither"):
        parse_document(b"a: '" + b"${" * 500_000 + b"'", "x")


def test_a_dump_keeps_what_looks_like_a_reference(write):
    config = load([write(BASE)], ["model.chat_template=$${NAME} $$${X}"])
    assert config.model.chat_template == "${NAME} $${X}"
    assert load([write(dump(config))]) == config

"""Files and overrides in, a RunConfig or one error with every problem out."""

import time

import pytest
from own_process import loaded_by

from aligntune.config.load import check_more, load, read
from aligntune.config.problems import together
from aligntune.config.rules import Problem
from aligntune.errors import ConfigError

BASE = """\
algo: dpo
model: {name_or_path: tiny}
datasets:
  - name: pairs.jsonl
    max_samples: 100
  - name: more.jsonl
train:
  learning_rate: 5e-5
  max_steps: 10
"""


def problems(paths, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load(paths, overrides)
    return str(caught.value).splitlines()


def test_a_config_has_the_types_that_the_guide_means(write):
    config = load([write(BASE)])
    assert config.train.learning_rate == 5e-5
    assert config.datasets[0].max_samples == 100
    assert config.model.name_or_path == "tiny"


def test_the_text_no_stays_text_and_is_false_only_where_a_switch_is(write):
    text = BASE.replace("pairs.jsonl", "no") + "logging: {hub_private: no}\n"
    config = load([write(text)])
    assert config.datasets[0].name == "no"
    assert config.logging.hub_private is False


def test_later_files_win_key_by_key_and_replace_lists(write):
    mine = "train: {max_steps: 20}\ndatasets: [{name: mine}]\nseed: 7\n"
    config = load([write(BASE), write(mine, "mine.yaml")])
    assert (config.train.max_steps, config.train.learning_rate) == (20, 5e-5)
    assert [dataset.name for dataset in config.datasets] == ["mine"]
    assert (config.seed, config.algo) == (7, "dpo")


def test_null_in_a_later_file_removes_a_section(write):
    paths = [write(BASE + "peft: {r: 8}\n"), write("peft: null\n", "mine.yaml")]
    assert load(paths).peft is None


def test_a_problem_is_reported_in_the_file_that_caused_it(write):
    base = write(BASE.replace("learning_rate: 5e-5", "learning_rate: 5"), "base.yaml")
    mine = write("seed: x\ntrain:\n  max_steps: 0\ndatasets:\n- {name: ''}\n", "mine.yaml")
    assert [line.split(": ")[:2] for line in problems([base, mine])] == [
        ["base.yaml:8:3", "train.learning_rate"],
        ["mine.yaml:1:1", "seed"],
        ["mine.yaml:3:3", "train.max_steps"],
        ["mine.yaml:5:4", "datasets.0.name"],
    ]


def test_a_replaced_list_takes_the_old_places_with_it(write):
    paths = [write(BASE), write("datasets: [{split: a}]\n", "mine.yaml")]
    assert problems(paths) == [
        "mine.yaml:1:12: datasets.0.name: required, and not given; must be text that is not empty"
    ]


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.learning_rate=1e-6", lambda c: c.train.learning_rate == 1e-6),
        ("train.max_steps=", lambda c: c.train.max_steps is None),
        ("datasets.0.max_samples=10", lambda c: c.datasets[0].max_samples == 10),
        ("datasets.1.name=arithmetic:", lambda c: c.datasets[1].name == "arithmetic:"),
        ("datasets=[{name: a}]", lambda c: [d.name for d in c.datasets] == ["a"]),
        ("datasets.0.columns.prompt=a=b", lambda c: c.datasets[0].columns == {"prompt": "a=b"}),
        ("peft.r=4", lambda c: c.peft.r == 4),
        ("peft={r: 4, alpha: 8}", lambda c: (c.peft.r, c.peft.alpha) == (4, 8)),
        ("model.precision = bf16", lambda c: c.model.precision == "bf16"),
        ('logging.run_name="42"', lambda c: c.logging.run_name == "42"),
        ("model.name_or_path=package://a/b.gguf", lambda c: c.model.start.endswith("b.gguf")),
    ],
)
def test_an_override_sets_any_value(write, override, read):
    path = write(BASE)
    assert not read(load([path], ["peft.r=3"]))
    assert read(load([path], ["peft.r=3", override]))


@pytest.mark.parametrize("text", ["20261126", "1e5", "true", "null", "0x1F", "a b", '"42"', "\\n"])
def test_a_flag_for_text_takes_any_text(write, text):
    flags = [f"--model model.name_or_path={text}", f"--output-dir logging.output_dir={text}"]
    config = load([write(BASE)], flags)
    assert (config.model.name_or_path, config.logging.output_dir) == (text.strip('"'),) * 2
    if " " not in text and "\\" not in text:
        named = load([write(BASE)], [f"--run-name logging.run_name={text}"])
        assert named.logging.run_name == text.strip('"')


def test_a_flag_for_text_refers_to_the_environment(write, monkeypatch):
    monkeypatch.setenv("DAY", "20261126")
    assert (
        load([write(BASE)], ["--run-name logging.run_name=${DAY}"]).logging.run_name == "20261126"
    )
    assert load([write(BASE)], ["--run-name logging.run_name="]).logging.run_name == "run"


def test_the_last_override_wins(write):
    assert load([write(BASE)], ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_steps=0", "train.max_steps: got 0; must be a whole number >= 1, or null"),
        ("train.max_step=1", "train.max_step: unknown key; did you mean 'max_steps'?"),
        ("train.optimizer=adamw", "did you mean 'adamw_torch'?"),
        ("peft.zz.x=1", "peft.zz: unknown key; choose from r, alpha, dropout, target_modules"),
        ("datasets=[{name: 1}]", "datasets.0.name: got 1; must be text that is not empty; put it"),
        ("logging.run_name=20261126", "null; write --set 'logging.run_name=\"20261126\"'"),
        ("logging.run_name=1e5", "null; write --set 'logging.run_name=\"1e5\"'"),
        ("logging.run_name=true", "null; write --set 'logging.run_name=\"true\"'"),
        ("datasets.2.name=x", "datasets has no item '2', only 2, counted from 0; set the whole"),
        ("datasets.-1.name=x", "datasets has no item '-1', only 2"),
        ("datasets.name=x", "datasets has no item 'name', only 2"),
        ("datasets.99999999.name=x", "datasets has no item '99999999', only 2"),
        ("sft.datasets.0.name=x", "sft.datasets has no item '0', only 0"),
        ("algo.x=1", "algo is one value, not a section; set it as a whole"),
        ("train.learning_rate", "there is no '='; write section.key=value"),
        ("=1", "'' is no key; write section.key=value"),
        ("train..x=1", "'train..x' is no key; write section.key=value"),
        ("a." * 100 + "a=1", "is no key; write section.key=value"),
        ("datasets=[", "a value is missing before this; give one"),
        ("model.name_or_path=\udcff", "the character U+DCFF is not allowed; remove it"),
        ("seed=.nan", ".nan is not a usable number; give a finite one"),
    ],
)
def test_a_wrong_override_is_reported_as_it_was_written(write, override, message):
    (line,) = problems([write(BASE)], [override])
    shown = override.replace("\udcff", "\\udcff")[:80]
    assert line.startswith(f"--set {shown}: ")
    assert message in line


def test_more_overrides_are_judged_only_where_the_config_is_known(write, tmp_path):
    path, lost = write(BASE), tmp_path / "lost.yaml"
    check_more([path], ["seed=1"], ["train.max_steps=5"])
    with pytest.raises(ConfigError, match=r"^--set train.max_step=5: .* did you mean 'max_steps'"):
        check_more([path], ["seed=1"], ["train.max_step=5"])
    check_more([path], [], ["logging.run_name=${NOT_SET_HERE}"])
    for unknown in ([lost], [], [write(BASE + "seed: ${NOT_SET_HERE}\n", "other.yaml")]):
        check_more(unknown, [], ["train.max_step=5"])


def test_a_problem_that_an_override_repairs_is_none(write):
    path = write(BASE.replace("max_steps: 10", "max_steps: 0"))
    assert load([path], ["train.max_steps=5"]).train.max_steps == 5


def test_all_problems_come_at_once_in_the_order_of_the_file(write):
    text = """\
algo: dpx
learning_rate: 5e-5
model:
  precision: bf17
datasets:
  - nam: x
    name: 7
  - words
train:
  packing: maybe
  num_epochs: true
  weight_decay: "inf"
peft: {target_modules: [q, 1]}
sft:
evaluation: {metrics: [exact_mach], datasets: {}}
launch:
logging: {run_name: a b, level: null}
zzz: 1
"""
    assert problems([write(text)]) == [
        "run.yaml:1:1: algo: got 'dpx'; must be 'sft', 'dpo', 'ppo', 'grpo', 'gspo', 'dapo', "
        "'dr-grpo', 'gbmpo', 'counterfactual-grpo' or 'bolt'; did you mean 'dpo'?",
        "run.yaml:2:1: learning_rate: unknown key; it belongs at 'train.learning_rate'",
        "run.yaml:3:1: model.name_or_path: required, and not given; must be text that is not empty",
        "run.yaml:4:3: model.precision: got 'bf17'; must be 'auto', 'bf16', 'fp16' or 'fp32'; "
        "did you mean 'bf16'?",
        "run.yaml:6:5: datasets.0.nam: unknown key; did you mean 'name'?",
        "run.yaml:7:5: datasets.0.name: got 7; must be text that is not empty; put it in quotes",
        "run.yaml:8:5: datasets.1: got 'words'; must be a section of `key: value` lines",
        "run.yaml:10:3: train.packing: got 'maybe'; must be true or false, or null",
        "run.yaml:11:3: train.num_epochs: got true; must be a number > 0",
        "run.yaml:12:3: train.weight_decay: got 'inf'; must be a number >= 0",
        "run.yaml:13:28: peft.target_modules.1: got 1; must be text; put it in quotes",
        "run.yaml:14:1: sft: there is nothing in it; give its settings, or null for none",
        "run.yaml:15:24: evaluation.metrics.0: got 'exact_mach'; must be 'exact_match', 'nll', "
        "'perplexity', 'preference_accuracy', 'preference_margin', 'answer_tokens', "
        "'finished_rate', 'distinct_1', 'distinct_2', 'refusal_rate' or 'kl_to_base'; did you mean "
        "'exact_match'?",
        "run.yaml:15:37: evaluation.datasets: got a section; must be a list, each item a section "
        "of `key: value` lines",
        "run.yaml:16:1: launch: got null; must be a section of `key: value` lines; "
        "without the line it has its default",
        "run.yaml:17:11: logging.run_name: got 'a b'; must be at most 64 letters, digits, '.', "
        "'_' or '-', the first a letter or digit, or null",
        "run.yaml:17:26: logging.level: got null; must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'; "
        "without the line it has its default",
        "run.yaml:18:1: zzz: unknown key; choose from algo, model, datasets, cleaning, mix, "
        "train, peft, rewards, sft, reward_model, evaluation, registry, launch, logging, "
        "sample_logging, retrain, deployment, schedules, notifications, seed",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("name_or_path: x", "name_or_path: unknown key; it belongs at 'model.name_or_path'"),
        ("hub_model_id: x", "hub_model_id: unknown key; it belongs at 'logging.hub_model_id'"),
        ("split: x", "split: unknown key; it belongs at 'datasets.0.split'"),
        ("peft: {seed: 1}", "peft.seed: unknown key; it belongs at the top level: 'seed'"),
        (
            "sft: {learning_rate: 1}",
            "sft.learning_rate: unknown key; it belongs at 'sft.train.learning_rate'",
        ),
        ("mode: inline", "mode: unknown key; did you mean 'model'?"),
        ("leaning_rate: 1", "leaning_rate: unknown key; did you mean 'train.learning_rate'?"),
        ("SEED: 1", "SEED: unknown key; did you mean 'seed'?"),
        ("registry: {run-name: x}", "registry.run-name: unknown key; did you mean 'name' or 'logg"),
        ("lrr: 1", "lrr: unknown key; choose from algo, "),
        (
            "max_samples: 1",
            "max_samples: unknown key; it belongs at 'datasets.0.max_samples' or "
            "'evaluation.max_samples'",
        ),
        (
            "evaluation: {max_sample: 1}",
            "evaluation.max_sample: unknown key; did you mean 'max_samples'?",
        ),
        (
            "launch: {max_sequence_length: 1}",
            "launch.max_sequence_length: unknown key; choose from mode",
        ),
        ("sft: {dataset_list: 1}", "sft.dataset_list: unknown key; did you mean 'datasets'?"),
        (
            "peft: {target_module: a, dropout_rate: 0.1}",
            "peft.dropout_rate: unknown key; did you mean 'dropout'?",
        ),
        (
            "sft: {train: {max_seq_length: 1}}",
            "sft.train.max_seq_length: unknown key; did you mean 'max_length' or "
            "'model.max_seq_length'?",
        ),
        ("'a\\x1b b': 1", "'a\\\\x1b b': unknown key; choose from"),
    ],
)
def test_a_key_in_the_wrong_section_is_sent_to_the_right_one(write, line, message):
    found = problems([write(BASE + line + "\n")])
    assert any(f": {message}" in text for text in found)


def test_contradictions_come_together_in_the_order_of_the_files(write):
    mine = "logging:\n  push_to_hub: true\nsft: {datasets: [{name: a}]}\nalgo: sft\n"
    base = BASE.replace("{name_or_path: tiny}", "{name_or_path: tiny, quantization: 4bit}")
    found = problems([write(base), write(mine, "mine.yaml")], ["train.loss_type=aot"])
    assert [line.split(": ")[:2] for line in found] == [
        ["run.yaml:2:29", "model.quantization"],
        ["mine.yaml:2:3", "logging.push_to_hub"],
        ["mine.yaml:3:1", "sft"],
        ["--set train.loss_type=aot", "train.loss_type"],
    ]
    assert found[1].endswith(": `push_to_hub: true` needs `hub_model_id: owner/name` beside it")


def test_a_contradiction_with_a_default_stands_at_the_section(write):
    places = read([write(BASE)]).places
    found = [Problem(("train", "max_steps"), "b; c"), Problem(("train", "beta"), "a; b")]
    found += [Problem(("seed",), "d; e"), Problem((), "f; g")]
    assert str(together(found, places)).splitlines() == [
        "run.yaml:1:1: seed: d; e",
        "run.yaml:1:1: f; g",
        "run.yaml:7:1: train.beta: a; b",
        "run.yaml:9:3: train.max_steps: b; c",
    ]
    assert str(together(found * 10, places)).splitlines()[-1] == "... and 20 more"


def test_reading_gives_the_places_and_the_repairs_too(write):
    base = write("algo: dpo\nmodel: {name_or_path: a}\ndatasets:\n - name: b\n split: c\n")
    loaded = read([base, write("seed: 3\n", "mine.yaml")], ["train.max_steps=3"])
    assert loaded.config == load([base, base.with_name("mine.yaml")], ["train.max_steps=3"])
    assert [str(each).split(": ")[0] for each in loaded.repairs] == ["run.yaml:5"]
    labels = {path: place.label for path, place in loaded.places.items()}
    assert labels == {
        (): "mine.yaml:1:1",
        ("algo",): "run.yaml:1:1",
        ("model",): "run.yaml:2:1",
        ("model", "name_or_path"): "run.yaml:2:9",
        ("datasets",): "run.yaml:3:1",
        ("datasets", 0): "run.yaml:4:4",
        ("datasets", 0, "name"): "run.yaml:4:4",
        ("datasets", 0, "split"): "run.yaml:5:2",
        ("seed",): "mine.yaml:1:1",
        ("train",): "--set train.max_steps=3",
        ("train", "max_steps"): "--set train.max_steps=3",
    }


def test_a_missing_top_level_key_points_at_the_top(write):
    assert problems([write("# a comment\nalgo: sft\ndatasets: [{name: a}]\n")]) == [
        "run.yaml:2:1: model: required, and not given; must be a section of `key: value` lines"
    ]


def test_a_long_or_unprintable_value_is_shown_short_and_escaped(write):
    (line,) = problems([write(BASE + f"seed: '\u202e{'x' * 5000}'\n")])
    assert len(line) < 200
    assert line.isprintable()


def test_long_names_are_not_compared_with_every_key(write):
    long = "x" * 300_000
    path = write(BASE.replace("dpo", long) + f"? {long}\n: 1\n? {long}y\n: 1\n")
    began = time.process_time()
    assert max(map(len, problems([path]))) < 300
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("quick start.yaml", "quick-start"),
        ("v1.2_a.yml", "v1.2_a"),
        ("_.hidden.yaml", "hidden"),
        ("\u00e9t\u00e9.yaml", "t-"),
        ("\u00e9.yaml", "run"),
        ("x" * 90 + ".yaml", "x" * 64),
    ],
)
def test_the_run_is_named_after_the_last_file(write, name, run):
    assert load([write(BASE, "base.yaml"), write("seed: 1\n", name)]).logging.run_name == run


def test_a_given_run_name_is_kept(write):
    assert load([write(BASE)], ["logging.run_name=mine"]).logging.run_name == "mine"
    assert load([write(BASE)], ["logging.run_name=null"]).logging.run_name == "run"


def test_no_file_is_a_config_error():
    with pytest.raises(ConfigError, match="no config file given; name at least one"):
        load([])


def test_large_files_merge_in_linear_time(write):
    many = "".join(f"  k{i}: 1\n" for i in range(20_000))
    paths = [write("datasets:\n" + many, name) for name in ("a.yaml", "b.yaml")]
    began = time.process_time()
    assert any("datasets: got a section; must be a list" in line for line in problems(paths))
    assert time.process_time() - began < 5


def test_loading_a_config_loads_nothing_heavy():
    heavy = {"torch", "transformers", "trl", "datasets", "pandas", "numpy", "mlflow", "prefect"}
    assert not heavy & loaded_by("aligntune.config.load")


def test_an_empty_section_is_not_taken_for_none(write):
    text = BASE + "peft:\n  # r: 8\nsft:\nevaluation: {lm_eval: }\nsample_logging: &all\n"
    defaults = "there is nothing in it; write {} for its defaults, or null for none"
    needs = "there is nothing in it; give its settings, or null for none"
    expected = [
        f"run.yaml:10:1: peft: {defaults}",
        f"run.yaml:12:1: sft: {needs}",
        f"run.yaml:13:14: evaluation.lm_eval: {needs}",
        f"run.yaml:14:1: sample_logging: {defaults}",
    ]
    assert problems([write(text)]) == expected
    wrong = [
        *expected,
        "run.yaml:15:1: seed: got 'x'; must be a whole number >= 0 and < 4294967296",
    ]
    assert problems([write(text + "seed: x\n")]) == wrong


@pytest.mark.parametrize(
    ("section", "overrides"),
    [
        ("peft: {}", ()),
        ("peft: null", ()),
        ("peft: ~", ()),
        ("peft:", ["peft.r=8"]),
        ("peft: {}", ["peft="]),
        ("train: {max_steps: , max_length: }", ()),
    ],
)
def test_what_is_said_to_be_none_or_filled_elsewhere_is_right(write, section, overrides):
    base = BASE[: BASE.index("train")] if section.startswith("train") else BASE
    config = load([write(base + section + "\n")], overrides)
    assert (config.peft is None) == (
        section != "peft:" and ("{}" not in section or overrides != ())
    )

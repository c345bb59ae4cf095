"""Names from other libraries are answered with the setting that is here for them, or with why there
is none."""

import re

import pytest

from aligntune.config.foreign import ABSENT, ALGORITHMS, FOREIGN
from aligntune.config.load import load
from aligntune.config.schema import _all_paths, known_name
from aligntune.errors import ConfigError

BASE = """\
algo: sft
model: {name_or_path: tiny}
datasets: [{name: a}, {name: b}]
"""


def answers(path):
    """Key -> what is said of it."""
    with pytest.raises(ConfigError) as caught:
        load([path])
    lines = str(caught.value).splitlines()
    return dict(line.split(": ", 1)[1].split(": unknown key; ") for line in lines)


@pytest.mark.parametrize("name", FOREIGN)
def test_every_foreign_name_leads_to_one_setting_that_exists(name):
    *around, last = name.split(".")
    path, _, how = FOREIGN[name].partition(": ")
    assert path in _all_paths().values()
    assert known_name((*around, last)) == f"here it is {path!r}" + (f": {how}" if how else "")


def test_no_name_of_ours_is_taken_for_a_foreign_one():
    ours = {str(path[-1]) for path in _all_paths()}
    # Elsewhere these are other things: rows that are measured at once, a judge of a reward.
    meant = {"batch_size", "model_name"}
    assert {name for name in FOREIGN.keys() | ABSENT.keys() if name in ours} == meant
    qualified = {tuple(name.split(".")) for name in FOREIGN if "." in name}
    written = {tuple(step for step in path if isinstance(step, str)) for path in _all_paths()}
    assert not qualified & written
    assert not FOREIGN.keys() & ABSENT.keys()


def test_a_foreign_name_is_answered_for_the_section_it_stands_in(write):
    base = BASE.replace("{name: b}", "{name: b, path: x}")
    text = """\
sft: {num_train_epochs: 1, datasets: [{name: c, type: alpaca}], train: {lr: 1e-4, LR: 1}}
train: {group_by_length: true, warmup-ratio: 0.1, logging_steps: 3}
peft: {lora_r: 8, task_type: CAUSAL_LM}
load_in_4bit: true
sample_packing: true
"""
    assert answers(write(base + text)) == {
        "datasets.1.path": "here it is 'datasets.1.name'",
        "sft.num_train_epochs": "here it is 'sft.train.num_epochs'",
        "sft.datasets.0.type": "here it is 'sft.datasets.0.format'",
        "sft.train.lr": "here it is 'sft.train.learning_rate'",
        "sft.train.LR": "here it is 'sft.train.learning_rate'",
        "train.group_by_length": "there is no such setting: `train.padding_free` takes the padding "
        "out of a batch",
        "train.warmup-ratio": "here it is 'train.warmup_steps': a number of optimizer steps, not a "
        "share of them",
        "train.logging_steps": "there is no such setting: every optimizer step is logged",
        "peft.lora_r": "here it is 'peft.r'",
        "peft.task_type": "there is no such setting: the adapter is plain LoRA, with r, alpha, "
        "dropout and target_modules",
        "load_in_4bit": "here it is 'model.quantization': 4bit",
        "sample_packing": "here it is 'train.packing'",
    }


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_an_algorithm_that_is_not_here_is_answered_with_what_is(write, algo):
    with pytest.raises(ConfigError, match=f"{re.escape(ALGORITHMS[algo])}$"):
        load([write(BASE.replace("sft", algo.upper()))])

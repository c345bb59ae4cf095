"""Every one-letter typo of every key is refused, and almost always answered with the right key."""

import copy
import json
import random
import re
import string
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from aligntune.config.load import load
from aligntune.config.nearest import edits
from aligntune.config.problems import MAX_SHOWN
from aligntune.config.run import RunConfig
from aligntune.errors import ConfigError


def models_of(kind):
    """The sections in a field's type, and whether it is a list of them."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [(kind, False)]
    listed = get_origin(kind) is tuple
    return [(model, listed) for part in get_args(kind) for model, _ in models_of(part)]


def complete(model):
    """A config with every section that there is, and in them only what is required."""
    settings = {}
    for name, field in model.model_fields.items():
        if found := models_of(field.annotation):
            ((inner, listed),) = found
            settings[name] = [complete(inner)] if listed else complete(inner)
        elif field.is_required():
            listed = get_origin(field.annotation) is tuple
            settings[name] = ["x"] if listed else next(iter(get_args(field.annotation)), "x/x")
    return settings


BASE = complete(RunConfig)
PER_KEY = 200
LETTERS = string.ascii_lowercase + "_"


def sections(value, path=()):
    """Every section of BASE, as the path to it."""
    if isinstance(value, dict):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for step, child in items:
        if isinstance(child, dict | list):
            yield from sections(child, (*path, step))


def keys_of(section):
    """The names that the models declare for a section, found without the code under test."""
    model = RunConfig
    for step in section:
        if isinstance(step, str):
            ((model, _),) = models_of(model.model_fields[step].annotation)
    return list(model.model_fields)


def typos(key, taken):
    """All names one edit away from `key`, without the ones that are keys themselves."""
    cuts = [(key[:i], key[i:]) for i in range(len(key) + 1)]
    found = {a + b[1:] for a, b in cuts if b}
    found |= {a + letter + b for a, b in cuts for letter in LETTERS}
    found |= {a + letter + b[1:] for a, b in cuts if b for letter in LETTERS}
    found |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    return sorted(found - set(taken) - {""})


def sampled(section, key):
    found = typos(key, keys_of(section))
    return random.Random(f"{section} {key}").sample(found, min(PER_KEY, len(found)))


def suggestions(folder, section, names):
    """What `load` answers to each of `names` as a key of `section`."""
    config = copy.deepcopy(BASE)
    inner = config
    for step in section:
        inner = inner[step]
    inner.update(dict.fromkeys(names, 1))
    path = folder / "run.yaml"
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        load([path])
    answers = {}
    for line in str(caught.value).splitlines():
        found = re.match(r"\S+: (\S+): unknown key; (?:did you mean '(\w+)'\?)?", line)
        assert found, line
        answers[found[1].rsplit(".", 1)[-1]] = found[2]
    return answers


ALL = list(sections(BASE))


@pytest.mark.parametrize("section", ALL, ids=lambda s: ".".join(map(str, s)) or "top")
def test_every_typo_is_refused_and_answered_with_the_nearest_key(section, tmp_path):
    keys = keys_of(section)
    reach = {key: set(typos(key, ())) for key in keys}
    right, total = 0, 0
    for key in keys:
        wanted = sampled(section, key)
        for start in range(0, len(wanted), MAX_SHOWN):
            batch = wanted[start : start + MAX_SHOWN]
            answers = suggestions(tmp_path, section, batch)
            assert answers.keys() == set(batch), "a typo was accepted"
            for typo, answer in answers.items():
                # The typo may be just as near to another key; then either answer is right.
                near = [other for other in keys if typo in reach[other]]
                total += 1
                right += answer in near if len(near) > 1 else answer == key
    assert total >= 50
    assert right / total >= 0.95


def test_the_sections_are_all_there_are():
    assert {str(keys_of(section)) for section in ALL} >= {
        str(list(definition["properties"]))
        for definition in RunConfig.model_json_schema()["$defs"].values()
        if "properties" in definition
    }
    assert ("sft", "train", "bolt") in ALL
    assert ("evaluation", "datasets", 0) in ALL


@pytest.mark.parametrize(
    ("a", "b", "count"),
    [
        ("", "", 0),
        ("", "ab", 2),
        ("seed", "seed", 0),
        ("sed", "seed", 1),
        ("seeed", "seed", 1),
        ("sead", "seed", 1),
        ("esed", "seed", 1),
        ("max_step", "max_steps", 1),
        ("abcd", "badc", 2),
        ("kitten", "sitting", 3),
    ],
)
def test_edits_count_one_letter_changes_and_swaps(a, b, count):
    assert edits(a, b) == edits(b, a) == count

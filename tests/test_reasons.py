"""Why a stage runs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntune.artifacts import key_of
from aligntune.identity import differences, distance
from aligntune.reasons import Earlier

LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["a", "b"])
TREES = st.recursive(
    LEAVES,
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inside, max_size=3)
    ),
    max_leaves=12,
)
SECTIONS = st.dictionaries(st.sampled_from("pqr"), TREES, max_size=3)


@settings(deadline=None)
@given(SECTIONS, SECTIONS)
def test_the_distance_is_how_many_differences_have_a_name(old, new):
    assert distance(old, new) == len(differences(old, new))


@pytest.fixture
def store(tmp_path):
    def finished(kind, **config):
        identity = {"config": config}
        folder = tmp_path / f"{kind}-{key_of(identity)}"
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"kind": kind, "identity": identity}))
        return folder

    finished.why = lambda kind, **config: Earlier(tmp_path).why(
        kind, f"{kind}-000000000000", {"config": config}
    )
    return finished


def test_the_nearest_stage_of_the_same_kind_says_why(store):
    store("dpo", beta=1, steps=5, seed=3)
    store("dpo", beta=1, steps=7, seed=4)
    store("sft", beta=2, steps=7, seed=4)
    assert store.why("dpo", beta=2, steps=7, seed=4) == "beta changed"
    assert store.why("ppo", beta=2) == "not done yet"


def test_a_kind_whose_name_another_begins_with_is_not_mixed_up_with_it(store):
    store("register-reward", name="x")
    assert store.why("register", name="y") == "not done yet"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "dpo"}', '{"identity": 3}'])
def test_a_manifest_that_cannot_be_read_is_no_reason(store, text):
    (store("dpo", beta=1) / "manifest.json").write_text(text)
    assert store.why("dpo", beta=2) == "not done yet"


def test_only_kinds_that_are_asked_for_are_read(store, monkeypatch):
    for number in range(3):
        store("dpo", beta=number)
        store("sft", beta=number)
    read = []
    monkeypatch.setattr("aligntune.reasons._identity", lambda path: read.append(path) or {})
    store.why("dpo", beta=9)
    assert len(read) == 3
    assert all(path.parent.name.startswith("dpo-") for path in read)

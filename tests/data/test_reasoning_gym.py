"""Tasks of the reasoning-gym package, or of a stand-in with its interface where it is missing."""

import json
import sys
from importlib.util import find_spec

import pytest

from aligntune.config.data import Dataset
from aligntune.data.sources import fingerprint, read
from aligntune.errors import ConfigError

INSTALLED = find_spec("reasoning_gym") is not None
FACTORY = """
from dataclasses import dataclass
from random import Random


@dataclass
class Config:
    max_value: int = 1000
    seed: int | None = None
    size: int = 500


class Doubles:
    def __init__(self, config):
        assert config.max_value > 1, "max_value must be > 1"
        self.config = config

    def __len__(self):
        return self.config.size

    def __getitem__(self, index):
        number = Random(self.config.seed + index).randint(1, self.config.max_value)
        answer = None if number == 13 else 2 * number
        return {"question": f"Double {number}.", "answer": answer, "metadata": {"doubled": True}}


DATASETS = {"doubles": (Doubles, Config, None)}


def create_dataset(name, **kwargs):
    return Doubles(Config(**kwargs))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    package = tmp_path / "reasoning_gym"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "factory.py").write_text(FACTORY)
    metadata = tmp_path / "reasoning_gym-9.9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: reasoning-gym\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("reasoning_gym", "reasoning_gym.factory"):
        sys.modules.pop(name, None)


def rows(task="doubles", split="train", **params):
    dataset = Dataset(name=f"reasoning_gym:{task}", split=split, params=params)
    found = read(dataset, fingerprint(dataset))
    return list(found.at(range(found.count)))


@pytest.mark.skipif(INSTALLED, reason="reasoning-gym is installed")
def test_without_the_package_the_message_is_how_to_install_it():
    with pytest.raises(ConfigError, match=r"pip install 'aligntune-pipeline\[reasoning-gym\]'"):
        fingerprint(Dataset(name="reasoning_gym:gcd"))


@pytest.mark.skipif(INSTALLED, reason="reasoning-gym is installed")
@pytest.mark.usefixtures("stand_in")
class TestStandIn:
    def test_rows_are_prompts_with_answers(self):
        made = rows(count=50, max_value=10**6)
        assert len(made) == 50
        for row in made:
            assert int(row["answer"]) == 2 * int(row["prompt"].split()[1].rstrip("."))
            assert json.loads(row["metadata"]) == {"doubled": True}
            assert row["task"] == "doubles"

    def test_the_version_of_the_package_is_part_of_the_identity(self):
        dataset = Dataset(name="reasoning_gym:doubles")
        assert fingerprint(dataset) == "procedural:reasoning_gym==9.9:2"

    def test_the_splits_share_no_question_even_where_there_are_few(self):
        train, test = (
            {row["prompt"] for row in rows(split=split, count=count, max_value=100)}
            for split, count in (("train", 60), ("test", 10))
        )
        assert (len(train), len(test)) == (60, 10)
        assert not train & test

    def test_rows_without_an_answer_are_left_out(self):
        assert "Double 13." not in {row["prompt"] for row in rows(count=70, max_value=100)}

    def test_rows_are_the_same_every_time_and_a_seed_changes_them(self):
        assert rows(count=9) == rows(count=9) != rows(count=9, seed=5)

    @pytest.mark.parametrize(
        ("task", "params", "message"),
        [
            ("double", {}, "unknown task 'double'; did you mean 'doubles'"),
            ("doubles", {"count": 0}, "params.count: "),
            ("doubles", {"size": 3}, "params.size: set `count` instead"),
            ("doubles", {"max": 3}, "task 'doubles' refuses them: .*unexpected keyword .*'max'"),
            ("doubles", {"max_value": 0}, "refuses them: max_value must be > 1"),
        ],
    )
    def test_what_is_wrong_is_known_before_rows_are_made(self, task, params, message):
        with pytest.raises(ConfigError, match=message):
            fingerprint(Dataset(name=f"reasoning_gym:{task}", params=params))

    def test_a_task_with_too_few_questions_is_refused(self):
        with pytest.raises(ConfigError, match=r"params\.count: 50 rows asked for, but 1000 quest"):
            rows(count=50, max_value=20)


@pytest.mark.skipif(not INSTALLED, reason="reasoning-gym is not installed; it is an extra")
def test_the_real_package_makes_rows_for_both_splits():
    train = rows("gcd", count=30, max_numbers=2)
    test = rows("gcd", split="test", count=30)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in test}
    assert all(row["answer"].isdecimal() for row in train)

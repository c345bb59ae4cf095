"""The reward of reasoning-gym's own scorers, with the package or a stand-in for it."""

import json
import sys
from importlib.util import find_spec

import pytest

from aligntune.config.data import Dataset
from aligntune.config.rewards import Reward
from aligntune.data.sources import fingerprint, read
from aligntune.errors import ConfigError, DataError
from aligntune.rewards import check, scorer
from aligntune.rewards.types import Sample
from aligntune.rewards.workers import pool

INSTALLED = find_spec("reasoning_gym") is not None
FACTORY = """
import os


class Gcd:
    def score_answer(self, answer, entry):
        return 1.0


class Toy:
    def score_answer(self, answer, entry):
        print("noise")
        if answer == "token":
            return float("HF_TOKEN" in os.environ)
        if answer == "endless":
            while True:
                pass
        if answer == "raise":
            raise RuntimeError(answer)
        right = str(entry["metadata"]["right"])
        return 1.0 if answer == right else 0.25 if right in answer else 0.0


def create_dataset(name, size, seed):
    return {"gcd": Gcd, "toy": Toy}[name]()
"""


def score(completion, columns, answer="4", **params):
    judge = scorer(Reward(reward_type="reasoning_gym", params=params))
    return judge([Sample("", completion, answer, columns=columns)])[0]


def test_without_the_package_it_is_refused_when_the_config_is_checked(monkeypatch):
    monkeypatch.setattr("aligntune.extras.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'aligntune-pipeline\[reasoning-gym\]'"):
        check("reasoning_gym", {}, None)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gym")
    (folder / "reasoning_gym").mkdir()
    (folder / "reasoning_gym" / "__init__.py").touch()
    (folder / "reasoning_gym" / "factory.py").write_text(FACTORY)
    sys.path.insert(0, str(folder))
    pool.cache_clear()
    yield
    pool.cache_clear()
    sys.path.remove(str(folder))


TOY = {"task": "toy", "metadata": {"right": 4}}


@pytest.mark.skipif(INSTALLED, reason="reasoning-gym is installed")
@pytest.mark.usefixtures("stand_in")
class TestStandIn:
    @pytest.mark.parametrize(
        ("completion", "whole", "part"),
        [
            ("4", 1, 1),
            (" 4 ", 1, 1),
            ("I think.\n<answer>4</answer> is it", 1, 1),
            ("<answer>5</answer><answer>4</answer>", 1, 1),
            ("So it is:\n#### 4", 1, 1),
            ("Hm.\nThe answer is: 4", 1, 1),
            ("1 2 3 4 5", 0, 0.25),
            ("<answer></answer>4", 0, 0),
            ("5", 0, 0),
            ("", 0, 0),
            ("raise", 0, 0),
        ],
    )
    def test_the_tasks_scorer_judges_what_is_given_as_the_answer(self, completion, whole, part):
        assert score(completion, TOY) == whole
        assert score(completion, TOY, partial=True) == part
        assert score(completion, TOY | {"metadata": '{"right": 4}'}) == whole

    def test_an_answer_that_takes_for_ever_scores_nothing(self):
        judge = scorer(Reward(reward_type="reasoning_gym", params={"seconds": 0.3}))
        texts = ("4", "endless", "4")
        assert judge([Sample("", text, "4", columns=TOY) for text in texts]) == [1, 0, 1]

    def test_a_scorer_sees_no_secret_of_ours(self, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        pool.cache_clear()
        assert score("token", TOY) == 0

    @pytest.mark.parametrize(
        ("columns", "answer"),
        [
            ({"task": "other", "metadata": {}}, "4"),
            ({"task": "toy", "metadata": {}}, "4"),
            (TOY, "5"),
            ({"task": "toy", "metadata": "{"}, "4"),
        ],
    )
    def test_metadata_that_are_not_the_tasks_are_a_fault_of_the_data(self, columns, answer):
        with pytest.raises(DataError, match=r"cannot judge its own answer|which is not JSON"):
            score("4", columns, answer)

    def test_rows_of_other_sources_are_not_judged(self):
        assert score("4", {}) is None
        assert score("4", TOY, answer=None) is None


@pytest.mark.skipif(not INSTALLED, reason="the extra reasoning-gym is not installed")
@pytest.mark.parametrize("task", ["gcd", "spell_backward", "arc_agi", "countdown"])
def test_the_real_package_judges_rows_of_its_source(task):
    dataset = Dataset(name=f"reasoning_gym:{task}", params={"count": 1})
    (row,) = read(dataset, fingerprint(dataset)).at(range(1))
    columns = {"task": row["task"], "metadata": json.loads(row["metadata"])}
    answer = row["answer"]
    right = [answer, f"I think.\n<answer>{answer}</answer>"]
    wrong = ["", "nonsense", f"1 or {answer}", "9**9**9**9", f"<answer></answer>{answer}"]
    judge = scorer(Reward(reward_type="reasoning_gym", params={"seconds": 0.5}))
    samples = [Sample("", text, answer, columns=columns) for text in (*right, *wrong)]
    assert judge(samples) == [1] * len(right) + [0] * len(wrong)

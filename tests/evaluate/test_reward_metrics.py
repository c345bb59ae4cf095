"""The run's rewards as metrics of every model."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import build_tiny_judge

from aligntune.config.rewards import Reward
from aligntune.config.slices import EvaluateSlice
from aligntune.errors import DataError
from aligntune.evaluate.cache import Cache
from aligntune.evaluate.generate import Answer
from aligntune.evaluate.reward import reward_metrics
from aligntune.evaluate.run import Models, evaluate
from aligntune.rewards import Sample, learned, scorer

ROWS = [{"prompt": [{"role": "user", "content": f"What is {n} + 1?"}]} for n in range(6)]
LENGTH = Reward(reward_type="length", weight=2.0, params={"min_length": 1})
FRESH = Reward(reward_type="repetition", weight=2.0)
"""1 for any answer of a few words, so that its weight shows."""
SAFETY = Reward(reward_type="safety")
MATH = Reward(reward_type="math")


@pytest.fixture
def measure(tiny_model, tmp_path):
    def measure(rewards, rows=ROWS, baselines=None, cache=None, resamples=200):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "heldout.parquet")
        spec = EvaluateSlice(
            split="heldout",
            max_samples=100,
            metrics=(),
            rewards=rewards,
            max_new_tokens=6,
            batch_size=4,
            max_length=128,
            confidence=0.95,
            resamples=resamples,
            precision="fp32",
            trust_remote_code=False,
            seed=1,
        )
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        models = Models(tiny_model, None, baselines, cache)
        found = evaluate(spec, models, tmp_path, out, lambda *_: None)
        return found.metrics, pq.read_table(out / "predictions.parquet").to_pylist()

    return measure


def test_each_reward_is_a_metric_of_what_the_model_answers(measure):
    metrics, predictions = measure((LENGTH,))
    answers = [Sample("", row["completion"]) for row in predictions]
    assert metrics["rewards/length"] == pytest.approx(sum(scorer(LENGTH)(answers)) / len(answers))
    assert metrics["rewards/length/count"] == 6
    assert "reward" not in metrics, "one reward is its own sum, but for the weight"


@pytest.fixture
def judge(tmp_path):
    path = build_tiny_judge(tmp_path / "judge", context=128)
    return Reward(reward_type="model", model_name=str(path), weight=2.0)


def test_a_reward_model_scores_the_same_answers_once(measure, judge, tmp_path, monkeypatch):
    loaded, load = [], learned._Judge.__init__
    monkeypatch.setattr(
        learned._Judge, "__init__", lambda *a, **k: loaded.append(1) or load(*a, **k)
    )
    rewards = (LENGTH, judge)

    def measured(digest, resamples=200, chosen=rewards):
        cache = Cache(tmp_path / "answers", "policy", judges={1: digest})
        return measure(chosen, cache=cache, resamples=resamples)

    first, one = measured("judge")
    second, other = measured("judge", resamples=300)
    assert (len(loaded), one) == (1, other)
    for name in ("rewards/model", "reward"):
        assert second[name] == first[name]
    measured("another judge")
    assert len(loaded) == 2
    failing = judge.model_copy(update={"on_error": "value"})
    for count in (3, 4):
        measured("judge", chosen=(LENGTH, failing))
        assert len(loaded) == count, "what it gives where it fails is not kept"


def test_a_reward_is_told_how_many_tokens_an_answer_has(measure):
    params = {"target": 6, "unit": "tokens"}
    metrics, _ = measure((Reward(reward_type="length", params=params),))
    assert metrics["rewards/length/count"] == 6
    assert metrics["rewards/length"] == 1, "each ran into max_new_tokens"


def test_the_weighted_sum_is_a_metric_of_its_own(measure):
    metrics, _ = measure((FRESH, SAFETY))
    expected = 2 * metrics["rewards/repetition"] + metrics["rewards/safety"]
    assert metrics["reward"] == pytest.approx(expected)
    assert metrics["reward"] > 2


def test_a_sum_is_clipped_and_gated_as_in_training_and_each_is_judged_once(measure, monkeypatch):
    asked = []

    def judge(reward):
        asked.append(reward.reward_type)

        def score(samples):
            asked.append(len(samples))
            return [5.0 if reward is high else 0.5 for _ in samples]

        return score

    monkeypatch.setattr("aligntune.evaluate.reward.scorer", judge)
    high = Reward(reward_type="length", weight=2.0, scale="clip", clip_high=3.0)
    metrics, _ = measure((high, SAFETY.model_copy(update={"gate": True})))
    assert metrics["rewards/length"] == 5
    assert metrics["reward"] == 2.0 * 3.0 * 0.5
    assert asked == ["length", "safety", 6, 6]


def test_a_reward_counts_only_what_it_can_judge(measure):
    answered = [row | {"answer": "3"} for row in ROWS[:2]]
    metrics, _ = measure((MATH, SAFETY), [*answered, *(row | {"answer": None} for row in ROWS[2:])])
    assert metrics["rewards/math/count"] == 2
    assert metrics["reward/count"] == 6


def test_the_same_reward_twice_gets_two_names(measure):
    metrics, _ = measure(
        (LENGTH, LENGTH.model_copy(update={"params": {"min_length": 1, "max_length": 1}}))
    )
    assert {"rewards/length", "rewards/length-2"} <= metrics.keys()


def test_rewards_are_compared_with_models_before(measure, tmp_path):
    measure((FRESH, SAFETY))
    base = (tmp_path / "out").rename(tmp_path / "base")
    metrics, _ = measure((FRESH, SAFETY), baselines={"base": base})
    for name in ("rewards/repetition", "rewards/safety", "reward"):
        assert metrics[f"{name}/vs_base"] == 0


def test_a_reward_that_can_judge_nothing_says_what_it_lacks(measure):
    with pytest.raises(DataError, match=r"rewards/math: none of the 6 rows could be judged; give"):
        measure((MATH,))


def test_rows_without_a_question_have_rewards_too():
    """Plain text is a conversation that the assistant alone speaks in."""
    rows = [{"messages": [{"role": "assistant", "content": "once upon a time"}]}]
    metric = reward_metrics([Reward(reward_type="length", params={"target": 2})], rows)
    score = metric["rewards/length"].score
    assert score(None, rows, [Answer("a b", 2, finished=True)], lambda *_: None) == [1.0]

"""What the report of a run says of its artifacts."""

import json

import pytest
from past import Past

from aligntune.artifacts import find
from aligntune.findings import charted, gates, lineage, rewards, training_samples
from aligntune.journal import Journal


@pytest.fixture
def past(tmp_path):
    return Past(tmp_path / "out")


def made(past, name):
    kind, _, key = name.rpartition("-")
    return find(past.output / "stages", kind, key)


def online(past, **files):
    """A stage of grpo with two rewards."""

    def fill(out):
        journal = Journal(out / "metrics.jsonl")
        for step in (1, 2, 3):
            named = {f"train/rewards/length/{part}": step / 10 for part in ("mean", "std")}
            journal.write(step, {"train/rewards/a/b/mean": 1.0, "train/reward": step, **named})
        journal.close()
        for name, text in files.items():
            (out / name.replace("_", ".")).write_text(text)

    config = {"rewards": [{"reward_type": "length", "weight": 0.5}]}
    return made(past, past.stage("grpo", config, {}, {}, fill=fill))


def test_each_reward_has_a_line_with_its_range_and_weight(past):
    other, length = rewards([("grpo", online(past))])
    assert (length.name, length.weight, length.first, length.last) == ("length", 0.5, 0.1, 0.3)
    assert (length.lowest, length.highest, length.spread, length.steps) == (0.1, 0.3, 0.3, 3)
    assert (other.name, other.weight) == ("a/b", None)


def test_what_dpo_logs_under_the_name_of_rewards_is_none(past):
    def fill(out):
        journal = Journal(out / "metrics.jsonl")
        journal.write(1, {"train/rewards/margins": 0.5, "train/rewards/chosen": 1.0})
        journal.close()

    stage = made(past, past.stage("dpo", {}, {}, {}, fill=fill))
    assert list(rewards([("dpo", stage)])) == []
    assert [curve.metric for curve in charted([("dpo", stage)])] == ["train/rewards/margins"]


def test_curves_of_rewards_follow_the_others(past):
    found = [(curve.metric, list(curve.values)) for curve in charted([("grpo", online(past))])]
    assert found == [
        ("train/reward", [1, 2, 3]),
        ("train/rewards/a/b/mean", [1.0, 1.0, 1.0]),
        ("train/rewards/length/mean", [0.1, 0.2, 0.3]),
    ]


def test_answers_in_training_are_of_the_first_and_the_last_steps(past):
    rows = [
        {"step": step, "prompt": prompt, "completion": f"{prompt}{step}"}
        for step in (10, 20, 30, 40)
        for prompt in "xy"
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    first, second = training_samples([("grpo", online(past, samples_jsonl=lines))])
    assert (first.prompt, dict(first.answers)) == ("x", {10: "x10", 30: "x30", 40: "x40"})
    assert second.prompt == "y"


def test_lineage_goes_both_ways_and_to_other_runs(past):
    past.run("one", beta=1)
    past.run("two", beta=2)
    plan = json.loads((past.output / "runs" / "one" / "plan.json").read_text())
    artifacts = [(row["stage"], made(past, row["artifact"])) for row in plan]
    data, dpo, _ = lineage(artifacts, past.output / "runs", "one")
    assert (data.made_from, data.went_into, data.runs) == ((), ("dpo",), ("two",))
    assert (dpo.made_from, dpo.went_into, dpo.runs) == (("data",), ("evaluate-dpo",), ())


def test_gates_are_the_tests_of_the_decision(past):
    test = {
        "metric": "nll", "want": "improvement", "threshold": 0.0, "against": None, "found": 0.2,
        "low": 0.1, "high": 0.3, "state": "held", "unit": "nats", "p_value": 0.01, "wins": 3,
    }  # fmt: skip

    def fill(out):
        (out / "decision.json").write_text(json.dumps({"tests": [test]}))

    stage = made(past, past.stage("decide", {}, {}, {"verdict": "promote"}, fill=fill))
    (row,) = gates([("decide", stage)])
    assert (row.metric, row.against, row.found, row.state) == ("nll", "", 0.2, "held")

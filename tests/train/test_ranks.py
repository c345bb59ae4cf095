"""Two processes with a batch each train as one with both does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import place
from rollouts import spec
from safetensors.torch import load_file
from tokens import write_split

from aligntune.config.algo import TASK
from aligntune.config.rewards import Reward
from aligntune.errors import ResourceError
from aligntune.journal import read
from aligntune.train.policy import train_policy
from aligntune.train.ranks import Job, together, write_job

WORDS = ("red", "blue", "sun", "moon", "tree", "sky", "cat", "dog")
PROMPTS = [[{"role": "user", "content": f"say {word}"}] for word in WORDS]
ROWS = {
    "prompt": [
        {"prompt": prompt, "answer": word} for prompt, word in zip(PROMPTS, WORDS, strict=True)
    ],
    "preference": [
        {
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": f"{word} it is"}],
            "rejected": [{"role": "assistant", "content": f"no {word}"}],
        }
        for prompt, word in zip(PROMPTS, WORDS, strict=True)
    ],
    "conversation": [
        {"messages": [*prompt, {"role": "assistant", "content": " ".join([word] * times)}]}
        for times, (prompt, word) in enumerate(zip(PROMPTS, WORDS, strict=True), 1)
    ],
}
# Every process imports the reward, so this decides for all of them what is sampled: the likeliest
# token for every other answer, and the next likeliest for the rest.
JUDGE = """
import torch
from aligntune.train import sampling

def by_place(logits, how):
    order = logits.float().argsort(dim=1, descending=True)
    return order.gather(1, torch.arange(len(order))[:, None] % 2).squeeze(1)

sampling.drawn = by_place
sampling.CROWD = 0  # else answers that have ended make room, and the next take their places

def judge(samples):
    return [len(sample.prompt) / 10 + (i % 2) for i, sample in enumerate(samples)]
"""
REWARDS = (Reward(reward_type="judge_by_place:judge", scale="zscore"),)
ONLINE = {"max_completion_length": 6}
CHANGES = {
    "sft": {},
    "dpo": {},
    "grpo": ONLINE | {"num_generations": 2, "beta": 0.1},
    "dapo": ONLINE | {"num_generations": 2, "overlong_buffer": 2, "max_resampling": 0},
    "ppo": ONLINE | {"num_ppo_epochs": 2, "kl_coef": 0.1},
    "bolt": ONLINE | {"num_generations": 2},
    "gbmpo": ONLINE | {"num_generations": 2, "gbmpo": {"divergence": "l2", "coefficient": 0.5}},
    "counterfactual-grpo": {"max_completion_length": 16, "num_generations": 2},
}
SPLIT = ("bolt", "counterfactual-grpo", "gbmpo")
"""Tried with each process's batch in two halves, too."""


@pytest.fixture
def start(tiny_model, worker, tmp_path):
    (tmp_path / "judge_by_place.py").write_text(JUDGE)
    script = Path(__file__).with_name("train_job.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    def start(algo, name, *arguments, processes=1, rows=8, **changes):
        settings = {"max_steps": 3, "learning_rate": 1e-3, "per_device_batch_size": rows}
        rewards = () if algo in ("sft", "dpo") else REWARDS
        wanted = spec(algo, rewards=rewards, **settings | CHANGES[algo] | changes)
        out = tmp_path / name
        (out / "work").mkdir(parents=True, exist_ok=True)
        data = write_split(tmp_path / f"data-{algo}", ROWS[TASK[algo]], TASK[algo], tiny_model)
        # That answers behind a marker.
        model = worker if algo == "counterfactual-grpo" else tiny_model
        wanted = wanted.model_copy(update={"processes": processes})
        job = Job(wanted, model, data, out / "work", "k")
        write_job(job, out / "job.json")
        command = [sys.executable, str(script), str(out / "job.json"), str(out), *arguments]
        return out, subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


@pytest.fixture
def train(start):
    def train(*arguments, expected=0, **changes):
        out, process = start(*arguments, **changes)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == expected, said
        return out, said

    return train


def metrics(out, *names):
    rows = [row.metrics for row in read(out / "metrics.jsonl")]
    return [[row[name] for row in rows if name in row] for name in names]


def weights(out):
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("algo", sorted(CHANGES))
def test_two_processes_do_what_one_does_with_twice_the_batch(train, algo):
    one, _ = train(algo, "one", rows=8)
    two, _ = train(algo, "two", rows=4, processes=2)
    check_alike(one, two)
    if algo == "counterfactual-grpo":
        assert min(metrics(one, "train/importance/weight_variance")[0]) > 1e-3
        assert all(any(values) for values in metrics(one, "train/importance/drop"))
    if algo in SPLIT:
        check_alike(
            one, train(algo, "split", rows=2, processes=2, gradient_accumulation_steps=2)[0]
        )


def check_alike(one, two):
    names = ("train/loss", "train/grad_norm")
    for ours, theirs in zip(metrics(one, *names), metrics(two, *names), strict=True):
        assert len(ours) == 3
        assert theirs == pytest.approx(ours, rel=2e-3, abs=1e-6)
    assert min(metrics(one, "train/grad_norm")[0]) > 1e-3
    expected, got = weights(one), weights(two)
    assert all(torch.allclose(expected[name], got[name], atol=2e-4) for name in expected)
    assert sorted(path.name for path in two.iterdir()) == sorted(p.name for p in one.iterdir())


@pytest.mark.slow
def test_both_stop_at_the_same_step_and_go_on_exactly(train):
    changes = {"processes": 2, "rows": 4, "max_steps": 5, "num_ppo_epochs": 4}
    whole, _ = train("ppo", "whole", **changes)
    _, said = train("ppo", "halved", "3", expected=75, **changes)
    assert "stopped after step 3 of 5" in said
    halved, _ = train("ppo", "halved", **changes)
    expected, got = weights(whole), weights(halved)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.slow
def test_a_process_that_dies_is_named_and_leaves_a_checkpoint(start):
    out, process = start("dpo", "out", processes=2, rows=4, max_steps=3000, save_steps=2)
    other = None
    while other is None or not list((out / "work" / "checkpoints").glob("step-*")):
        assert process.poll() is None, process.communicate()[0]
        other = next(iter(_others(process.pid)), None)
    os.kill(other, 9)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 74, said
    assert "training process 1 ended with code -9" in said
    assert "continues from the last checkpoint" in said


def test_processes_that_do_not_find_each_other_stop(tiny_model, tmp_path):
    data = write_split(tmp_path / "data", ROWS["preference"], "preference", tiny_model)
    wanted = spec("dpo", rewards=()).model_copy(update={"processes": 2})
    with pytest.raises(ResourceError, match="2 processes were to train together, and torch sees 1"):
        train_policy(wanted, tiny_model, data, place(tmp_path / "out"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("code", [3, 0])
def test_a_process_that_does_not_start_is_named_before_anyone_waits_for_it(
    tmp_path, monkeypatch, code
):
    (tmp_path / "sitecustomize.py").write_text(
        f"import os\nprint('no such library', flush=True)\nos._exit({code})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    wanted = spec("dpo", rewards=()).model_copy(update={"processes": 2})
    died = f"training process 1 ended with code {code} and said 'no such library'"
    with (
        pytest.raises(ResourceError, match=died),
        together(Job(wanted, tmp_path, tmp_path, tmp_path / "work", "k")),
    ):
        pytest.fail("the first process went to meet one that is gone")


def _others(parent):
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]

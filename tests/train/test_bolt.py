"""BOLT: what is remembered of each prompt, and learning from it."""

import json
import re

import pytest
import torch
from own_process import printed
from places import at_look, place
from rollouts import ROWS, curve, gain, letters, make, run, spec

from aligntune.config.train import Bolt
from aligntune.errors import ConfigError, DataError, Interrupted, ResourceError
from aligntune.losses.baseline import curriculum
from aligntune.stages import KINDS
from aligntune.train.bolt_memory import Curriculum, Memory, Visit, prompt_key
from aligntune.train.online import online_trainer
from aligntune.train.policy import TRAINERS

NAN = float("nan")
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def reward(monkeypatch):
    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda _: letters)


@pytest.fixture
def trainer(tiny_model, tmp_path):
    """One that leaves advantages unscaled."""
    settings = {"scale_rewards": "none", "num_generations": 2, "per_device_batch_size": 4}
    return make(TRAINERS["bolt"], tiny_model, spec("bolt", **settings), place(tmp_path / "by-hand"))


def rollout(completions, prompt=(1, 5, 6)):
    longest = max(map(len, completions))
    pads = [longest - len(ids) for ids in completions]
    return {
        "prompt_ids": torch.tensor([prompt] * len(completions)),
        "prompt_mask": torch.ones(len(completions), len(prompt), dtype=torch.long),
        "completion_ids": torch.tensor(
            [[*ids, *[0] * pad] for ids, pad in zip(completions, pads, strict=True)]
        ),
        "completion_mask": torch.tensor([[1] * (longest - pad) + [0] * pad for pad in pads]),
        "advantages": torch.zeros(len(completions)),
    }


def visit(trainer, rewards, prompts):
    out = rollout([[7, 8, 9], [10, 11], [12, 13, 14, 15], [16]][: len(rewards)])
    inputs = [{"prompt": prompt} for prompt in prompts]
    trainer.model.train()
    return trainer.shape_rollout(out, torch.tensor(rewards), inputs)["advantages"]


def test_a_reward_is_compared_with_what_was_known_before_it(trainer):
    (first,) = visit(trainer, [1.0], [HELLO]).tolist()
    assert first == pytest.approx(0.5)
    after = (0.96 * 0.5 + 1) / (0.96 + 1)
    assert trainer.memory.belief(prompt_key(HELLO)).value == pytest.approx(after)
    (second,) = visit(trainer, [1.0], [HELLO]).tolist()
    assert second == pytest.approx(1 - after)


def test_answers_to_one_prompt_are_one_visit_wherever_they_are_in_the_batch(trainer):
    other = [{"role": "user", "content": "bye"}]
    advantages = visit(trainer, [1.0, 0.0, 0.0, 1.0], [HELLO, other, HELLO, HELLO]).tolist()
    mass = 0.96 + 2
    expected = [1 - 1.48 / mass, -0.5, -2.48 / mass, 1 - 1.48 / mass]
    assert advantages == pytest.approx(expected)
    belief = trainer.memory.belief(prompt_key(HELLO))
    assert (belief.total, belief.mass) == pytest.approx((2.48, 3.96))


def test_what_no_reward_can_judge_is_no_visit(trainer):
    assert visit(trainer, [NAN, NAN], [HELLO, HELLO]).tolist() == [0.0, 0.0]
    assert len(trainer.memory) == 0
    assert visit(trainer, [NAN, 1.0], [HELLO, HELLO]).tolist() == pytest.approx([0.0, 0.5])
    assert trainer.memory.belief(prompt_key(HELLO)).mass == pytest.approx(0.96 + 1)


def test_history_is_forgotten_as_the_policy_moves(trainer):
    visit(trainer, [1.0, 0.0], [HELLO, HELLO])
    visit(trainer, [1.0, 0.0], [HELLO, HELLO])
    assert trainer._metrics["train"]["baseline/drift"] == pytest.approx([0.0], abs=1e-4)
    assert trainer.memory.belief(prompt_key(HELLO)).mass == pytest.approx((0.96 + 2) * 0.96 + 2)
    before = trainer.memory.last(prompt_key(HELLO))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.mul_(1.5)
    visit(trainer, [1.0, 0.0], [HELLO, HELLO])
    after = trainer.memory.last(prompt_key(HELLO))
    moved = [abs(a - b) for a, b in zip(after.logps, before.logps, strict=True)]
    assert before.completion == after.completion == (7, 8, 9)
    assert trainer._metrics["train"]["baseline/drift"][1] == pytest.approx(sum(moved) / 3, abs=1e-4)
    assert trainer._metrics["train"]["baseline/kept"][2] == 0.875


def test_what_is_remembered_of_a_completion_is_its_own_log_probabilities(trainer):
    visit(trainer, [1.0, 0.0, 0.0, 0.0], [HELLO, "a", "b", "c"])
    trainer.model.eval()
    for key, completion in ((HELLO, [7, 8, 9]), ("b", [12, 13, 14, 15]), ("c", [16])):
        ids = torch.tensor([[1, 5, 6, *completion]])
        with torch.no_grad():
            output = trainer.model(input_ids=ids).logits.log_softmax(-1)
        expected = [float(output[0, 2 + i, token]) for i, token in enumerate(completion)]
        last = trainer.memory.last(prompt_key(key))
        assert list(last.logps) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("curriculum", [False, True])
@pytest.mark.parametrize("answers", [1, 4])
def test_the_reward_rises(tiny_model, tmp_path, answers, curriculum):
    made = place(tmp_path)
    section = Bolt(curriculum=curriculum)
    settings = spec("bolt", num_generations=answers, bolt=section, max_steps=40)
    trainer = run(TRAINERS["bolt"], tiny_model, settings, made)
    assert gain(made) > 0.2
    assert set(trainer.memory.state.prompts) <= {prompt_key(row["prompt"]) for row in ROWS}
    assert curve(made, "train/baseline/prompts")[-1] == len(trainer.memory)
    assert curve(made, "train/baseline/value_mean")[-1] > 0.6


def test_stopped_anywhere_it_goes_on_exactly(tiny_model, tmp_path, monkeypatch):
    def easy(samples):
        """Solves half of the prompts, so that the curriculum soon has a preference."""
        return [float(s.prompt.startswith("say")) or 0.5 * letters([s])[0] for s in samples]

    monkeypatch.setattr("aligntune.train.reward_functions.scorer", lambda _: easy)
    section = Bolt(curriculum=True, curriculum_interval=12, curriculum_floor=1e-3)
    settings = spec(
        "bolt",
        max_steps=19,
        per_device_batch_size=4,
        num_generations=2,
        num_iterations=2,
        bolt=section,
    )
    whole = run(TRAINERS["bolt"], tiny_model, settings, place(tmp_path / "whole"))
    assert whole.memory.state.epoch == 1
    for last in (5, 16, 17):
        halved = tmp_path / f"halved{last}"
        with pytest.raises(Interrupted, match=f"after step {last} of 19"):
            run(TRAINERS["bolt"], tiny_model, settings, place(halved, at_look(last)))
        resumed = run(TRAINERS["bolt"], tiny_model, settings, place(halved))
        assert resumed.memory.state == whole.memory.state
        expected, got = whole.model.state_dict(), resumed.model.state_dict()
        assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_evaluation_teaches_the_memory_nothing(tiny_model, tmp_path):
    made = place(tmp_path)
    heldout = [{"prompt": HELLO, "answer": ""}]
    settings = spec("bolt", max_steps=2, eval_steps=1, num_generations=8)
    trainer = run(TRAINERS["bolt"], tiny_model, settings, made, heldout=heldout)
    assert len(curve(made, "eval/reward")) == 2
    assert prompt_key(HELLO) not in trainer.memory
    before = trainer.memory.state.model_dump_json()
    trainer.evaluate()
    assert trainer.memory.state.model_dump_json() == before


def test_without_its_tracker_it_is_the_base_algorithm(tiny_model, tmp_path):
    settings = {"max_steps": 4, "num_generations": 4, "num_iterations": 2}
    bare = spec("bolt", bolt=Bolt(tracker=False), **settings)
    ours = run(TRAINERS["bolt"], tiny_model, bare, place(tmp_path / "ours"))
    theirs = run(online_trainer, tiny_model, bare, place(tmp_path / "theirs"))
    for name in ("train/loss", "train/grad_norm", "train/reward"):
        assert curve(place(tmp_path / "ours"), name) == curve(place(tmp_path / "theirs"), name)
    got, expected = ours.model.state_dict(), theirs.model.state_dict()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    run(TRAINERS["bolt"], tiny_model, spec("bolt", **settings), place(tmp_path / "tracked"))
    assert curve(place(tmp_path / "tracked"), "train/loss") != curve(
        place(tmp_path / "ours"), "train/loss"
    )


def test_what_the_beliefs_are_worth_is_logged(trainer):
    visit(trainer, [1.0, 0.5], [HELLO, [{"role": "user", "content": "bye"}]])
    logged = {name: trainer._metrics["train"][f"baseline/{name}"] for name in
              ("error", "easy", "hard", "no_news")}  # fmt: skip
    assert logged == {"error": [0.25], "easy": [0.0], "hard": [0.0], "no_news": [0.5]}


def warm(tiny_model, folder, text):
    file = folder / "start"
    file.write_text(text)
    section = Bolt(warm_start=str(file))
    wanted = spec("bolt", bolt=section, num_generations=2, per_device_batch_size=4)
    return make(TRAINERS["bolt"], tiny_model, wanted, place(folder / "warm"))


def test_beliefs_come_from_answers_that_were_tried_before(tiny_model, tmp_path):
    known, other = ROWS[0]["prompt"], [{"role": "user", "content": "never asked"}]
    lines = [
        {"prompt": known, "rewards": [1, 0, 1]},
        {"prompt": known[0]["content"], "rewards": [1, 0, 0, 0, 0]},
        {"prompt": other, "rewards": [1]},
    ]
    memory = warm(tiny_model, tmp_path, "\n".join(map(json.dumps, lines))).memory
    assert len(memory) == 1
    belief = memory.belief(prompt_key(known))
    assert (belief.total, belief.mass) == pytest.approx((8 * 3.5 / 9, 8.0))


def test_beliefs_come_from_another_runs_checkpoint(tiny_model, tmp_path, trainer):
    visit(trainer, [1.0, 0.5], [ROWS[0]["prompt"], HELLO])
    trainer.memory.save(tmp_path / "bolt.json")
    memory = warm(tiny_model, tmp_path, (tmp_path / "bolt.json").read_text()).memory
    key = prompt_key(ROWS[0]["prompt"])
    assert memory.belief(key) == trainer.memory.belief(key)
    assert memory.last(key) is None
    assert prompt_key(HELLO) not in memory


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prompt": "never asked", "rewards": [1]}', "knows none of the 16 training prompts"),
        ('{"prompt": "say red"}', "start:1: no `prompt` and list of `rewards`"),
        ('{"prompt": "say red", "rewards": ["x"]}', "start:1"),
        ("[]\n", "start:1"),
    ],
)
def test_a_start_that_helps_nothing_is_an_error(tiny_model, tmp_path, text, said):
    with pytest.raises(DataError, match=re.escape(said)):
        warm(tiny_model, tmp_path, text)


def test_another_start_is_another_stage(tmp_path):
    file = tmp_path / "start.jsonl"
    wanted = spec("bolt", rewards=(), bolt=Bolt(warm_start=str(file)))
    with pytest.raises(ConfigError, match="there is no file"):
        KINDS["bolt"].sources(wanted, tmp_path)
    found = []
    for text in ("a", "b"):
        file.write_text(text)
        found.append(KINDS["bolt"].sources(wanted, tmp_path)["bolt.warm_start"])
    assert found[0] != found[1]


def test_a_group_is_not_the_unit_of_scale(tiny_model, tmp_path):
    settings = spec("bolt", scale_rewards="group")
    with pytest.raises(ConfigError, match="use batch or none"):
        make(TRAINERS["bolt"], tiny_model, settings, place(tmp_path))


def test_a_key_is_the_same_in_every_process():
    code = (
        "from aligntune.train.bolt_memory import prompt_key\n"
        f"print(prompt_key({HELLO!r}), prompt_key('hello'))"
    )
    assert printed(code).split() == [prompt_key(HELLO), prompt_key("hello")]
    assert prompt_key("hello").startswith("2cf24dba5fb0a30e")
    system = [{"role": "system", "content": "be brief"}, *HELLO]
    assert len({prompt_key(HELLO), prompt_key(system), prompt_key("hello")}) == 3


def test_memory_survives_a_file_exactly(tmp_path):
    memory = Memory(0.5)
    memory.visit("a", [0.1, 1 / 3], 0.9, Visit(completion=(1, 2), logps=(-0.1, -7.25)))
    memory.visit("b", [-2.0], 0.9, None)
    memory.state.draws = [[1, 0]]
    memory.save(tmp_path / "memory.json")
    other = Memory(0.5)
    other.restore(tmp_path / "memory.json")
    assert other.state == memory.state
    assert other.belief("a") == memory.belief("a")


def test_memory_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "memory.json").write_text(json.dumps({"prompts": {"a": 1}}))
    for name in ("memory.json", "none.json"):
        with pytest.raises(ResourceError, match="remove the checkpoint"):
            Memory(0.5).restore(tmp_path / name)


def test_rates_are_shares_of_the_rewards_seen():
    memory = Memory(0.5)
    memory.visit("bad", [-10.0] * 50, 0.9, None)
    memory.visit("good", [10.0] * 50, 0.9, None)
    bad, good, new = memory.rates(["bad", "good", "new"]).tolist()
    assert bad < 0.1
    assert good > 0.9
    assert new == pytest.approx(0.5)


def sampler(memory, keys, **changes):
    options = {
        "size": 1,
        "answers": 1,
        "reads": 1,
        "ahead": 10,
        "floor": 0.05,
        "seed": 3,
        "epoch": lambda: 0,
    } | changes
    return Curriculum(keys, memory, **options)


def test_a_round_has_different_prompts_repeated_as_the_trainer_reads_them():
    drawn = list(sampler(Memory(0.5), list("abcdefg"), size=3, answers=2, reads=2))
    assert (
        len(drawn) == len(sampler(Memory(0.5), list("abcdefg"), size=3, answers=2, reads=2)) == 24
    )
    for first in (0, 12):
        one, again = drawn[first : first + 6], drawn[first + 6 : first + 12]
        assert one == again
        assert one[::2] == one[1::2]
        assert len(set(one)) == 3


def test_prompts_are_drawn_as_often_as_they_weigh():
    keys = [f"{number}" for number in range(3000)]
    memory = Memory(0.5)
    for key in keys[:1000]:
        memory.visit(key, [1.0] * 1000, 0.9, None)
    drawn = torch.tensor(list(sampler(memory, keys, ahead=3000)))
    weights = curriculum(memory.rates(keys), 0.05)
    share = float(weights[:1000].sum() / weights.sum())
    deviation = (share * (1 - share) / 3000) ** 0.5
    assert share < 0.2
    assert abs(float((drawn < 1000).float().mean()) - share) < 3 * deviation


def test_every_process_draws_the_same_and_another_seed_or_epoch_something_else():
    keys = [f"{number}" for number in range(50)]
    one, same = (list(sampler(Memory(0.5), keys, size=5)) for _ in range(2))
    assert one == same
    assert one != list(sampler(Memory(0.5), keys, size=5, seed=4))
    assert one != list(sampler(Memory(0.5), keys, size=5, epoch=lambda: 1))


def test_weights_of_the_plan_change_when_it_is_used_up():
    keys = list("abcdefgh")
    memory = Memory(0.5)
    rounds = iter(sampler(memory, keys, ahead=4, floor=1e-6))
    first = [next(rounds) for _ in range(2)]
    for key in keys[1:]:
        memory.visit(key, [0.0] * 1000, 1e-9, None)
    memory.visit("a", [1.0, 0.0], 0.9, None)
    planned = [next(rounds) for _ in range(2)]
    unchanged = list(sampler(Memory(0.5), keys, ahead=4, floor=1e-6))[:4]
    assert first + planned == unchanged
    # All but `a` are hopeless by now.
    assert [next(rounds) for _ in range(4)].count(0) >= 3


def test_a_resumed_epoch_reads_the_rounds_that_it_had(tmp_path):
    keys = [f"{number}" for number in range(40)]
    memory, resumed = Memory(0.5), Memory(0.5)
    rounds = iter(sampler(memory, keys, ahead=20, floor=1e-6))
    had = [next(rounds) for _ in range(10)]
    for key in keys[:20]:
        memory.visit(key, [1.0] * 100, 0.9, None)
    memory.save(tmp_path / "memory.json")
    resumed.restore(tmp_path / "memory.json")
    again = list(sampler(resumed, keys, ahead=20, floor=1e-6))
    assert again == had + list(rounds)


def test_a_new_epoch_starts_a_plan_of_its_own():
    memory, epoch = Memory(0.5), [0]
    drawn = sampler(memory, list("abcdefgh"), epoch=lambda: epoch[0])
    first = list(drawn)
    assert list(drawn) == first
    epoch[0] = 1
    assert list(drawn) != first
    assert memory.state.epoch == 1

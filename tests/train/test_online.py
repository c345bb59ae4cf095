"""Online algorithms: each learns what it is rewarded for, and goes on where it stopped."""

import time

import pytest
import torch
from places import at_look, place
from rollouts import ROWS, curve, digits, gain, letters, make, run, spec
from safetensors.torch import load_file

from aligntune.config.rewards import Reward
from aligntune.config.train import Gbmpo, Peft
from aligntune.errors import DataError, Interrupted
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.models.save import save_policy
from aligntune.train.loop import fit
from aligntune.train.policy import TRAINERS
from aligntune.train.reward_functions import judges

EAGER = {"num_ppo_epochs": 2, "kl_coef": 0.01}
"""PPO in a hurry."""


@pytest.fixture(autouse=True)
def rewards(monkeypatch):
    known = {"toy": letters}
    monkeypatch.setattr(
        "aligntune.train.reward_functions.scorer", lambda reward: known[reward.reward_type]
    )
    return known


@pytest.fixture
def setting(tmp_path):
    return lambda name="out", **stopping: place(tmp_path / name, **stopping)


def build(path, spec, setting, rows=ROWS):
    return make(TRAINERS[spec.algo], path, spec, setting, rows)


def train(path, spec, setting, rows=ROWS, heldout=None):
    return run(TRAINERS[spec.algo], path, spec, setting, rows, heldout)


@pytest.mark.parametrize(
    ("algo", "changes"),
    [
        ("ppo", EAGER | {"max_steps": 50}),
        ("grpo", {}),
        ("dr-grpo", {}),
        ("dapo", {}),
        ("gspo", {"max_steps": 60}),
        ("gbmpo", {}),
    ],
)
def test_the_reward_rises(tiny_model, setting, algo, changes):
    made = setting()
    wanted = spec(algo, **changes)
    trainer = make(TRAINERS[algo], tiny_model, wanted, made)
    summary = fit(trainer, wanted, made, rows=len(ROWS))
    assert gain(made) > 0.2
    assert summary["final_reward"] == curve(made)[-1]


@pytest.mark.parametrize(
    ("algo", "changes"),
    [
        ("ppo", {"num_ppo_epochs": 4}),
        ("grpo", {"num_iterations": 2, "steps_per_generation": 2, "per_device_batch_size": 8}),
        (
            "gspo",
            {
                "per_device_batch_size": 4,
                "gradient_accumulation_steps": 2,
                "steps_per_generation": 4,
                "num_iterations": 2,
            },
        ),
        ("dr-grpo", {"num_iterations": 2}),
        ("dapo", {"num_iterations": 2}),
        ("gbmpo", {"num_iterations": 2, "gbmpo": Gbmpo(divergence="neural", coefficient=9.0)}),
        ("counterfactual-grpo", {"num_iterations": 2, "max_completion_length": 16}),
    ],
)
@pytest.mark.parametrize("peft", [None, Peft(r=4, dropout=0.1)], ids=["full", "lora"])
def test_stopped_inside_a_rollout_it_goes_on_exactly(
    tiny_model, worker, rewards, setting, algo, changes, peft
):
    start = tiny_model
    if algo == "counterfactual-grpo":  # its tokens weigh the same where there is no answer
        start, rewards["toy"] = worker, digits
    wanted = spec(algo, peft, max_steps=11, **changes).model_copy(update={"eval_steps": 3})
    whole = train(start, wanted, setting("whole"), heldout=ROWS[:5])
    stopping = at_look(7)  # with the evaluation after step 3
    with pytest.raises(Interrupted, match="after step 6 of 11"):
        train(start, wanted, setting("halved", stopping=stopping), heldout=ROWS[:5])
    halved = train(start, wanted, setting("halved"), heldout=ROWS[:5])
    expected, got = whole.model.state_dict(), halved.model.state_dict()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    names = ("loss", "reward", "num_tokens", "grad_norm")
    for name in (*(f"train/{name}" for name in names), "eval/reward"):
        assert curve(setting("whole"), name) == curve(setting("halved"), name)


def test_a_checkpoint_between_rollouts_holds_no_rollout(tiny_model, setting):
    made = setting()
    train(tiny_model, spec("ppo", max_steps=5, num_ppo_epochs=2, save_steps=1), made)
    checkpoints = sorted((made.work / "checkpoints").glob("step-*"))
    between, inside = (load_file(path / "rollout-0.safetensors") for path in checkpoints)
    assert between.keys() == {"step"}
    assert int(inside["step"]) == 5
    assert {"0/returns", "0/old_values", "0/num_items_in_batch"} < inside.keys()


@pytest.mark.parametrize("peft", [None, Peft(r=4)], ids=["full", "lora"])
def test_the_value_head_learns_and_is_not_part_of_the_policy(tiny_model, setting, peft, tmp_path):
    made = setting()
    trainer = train(tiny_model, spec("ppo", peft, max_steps=4, save_steps=4), made)
    assert float(trainer.critic.head.weight.detach().norm()) > 0
    (checkpoint,) = (made.work / "checkpoints").glob("step-*")
    saved = load_file(checkpoint / "value_head.safetensors")
    assert torch.equal(saved["weight"], trainer.critic.head.weight)
    save_policy(trainer.model, trainer.processing_class, tmp_path / "saved")
    policy = load_file(tmp_path / "saved" / "model" / "model.safetensors")
    assert policy.keys() == load_file(tiny_model / "model.safetensors").keys()


def test_ppo_learns_through_an_adapter(tiny_model, setting, tmp_path):
    # The random embeddings are too small for what is before them to prefer any token.
    policy = load_policy(tiny_model, trust_remote_code=False)
    policy.get_input_embeddings().weight.data *= 10
    policy.save_pretrained(tmp_path / "sharp")
    load_tokenizer(tiny_model).save_pretrained(tmp_path / "sharp")
    made = setting()
    wanted = spec("ppo", Peft(r=16), max_steps=100, **EAGER)
    train(tmp_path / "sharp", wanted, made)
    assert gain(made) > 0.1


def test_ppo_stays_at_the_reference_if_that_is_worth_more(tiny_model, setting):
    for name, weight in (("held", 10.0), ("free", 0.01)):
        train(tiny_model, spec("ppo", max_steps=50, **EAGER | {"kl_coef": weight}), setting(name))
    held, free = (sum(curve(setting(name), "train/kl")[-6:]) / 6 for name in ("held", "free"))
    assert abs(held) < free / 3
    assert abs(gain(setting("held"))) < 0.1


def test_a_step_is_the_same_however_it_is_split(tiny_model, setting):
    curves = []
    for batch, parts in ((16, 1), (4, 4)):
        made = setting(f"split{parts}")
        sizes = {"per_device_batch_size": batch, "gradient_accumulation_steps": parts}
        train(tiny_model, spec("ppo", max_steps=4, learning_rate=1e-3, **sizes), made)
        curves.append([curve(made, f"train/{name}") for name in ("loss", "grad_norm", "reward")])
    for whole, split in zip(*curves, strict=True):
        assert whole == pytest.approx(split, rel=1e-4, abs=1e-6)


def test_without_weight_gbmpo_is_dr_grpo(tiny_model, setting):
    shared = {"max_steps": 4, "num_iterations": 2}
    expected = train(tiny_model, spec("dr-grpo", **shared), setting("theirs")).model.state_dict()
    got = train(tiny_model, spec("gbmpo", gbmpo=Gbmpo(coefficient=0), **shared), setting("ours"))
    assert all(torch.equal(expected[n], tensor) for n, tensor in got.model.state_dict().items())


def test_a_divergence_holds_the_policy_at_the_reference(tiny_model, setting):
    held = Gbmpo(divergence="prob_l2", estimator="score", coefficient=300.0)
    train(tiny_model, spec("gbmpo", gbmpo=held), setting("held"))
    train(tiny_model, spec("gbmpo"), setting("free"))
    held, free = (
        max(curve(setting(name), "train/divergence/sampled")) for name in ("held", "free")
    )
    assert held < free / 3


def test_what_a_reward_is_shown(tiny_model, setting, rewards):
    seen = []

    def spy(samples):
        seen.extend(samples)
        return letters(samples)

    rewards["spy"] = spy
    rows = [
        {
            "prompt": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "hi"},
                {"role": "user", "content": "say red"},
            ],
            "answer": "red",
        }
    ]
    wanted = spec(
        "grpo", rewards=(Reward(reward_type="spy"),), max_steps=1, max_completion_length=3
    )
    train(tiny_model, wanted, setting(), rows * 2)
    assert len(seen) == 16
    assert {(sample.prompt, sample.answer) for sample in seen} == {("say red", "red")}
    assert {sample.truncated for sample in seen} == {True}
    assert all(len(sample.completion) > 0 for sample in seen)


def test_an_answer_that_ended_is_not_truncated(tiny_model, rewards):
    tokenizer = load_tokenizer(tiny_model)
    shown = []

    def spy(samples):
        shown.extend(samples)
        return [0.0 for _ in samples]

    rewards["toy"] = spy
    policy = load_policy(tiny_model, trust_remote_code=False)
    (function,) = judges((Reward(reward_type="toy"),), policy, tokenizer)
    prompt = [{"role": "user", "content": "x"}]
    answers = [[{"role": "assistant", "content": "y"}]] * 2
    function(
        prompts=[prompt] * 2,
        completions=answers,
        completion_ids=[[5, tokenizer.eos_token_id], [5, 6]],
    )
    assert [sample.truncated for sample in shown] == [False, True]
    assert [sample.tokens for sample in shown] == [2, 2]
    assert [sample.answer for sample in shown] == [None, None]


def test_rewards_are_weighted_and_logged_apart(tiny_model, setting, rewards):
    rewards["one"] = lambda samples: [1.0 for _ in samples]
    rewards["one"].__name__ = "one"
    both = (Reward(reward_type="one", weight=3.0), Reward(reward_type="one", weight=-1.0))
    made = setting()
    train(tiny_model, spec("grpo", rewards=both, max_steps=1), made)
    assert curve(made) == [2.0]
    assert curve(made, "train/rewards/one/mean") == [1.0]
    assert curve(made, "train/rewards/one-2/mean") == [1.0]


@pytest.mark.parametrize("algo", ["ppo", "grpo"])
def test_what_no_reward_can_judge_teaches_nothing(tiny_model, setting, rewards, algo):
    rewards["silent"] = lambda samples: [None for _ in samples]
    wanted = spec(algo, rewards=(Reward(reward_type="silent"),), max_steps=2, weight_decay=0.0)
    extra = wanted.train.model_copy(update={"beta": 0.0} if algo == "grpo" else {})
    trainer = train(tiny_model, wanted.model_copy(update={"train": extra}), setting())
    before = load_file(tiny_model / "model.safetensors")
    after = trainer.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_long_prompts_are_left_out_and_said(tiny_model, setting, caplog):
    long = {"prompt": [{"role": "user", "content": "red " * 130}], "answer": ""}
    trainer = train(tiny_model, spec("grpo", max_steps=1), setting(), [*ROWS, *ROWS, long])
    assert len(trainer.train_dataset) == 32
    assert "1 of 33 rows do not fit in 120 tokens" in caplog.text


def test_too_many_long_prompts_are_an_error(tiny_model, setting):
    long = {"prompt": [{"role": "user", "content": "red " * 130}], "answer": ""}
    with pytest.raises(DataError, match=r"17 of 33 .* raise train.max_prompt_length"):
        train(tiny_model, spec("grpo", max_steps=1), setting(), [*ROWS, *[long] * 17])


def test_too_few_prompts_for_one_rollout_are_an_error_and_not_0_steps(tiny_model, setting):
    with pytest.raises(DataError, match=r"needs 16 prompts, and 15 of 15 have at most 120 tokens"):
        build(tiny_model, spec("ppo"), setting(), ROWS[:15])


def test_the_reward_of_held_out_prompts_is_measured(tiny_model, setting):
    made = setting()
    wanted = spec("ppo", max_steps=4).model_copy(update={"eval_steps": 2})
    train(tiny_model, wanted, made, heldout=ROWS[:3])
    assert len(curve(made, "eval/reward")) == 2
    assert curve(made, "eval/loss") == []


def test_a_missing_end_costs(tiny_model, setting):
    returns = []
    for penalty in (0.0, 5.0):
        made = setting(f"penalty{penalty}")
        wanted = spec("ppo", max_steps=1, missing_eos_penalty=penalty, max_completion_length=2)
        train(tiny_model, wanted, made)
        cut = curve(made, "train/completions/clipped_ratio")[0]
        returns.append(curve(made, "train/value/return")[0])
    assert cut > 0.9
    assert returns[0] - returns[1] > 3


def test_a_steps_time_is_told_by_what_it_was_spent_on(tiny_model, setting, rewards, monkeypatch):
    def slow(samples):
        time.sleep(1)
        return letters(samples)

    rewards["toy"] = slow
    made = setting()
    # What an evaluation between two steps takes is no part of either.
    wanted = spec("grpo", max_steps=3, beta=0.1, eval_steps=1)
    train(tiny_model, wanted, made, heldout=ROWS)
    parts = {
        name: curve(made, f"train/time/{name}")
        for name in ("generate", "reward", "score", "update")
    }
    assert all(1 <= seconds < 2 for seconds in parts["reward"])
    assert all(min(seconds) > 0 for seconds in parts.values())
    whole = [sum(step) for step in zip(*parts.values(), strict=True)]
    assert whole == pytest.approx(curve(made, "train/step_time"))


def test_the_kl_coefficient_adapts_and_goes_on_from_a_checkpoint(tiny_model, setting):
    changes = {"kl_coef": 0.1, "num_ppo_epochs": 1, "kl_target": 1e-9, "kl_horizon": 160}
    wanted = spec("ppo", max_steps=4, **changes)
    train(tiny_model, wanted, setting("whole"))
    coefficients = curve(setting("whole"), "train/kl_coef")
    # The first answers are the reference's own, later ones are further away than asked for.
    assert coefficients[:2] == pytest.approx([0.1, 0.1 * (1 - 0.2 * 16 / 160)])
    assert coefficients[2] == pytest.approx(coefficients[1] * (1 + 0.2 * 16 / 160)) or (
        coefficients[2] == pytest.approx(coefficients[1] * (1 - 0.2 * 16 / 160))
    )
    with pytest.raises(Interrupted):
        train(tiny_model, wanted, setting("halved", stopping=at_look(2)))
    train(tiny_model, wanted, setting("halved"))
    assert curve(setting("halved"), "train/kl_coef") == coefficients


def test_diagnostics_of_a_step(tiny_model, setting):
    made = setting()
    train(tiny_model, spec("ppo", max_steps=4, num_ppo_epochs=2), made)
    ratios, moved = curve(made, "train/ratio/mean"), curve(made, "train/ratio/approx_kl")
    assert ratios[0] == pytest.approx(1.0, abs=1e-5)
    assert moved[0] < 1e-9 < moved[1]
    # One round's advantages are whitened.
    assert curve(made, "train/advantages/mean")[0] == pytest.approx(0.0, abs=1e-5)
    assert curve(made, "train/advantages/std")[0] == pytest.approx(1.0, abs=1e-3)
    assert all(speed > 1 for speed in curve(made, "train/tokens_per_second"))
    assert len(curve(made, "train/advantages/std")) == 2
    low, high = (curve(made, f"train/ratio/{name}") for name in ("min", "max"))
    assert all(a < mean < b for a, mean, b in zip(low, ratios, high, strict=True) if b - a > 1e-5)
    assert high[1] > 1 > low[1]
    assert curve(made, "train/advantages/max")[0] > 0 > curve(made, "train/advantages/min")[0]

"""Settings that contradict each other, and settings that do nothing."""

import pytest

from aligntune.config.algo import ALGOS, ONLINE
from aligntune.config.gates import SHARES
from aligntune.config.rules import problems, warnings
from aligntune.config.run import RunConfig


def config(algo="dpo", **sections):
    base = {
        "algo": algo,
        "model": {"name_or_path": "owner/model"},
        "datasets": [{"name": "owner/data"}],
        "rewards": [{"reward_type": "length"}] if algo in ONLINE else [],
    }
    return RunConfig.model_validate(base | sections)


@pytest.mark.parametrize(
    ("written", "algo"),
    [
        ("dr_grpo", "dr-grpo"),
        ("drgrpo", "dr-grpo"),
        ("Dr. GRPO", "dr-grpo"),
        ("counterfact_grpo", "counterfactual-grpo"),
        ("counterfactual_grpo", "counterfactual-grpo"),
        ("pace", "bolt"),
        ("PPO", "ppo"),
        *((name, name) for name in ALGOS),
    ],
)
def test_common_spellings_of_an_algorithm_are_understood(written, algo):
    assert config(algo=written, rewards=[{"reward_type": "length"}]).algo == algo


@pytest.mark.parametrize("algo", ALGOS)
def test_a_config_with_nothing_but_the_necessary_has_no_problem_and_no_warning(algo):
    run = config(algo)
    assert problems(run) == []
    assert warnings(run, {("algo",), ("model",), ("datasets",)}) == []


PAIRS = {"datasets": [{"name": "owner/pairs"}]}
CONTRADICTIONS = [
    (
        "ppo",
        {"model": {"name_or_path": "m", "reward_path": "j"}, "reward_model": PAIRS},
        "model.reward_path",
        "remove one of them",
    ),
    ("ppo", {"rewards": [{"reward_type": "model"}]}, "rewards.0.reward_type", "`model_name`, or"),
    (
        "ppo",
        {"rewards": [{"reward_type": "model"}, {"reward_type": "model"}], "reward_model": PAIRS},
        "rewards.1.reward_type",
        "already",
    ),
    (
        "ppo",
        {"reward_model": {"datasets": [{"name": "owner/pairs", "eval_fraction": 0}]}},
        "reward_model.datasets.0.eval_fraction",
        "nothing is held out",
    ),
    (
        "ppo",
        {"reward_model": {**PAIRS, "revision": "v2"}},
        "reward_model.revision",
        "model.revision",
    ),
    (
        "ppo",
        {
            "reward_model": {
                "datasets": [{"name": "owner/pairs", "eval_fraction": 0.5, "eval_split": "test"}]
            }
        },
        "reward_model.datasets.0.eval_fraction",
        "remove one",
    ),
    ("sft", {"sft": {"datasets": [{"name": "x"}]}}, "sft", "twice"),
    ("ppo", {"rewards": []}, "algo", "needs something to optimise"),
    ("grpo", {"rewards": [{"reward_type": "length", "weight": 0}]}, "rewards", "weight is 0"),
    (
        "dpo",
        {
            "model": {"name_or_path": "./here"},
            "peft": {"merge": False},
            "logging": {"push_to_hub": True, "hub_model_id": "me/it"},
        },
        "peft.merge",
        "not on the hub",
    ),
    ("dpo", {"logging": {"push_to_hub": True}}, "logging.push_to_hub", "hub_model_id"),
    (
        "dpo",
        {"logging": {"loggers": ["wandb"], "report_to": ["tensorboard"]}},
        "logging.report_to",
        "differ",
    ),
    (
        "dpo",
        {"logging": {"load_best": True, "eval_steps": None}},
        "logging.load_best",
        "without evaluation",
    ),
    (
        "dpo",
        {"logging": {"load_best": True, "eval_steps": 3, "save_steps": 4}},
        "logging.load_best",
        "multiple of",
    ),
    ("ppo", {"logging": {"load_best": True}}, "logging.load_best", "no held-out loss"),
    (
        "dpo",
        {"logging": {"load_best": True}, "evaluation": {"datasets": [{"name": "owner/test"}]}},
        "logging.load_best",
        "no rows are held out",
    ),
    (
        "dpo",
        {"model": {"name_or_path": "x", "quantization": "4bit"}},
        "model.quantization",
        "`peft`",
    ),
    ("dpo", {"train": {"loss_type": "nll"}}, "train.loss_type", "dpo has no loss 'nll'"),
    ("dpo", {"train": {"loss_type": "exo_pair"}}, "train.loss_type", "label_smoothing"),
    (
        "dpo",
        {"train": {"loss_type": "ipo", "label_smoothing": 0.1}},
        "train.label_smoothing",
        "ipo has no smoothed form",
    ),
    ("dpo", {"train": {"beta": 0}}, "train.beta", "learns nothing"),
    ("grpo", {"train": {"num_generations": 3}}, "train.num_generations", "do not divide the 4"),
    ("grpo", {"train": {"per_device_batch_size": 1}}, "train.num_generations", "at least 2"),
    (
        "grpo",
        {"train": {"gradient_accumulation_steps": 2, "steps_per_generation": 3}},
        "train.steps_per_generation",
        "multiple of `gradient_accumulation_steps`",
    ),
    (
        "grpo",
        {"train": {"max_length": 64, "max_completion_length": 40, "max_prompt_length": 40}},
        "train.max_completion_length",
        "do not fit",
    ),
    (
        "bolt",
        {"train": {"bolt": {"rho_min": 0.9, "rho_max": 0.8}}},
        "train.bolt.rho_min",
        "rho_max",
    ),
    (
        "bolt",
        {"train": {"bolt": {"tracker": False, "curriculum": True}}},
        "train.bolt.curriculum",
        "tracker: false",
    ),
    (
        "bolt",
        {"train": {"bolt": {"tracker": False}, "num_generations": 1}},
        "train.num_generations",
        "at least 2",
    ),
    ("bolt", {"train": {"scale_rewards": "group"}}, "train.scale_rewards", "use batch or none"),
    (
        "gbmpo",
        {"train": {"beta": 0, "gbmpo": {"divergence": "prob_l2kl"}}},
        "train.beta",
        "use prob_l2",
    ),
    (
        "gbmpo",
        {"train": {"gbmpo": {"divergence": "kl", "mirror_path": "map.safetensors"}}},
        "train.gbmpo.mirror_path",
        "set `divergence` to neural",
    ),
    (
        "gbmpo",
        {"train": {"gbmpo": {"divergence": "l2", "full_vocabulary": True}}},
        "train.gbmpo.full_vocabulary",
        "use prob_l2 or kl",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "exactmatch"}]}},
        "registry.gates.0.metric",
        "did you mean 'exact_match'",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "rewards/foo"}]}},
        "registry.gates.0.metric",
        "unknown metric 'rewards/foo'",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "reward"}]}, "rewards": [{"reward_type": "length"}]},
        "registry.gates.0.metric",
        "unknown metric 'reward'; did you mean",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "perplexity"}]}},
        "registry.gates.0.metric",
        "gate `nll`",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "nll", "against": "sft"}]}},
        "registry.gates.0.against",
        "unknown model 'sft'",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "nll", "min_value": 2, "max_value": 1}]}},
        "registry.gates.0.min_value",
        "no candidate can pass",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "exact_match", "min_delta": -2}]}},
        "registry.gates.0.min_delta",
        "got -2, but exact_match is a share from 0 to 1: 5 points are 0.05",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "refusal_rate", "max_value": 5}]}},
        "registry.gates.0.max_value",
        "got 5, but refusal_rate is a share",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "kl_to_base"}]}},
        "registry.gates.0.metric",
        "set `max_value`",
    ),
    (
        "dpo",
        {"registry": {"gates": [{"metric": "nll"}]}, "evaluation": {"metrics": ["exact_match"]}},
        "registry.gates.0.metric",
        "add it there",
    ),
    (
        "dpo",
        {"sft": {"datasets": [{"name": "x"}], "train": {"loss_type": "ipo"}}},
        "sft.train.loss_type",
        "sft has no loss",
    ),
]


LENGTH = {"reward_type": "length"}
CHATS = {"datasets": [{"name": "chats"}]}
REWARDS = [
    ([LENGTH | {"gate": True}], "rewards", "there is no other"),
    ([LENGTH | {"gate": True}, LENGTH | {"weight": 0}], "rewards", "weight is 0"),
    ([LENGTH, LENGTH | {"gate": True, "weight": 2}], "rewards.1.weight", "has no weight"),
    ([LENGTH, LENGTH | {"gate": True, "scale": "zscore"}], "rewards.1.scale", "from 0 to 1"),
    (
        [LENGTH, LENGTH | {"gate": True, "on_error": "value", "error_value": -1}],
        "rewards.1.error_value",
        "from 0 to 1",
    ),
    ([LENGTH | {"scale": "clip"}], "rewards.0.scale", "nothing to clip to"),
    (
        [LENGTH | {"scale": "clip", "clip_low": 1, "clip_high": 1}],
        "rewards.0.clip_low",
        "must be less than `clip_high` (1)",
    ),
    ([LENGTH | {"scale": "group"}], "rewards.0.scale", "no spread"),
]
CONTRADICTIONS += [("ppo", {"rewards": rewards}, *said) for rewards, *said in REWARDS]


@pytest.mark.parametrize(("algo", "changes", "key", "words"), CONTRADICTIONS)
def test_a_contradiction_is_named_where_it_is(algo, changes, key, words):
    (problem,) = problems(config(algo, **changes))
    assert ".".join(map(str, problem.path)) == key
    assert words in problem.message


def test_all_contradictions_come_together():
    run = config(logging={"push_to_hub": True}, train={"loss_type": "dapo", "beta": 0})
    assert len(problems(run)) == 3


@pytest.mark.parametrize(
    ("algo", "name", "words"),
    [
        ("dpo", "cliprange", "it is for ppo"),
        ("dpo", "kl_coef", "use `beta`"),
        ("grpo", "cliprange", "use `epsilon`"),
        ("ppo", "beta", "use `kl_coef`"),
        ("sft", "temperature", "it is for ppo"),
        ("ppo", "margin_scale", "it is for reward_model"),
    ],
)
def test_a_setting_without_effect_is_named(algo, name, words):
    (warning,) = warnings(config(algo, train={name: 0.5}), {("train", name)})
    assert warning.path == ("train", name)
    assert words in warning.message


@pytest.mark.parametrize("name", ["center_rewards_coefficient", "margin_scale"])
def test_what_needs_pairs_has_no_effect_on_a_regression(name):
    at = ("reward_model", "train", name)

    def warned(objective, given=(at,)):
        section = PAIRS | {"objective": objective, "train": {name: 0.5}}
        return warnings(config("ppo", reward_model=section), given)

    (warning,) = warned("regression")
    assert warning.path == at
    assert "`objective: bradley_terry`" in warning.message
    assert warned("bradley_terry") == warned("regression", ()) == []


@pytest.mark.parametrize(
    "launch",
    [
        {"hang_timeout": 60, "mode": "process"},
        {"hang_timeout": 60, "timeout": 600},
        {"hang_timeout": 1800},
        {"hang_timeout": None},
    ],
)
def test_who_is_watched_or_asks_for_nothing_else_is_not_warned(launch):
    assert warnings(config("dpo", launch=launch), {("launch", "hang_timeout")}) == []


HELD_OUT = {"evaluation": {"datasets": [{"name": "x"}], "heldout_fraction": 0.2}}


@pytest.mark.parametrize(
    ("section", "names", "changes"),
    [
        ("logging", ["eval_steps"], HELD_OUT | {"logging": {"eval_steps": 100}}),
        ("evaluation", ["heldout_fraction"], HELD_OUT),
        (
            "registry",
            ["promote", "gates"],
            {"registry": {"enabled": False, "promote": "manual", "gates": [{"metric": "nll"}]}},
        ),
        ("registry", ["gates"], {"registry": {"promote": "never", "gates": [{"metric": "nll"}]}}),
        (
            "logging",
            ["hub_model_id", "hub_license"],
            {"logging": {"hub_model_id": "me/it", "hub_license": "mit", "push_to_hub": False}},
        ),
        ("train", ["num_epochs"], {"train": {"max_steps": 10, "num_epochs": 3}}),
        ("train", [], {"train": {"max_steps": 10, "num_epochs": 1}}),
        ("train", [], {"train": {"num_epochs": 3}}),
        (
            "sample_logging",
            ["num_samples", "prompts"],
            {"sample_logging": {"enabled": False, "num_samples": 2, "prompts": ["Hi"]}},
        ),
    ],
)
def test_a_setting_that_another_turns_off_is_named(section, names, changes):
    given = {(section, name) for name in changes[section]}
    found = warnings(config("dpo", **changes), given)
    assert sorted(warning.path for warning in found) == sorted((section, name) for name in names)
    assert warnings(config("dpo", **changes), set()) == []


def test_held_out_settings_are_for_the_reward_model_too():
    judged = {"reward_model": PAIRS} | HELD_OUT
    assert warnings(config("ppo", **judged), {("evaluation", "heldout_fraction")}) == []


@pytest.mark.parametrize("at", ["datasets", "evaluation", "sft", "reward_model"])
def test_a_percentage_that_looks_like_a_share_is_named(at):
    rows = [{"name": "x", "percent": 1}, {"name": "y", "percent": 0.5}]
    changes = {at: rows if at == "datasets" else {"datasets": rows}}
    (warning,) = warnings(config("ppo", **changes), set())
    path = (at, 1, "percent") if at == "datasets" else (at, "datasets", 1, "percent")
    assert warning.path == path
    assert warning.message.endswith("0.5 % of the rows; for the share 0.5 of them write 50")


@pytest.mark.parametrize("at", ["datasets", "evaluation", "sft", "reward_model"])
def test_a_weight_with_nothing_beside_it_is_named(at):
    def found(*rows):
        changes = {at: list(rows) if at == "datasets" else {"datasets": list(rows)}}
        return [warning.path for warning in warnings(config("ppo", **changes), set())]

    path = (at, 0, "weight") if at == "datasets" else (at, "datasets", 0, "weight")
    assert found({"name": "x", "weight": 0.5}) == [path]
    assert found({"name": "x", "weight": 0.5}, {"name": "y"}) == found({"name": "x"}) == []


def test_repeating_needs_weights():
    mix = {"mix": {"repeat": True}}
    (warning,) = warnings(config("dpo", **mix), set())
    assert warning.path == ("mix", "repeat")
    weighed = [{"name": "x", "weight": 2}, {"name": "y"}]
    assert warnings(config("dpo", datasets=weighed, **mix), set()) == []


def test_null_is_no_warning():
    assert warnings(config("dpo"), {("train", "cliprange")}) == []


@pytest.mark.parametrize(
    ("algo", "changes", "key"),
    [
        ("dpo", {"rewards": [{"reward_type": "length"}]}, "rewards"),
        ("ppo", {"train": {"top_p": 0.9}}, "train.top_p"),
        ("ppo", {"rewards": [LENGTH | {"clip_low": 0}]}, "rewards.0.clip_low"),
        ("ppo", {"logging": {"save_steps": 3}}, "logging.save_steps"),
        ("dpo", {"train": {"max_steps": 5, "warmup_steps": 9}}, "train.warmup_steps"),
        ("dpo", {"datasets": [{"name": "x", "task_type": "prompt"}]}, "datasets.0.task_type"),
        ("dpo", {"peft": {"dropout": 0.1}}, "peft.dropout"),
        ("dpo", {"launch": {"hang_timeout": 60}}, "launch.hang_timeout"),
        ("ppo", {"peft": {"dropout": 0.1}, "sft": CHATS | {"peft": {}}}, "peft.dropout"),
    ],
)
def test_a_surprising_setting_is_named(algo, changes, key):
    (warning,) = warnings(config(algo, **changes), set())
    assert ".".join(map(str, warning.path)) == key


@pytest.mark.parametrize(("algo", "changes"), [("sft", {}), ("dpo", {"sft": CHATS})])
def test_dropout_is_no_surprise_where_a_stage_has_it(algo, changes):
    assert warnings(config(algo, peft={"dropout": 0.1}, **changes), set()) == []


@pytest.mark.parametrize(
    ("algo", "setting", "refused"),
    [
        ("ppo", {}, True),
        ("grpo", {"weight": -1}, True),
        ("ppo", {"weight": 0}, False),
        ("dpo", {}, False),
    ],
)
def test_a_guess_may_be_reported_but_not_optimised(algo, setting, refused):
    guess = {"reward_type": "helpfulness"} | setting
    run = config(algo, rewards=[{"reward_type": "length"}, guess])
    found = [p for p in problems(run) if p.path == ("rewards", 1, "reward_type")]
    said = [p for p in warnings(run, ()) if p.path == ("rewards", 1, "reward_type")]
    assert (len(found), len(said)) == ((1, 0) if refused else (0, 1))
    assert "give a reward model with `model_name`" in found[0].message if refused else "reported"
    judged = config(algo, rewards=[{"reward_type": "length"}, guess | {"model_name": "o/m"}])
    assert problems(judged) == []
    assert "guess" not in str(warnings(judged, ()))


def test_a_warm_up_that_takes_all_steps_is_named_in_every_section():
    train = {"max_steps": 10, "warmup_steps": 10}
    data = [{"name": "owner/data"}]
    sections = {name: {"datasets": data, "train": train} for name in ("sft", "reward_model")}
    found = warnings(config("ppo", train=train, **sections), ())
    paths = [p.path for p in found if "takes all 10 steps" in p.message]
    assert paths == [("train", "warmup_steps")] + [(n, "train", "warmup_steps") for n in sections]


def test_gates_know_which_metrics_are_shares():
    from aligntune.evaluate.metrics import METRICS

    assert {name for name, metric in METRICS.items() if metric.unit == "%"} == SHARES


def test_gates_know_every_reward_that_is_measured():
    rewards = [{"reward_type": "length"}, {"reward_type": "length"}]
    names = ["rewards/length", "rewards/length-2", "rewards/model", "reward"]
    gates = {"gates": [{"metric": name} for name in names]}
    model = {"name_or_path": "owner/model", "reward_path": "owner/judge"}
    assert problems(config("ppo", model=model, rewards=rewards, registry=gates)) == []


def test_an_adapter_for_a_folder_whose_name_is_like_a_hub_id_cannot_be_pushed_alone(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = config(
        "sft",
        model={"name_or_path": "owner/model"},
        peft={"merge": False},
        logging={"push_to_hub": True, "hub_model_id": "me/it"},
    )
    assert problems(run) == []
    (tmp_path / "owner" / "model").mkdir(parents=True)
    (found,) = problems(run)
    assert "the adapter is for a model that is not on the hub" in found.message

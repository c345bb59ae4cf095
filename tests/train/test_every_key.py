"""Every hyper-parameter reaches the trainer that is built of it."""

import pytest
from slices import train_slice
from tokens import trained_on
from torch.nn import Dropout

from aligntune.config.algo import ALGOS, COMPARED, GROUP, ONLINE
from aligntune.config.presets import resolved, used
from aligntune.config.rewards import Reward
from aligntune.config.train import Peft, Train
from aligntune.models.load import load_policy, load_tokenizer
from aligntune.train.loop import Setting
from aligntune.train.policy import TRAINERS

COMMON = {
    "per_device_batch_size": (6, "per_device_train_batch_size"),
    "gradient_accumulation_steps": (2, "gradient_accumulation_steps"),
    "max_steps": (7, "max_steps"),
    "num_epochs": (3.0, "num_train_epochs"),
    "learning_rate": (3e-5, "learning_rate"),
    "lr_scheduler_type": ("cosine", "lr_scheduler_type"),
    "warmup_steps": (5, "warmup_steps"),
    "weight_decay": (0.2, "weight_decay"),
    "optimizer": ("adafactor", "optim"),
    "max_grad_norm": (0.7, "max_grad_norm"),
}
ONLINE_KEYS = {
    "num_generations": (3, "num_generations"),
    "max_completion_length": (9, "max_completion_length"),
    "temperature": (0.6, "temperature"),
    "top_p": (0.8, "top_p"),
    "top_k": (11, "top_k"),
    "ent_coef": (0.02, "entropy_coef"),
    "mask_truncated_completions": (True, "mask_truncated_completions"),
    "steps_per_generation": (4, "steps_per_generation"),
}
GROUP_KEYS = ONLINE_KEYS | {
    "loss_type": ("bnpo", "loss_type"),
    "beta": (0.3, "beta"),
    "num_iterations": (2, "num_iterations"),
    "epsilon": (0.11, "epsilon"),
    "epsilon_high": (0.33, "epsilon_high"),
    "scale_rewards": ("batch", "scale_rewards"),
    "importance_sampling_level": ("sequence", "importance_sampling_level"),
}
KEYS = {
    "sft": COMMON
    | {
        "max_length": (33, "max_length"),
        "loss_type": ("dft", "loss_type"),
        "packing": (True, "packing"),
        "completion_only_loss": (False, "completion_only_loss"),
    },
    "dpo": COMMON
    | {
        "max_length": (33, "max_length"),
        "loss_type": ("robust", "loss_type"),
        "beta": (0.3, "beta"),
        "label_smoothing": (0.1, "label_smoothing"),
    },
    "ppo": COMMON
    | ONLINE_KEYS
    | {
        "num_ppo_epochs": (3, "num_iterations"),
        "kl_coef": (0.3, "beta"),
        "cliprange": (0.11, "epsilon"),
    },
} | dict.fromkeys(GROUP, COMMON | GROUP_KEYS)
"""algorithm -> setting -> (a value that is not the default, the trainer's argument)."""
PPO = (
    "kl_estimator",
    "kl_target",
    "kl_horizon",
    "cliprange_value",
    "vf_coef",
    "gamma",
    "lam",
    "whiten_rewards",
)
ELSEWHERE = {
    "max_length": ONLINE,  # limits max_prompt_length
    "max_prompt_length": ONLINE,  # which prompts are left out: test_online
    **{name: {"ppo"} for name in (*PPO, "missing_eos_penalty")},
    "gbmpo": {"gbmpo"},
    "precompute_ref_log_probs": {"dpo"},  # whether there is a stage more: test_pipeline
    "vllm": ONLINE,  # test_vllm
    "sampler": ONLINE,  # test_quick
    "generation_copy": ONLINE,
    "shared_prompts": ONLINE,
    "lm_head": {"sft", "dpo", *ONLINE},  # test_lm_head, test_reference, test_quick
    "padding_free": {"sft", "dpo", *ONLINE},
    "guard": ONLINE,  # test_guard
    "overlong_buffer": GROUP,  # a reward more: test_dynamic_sampling
    "max_resampling": GROUP - {"bolt"},  # test_dynamic_sampling
    "counterfactual": {"counterfactual-grpo"},
    "bolt": {"bolt"},
}
"""Settings that the algorithm itself reads: the tests of each show what they do."""
TURN = {"role": "user", "content": "say red"}
REPLY = [{"role": "assistant", "content": "red"}]
ROWS = {
    "sft": {"messages": [TURN, *REPLY]},
    "dpo": {"prompt": [TURN], "chosen": REPLY, "rejected": [{**REPLY[0], "content": "blue"}]},
}


@pytest.fixture
def build(tiny_model, tmp_path):
    def build(algo, train, peft=None):
        rewards = (Reward(reward_type="length"),) if algo in ONLINE else ()
        spec = train_slice(algo, resolved(train, algo, None, 64), rewards=rewards, peft=peft)
        setting = Setting(tmp_path, tmp_path / "work", "key", lambda *_: None, lambda: False)
        row = ROWS.get(algo, {"prompt": [TURN], "answer": "red"})
        rows = trained_on([row] * 24, spec, tiny_model)
        policy = load_policy(tiny_model, trust_remote_code=False)
        tokenizer = load_tokenizer(tiny_model, trust_remote_code=False)
        return TRAINERS[algo](policy, tokenizer, rows, None, spec, setting)

    return build


@pytest.mark.parametrize("algo", ["sft", "dpo", "grpo"])
def test_what_is_compared_has_no_dropout(algo, build):
    model = build(algo, Train(), Peft(dropout=0.5)).model
    found = {module.p for module in model.modules() if isinstance(module, Dropout)}
    assert found == {0.0 if algo in COMPARED else 0.5}


@pytest.mark.parametrize("algo", ALGOS)
def test_every_setting_is_listed(algo):
    elsewhere = {name for name, algos in ELSEWHERE.items() if algo in algos}
    assert used(algo) == KEYS[algo].keys() | elsewhere


def test_no_value_is_the_usual_default():
    plain = {algo: resolved(Train(), algo, None, 64) for algo in KEYS}
    for algo in ("sft", "dpo", "ppo", "grpo"):
        for name, (value, _) in KEYS[algo].items():
            assert getattr(plain[algo], name) != value, f"{algo}: {name}"


@pytest.mark.parametrize("algo", ALGOS)
def test_every_setting_reaches_the_trainer(algo, build):
    values = {name: value for name, (value, _) in KEYS[algo].items()}
    args = build(algo, Train(**values)).args
    for name, (value, argument) in KEYS[algo].items():
        found = getattr(args, argument)
        found = found[0] if isinstance(found, list) else getattr(found, "value", found)
        assert found == value, name

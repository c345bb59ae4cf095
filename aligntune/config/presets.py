"""What each algorithm is, as data: the settings it has, and their defaults.

The methods of the GRPO family differ in a few choices, so each is a row; losses read the choices,
never the name.
"""

from collections.abc import Mapping
from typing import Any

from aligntune.config.algo import ALGOS, GROUP, ONLINE, Trained
from aligntune.config.train import Bolt, Counterfactual, Gbmpo, Guard, Peft, Train

_SFT = {
    "loss_type": "nll",
    "packing": False,
    "completion_only_loss": True,
    "lm_head": "auto",
    "padding_free": "auto",
}
_DPO = {
    "loss_type": "sigmoid",
    "beta": 0.1,
    "label_smoothing": 0.0,
    "lm_head": "auto",
    "padding_free": "auto",
    "precompute_ref_log_probs": "auto",
}
_REWARD = {"center_rewards_coefficient": 0.0, "margin_scale": 1.0}
_ONLINE = {
    "num_generations": None,
    "max_prompt_length": None,
    "max_completion_length": None,
    "steps_per_generation": None,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "ent_coef": 0.0,
    "mask_truncated_completions": False,
    "lm_head": "auto",
    "padding_free": "auto",
    "sampler": "auto",
    "generation_copy": "auto",
    "shared_prompts": "auto",
    "vllm": None,
    "guard": Guard,
}
# TRL's last defaults, which are those of arXiv:2403.17031, but for `kl_coef`: that was 0.05
_PPO = _ONLINE | {
    "temperature": 0.7,
    "num_ppo_epochs": 4,
    "kl_coef": 0.1,
    "kl_estimator": "k1",
    "kl_target": None,
    "kl_horizon": 10_000,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "vf_coef": 0.1,
    "gamma": 1.0,
    "lam": 0.95,
    "whiten_rewards": False,
    "missing_eos_penalty": 0.0,
}
_GROUP = _ONLINE | {
    "loss_type": "grpo",
    "beta": 0.0,
    "overlong_buffer": 0,
    "num_iterations": 1,
    "epsilon": 0.2,
    "epsilon_high": None,
    "scale_rewards": "group",
    "importance_sampling_level": "token",
}
_COMPARED = _GROUP | {"max_resampling": 0}
"""Where a group of answers that are all rewarded alike teaches nothing."""

PRESETS: dict[Trained, dict[str, Any]] = {
    "sft": _SFT,
    "dpo": _DPO,
    "reward": _REWARD,
    "ppo": _PPO,
    # Shao et al. 2024, arXiv:2402.03300
    "grpo": _COMPARED | {"beta": 0.04},
    # Liu et al. 2025, arXiv:2503.20783: no length bias, no difficulty bias
    "dr-grpo": _COMPARED | {"loss_type": "dr_grpo", "scale_rewards": "none"},
    # Yu et al. 2025, arXiv:2503.14476: clip higher, count tokens, replace useless groups, punish
    # long answers
    "dapo": _COMPARED
    | {"loss_type": "dapo", "epsilon_high": 0.28, "max_resampling": 3, "overlong_buffer": None},
    # Zheng et al. 2025, arXiv:2507.18071: several updates per rollout, or the ratio stays 1
    "gspo": _COMPARED
    | {
        "importance_sampling_level": "sequence",
        "epsilon": 3e-4,
        "epsilon_high": 4e-4,
    },
    # Yuan et al. 2026, arXiv:2602.04380: Dr. GRPO with a Bregman divergence
    "gbmpo": _COMPARED
    | {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "gbmpo": Gbmpo,
    },
    # Khandoga et al. 2026, arXiv:2602.09331: DAPO's loss with token weights
    "counterfactual-grpo": _COMPARED
    | {"loss_type": "dapo", "beta": 0.005, "counterfactual": Counterfactual},
    # Xu & Ding 2025, arXiv:2509.13232, with groups
    "bolt": _GROUP
    | {"loss_type": "dapo", "epsilon_high": 0.28, "scale_rewards": "batch", "bolt": Bolt},
}
LEARNING_RATE: Mapping[Trained, float] = {
    **dict.fromkeys(ALGOS, 1e-6),
    "sft": 2e-5,
    "ppo": 3e-6,
    "reward": 1e-5,
}
"""For full fine-tuning: TRL's defaults, but for reward models, which in TRL begin with 1e-4. With
an adapter ten times as much is usual."""
LOSS_TYPES: Mapping[Trained, tuple[str, ...]] = {
    **dict.fromkeys(GROUP, ("grpo", "dr_grpo", "dapo", "bnpo")),
    "sft": ("nll", "dft"),
    "dpo": (
        "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
        "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sigmoid_norm",
    ),
}  # fmt: skip
SMOOTHED = ("sigmoid", "exo_pair", "robust", "aot", "aot_unpaired")
"""The losses of dpo that `label_smoothing` changes."""
GROUP_SIZE = 8
COMPLETION_LENGTH = 256
GSPO_REUSE = 4
DUAL_BETA = 0.1
"""Weight of the KL term beside another divergence."""

_SPECIFIC = frozenset().union(*PRESETS.values())
"""Every setting that some algorithm does not have."""


def used(algo: Trained) -> frozenset[str]:
    """The names in `Train` that `algo` reads."""
    return frozenset(Train.model_fields) - _SPECIFIC | frozenset(PRESETS[algo])


def resolved(train: Train, algo: Trained, peft: Peft | None, max_seq_length: int) -> Train:
    """`train` with every setting of `algo` filled in and all others left out."""
    values = {name: getattr(train, name) for name in used(algo)}
    for name, default in PRESETS[algo].items():
        if values[name] is None:
            values[name] = default() if isinstance(default, type) else default
    if values["learning_rate"] is None:
        # Rounded, since ten times 1e-6 is not quite the number that is written 1e-5.
        values["learning_rate"] = round(LEARNING_RATE[algo] * (10 if peft else 1), 12)
    if train.beta is None and is_dual(values.get("gbmpo")):
        values["beta"] = DUAL_BETA
    values["max_length"] = train.max_length or max_seq_length
    if algo in ONLINE:
        values |= _sampling(values, algo)
    return Train(**values)


def is_dual(section: Gbmpo | None) -> bool:
    """Whether gbmpo's divergence has KL beside it."""
    return section is not None and section.divergence != alone(section)


def alone(section: Gbmpo) -> str:
    """gbmpo's divergence without the KL beside it."""
    return {"l2kl": "l2", "prob_l2kl": "prob_l2"}.get(section.divergence, section.divergence)


def _sampling(values: Mapping[str, Any], algo: Trained) -> dict[str, Any]:
    longest = values["max_length"]
    answer = values["max_completion_length"] or min(COMPLETION_LENGTH, longest // 2)
    accumulation = values["gradient_accumulation_steps"]
    passes = values["steps_per_generation"] or accumulation * (GSPO_REUSE if algo == "gspo" else 1)
    rows = values["per_device_batch_size"] * passes
    sampling = {
        "num_generations": values["num_generations"] or (1 if algo == "ppo" else group_size(rows)),
        "max_completion_length": answer,
        "max_prompt_length": values["max_prompt_length"] or max(longest - answer, 1),
        "steps_per_generation": passes,
    }
    if algo in GROUP:
        sampling["epsilon_high"] = values["epsilon_high"] or values["epsilon"]
        buffer = values["overlong_buffer"]
        sampling["overlong_buffer"] = answer // 5 if buffer is None else buffer
    return sampling


def group_size(rows: int) -> int:
    """The largest divisor of `rows` up to 8: as many answers per prompt as TRL takes, or fewer."""
    return max(size for size in range(1, GROUP_SIZE + 1) if rows % size == 0)

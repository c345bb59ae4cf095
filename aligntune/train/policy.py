"""Training a policy or a reward model: the pieces are TRL's, put together for one stage."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from aligntune.config.algo import ONLINE, Algo, Trained
from aligntune.config.slices import TrainSlice
from aligntune.data import tokens
from aligntune.errors import ResourceError
from aligntune.models.head import load_scorer
from aligntune.models.load import load_tokenizer
from aligntune.models.save import save_policy
from aligntune.models.trainable import load_trainable
from aligntune.train.bolt import BoltTrainer
from aligntune.train.counterfactual import CounterfactualTrainer
from aligntune.train.dpo import dpo_trainer
from aligntune.train.gbmpo import Gbmpo
from aligntune.train.loop import Setting, fit, within
from aligntune.train.online import online_trainer
from aligntune.train.ppo import Ppo
from aligntune.train.reward_functions import tried
from aligntune.train.reward_model import reward_trainer
from aligntune.train.rollout import Rollout
from aligntune.train.rows import training_rows
from aligntune.train.samples import first_prompts
from aligntune.train.sft import sft_trainer

TRIED = 2
"""Rows that the user's own rewards are tried on before the model is loaded."""
KINDS: dict[Algo, type[Rollout]] = {
    "ppo": Ppo,
    "gbmpo": Gbmpo,
    "counterfactual-grpo": CounterfactualTrainer,
    "bolt": BoltTrainer,
}
"""The online algorithms that are more than settings of GRPO."""

TRAINERS: dict[Trained, Callable[..., Any]] = {
    "sft": sft_trainer,
    "dpo": dpo_trainer,
    "reward": reward_trainer,
    **{algo: partial(online_trainer, kind=KINDS.get(algo, Rollout)) for algo in ONLINE},
}
"""Algorithm -> (model, tokenizer, train rows, held-out rows or None, spec, setting) -> trainer."""


def train_policy(
    spec: TrainSlice, model: Path, data: Path, setting: Setting, reference: Path | None = None
) -> Mapping[str, float]:
    """Train the policy in `model`, or a reward model made of it, on the rows in `data`, and save it
    below `setting.out`. In `reference` are the log-probabilities of dpo's reference, where they
    are not to be computed.

    Raises:
        ConfigError: a reward of the user's own gives no scores.
        Diverged: a loss, gradient or weight is not finite, or no step could be taken.
        DataError: too many rows do not fit.
        Interrupted: asked to stop; a checkpoint was saved.
        ResourceError: `spec.processes` do not train together.
    """
    set_seed(spec.seed)
    train = training_rows(data, "train", spec, reference)
    both = (data / "heldout.parquet").exists()
    heldout = training_rows(data, "heldout", spec, reference) if both else None
    if spec.algo in ONLINE:
        tried(spec.rewards, [train[index] for index in range(min(len(train), TRIED))])
    policy = (load_scorer if spec.algo == "reward" else load_trainable)(model, spec)
    text_config = policy.config.get_text_config()
    shown = getattr(text_config, "output_router_logits", None)
    spec = within(spec, policy)
    tokenizer = load_tokenizer(model, trust_remote_code=spec.trust_remote_code)
    for split in ("train", "heldout") if both else ("train",):
        known = policy.get_input_embeddings().num_embeddings
        tokens.check_known(data / f"{split}.tokens.parquet", tokenizer, known)
    measured = heldout if spec.eval_steps and heldout else None
    trainer = TRAINERS[spec.algo](policy, tokenizer, train, measured, spec, setting)
    check_world(trainer, spec)
    setting.decided(trainer.made)
    prompts = first_prompts(spec.sample_logging, data)
    metrics = fit(trainer, spec, setting, rows=len(train), prompts=prompts)
    if shown is not None:  # TRL turns it on, and the saved config would say so
        text_config.output_router_logits = shown
    if trainer.is_world_process_zero():
        save_policy(trainer.accelerator.unwrap_model(trainer.model), tokenizer, setting.out)
    return metrics


def check_world(trainer: Any, spec: TrainSlice) -> None:
    """Processes that do not find each other would each train alone, and say nothing."""
    if trainer.args.world_size != spec.processes:
        raise ResourceError(
            f"{spec.processes} processes were to train together, and torch sees "
            f"{trainer.args.world_size}; unset WORLD_SIZE and RANK if they are set by hand"
        )

"""What each stage of a run reads of the run's config.

`pipeline` says which stages there are, and `config.slices` what a slice has.
"""

import re

from aligntune.config.algo import COMPARED, ONLINE, TASK, Trained
from aligntune.config.data import Dataset, Mix
from aligntune.config.presets import resolved
from aligntune.config.reward_model import RewardModelSection
from aligntune.config.rewards import Reward
from aligntune.config.run import RunConfig
from aligntune.config.slices import (
    ROWS_SEED,
    DataSlice,
    EvaluateSlice,
    ModelSlice,
    PushSlice,
    ReferenceSlice,
    TrainSlice,
)
from aligntune.config.train import Peft, Train
from aligntune.models.precision import resolve


def model_slice(config: RunConfig) -> ModelSlice:
    model = config.model
    return ModelSlice(
        name_or_path=model.start,
        revision=model.revision,
        chat_template=model.chat_template,
        trust_remote_code=model.trust_remote_code,
    )


def data_slice(config: RunConfig, datasets: tuple[Dataset, ...], spec: TrainSlice) -> DataSlice:
    """The rows that the training stage `spec` learns from."""
    evaluation = config.evaluation
    return DataSlice(
        datasets=datasets,
        task=TASK[spec.algo],
        heldout_fraction=0 if evaluation.datasets else evaluation.heldout_fraction,
        max_heldout=0 if evaluation.datasets else evaluation.max_samples,
        cleaning=config.cleaning,
        mix=config.mix,
        max_length=_longest(spec.train),
        trust_remote_code=config.model.trust_remote_code,
        workers=config.launch.data_workers,
        seed=config.seed,
    )


def reward_data_slice(
    config: RunConfig, section: RewardModelSection, spec: TrainSlice
) -> DataSlice:
    """Its pairs, or its rows with scores, some of them always held out."""
    scored = section.objective == "regression"
    kept = config.cleaning.duplicates or ("row" if scored else None)
    return data_slice(config, section.datasets, spec).model_copy(
        update={
            "task": section.rows,
            "heldout_fraction": config.evaluation.heldout_fraction,
            "max_heldout": config.evaluation.max_samples,
            # A prompt recurs with other answers.
            "cleaning": config.cleaning.model_copy(update={"duplicates": kept}),
            "cut": "start",
        }
    )


def evaluation_data_slice(config: RunConfig) -> DataSlice:
    return DataSlice(
        datasets=config.evaluation.datasets,
        task=None,
        heldout_fraction=0,
        max_heldout=0,
        cleaning=config.cleaning.model_copy(
            update={"near_duplicates": None, "decontaminate": None, "too_long": "truncate"}
        ),
        mix=Mix(),
        max_length=None,
        trust_remote_code=False,
        workers=config.launch.data_workers,
        seed=ROWS_SEED,
    )


def _longest(train: Train) -> int:
    """Tokens that a training row may have; an online algorithm's rows are prompts, and one is left
    to answer in."""
    if train.max_prompt_length is not None:
        return train.max_prompt_length + 1
    assert train.max_length is not None, "resolved"
    return train.max_length


def reward_base_slice(config: RunConfig, section: RewardModelSection) -> ModelSlice:
    assert section.name_or_path is not None
    return ModelSlice(
        name_or_path=section.name_or_path,
        revision=section.revision,
        chat_template=None,
        trust_remote_code=config.model.trust_remote_code,
    )


def reward_slice(config: RunConfig, section: RewardModelSection) -> TrainSlice:
    """The training of the reward model, with weights in full precision: a head on rounded ones
    would be merged into nothing that is on the disk."""
    spec = train_slice(config, "reward", section.train, section.peft or config.peft)
    return spec.model_copy(
        update={
            "objective": section.objective,
            "quantization": None,
            "use_unsloth": False,
            "sample_logging": None,
            "shown_rewards": (),
            "load_best": config.logging.save_steps if config.logging.load_best else None,
        }
    )


def train_slice(config: RunConfig, algo: Trained, train: Train, peft: Peft | None) -> TrainSlice:
    model, logging, samples = config.model, config.logging, config.sample_logging
    spec = TrainSlice(
        algo=algo,
        train=resolved(train, algo, peft, model.max_seq_length),
        rewards=rewards(config) if algo in ONLINE else (),
        peft=peft.model_copy(update={"dropout": 0.0}) if peft and algo in COMPARED else peft,
        precision=resolve(model.precision),
        gradient_checkpointing=model.gradient_checkpointing,
        attn_implementation=model.attn_implementation,
        quantization=model.quantization,
        use_unsloth=model.use_unsloth,
        trust_remote_code=model.trust_remote_code,
        processes=config.launch.processes,
        seed=config.seed,
        load_best=logging.save_steps if logging.load_best and algo not in ONLINE else None,
        save_steps=logging.save_steps,
        eval_steps=logging.eval_steps,
        loggers=logging.backends,
        sample_logging=samples if samples and samples.enabled else None,
        shown_rewards=_shown(config) if samples and samples.enabled and algo not in ONLINE else (),
    )
    return _precomputes(config, spec)


def _precomputes(config: RunConfig, spec: TrainSlice) -> TrainSlice:
    """`spec` with what `train.precompute_ref_log_probs: auto` stands for."""
    if spec.train.precompute_ref_log_probs != "auto":
        return spec
    decided = not spec.use_unsloth and _sees_every_row(config, spec)
    train = spec.train.model_copy(update={"precompute_ref_log_probs": decided})
    return spec.model_copy(update={"train": train})


def reference_slice(spec: TrainSlice) -> ReferenceSlice | None:
    """Of the stage that computes the log-probabilities of DPO's reference for the training stage
    `spec`; None where that does so itself, batch by batch, or has no reference."""
    if not spec.train.precompute_ref_log_probs:
        return None
    train = spec.train
    assert train.max_length is not None, "resolved"
    assert train.lm_head is not None, "resolved"
    assert train.padding_free is not None, "resolved"
    return ReferenceSlice(
        max_length=train.max_length,
        lm_head=train.lm_head,
        padding_free=train.padding_free,
        precision=spec.precision,
        attn_implementation=spec.attn_implementation,
        quantization=spec.quantization,
        trust_remote_code=spec.trust_remote_code,
        processes=spec.processes,
    )


def _sees_every_row(config: RunConfig, spec: TrainSlice) -> bool:
    """Whether that is known before the rows are: what training never sees need not be computed."""
    train = spec.train
    if train.max_steps is None:
        return train.num_epochs >= 1
    rows = [dataset.max_samples for dataset in config.datasets]
    step = train.per_device_batch_size * train.gradient_accumulation_steps * spec.processes
    if None in rows or config.mix.repeat:
        return False
    return train.max_steps * step >= sum(filter(None, rows))


def _shown(config: RunConfig) -> tuple[Reward, ...]:
    """The rewards that are there before the run: its own reward model is trained meanwhile."""
    return tuple(reward for reward in rewards(config) if not reward.of_run)


def rewards(config: RunConfig) -> tuple[Reward, ...]:
    """The configured rewards with the reward model of the run, where there is one: `reward_model`,
    or that of `model.reward_path`.

    It is the one of type `model` that names none, else one more. A trained one has no name either:
    it is an input of the stages that use it.
    """
    path, section = config.model.reward_path, config.reward_model
    if path is None and section is None:
        return config.rewards
    listed = any(reward.of_run for reward in config.rewards)
    own = () if listed else (Reward(reward_type="model"),)
    settings = {"normalize": section.normalize} if section else {}
    return tuple(
        reward.model_copy(update={"model_name": path, "params": settings | reward.params})
        if reward.of_run
        else reward
        for reward in (*config.rewards, *own)
    )


def evaluate_slice(config: RunConfig) -> EvaluateSlice:
    evaluation = config.evaluation
    return EvaluateSlice(
        split="train" if evaluation.datasets else "heldout",
        max_samples=evaluation.max_samples,
        metrics=evaluation.metrics,
        rewards=rewards(config),
        lm_eval=evaluation.lm_eval,
        max_new_tokens=evaluation.max_new_tokens,
        batch_size=evaluation.batch_size,
        max_length=config.model.max_seq_length,
        confidence=evaluation.confidence,
        resamples=evaluation.resamples,
        precision=resolve(config.model.precision),
        trust_remote_code=config.model.trust_remote_code,
        seed=config.seed,
    )


def push_slice(config: RunConfig, hub_endpoint: str) -> PushSlice:
    logging = config.logging
    if logging.hub_model_id is None:
        raise AssertionError("RunConfig requires hub_model_id for a push")
    return PushSlice(
        hub_model_id=logging.hub_model_id,
        adapter_of=None if not config.peft or config.peft.merge else config.model.start,
        private=logging.hub_private,
        license=logging.hub_license,
        endpoint=hub_endpoint,
    )


def policy_name(config: RunConfig) -> str:
    """The registered model that trained policies are versions of."""
    return f"{registry_name(config)}.policy"


def registry_name(config: RunConfig) -> str:
    """What the registered models are called after: by default the model that training starts from.

    Not the run's name, because renaming a run must not register its models again.
    """
    last = re.split(r"[/\\]", config.model.start.rstrip("/"))[-1].removesuffix(".gguf")
    return config.registry.name or re.sub(r"[^A-Za-z0-9._-]", "-", last).strip("._-") or "model"

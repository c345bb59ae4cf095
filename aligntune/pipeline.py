"""The pipeline, once: which stages a run has, in which order, and what each of them reads.

    model -> tokenizer -> eval-data? -> sft-data -> sft? -> data -> dpo -> evaluate-* -> register
    -> push?

Whoever runs it (the CLI directly, a flow as tasks) goes through this list from first to last.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aligntune.config.algo import ONLINE, TASK, Algo
from aligntune.config.base import Strict
from aligntune.config.data import Dataset, Mix
from aligntune.config.presets import resolved
from aligntune.config.rewards import Reward
from aligntune.config.run import RunConfig
from aligntune.config.slices import (
    DataSlice,
    EvaluateSlice,
    ModelSlice,
    PushSlice,
    RegisterSlice,
    TrainSlice,
)
from aligntune.config.train import Peft, Train
from aligntune.models.precision import resolve


@dataclass(frozen=True)
class Step:
    """One stage of a run, before anything is known about what exists already."""

    label: str
    """Unique in the run: `sft-data`."""
    kind: str
    """What it does, and the prefix of its artifact's name: `data`."""
    config: Strict
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role -> label of an earlier step."""


def steps(config: RunConfig, *, tracking_uri: str, hub_endpoint: str) -> tuple[Step, ...]:
    """Every stage of the run, each after its inputs."""
    return tuple(_steps(config, tracking_uri, hub_endpoint))


def final(config: RunConfig) -> str:
    """The label of the stage whose model is the run's result."""
    return config.algo


def _steps(config: RunConfig, tracking_uri: str, hub_endpoint: str) -> Iterator[Step]:
    yield Step("model", "model", _model(config))
    yield Step("tokenizer", "tokenizer", _model(config))
    reads = {"tokenizer": "tokenizer"}
    if config.evaluation.datasets:
        yield Step("eval-data", "data", _evaluation_data(config))
        reads["evaluation"] = "eval-data"
    policy, trained = "model", []
    if config.sft:
        section = config.sft
        spec = _train(config, "sft", section.train, section.peft or config.peft)
        yield Step("sft-data", "data", _data(config, section.datasets, spec), reads)
        yield Step("sft", "sft", spec, {"model": policy, "data": "sft-data"})
        policy, trained = "sft", ["sft"]
    spec = _train(config, config.algo, config.train, config.peft)
    yield Step("data", "data", _data(config, config.datasets, spec), reads)
    yield Step(config.algo, config.algo, spec, {"model": policy, "data": "data"})
    trained.append(config.algo)
    yield from _evaluation(config, trained)
    yield Step(
        "register",
        "register",
        RegisterSlice(name=f"{registry_name(config)}.policy", tracking_uri=tracking_uri),
        {role: role for role in trained} | {f"evaluate-{m}": f"evaluate-{m}" for m in trained},
    )
    if config.logging.push_to_hub:
        yield Step(
            "push",
            "push",
            _push(config, hub_endpoint),
            {"policy": config.algo, "evaluation": f"evaluate-{config.algo}"},
        )


def _evaluation(config: RunConfig, trained: list[str]) -> Iterator[Step]:
    """Each model is measured by itself, and against every model before it."""
    held_out = "eval-data" if config.evaluation.datasets else "data"
    earlier: dict[str, str] = {}
    for policy in ("model", *trained):
        name = "base" if policy == "model" else policy
        yield Step(
            f"evaluate-{name}",
            "evaluate",
            _evaluate(config),
            {"model": policy, "data": held_out} | earlier,
        )
        earlier = {**earlier, name: f"evaluate-{name}"}


def _model(config: RunConfig) -> ModelSlice:
    model = config.model
    return ModelSlice(
        name_or_path=model.start,
        revision=model.revision,
        chat_template=model.chat_template,
        trust_remote_code=model.trust_remote_code,
    )


def _data(config: RunConfig, datasets: tuple[Dataset, ...], spec: TrainSlice) -> DataSlice:
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


def _evaluation_data(config: RunConfig) -> DataSlice:
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
        seed=config.seed,
    )


def _longest(train: Train) -> int:
    """Tokens that a training row may have; an online algorithm's rows are prompts, and one is left
    to answer in."""
    if train.max_prompt_length is not None:
        return train.max_prompt_length + 1
    assert train.max_length is not None, "resolved"
    return train.max_length


def _train(config: RunConfig, algo: Algo, train: Train, peft: Peft | None) -> TrainSlice:
    model, logging, samples = config.model, config.logging, config.sample_logging
    return TrainSlice(
        algo=algo,
        train=resolved(train, algo, peft, model.max_seq_length),
        rewards=rewards(config) if algo in ONLINE else (),
        peft=peft,
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
        shown_rewards=rewards(config) if samples and samples.enabled and algo not in ONLINE else (),
    )


def rewards(config: RunConfig) -> tuple[Reward, ...]:
    """The configured rewards, and the reward model of `model.reward_path` where there is one."""
    path = config.model.reward_path
    learned = (Reward(reward_type="model", model_name=path),) if path else ()
    return (*config.rewards, *learned)


def _evaluate(config: RunConfig) -> EvaluateSlice:
    evaluation = config.evaluation
    return EvaluateSlice(
        split="train" if evaluation.datasets else "heldout",
        max_samples=evaluation.max_samples,
        metrics=evaluation.metrics,
        rewards=rewards(config),
        max_new_tokens=evaluation.max_new_tokens,
        batch_size=evaluation.batch_size,
        max_length=config.model.max_seq_length,
        confidence=evaluation.confidence,
        resamples=evaluation.resamples,
        precision=resolve(config.model.precision),
        trust_remote_code=config.model.trust_remote_code,
        seed=config.seed,
    )


def _push(config: RunConfig, hub_endpoint: str) -> PushSlice:
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


def registry_name(config: RunConfig) -> str:
    """What the registered models are called after: by default the model that training starts from.

    Not the run's name, because renaming a run must not register its models again.
    """
    last = re.split(r"[/\\]", config.model.start.rstrip("/"))[-1].removesuffix(".gguf")
    return config.registry.name or re.sub(r"[^A-Za-z0-9._-]", "-", last).strip("._-") or "model"

"""The pipeline, once: which stages a run has, in which order, and what each of them reads.

    model -> tokenizer -> eval-data? -> sft-data? -> reward-data? -> sft? -> reward? -> data -> dpo
    -> champion? -> evaluate-* -> register -> decide -> promote -> push?

Whoever runs it (the CLI directly, a flow as tasks) goes through this list from first to last.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aligntune.config.algo import ONLINE, TASK, Trained
from aligntune.config.base import Strict
from aligntune.config.data import Dataset, Mix
from aligntune.config.presets import resolved
from aligntune.config.reward_model import RewardModelSection
from aligntune.config.rewards import Reward
from aligntune.config.run import RunConfig
from aligntune.config.slices import (
    DataSlice,
    DecideSlice,
    EvaluateSlice,
    FetchSlice,
    ModelSlice,
    PromoteSlice,
    PushSlice,
    RegisterSlice,
    TrainSlice,
)
from aligntune.config.train import Peft, Train
from aligntune.models.precision import resolve

CHAMPION, START = "champion", "start"


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


@dataclass(frozen=True)
class Champion:
    """A registered version: what a candidate has to be better than, or starts from."""

    version: str
    key: str


def steps(
    config: RunConfig,
    *,
    tracking_uri: str,
    hub_endpoint: str,
    champion: Champion | None = None,
    start: Champion | None = None,
) -> tuple[Step, ...]:
    """Every stage of the run, each after its inputs.

    With `start` training goes on from that version; what it is measured against stays the same.
    """
    return tuple(_steps(config, tracking_uri, hub_endpoint, champion, start))


def final(config: RunConfig) -> str:
    """The label of the stage whose model is the run's result."""
    return config.algo


def _steps(
    config: RunConfig,
    tracking_uri: str,
    hub_endpoint: str,
    champion: Champion | None,
    start: Champion | None,
) -> Iterator[Step]:
    yield Step("model", "model", _model(config))
    yield Step("tokenizer", "tokenizer", _model(config))
    reads = {"tokenizer": "tokenizer"}
    if config.evaluation.datasets:
        yield Step("eval-data", "data", _evaluation_data(config))
        reads["evaluation"] = "eval-data"
    policy, trained, origin = "model", [], {}
    if start:
        policy, origin = START, {START: START}
        fetched = _fetched(config, start, tracking_uri)
        yield Step(START, "fetch", fetched, {"base": "model", "tokenizer": "tokenizer"})
    yield from _before(config, reads, policy)
    if config.sft:
        policy, trained = "sft", ["sft"]
    spec = _train(config, config.algo, config.train, config.peft)
    yield Step("data", "data", _data(config, config.datasets, spec), reads)
    judge = _judge(config) if spec.rewards else {}
    yield Step(config.algo, config.algo, spec, {"model": policy, "data": "data"} | judge)
    trained.append(config.algo)
    measured = list(_evaluation(config, trained, champion, tracking_uri))
    yield from measured
    if config.registry.enabled:
        registers = (*trained, *(f"evaluate-{model}" for model in trained), *origin)
        yield from _registration(config, registers, tracking_uri)
    if config.registry.promotes:
        yield from _promotion(config, tracking_uri, champion, measured)
    if config.logging.push_to_hub:
        yield Step(
            "push",
            "push",
            push_slice(config, hub_endpoint),
            {"policy": config.algo, "evaluation": f"evaluate-{config.algo}"}
            | ({"decision": "decide"} if config.registry.promotes else {}),
        )


def _registration(config: RunConfig, reads: Sequence[str], tracking_uri: str) -> Iterator[Step]:
    if config.reward_model:
        named = RegisterSlice(name=f"{registry_name(config)}.reward", tracking_uri=tracking_uri)
        yield Step("register-reward", "register-reward", named, _judge(config))
    named = RegisterSlice(name=policy_name(config), tracking_uri=tracking_uri)
    yield Step("register", "register", named, {label: label for label in reads})


def _before(config: RunConfig, reads: Mapping[str, str], policy: str) -> Iterator[Step]:
    """What can be trained before the run's own algorithm; neither needs the other."""
    training: list[Step] = []
    if section := config.sft:
        spec = _train(config, "sft", section.train, section.peft or config.peft)
        yield Step("sft-data", "data", _data(config, section.datasets, spec), reads)
        training.append(Step("sft", "sft", spec, {"model": policy, "data": "sft-data"}))
    if judge := config.reward_model:
        base = "model"
        if judge.name_or_path:
            base, tokenizer = "reward-base", "reward-tokenizer"
            yield Step(base, "model", _reward_base(config, judge))
            yield Step(tokenizer, "tokenizer", _reward_base(config, judge))
            reads = {**reads, "tokenizer": tokenizer}
        spec = _reward(config, judge)
        yield Step("reward-data", "data", _reward_data(config, judge, spec), reads)
        training.append(Step("reward", "reward", spec, {"model": base, "data": "reward-data"}))
    yield from training


def _judge(config: RunConfig) -> dict[str, str]:
    """The reward model that the run trains, as an input."""
    return {"reward": "reward"} if config.reward_model else {}


def _evaluation(
    config: RunConfig, trained: list[str], champion: Champion | None, tracking_uri: str
) -> Iterator[Step]:
    """Each model is measured by itself, and against every model before it; the champion, which may
    change, against the base model alone."""
    earlier: dict[str, str] = {}
    for policy in ("model", *trained):
        name = "base" if policy == "model" else policy
        yield evaluation_of(config, name, policy, earlier)
        earlier = {**earlier, name: f"evaluate-{name}"}
        if policy == "model" and champion and config.registry.promotes:
            yield Step(CHAMPION, "fetch", _fetched(config, champion, tracking_uri))
            yield evaluation_of(config, CHAMPION, CHAMPION, earlier)


def _fetched(config: RunConfig, version: Champion, tracking_uri: str) -> FetchSlice:
    return FetchSlice(
        name=policy_name(config),
        version=version.version,
        key=version.key,
        tracking_uri=tracking_uri,
    )


def evaluation_of(config: RunConfig, name: str, model: str, earlier: Mapping[str, str]) -> Step:
    """The step that measures the model of the step `model`, and compares it with `earlier` ones."""
    held_out = "eval-data" if config.evaluation.datasets else "data"
    reference = {} if model == "model" else {"reference": "model"}
    inputs = {"model": model, "data": held_out, **reference, **_judge(config), **earlier}
    return Step(f"evaluate-{name}", "evaluate", _evaluate(config), inputs)


def _promotion(
    config: RunConfig, tracking_uri: str, champion: Champion | None, measured: list[Step]
) -> Iterator[Step]:
    evaluation, candidate = config.evaluation, final(config)
    spec = DecideSlice(
        candidate=candidate,
        champion=champion.version if champion else None,
        champion_key=champion.key if champion else None,
        gates=config.registry.gates,
        confidence=evaluation.confidence,
        resamples=evaluation.resamples,
        seed=config.seed,
    )
    labels = [step.label for step in measured if step.kind == "evaluate"]
    yield Step("decide", "decide", spec, {s.removeprefix("evaluate-"): s for s in labels})
    moved = PromoteSlice(
        name=policy_name(config),
        candidate=candidate,
        policy="manual" if config.retrain.approval == "required" else config.registry.promote,
        tracking_uri=tracking_uri,
    )
    yield Step("promote", "promote", moved, {"register": "register", "decision": "decide"})


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


def _reward_data(config: RunConfig, section: RewardModelSection, spec: TrainSlice) -> DataSlice:
    """Its pairs, or its rows with scores, some of them always held out."""
    scored = section.objective == "regression"
    kept = config.cleaning.duplicates or ("row" if scored else None)
    return _data(config, section.datasets, spec).model_copy(
        update={
            "task": "conversation" if scored else "preference",
            "heldout_fraction": config.evaluation.heldout_fraction,
            "max_heldout": config.evaluation.max_samples,
            # A prompt recurs with other answers.
            "cleaning": config.cleaning.model_copy(update={"duplicates": kept}),
            "cut": "start",
        }
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


def _reward_base(config: RunConfig, section: RewardModelSection) -> ModelSlice:
    assert section.name_or_path is not None
    return ModelSlice(
        name_or_path=section.name_or_path,
        revision=section.revision,
        chat_template=None,
        trust_remote_code=config.model.trust_remote_code,
    )


def _reward(config: RunConfig, section: RewardModelSection) -> TrainSlice:
    """The training of the reward model, with weights in full precision: a head on rounded ones
    would be merged into nothing that is on the disk."""
    spec = _train(config, "reward", section.train, section.peft or config.peft)
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


def _train(config: RunConfig, algo: Trained, train: Train, peft: Peft | None) -> TrainSlice:
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
        shown_rewards=_shown(config) if samples and samples.enabled and algo not in ONLINE else (),
    )


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


def _evaluate(config: RunConfig) -> EvaluateSlice:
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

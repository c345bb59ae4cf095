"""The pipeline, once: which stages a run has, in which order, and what each of them reads.

    model -> tokenizer -> eval-data? -> sft-data? -> reward-data? -> data -> sft? -> reward?
    -> reference? -> dpo -> champion? -> evaluate-* -> register -> decide -> promote -> push?

Whoever runs it (the CLI directly, a flow as tasks) goes through this list from first to last.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aligntune.config.base import Strict
from aligntune.config.run import RunConfig
from aligntune.config.slices import DecideSlice, FetchSlice, PromoteSlice, RegisterSlice
from aligntune.slicing import (
    data_slice,
    evaluate_slice,
    evaluation_data_slice,
    model_slice,
    policy_name,
    push_slice,
    reference_slice,
    registry_name,
    reward_base_slice,
    reward_data_slice,
    reward_slice,
    train_slice,
)

CHAMPION, START, REFERENCE = "champion", "start", "reference"


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
    yield Step("model", "model", model_slice(config))
    yield Step("tokenizer", "tokenizer", model_slice(config))
    reads = {"tokenizer": "tokenizer"}
    if config.evaluation.datasets:
        yield Step("eval-data", "data", evaluation_data_slice(config))
        reads["evaluation"] = "eval-data"
    policy, trained, origin = "model", [], {}
    if start:
        policy, origin = START, {START: START}
        fetched = _fetched(config, start, tracking_uri)
        yield Step(START, "fetch", fetched, {"base": "model", "tokenizer": "tokenizer"})
    spec = train_slice(config, config.algo, config.train, config.peft)
    own = Step("data", "data", data_slice(config, config.datasets, spec), reads)
    yield from _before(config, reads, policy, own)
    if config.sft:
        policy, trained = "sft", ["sft"]
    reads = {"model": policy, "data": "data"}
    besides = _judge(config) if spec.rewards else {}
    if shared := reference_slice(spec):
        yield Step(REFERENCE, REFERENCE, shared, reads)
        besides = {REFERENCE: REFERENCE}
    yield Step(config.algo, config.algo, spec, reads | besides)
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


def _before(config: RunConfig, reads: Mapping[str, str], policy: str, own: Step) -> Iterator[Step]:
    """What can be trained before the run's own algorithm; neither needs the other. All data comes
    before it, the run's `own` too: what is wrong with it is known before anything is trained."""
    training: list[Step] = []
    if section := config.sft:
        spec = train_slice(config, "sft", section.train, section.peft or config.peft)
        yield Step("sft-data", "data", data_slice(config, section.datasets, spec), reads)
        training.append(Step("sft", "sft", spec, {"model": policy, "data": "sft-data"}))
    if judge := config.reward_model:
        base = "model"
        if judge.name_or_path:
            base, tokenizer = "reward-base", "reward-tokenizer"
            yield Step(base, "model", reward_base_slice(config, judge))
            yield Step(tokenizer, "tokenizer", reward_base_slice(config, judge))
            reads = {**reads, "tokenizer": tokenizer}
        spec = reward_slice(config, judge)
        yield Step("reward-data", "data", reward_data_slice(config, judge, spec), reads)
        training.append(Step("reward", "reward", spec, {"model": base, "data": "reward-data"}))
    yield own
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
    return Step(f"evaluate-{name}", "evaluate", evaluate_slice(config), inputs)


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

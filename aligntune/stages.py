"""What each stage does: its config slice and finished artifacts in, files and numbers out.

Imports of torch, datasets and mlflow live inside the functions, so planning stays quick.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligntune.artifacts import WORK, Artifact, files_digest
from aligntune.config.algo import ALGOS, ONLINE
from aligntune.config.base import Strict
from aligntune.config.rewards import Reward
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
from aligntune.errors import Interrupted, ServiceError
from aligntune.paths import tracking_identity
from aligntune.stage_sources import data_sources, evaluate_sources, model_sources, train_sources

if TYPE_CHECKING:
    from aligntune.models.source import ModelSource

Progress = Callable[[int, int, Mapping[str, float]], None]
"""(done, in all, what to show beside them)."""


@dataclass(frozen=True)
class Work:
    """One stage's job."""

    key: str
    config: Strict
    sources: Mapping[str, str]
    """Digests and commits of what lies outside the artifacts, as the key has them."""
    inputs: Mapping[str, Artifact]
    out: Path
    """The directory to write to; `out/work` is scratch that survives an interruption."""
    root: Path
    """`logging.output_dir`."""
    tracking_uri: str = field(repr=False)  # may have a password in it
    progress: Progress
    stopping: Callable[[], bool]


@dataclass(frozen=True)
class Outcome:
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """What there is to know about a kind of stage besides its config."""

    version: int
    """Raised when the code changes what the stage produces, so that no older artifact is reused."""
    config: type[Strict]
    run: Callable[[Any], Outcome]
    sources: Callable[[Any, Path], dict[str, str]] = lambda config, root: {}
    """Digests of what the stage reads besides its inputs, for a run below the output directory
    `root`. May ask the hub or the registry."""
    libraries: tuple[str, ...] = ()
    """Packages whose minor version can change the result."""
    trains: bool = False
    """Holds a model and gradients: a process of its own in a flow."""
    network: bool = False
    """Talks to a server, so a failure may pass by itself."""


def _model(work: Work) -> Outcome:
    from aligntune.models.prepare import prepare

    config = work.config
    assert isinstance(config, ModelSlice)
    facts = prepare(
        _source(work),
        _emptied(work.out / "model"),
        chat_template=config.chat_template,
        trust_remote_code=config.trust_remote_code,
    )
    origin = {"source": config.name_or_path, "fingerprint": work.sources["model"]}
    return Outcome(facts=facts | origin)


def _source(work: Work) -> "ModelSource":
    """Where the model is, with its commit pinned."""
    from aligntune.models.source import ModelSource, locate

    config = work.config
    assert isinstance(config, ModelSlice)
    source = locate(config.name_or_path, config.revision)
    pinned = work.sources["model"]
    if pinned.startswith("commit:"):
        return ModelSource("hub", source.location, pinned.removeprefix("commit:"))
    return source


def _tokenizer(work: Work) -> Outcome:
    from aligntune.models.prepare import prepare_tokenizer

    config = work.config
    assert isinstance(config, ModelSlice)
    facts = prepare_tokenizer(
        _source(work),
        _emptied(work.out / "tokenizer"),
        chat_template=config.chat_template,
        trust_remote_code=config.trust_remote_code,
    )
    return Outcome(facts=facts)


def _data(work: Work) -> Outcome:
    from aligntune.data.prepare import Place, prepare
    from aligntune.report.data import write

    assert isinstance(work.config, DataSlice)
    tokenizer, evaluation = (work.inputs.get(role) for role in ("tokenizer", "evaluation"))

    def progress(done: int, total: int, shown: Mapping[str, float]) -> None:
        if work.stopping():
            raise Interrupted(f"stopped after {done} of {total} rows; the same command reads them")
        work.progress(done, total, shown)

    place = Place(
        out=work.out,
        tokenizer=tokenizer.path / "tokenizer" if tokenizer else None,
        evaluation=evaluation.path / "train.parquet" if evaluation else None,
        progress=progress,
    )
    prepared = prepare(work.config, work.sources, place)
    write(work.out)
    return Outcome(prepared.metrics, prepared.facts)


def _train(work: Work) -> Outcome:
    from aligntune.rewards.sources import check_model, fingerprint, local
    from aligntune.train.loop import Setting
    from aligntune.train.policy import train_policy
    from aligntune.train.ranks import Job, together

    assert isinstance(work.config, TrainSlice)
    setting = Setting(work.out, work.out / WORK, work.key, work.progress, work.stopping)
    model, data = work.inputs["model"], work.inputs["data"]
    _emptied(work.out / "model")
    _emptied(work.out / "adapter")
    uri = work.tracking_uri
    shown = []
    for i, reward in enumerate(work.config.shown_rewards):
        shown.append(local(reward, fingerprint(reward, uri), setting.work / f"shown-{i}", uri=uri))
        check_model(shown[-1])
    spec = work.config.model_copy(update={"rewards": _pinned(work), "shown_rewards": tuple(shown)})
    job = Job(spec, model.path / "model", data.path, setting.work, work.key)
    with together(job):
        metrics = train_policy(spec, job.model, job.data, setting)
    return Outcome(metrics, {"data_digests": data.manifest.facts["digests"]})


def _reward(work: Work) -> Outcome:
    from aligntune.evaluate.scorer import check_heldout
    from aligntune.reward_model import finish

    assert isinstance(work.config, TrainSlice)
    data = work.inputs["data"]
    check_heldout(data.path)
    trained = _train(work)
    made = finish(work.config, work.inputs, work.out, work.progress)
    return Outcome({**trained.metrics, **made}, trained.facts)


def _evaluate(work: Work) -> Outcome:
    from aligntune.evaluate.cache import Cache
    from aligntune.evaluate.run import Models, evaluate

    assert isinstance(work.config, EvaluateSlice)
    earlier = {
        role: artifact.path
        for role, artifact in work.inputs.items()
        if artifact.manifest.kind == "evaluate"
    }
    measured_model, reference = work.inputs["model"], work.inputs.get("reference")

    def progress(done: int, total: int, shown: Mapping[str, float]) -> None:
        if work.stopping():
            raise Interrupted(
                f"stopped after {done} of {total} rows; the same command measures them again"
            )
        work.progress(done, total, shown)

    models = Models(
        model=measured_model.path / "model",
        reference=reference.path / "model" if reference else None,
        baselines=earlier,
        cache=Cache(work.root / "answers", files_digest(measured_model, "model/")),
    )
    spec = work.config.model_copy(update={"rewards": _pinned(work)})
    measured = evaluate(spec, models, work.inputs["data"].path, work.out, progress)
    return Outcome(measured.metrics, measured.facts)


def _with_mlflow(run: Callable[[Work], Outcome]) -> Callable[[Work], Outcome]:
    """A stage that MLflow is needed for: it waits for a while, and runs come before versions."""

    def patient(work: Work) -> Outcome:
        from aligntune.courier import when_there

        store = tracking_identity()
        return when_there(partial(run, work), work.tracking_uri, work.root, store, work.stopping)

    return patient


def _register(work: Work) -> Outcome:
    from aligntune.registry import register

    assert isinstance(work.config, RegisterSlice)
    return Outcome(facts=register(work.config.name, work.inputs, work.tracking_uri, work.root))


def _register_reward(work: Work) -> Outcome:
    from aligntune.registry import register_reward

    assert isinstance(work.config, RegisterSlice)
    name, judge = work.config.name, work.inputs["reward"]
    return Outcome(facts=register_reward(name, judge, work.tracking_uri, work.root))


def _fetch(work: Work) -> Outcome:
    from aligntune.registry import fetch

    config = work.config
    assert isinstance(config, FetchSlice)
    place = work.tracking_uri, work.root, _emptied(work.out / "model")
    return Outcome(facts=fetch(config.name, config.version, *place, work.inputs.get("tokenizer")))


def _decide(work: Work) -> Outcome:
    from aligntune.evaluate.decide import decide

    assert isinstance(work.config, DecideSlice)
    decision = decide(work.config, work.inputs, work.out)
    return Outcome(facts={name: decision[name] for name in ("verdict", "why", "data")})


def _settle(work: Work) -> Outcome:
    from aligntune.promotion import settle

    assert isinstance(work.config, PromoteSlice)
    return Outcome(facts=settle(work.config, work.inputs, work.tracking_uri, work.root))


def _promote(work: Work) -> Outcome:
    from aligntune.promotion import Overtaken

    try:
        return _with_mlflow(_settle)(work)
    except Overtaken as error:  # to wait would not help, but the same command decides anew
        raise ServiceError(str(error)) from error


def _push(work: Work) -> Outcome:
    from aligntune.publish import publish
    from aligntune.registry import run_that_made

    assert isinstance(work.config, PushSlice)
    run = run_that_made(work.inputs["policy"], work.tracking_uri, work.root)
    return Outcome(facts=publish(work.config, work.inputs, work.out, run))


def _pinned(work: Work) -> tuple[Reward, ...]:
    """The rewards, with the models of hub and registry replaced by the directories they are loaded
    to, and the run's own by its artifact.

    Raises:
        ConfigError: one is no reward model.
    """
    from aligntune.rewards.sources import check_model, local

    assert isinstance(work.config, TrainSlice | EvaluateSlice)
    found = []
    for i, reward in enumerate(work.config.rewards):
        if reward.of_run:
            own = str(work.inputs["reward"].path / "model")
            found.append(reward.model_copy(update={"model_name": own}))
            continue
        pinned, into = work.sources.get(f"rewards[{i}]", ""), work.out / WORK / f"reward-{i}"
        made = local(reward, pinned, into, uri=work.tracking_uri)
        check_model(made)
        found.append(made)
    return tuple(found)


def _emptied(folder: Path) -> Path:
    """What an interrupted attempt left half written goes away."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


_TORCH = ("torch", "transformers")
_TRAINER = ("torch", "transformers", "trl", "peft", "accelerate")

KINDS: dict[str, Kind] = {
    "model": Kind(1, ModelSlice, _model, model_sources, ("transformers",), network=True),
    "tokenizer": Kind(
        1,
        ModelSlice,
        _tokenizer,
        partial(model_sources, weights=False),
        ("transformers",),
        network=True,
    ),
    "data": Kind(5, DataSlice, _data, data_sources, ("transformers",), network=True),
    **{
        algo: Kind(
            6 if algo in ONLINE else 2,
            TrainSlice,
            _train,
            train_sources,
            libraries=_TRAINER,
            trains=True,
        )
        for algo in ALGOS
    },
    "evaluate": Kind(7, EvaluateSlice, _evaluate, evaluate_sources, libraries=_TORCH, trains=True),
    "reward": Kind(2, TrainSlice, _reward, libraries=_TRAINER, trains=True),
    "fetch": Kind(1, FetchSlice, _with_mlflow(_fetch), network=True),
    "register": Kind(3, RegisterSlice, _with_mlflow(_register), network=True),
    "register-reward": Kind(1, RegisterSlice, _with_mlflow(_register_reward), network=True),
    "decide": Kind(3, DecideSlice, _decide),
    "promote": Kind(1, PromoteSlice, _promote, network=True),
    "push": Kind(3, PushSlice, _push, network=True),
}


def environment(kind: Kind) -> dict[str, str]:
    """Minor versions of what the stage computes with, without importing it."""
    return {name: ".".join(version(name).split(".")[:2]) for name in kind.libraries}

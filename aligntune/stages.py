"""What each stage does: its config slice and finished artifacts in, files and numbers out.

Imports of torch, datasets and mlflow live inside the functions, so planning stays quick.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from aligntune import stage_models
from aligntune.aside import promptly
from aligntune.config.algo import ALGOS
from aligntune.config.slices import (
    DataSlice,
    DecideSlice,
    EvaluateSlice,
    FetchSlice,
    ModelSlice,
    PromoteSlice,
    PushSlice,
    ReferenceSlice,
    RegisterSlice,
    TrainSlice,
)
from aligntune.errors import Interrupted
from aligntune.paths import tracking_identity
from aligntune.stage_sources import data_sources, evaluate_sources, model_sources, train_sources
from aligntune.work import Kind, Outcome, Work, emptied

if TYPE_CHECKING:
    from aligntune.models.source import ModelSource


def _model(work: Work[ModelSlice]) -> Outcome:
    from aligntune.models.prepare import prepare

    config = work.config
    facts = prepare(
        _source(work),
        emptied(work.out / "model"),
        chat_template=config.chat_template,
        trust_remote_code=config.trust_remote_code,
    )
    origin = {"source": config.name_or_path, "fingerprint": work.sources["model"]}
    return Outcome(facts=facts | origin)


def _source(work: Work[ModelSlice]) -> "ModelSource":
    """Where the model is, with its commit pinned."""
    from aligntune.models.source import ModelSource, locate

    source = locate(work.config.name_or_path, work.config.revision)
    pinned = work.sources["model"]
    if pinned.startswith("commit:"):
        return ModelSource("hub", source.location, pinned.removeprefix("commit:"))
    return source


def _tokenizer(work: Work[ModelSlice]) -> Outcome:
    from aligntune.models.prepare import prepare_tokenizer

    config = work.config
    facts = prepare_tokenizer(
        _source(work),
        emptied(work.out / "tokenizer"),
        chat_template=config.chat_template,
        trust_remote_code=config.trust_remote_code,
    )
    return Outcome(facts=facts)


def _data(work: Work[DataSlice]) -> Outcome:
    from aligntune.data.prepare import Place, prepare
    from aligntune.report.data import write

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


def _with_mlflow(run: Callable[[Work[Any]], Outcome]) -> Callable[[Work[Any]], Outcome]:
    """A stage that MLflow is needed for: it waits for a while, and runs come before versions."""

    def patient(work: Work[Any]) -> Outcome:
        from aligntune.courier import when_there

        store = tracking_identity()
        place = work.tracking_uri, work.root, store, work.stopping
        return promptly(partial(when_there, partial(run, work), *place), "MLflow is asked")

    return patient


def _register(work: Work[RegisterSlice]) -> Outcome:
    from aligntune.registry import register

    return Outcome(facts=register(work.config.name, work.inputs, work.tracking_uri, work.root))


def _register_reward(work: Work[RegisterSlice]) -> Outcome:
    from aligntune.registry import register_reward

    name, judge = work.config.name, work.inputs["reward"]
    return Outcome(facts=register_reward(name, judge, work.tracking_uri, work.root))


def _fetch(work: Work[FetchSlice]) -> Outcome:
    from aligntune.registry import fetch

    config = work.config
    place = work.tracking_uri, work.root, emptied(work.out / "model")
    return Outcome(facts=fetch(config.name, config.version, *place, work.inputs.get("tokenizer")))


def _decide(work: Work[DecideSlice]) -> Outcome:
    from aligntune.evaluate.decide import decide

    decision = decide(work.config, work.inputs, work.out)
    return Outcome(facts={name: decision[name] for name in ("verdict", "why", "data")})


def _settle(work: Work[PromoteSlice]) -> Outcome:
    from aligntune.promotion import settle

    return Outcome(facts=settle(work.config, work.inputs, work.tracking_uri, work.root))


def _promote(work: Work[PromoteSlice]) -> Outcome:
    from aligntune.promotion import Overtaken

    try:
        return _with_mlflow(_settle)(work)
    except Overtaken as error:  # to wait would not help, but the same command decides anew
        raise Interrupted(str(error)) from error


def _push(work: Work[PushSlice]) -> Outcome:
    from aligntune.publish import publish
    from aligntune.registry import run_that_made

    made = partial(run_that_made, work.inputs["policy"], work.tracking_uri, work.root)
    run = promptly(made, "MLflow is asked")
    return Outcome(facts=publish(work.config, work.inputs, work.out, run))


_TORCH = ("torch", "transformers")
_REFERENCE = ("torch", "transformers", "trl", "accelerate")
_TRAINER = ("torch", "transformers", "trl", "peft", "accelerate")

_OFFLINE = {"sft": 4, "dpo": 4}
"""Versions of what learns from data; the online algorithms share one."""

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
    "data": Kind(8, DataSlice, _data, data_sources, ("transformers",), network=True),
    **{
        algo: Kind(
            _OFFLINE.get(algo, 11),
            TrainSlice,
            stage_models.train,
            train_sources,
            libraries=_TRAINER,
            trains=True,
        )
        for algo in ALGOS
    },
    "evaluate": Kind(
        stage_models.MEASURES,
        EvaluateSlice,
        stage_models.measure,
        evaluate_sources,
        libraries=_TORCH,
        trains=True,
    ),
    "reference": Kind(
        2, ReferenceSlice, stage_models.precompute, libraries=_REFERENCE, trains=True
    ),
    "reward": Kind(3, TrainSlice, stage_models.train_reward, libraries=_TRAINER, trains=True),
    "fetch": Kind(1, FetchSlice, _with_mlflow(_fetch), network=True),
    "register": Kind(4, RegisterSlice, _with_mlflow(_register), network=True),
    "register-reward": Kind(2, RegisterSlice, _with_mlflow(_register_reward), network=True),
    "decide": Kind(4, DecideSlice, _decide),
    "promote": Kind(1, PromoteSlice, _promote, network=True),
    "push": Kind(5, PushSlice, _push, network=True),
}


def environment(kind: Kind) -> dict[str, str]:
    """Minor versions of what the stage computes with, without importing it."""
    return {name: ".".join(_version(name).split(".")[:2]) for name in kind.libraries}


@cache  # reading a package's metadata is most of what a stage costs a plan
def _version(package: str) -> str:
    return version(package)

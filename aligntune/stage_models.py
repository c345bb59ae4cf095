"""The stages that hold a model: training and evaluation."""

from collections.abc import Mapping
from dataclasses import asdict

from aligntune.artifacts import WORK, model_digest
from aligntune.config.rewards import Reward
from aligntune.config.slices import EvaluateSlice, ReferenceSlice, TrainSlice
from aligntune.errors import Interrupted
from aligntune.work import Outcome, Work, emptied

MEASURES = 12
"""The version of evaluations, and of the scores that are kept for others."""


def train(work: Work[TrainSlice]) -> Outcome:
    from aligntune.estimate.choice import made
    from aligntune.rewards.sources import check_model, fingerprint, local
    from aligntune.train.choosing import settled
    from aligntune.train.heap import kept
    from aligntune.train.loop import Setting
    from aligntune.train.policy import train_policy
    from aligntune.train.ranks import Job, together

    ways: dict[str, bool] = {}
    told = work.progress, work.stopping, work.identity, ways.update
    setting = Setting(work.out, work.out / WORK, work.key, *told)
    model, data = work.inputs["model"], work.inputs["data"]
    emptied(work.out / "model")
    emptied(work.out / "adapter")
    uri = work.tracking_uri
    shown = []
    for i, reward in enumerate(work.config.shown_rewards):
        shown.append(local(reward, fingerprint(reward, uri), setting.work / f"shown-{i}", uri=uri))
        check_model(shown[-1])
    spec = work.config.model_copy(update={"rewards": _pinned(work), "shown_rewards": tuple(shown)})
    known = work.inputs.get("reference")
    reference = known.path if known else None
    asked = Job(spec, model.path / "model", data.path, setting.work, work.key, reference)
    job, choice = settled(asked)
    with together(job), kept(wanted=job.kept_heap):
        metrics = train_policy(job.spec, job.model, job.data, setting, job.reference)
        _let_go()
    facts = {"data_digests": data.manifest.facts["digests"], "choice": asdict(made(choice, ways))}
    return Outcome(metrics, facts)


def precompute(work: Work[ReferenceSlice]) -> Outcome:
    from aligntune.train import reference
    from aligntune.train.loop import Setting
    from aligntune.train.ranks import Job, together

    spec = reference.as_training(work.config)
    model, data = work.inputs["model"].path / "model", work.inputs["data"].path
    setting = Setting(work.out, work.out / WORK, work.key, work.progress, work.stopping)
    job = Job(spec, model, data, setting.work, work.key, task="reference")
    reference.begin(job.work)
    with together(job):
        batches = reference.compute(job, setting)
        _let_go()
    return Outcome(reference.collect(job, work.out, batches))


def train_reward(work: Work[TrainSlice]) -> Outcome:
    from aligntune.evaluate.reward_model import check_heldout
    from aligntune.reward_model import finish

    data = work.inputs["data"]
    check_heldout(data.path)
    trained = train(work)
    made = finish(work.config, work.inputs, work.out, work.progress)
    return Outcome({**trained.metrics, **made}, trained.facts)


def measure(work: Work[EvaluateSlice]) -> Outcome:
    from aligntune.evaluate.cache import Cache
    from aligntune.evaluate.run import Models, evaluate

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
        cache=Cache(
            work.root / "answers",
            model_digest(measured_model),
            model_digest(reference) if reference else None,
            _judges(work),
            MEASURES,
        ),
    )
    spec = work.config.model_copy(update={"rewards": _pinned(work)})
    measured = evaluate(spec, models, work.inputs["data"].path, work.out, progress)
    _let_go()
    return Outcome(measured.metrics, measured.facts)


def _let_go() -> None:
    """Make room for the next model: a trainer refers to itself, so that it outlives its use, and
    torch keeps a GPU's memory."""
    from accelerate.utils import release_memory

    release_memory()


def _judges(work: Work[EvaluateSlice]) -> dict[int, str]:
    """What identifies the models of the rewards, by their places."""
    found = {}
    for i, reward in enumerate(work.config.rewards):
        if reward.of_run:
            found[i] = model_digest(work.inputs["reward"])
        elif reward.model_name:
            found[i] = work.sources[f"rewards[{i}]"]
    return found


def _pinned(work: Work[TrainSlice | EvaluateSlice]) -> tuple[Reward, ...]:
    """The rewards, with the models of hub and registry replaced by the directories they are loaded
    to, and the run's own by its artifact.

    Raises:
        ConfigError: one is no reward model.
    """
    from aligntune.rewards.sources import check_model, local

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

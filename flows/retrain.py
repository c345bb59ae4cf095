"""Retraining as a flow: nothing where nothing is new, else the pipeline and a decision.

    aligntune retrain --config X [--set KEY=VALUE]

Every normal end is a state with a name and a sentence: NothingNew, Promoted, Rejected,
Inconclusive, AwaitingApproval, Interrupted.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed

from aligntune.config.load import load
from aligntune.config.run import RunConfig
from aligntune.config.slices import PromoteSlice
from aligntune.console import screen
from aligntune.errors import ConfigError, Interrupted
from aligntune.lineage import changed
from aligntune.paths import tracking_identity, tracking_uri
from aligntune.promotion import settle
from aligntune.retraining import Looked, is_champion, look, says, settings_changed
from aligntune.session import Session
from aligntune.show import show_result
from aligntune.slicing import policy_name
from flows.artifacts import page_key, record_page, record_run
from flows.ending import STATES, VERDICTS, Ending, markdown, measured
from flows.events import tell_promoted
from flows.notify import check_blocks, page_of, tell, tell_failure
from flows.overlap import alone
from flows.post_train import (
    RETRY_DELAYS,
    logged,
    may_pass,
    run_name,
    run_stages,
    running,
    served,
)
from flows.reported import reported

LOG = logging.getLogger("aligntune.flow")

PROMOTION = "promotion"
"""Name of the flow that asks a person."""


def run(paths: Sequence[Path], overrides: Sequence[str], command: str) -> None:
    """Retrain as a flow run here, and print what came of it.

    Raises:
        AlignTuneError: a stage failed, was asked to stop, or there is no Prefect server.
    """
    config = load(paths, overrides)  # a mistake in it should not cost the start of a server
    prepared(config)
    given = [str(path) for path in paths], list(overrides), command
    served(partial(retrain, *given), config.logging.level)


@flow(
    name="retrain",
    flow_run_name=run_name,
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
    on_cancellation=[tell_failure],
)
@reported
@alone
async def retrain(
    configs: list[str], overrides: Sequence[str] = (), command: str = ""
) -> State[Ending] | State[None]:
    """Retrain a language model where there is anything new, and let it be champion if it is better.

    Args:
        configs: Paths of YAML files, merged from left to right.
        overrides: Settings that come after them, `key=value`.
        command: What makes this run again, for the report.
    """
    config = prepared(load([Path(path) for path in configs], overrides))
    with logged(config.logging.level):
        await check_blocks(config.notifications)
        looked = await _looked(config)
    try:
        ending = await _ending(looked, command)
    except Interrupted as error:
        said = Ending("stopped", str(error), config.logging.run_name or config.algo)
        await tell(config.notifications, replace(said, links=_links()))
        return Cancelled(name=STATES["stopped"], message=str(error), data=error)
    with logged(config.logging.level):
        waits = ending.outcome == "waiting" or (looked.nothing_new and looked.waits)
        if waits and config.retrain.approval == "required":
            ending = await _ask(ending, looked, configs, overrides)
        await record_page(
            markdown(ending), key=page_key(ending.run, "retrain"), description=ending.title
        )
        if looked.unpushed or not _stays(looked, ending.version):
            tell_promoted(ending)
        await tell(config.notifications, ending)
        name = ending.state or STATES[ending.outcome]
        LOG.info("%s: %s", name, ending.why)
    return Completed(name=name, message=ending.why, data=ending)


def prepared(config: RunConfig) -> RunConfig:
    """The config of a retraining: what has to be approved is not promoted by its evidence alone.

    Raises:
        ConfigError: nothing would ever be promoted.
    """
    if not config.registry.promotes:
        raise ConfigError(
            "registry: a retraining is compared with the champion; set `enabled: true` and "
            "`promote: auto` or `manual`"
        )
    if config.retrain.approval == "none":
        return config
    registry = config.registry.model_copy(update={"promote": "manual"})
    return config.model_copy(update={"registry": registry})


async def _looked(config: RunConfig) -> Looked:
    """What there is to do, as a task that is tried again while a server is away."""

    async def body() -> State[Looked]:
        looked = look(config)
        said = says(looked) if looked.nothing_new else _news(looked)
        for line in changes(looked):
            LOG.info("changed: %s", line)
        if not looked.nothing_new:
            LOG.info("%s", said)
        return Completed(message=said, data=looked)

    named = task(
        name="anything new",
        description="Compares data, base model, settings and gates with what was decided on.",
        retries=len(RETRY_DELAYS),
        retry_delay_seconds=list(RETRY_DELAYS),
        retry_condition_fn=may_pass,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    state = await named(body)()
    return await state.aresult()


def changes(looked: Looked) -> list[str]:
    """What is not as it was when the champion was trained: data first, then settings."""
    return [*map(str, looked.changes), *settings_changed(looked)]


def _news(looked: Looked) -> str:
    champion = looked.champion
    if looked.unpromoted and looked.decided:
        return f"v{looked.decided.version} has passed its gates and was not promoted"
    if looked.unpushed:
        return f"champion v{champion.version} is not on the hub yet" if champion else ""
    if champion is None:
        return "there is no champion yet"
    count = len(looked.changes)
    if count:
        return (
            f"{count} of {len(looked.lineage.sources)} datasets changed since v{champion.version}"
        )
    return f"what v{champion.version} was trained with or decided by has changed"


async def _ending(looked: Looked, command: str) -> Ending:
    """How the run ends: at once, or after the pipeline.

    Raises:
        AlignTuneError: a stage failed or was stopped.
    """
    config = looked.plan.config
    name = config.logging.run_name or config.algo
    if looked.nothing_new:
        links = _links()
        return Ending("nothing-new", says(looked), name, model=policy_name(config), links=links)
    last = [planned for planned in looked.plan.stages if planned.stage.kind == "push"]
    rest = [planned for planned in looked.plan.stages if planned.stage.kind != "push"]
    with running(looked.plan, command) as going:
        await run_stages(rest, going)
        if looked.decided is None and looked.plan["promote"].artifact:
            _settle_again(going.session)
        promoted = _promoted(going.session)
        if promoted:
            await run_stages(last, going)
        await record_run(going.session)
        # Before MLflow's record of the run is closed, and with it the way to its page.
        ending = _decided(going.session, looked, promoted=promoted)
    show_result(screen(), going.session)
    return ending


def _settle_again(session: Session) -> None:
    """Put a decision back on the version that another has replaced since: by other gates, or
    against another champion. Else each retraining would take it for new."""
    spec = session.plan["promote"].stage.config
    assert isinstance(spec, PromoteSlice)
    inputs = {"register": session.artifact("register"), "decision": session.artifact("decide")}
    root = session.plan.paths.root
    settle(spec, inputs, tracking_uri(root), root)


def _promoted(session: Session) -> bool:
    """Whether the candidate passed and is the champion, now and not when it was decided on."""
    facts = session.artifact("promote").manifest.facts
    if facts["verdict"] != "promote":
        return False
    return is_champion(session.plan.config, facts["registered_model"], str(facts["version"]))


def _decided(session: Session, looked: Looked, *, promoted: bool) -> Ending:
    facts = session.artifact("promote").manifest.facts
    version = str(facts["version"])
    why = f"candidate v{version}: {facts['why']}"
    if _stays(looked, version) and not looked.unpushed:
        why += f"; v{version} is the champion already and stays"
    if facts["verdict"] == "promote" and not promoted:
        why += f"; {_how_to_approve(session, facts['registered_model'], version)}"
    return Ending(
        outcome="promoted" if promoted else VERDICTS[facts["verdict"]],
        why=why,
        run=session.folder.name,
        model=str(facts["registered_model"]),
        version=version,
        measured=measured(session),
        changes=_changes_with_rows(session, looked),
        links=_links(session, str(facts["registered_model"]), version),
    )


def _stays(looked: Looked, version: str) -> bool:
    """Whether the version was the champion before it was decided on."""
    return looked.champion is not None and looked.champion.version == version


def _changes_with_rows(session: Session, looked: Looked) -> list[str]:
    """As `changes`, and how many rows there are now, which is known by now."""
    from aligntune.lineage import lineage_of

    if looked.champion is None or looked.champion.lineage is None:
        return []
    now = lineage_of(session.artifact(session.final))
    found = changed(looked.champion.lineage, now)
    return [*map(str, found), *settings_changed(looked)]


def _how_to_approve(session: Session, name: str, version: str) -> str:
    root = session.plan.paths.root
    return (
        f"it waits for a person: `aligntune promote --version {version} --name {name} "
        f"--output-dir {root}` approves it"
    )


def _links(session: Session | None = None, name: str = "", version: str = "") -> dict[str, str]:
    """Where to read on: Prefect, MLflow, the report, the registered version."""
    url = runtime.flow_run.ui_url
    found = {"Prefect": url} if url else {}
    if session is None:
        return found
    if run_url := session.run_url(session.mlflow_run):
        found["MLflow"] = run_url
    store = tracking_identity()
    page = f"{store.rstrip('/')}/#/models/{name}/versions/{version}"
    found["model"] = (
        page if store.startswith(("http://", "https://")) else f"models:/{name}/{version}"
    )
    return found | {"report": str(session.report)}


async def _ask(
    ending: Ending, looked: Looked, configs: list[str], overrides: Sequence[str]
) -> Ending:
    """The same ending, and somebody is asked in a flow run of its own, where there is a deployment
    for that. Once about one decision, unless that flow run ended without an answer."""
    if runtime.deployment.name is None:
        return ending
    deployment = f"{PROMOTION}/{runtime.deployment.name}-approval"
    decision = looked.plan["decide"].stage.name
    version = ending.version or (looked.decided.version if looked.decided else "")
    parameters = {
        "name": ending.model,
        "version": version,
        "configs": configs,
        "overrides": list(overrides),
        "summary": markdown(ending),
        "decision": decision,
    }
    ask = partial(
        arun_deployment,
        deployment,
        parameters=parameters,
        timeout=0,
        as_subflow=False,  # a flow run with a parent cannot be suspended
    )
    key = f"{deployment}-{ending.model}-v{version}-{decision}"
    try:
        asked: FlowRun = await ask(idempotency_key=key)
        if asked.state and asked.state.is_final():
            asked = await ask(idempotency_key=f"{key}-{runtime.flow_run.id}")
    except ObjectNotFound:
        LOG.warning("there is no deployment %r to ask in; `aligntune deploy` makes it", deployment)
        return ending
    if url := page_of(asked):
        return replace(ending, links={"approve or refuse": url, **ending.links})
    return ending

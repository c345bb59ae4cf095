"""Asking a person: a flow run of its own, which is suspended and holds nothing meanwhile.

Its body runs twice: up to the question, and from the top again once that is answered. Where nobody
answers in time, a second run of the same deployment, scheduled for then, answers instead.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect import flow, get_client, runtime
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.deployments import arun_deployment
from prefect.exceptions import NotPausedError, ObjectNotFound
from prefect.flow_runs import aresume_flow_run, asuspend_flow_run
from prefect.input import RunInput
from prefect.states import Completed
from pydantic import Field

from aligntune import promotion as registry
from aligntune.artifacts import find, find_named
from aligntune.config.load import load
from aligntune.config.run import RunConfig
from aligntune.errors import DataError
from aligntune.lineage import Known
from aligntune.paths import Paths, hub_endpoint, tracking_uri
from aligntune.pipeline import Step
from aligntune.plan import Plan, Planned, resolve
from aligntune.retraining import is_champion, known
from aligntune.session import preparing
from aligntune.slicing import push_slice
from flows.artifacts import page_key, record_page
from flows.ending import STATES, Ending
from flows.events import tell_promoted
from flows.notify import check_blocks, tell, tell_failure
from flows.post_train import Running, logged, run_stages

LOG = logging.getLogger("aligntune.flow")

QUESTION = "approval"
"""Key of the pause, by which Prefect knows that the question was asked before."""
SLACK = 86_400
"""Seconds after the time for an answer at which Prefect itself gives a suspended run up; until then
the scheduled run says that nobody answered."""
NOBODY = "nobody"


class Approval(RunInput):
    """The answer."""

    approve: bool = Field(description="Whether the candidate becomes the champion.")
    by: str = Field(min_length=1, max_length=200, description="Who decides.")
    reason: str = Field("", max_length=2_000, description="Why; it is kept on the version.")

    def __str__(self) -> str:
        return f"{self.by}: {self.reason}" if self.reason else self.by


@flow(
    name="promotion",
    flow_run_name="{name}-v{version}",
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
    on_cancellation=[tell_failure],
)
async def promotion(
    name: str,
    version: str,
    configs: list[str],
    overrides: Sequence[str] = (),
    summary: str = "",
    decision: str = "",
    expires: str = "",
) -> State[Ending] | State[None]:
    """Ask whether a candidate that passed its gates becomes the champion, and do what is answered.

    Args:
        name: The registered model.
        version: The candidate's.
        configs: The files that it was trained with.
        overrides: Settings that come after them.
        summary: Markdown for whoever decides.
        decision: Name of the artifact with its evidence.
        expires: The flow run that waits for an answer; this one says that nobody gave any.
    """
    config = load([Path(path) for path in configs], overrides)
    with logged(config.logging.level):
        if expires:
            return await _expired(UUID(expires), config)
        if not _was_asked():
            await check_blocks(config.notifications)
            page = summary or f"# {name} v{version}"
            title = f"{name} v{version} waits for approval"
            await record_page(page, key=page_key(name, f"v{version}-approval"), description=title)
            await _expire_later(config, name, version, configs, overrides)
        answer = await asuspend_flow_run(
            wait_for_input=Approval.with_initial_data(description=summary or None),
            timeout=round(config.retrain.approval_timeout) + SLACK,
            key=QUESTION,
        )
        await _expire_never()
        ending = await _answered(answer, config, name, version, decision)
        tell_promoted(ending)
        await tell(config.notifications, ending)
        state = ending.state or STATES[ending.outcome]
        LOG.info("%s: %s", state, ending.why)
    return Completed(name=state, message=ending.why, data=ending)


def _was_asked() -> bool:
    """Whether this is the body's second time."""
    context = FlowRunContext.get()
    assert context is not None, "within a flow"
    assert context.flow_run is not None, "which is a run that Prefect knows"
    return QUESTION in (context.flow_run.empirical_policy.pause_keys or set())


async def _answered(
    answer: Approval, config: RunConfig, name: str, version: str, decision: str
) -> Ending:
    """What becomes of the candidate.

    Raises:
        ServiceError: the registry or the hub failed.
    """
    root = Paths.of(config).root
    uri, run = tracking_uri(root), config.logging.run_name or config.algo
    url = runtime.flow_run.ui_url
    links = {"Prefect": url} if url else {}

    def ended(outcome: str, why: str, state: str = "") -> Ending:
        return Ending(
            outcome="promoted" if outcome == "promoted" else "refused",
            why=why, run=run, model=name, version=version, links=links, state=state,
        )  # fmt: skip

    nobody = answer.by == NOBODY
    there = not answer.approve and is_champion(config, name, version)
    if nobody and there:
        return ended("promoted", f"v{version} is the champion already")
    if not answer.approve:
        registry.refuse(name, version, uri, root, str(answer))
        if there:
            late = f"refused by {answer}, but v{version} was made champion before that"
            return ended("refused", f"{late}; `aligntune rollback` takes it back")
        said = answer.reason if nobody else f"refused by {answer}"
        return ended("refused", f"v{version} was not promoted: {said}", nobody * "NotApproved")
    try:
        done = registry.promote(name, version, uri, root, approved=str(answer))
    except DataError as error:
        return ended("refused", f"approved by {answer}, but it cannot be promoted: {error}")
    why = f"{done}, approved by {answer}"
    if config.logging.push_to_hub:
        why += await _pushed(config, name, version, decision)
    return ended("promoted", why)


async def _pushed(config: RunConfig, name: str, version: str, decision: str) -> str:
    """Push the version to the hub; returns what to say of that."""
    paths = Paths.of(config)
    candidate = next(v for v in known(config, name) if v.version == version)
    names = _push_inputs(candidate, decision)
    gone = [made for made in names.values() if find_named(paths.stages, made) is None]
    if gone:
        LOG.warning("v%s is not pushed: %s is not below %s", version, ", ".join(gone), paths.root)
        return "; it is not on the hub, because its artifacts are not on this disk"
    step = Step("push", "push", push_slice(config, hub_endpoint()))
    stage = resolve(step, names, paths.root)
    planned = Planned(stage, find(paths.stages, stage.kind, stage.key), "approved")
    plan = Plan(config, paths, (planned,))
    with preparing(plan, f"approval of {name} v{version}", part="push") as session:
        await run_stages([planned], Running(session, lambda: False))
        receipt = session.artifact("push").manifest.facts
    return f"; pushed to {receipt['url']}"


def _push_inputs(candidate: Known, decision: str) -> dict[str, str]:
    assert candidate.evidence is not None, "it was promoted by it"
    stage = candidate.evidence["candidate"]["stage"]
    inputs = {
        "policy": candidate.artifact,
        "evaluation": str(candidate.evidence["evaluations"][stage]),
    }
    return inputs | ({"decision": decision} if decision else {})


async def _expire_later(
    config: RunConfig, name: str, version: str, configs: list[str], overrides: Sequence[str]
) -> None:
    """A run of this deployment at the time by which there should be an answer."""
    parameters = {"name": name, "version": version, "configs": configs}
    await arun_deployment(
        UUID(str(runtime.deployment.id)),
        parameters=parameters | {"overrides": list(overrides), "expires": runtime.flow_run.id},
        scheduled_time=datetime.now(UTC) + timedelta(seconds=config.retrain.approval_timeout),
        flow_run_name=f"{name}-v{version}-unanswered",
        timeout=0,
        as_subflow=False,
        idempotency_key=_expiry(),
    )


async def _expire_never() -> None:
    """Somebody has answered, so the scheduled run has nothing to say."""
    only = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[_expiry()]))
    async with get_client() as client:
        for planned in await client.read_flow_runs(flow_run_filter=only):
            if planned.state and planned.state.is_scheduled():
                await client.delete_flow_run(planned.id)


def _expiry() -> str:
    return f"{runtime.flow_run.id}-unanswered"


async def _expired(waiting: UUID, config: RunConfig) -> State[None]:
    """Answer for nobody, where the run still waits."""
    allowed = timedelta(seconds=config.retrain.approval_timeout)
    reason = f"nobody answered within {allowed}"
    said = {"approve": False, "by": NOBODY, "reason": reason}
    try:
        await aresume_flow_run(waiting, run_input=said)
    except (NotPausedError, ObjectNotFound):
        return Completed(name="Answered", message="it was answered, or the question cancelled")
    return Completed(name="NotApproved", message=reason)

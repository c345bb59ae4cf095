"""When a run is repeated, from what it starts then, and who is told: nothing here changes what a
single run does."""

from typing import Any, Literal

from pydantic import Field

from aligntune.config.base import Strict


class Retrain(Strict):
    """`aligntune retrain`: a run that ends early where nothing that matters has changed."""

    start_from: Literal["base", "champion"] = "base"
    """`base` trains from `model` each time; `champion` goes on from the model that is in use."""
    approval: Literal["none", "required"] = "none"
    """`required`: a candidate that passes its gates waits, without a GPU, until somebody approves
    or refuses it in Prefect."""
    approval_timeout: float = Field(86_400, gt=0)
    """Seconds until a candidate that nobody answered for is not promoted."""


class Schedule(Strict):
    """A time at which a deployment runs: exactly one of `cron`, `interval`, `rrule`."""

    cron: str | None = Field(None, min_length=1)
    """`0 3 * * *` is every night at three."""
    interval: float | None = Field(None, ge=1)
    """Seconds between runs."""
    rrule: str | None = Field(None, min_length=1)
    """A recurrence rule of RFC 5545: `FREQ=WEEKLY;BYDAY=MO`."""
    timezone: str = Field("UTC", min_length=1)
    """As in the IANA database: `Europe/Berlin`."""
    slug: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    """What the schedule is called: it is updated under this name. Default: its position."""
    active: bool = True
    """Whether it runs at all."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings for the runs of this schedule: `{train.max_steps: 100}`."""


class Trigger(Strict):
    """An event at which a deployment runs."""

    event: str = Field(min_length=1)
    """Name of a Prefect event; a webhook or a job elsewhere emits one with Prefect's API, and
    `aligntune emit` from a shell."""
    resource: str | None = Field(None, min_length=1)
    """Only where the event is about this resource, such as a dataset."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings for the runs that it starts; values may use the event:
    `{{ event.payload.revision }}`."""


class Deployment(Strict):
    """How `aligntune deploy` tells Prefect of this config."""

    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Default: `logging.run_name`."""
    flow: Literal["retrain", "post-train"] = "retrain"
    """What it runs: `retrain` ends early where nothing is new, `post-train` runs the pipeline."""
    pool: str | None = Field(None, min_length=1)
    """The work pool whose workers run it; its concurrency limit bounds the GPU work. Default: this
    process, with `aligntune deploy --serve`."""
    queue: str | None = Field(None, min_length=1)
    """The queue of that pool. Default: the pool's own."""
    overlap: Literal["refuse", "queue"] = "refuse"
    """A run that starts while another of this deployment goes on ends at once, or waits for it."""
    triggers: tuple[Trigger, ...] = ()
    """Events that start it, beside its schedules."""
    tags: tuple[str, ...] = ()
    """Tags of its runs in Prefect."""


Outcome = Literal[
    "promoted", "rejected", "inconclusive", "waiting", "refused", "nothing-new", "failed", "stopped"
]


class Notification(Strict):
    """Who is told of the end of a run."""

    block: str = Field(pattern=r"^[a-z0-9-]+/[A-Za-z0-9_-]+$")
    """A notification block of Prefect, `<type>/<name>`: `slack-webhook/team`. Its secret stays
    there."""
    on: tuple[Outcome, ...] = (
        "promoted",
        "rejected",
        "inconclusive",
        "waiting",
        "refused",
        "failed",
    )
    """The outcomes it is for."""

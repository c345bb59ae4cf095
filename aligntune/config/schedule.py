"""When a run is repeated, from what it starts then, and who is told: nothing here changes what a
single run does."""

from typing import Any, Literal

from pydantic import Field

from aligntune.config.base import Strict


class Retrain(Strict):
    """`aligntune retrain`: a run that ends early where nothing that matters has changed."""

    start_from: Literal["base", "champion"] = "base"
    """`base` trains from `model` each time; `champion` goes on from the version that is in use,
    with this run's tokenizer and chat template. Without a champion both start from `model`."""
    approval: Literal["none", "required"] = "none"
    """`required`: a candidate that passes its gates waits, without a GPU, until somebody approves
    or refuses it in Prefect; `aligntune promote` does too. Only then it is pushed to the hub, and
    no other command promotes it."""
    approval_timeout: float = Field(86_400, gt=0)
    """Seconds until a candidate that nobody answered for is not promoted."""


class Schedule(Strict):
    """A time at which a deployment runs: exactly one of `cron`, `interval`, `rrule`."""

    cron: str | None = Field(None, min_length=1)
    """Minute, hour, day, month, day of the week: `0 3 * * *` is every night at three."""
    interval: float | None = Field(None, ge=1, le=1e9)
    """Seconds between runs, counted from when it was first deployed."""
    rrule: str | None = Field(None, min_length=1)
    """A recurrence rule of RFC 5545: `FREQ=WEEKLY;BYDAY=MO`, which is at midnight where neither
    `BYHOUR` nor a `DTSTART` says otherwise."""
    timezone: str = Field("UTC", min_length=1)
    """As in the IANA database: `Europe/Berlin`."""
    slug: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    """What the schedule is called: it is updated under this name. Default: `schedule-` and its
    position in the list."""
    active: bool = True
    """Whether it runs at all."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings for the runs of this schedule, as `--set` takes them: `{train.max_steps: 100}`."""


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
    job_variables: dict[str, Any] = Field(default_factory=dict)
    """What the pool's jobs are made of, such as `image`, `env` or resources: each type of pool has
    its own, which `prefect work-pool inspect` lists."""
    configs: tuple[str, ...] = ()
    """Where the workers find the config files, such as on a volume or in an image. Default: the
    absolute paths that they have where they are deployed from."""
    overlap: Literal["refuse", "queue"] = "refuse"
    """A run that starts while another of this deployment goes on ends at once, or waits for it."""
    approval_pool: str | None = Field(None, min_length=1)
    """The work pool of the runs that wait for an approval, which need no GPU. Default: `pool`."""
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
    """A notification block of Prefect, `<type>/<name>`: `slack-webhook/team`, `custom-webhook/ops`,
    `sendgrid-email/us`; `prefect block ls` lists them. Its secret stays there."""
    on: tuple[Outcome, ...] = Field(
        ("promoted", "rejected", "inconclusive", "waiting", "refused", "failed"), min_length=1
    )
    """The outcomes it is for. `waiting`: for an approval; `refused`: by a person, or nobody
    answered in time; `stopped`: cancelled or interrupted."""

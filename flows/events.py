"""What a flow run tells whoever listens: other deployments, by `deployment.triggers`."""

from prefect.events import emit_event

from flows.ending import Ending

PROMOTED = "aligntune.model.promoted"


def tell_promoted(ending: Ending) -> None:
    """Emit the event of a new champion, about `aligntune.model.<name>`, where there is one."""
    if ending.outcome != "promoted":
        return
    emit_event(
        PROMOTED,
        resource={
            "prefect.resource.id": f"aligntune.model.{ending.model}",
            "prefect.resource.name": ending.model,
        },
        payload={"model": ending.model, "version": ending.version, "run": ending.run},
    )

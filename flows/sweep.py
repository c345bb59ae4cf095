"""A sweep as a Prefect flow, whose runs are flow runs of the pipeline below it.

aligntune sweep --flow --config X --set train.beta=0.05,0.1,0.3
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from aligntune.console import screen
from aligntune.errors import AlignTuneError, Interrupted
from aligntune.sweep.choose import Choice, chosen
from aligntune.sweep.going import Going, alone, completed
from flows.post_train import post_train, served
from flows.reported import reported, told


def run(paths: Sequence[Path], overrides: Sequence[str], choice: Choice, command: str) -> None:
    """Run a sweep as a flow, and print what came of it.

    Raises:
        AlignTuneError: a run failed, though all others were run; someone asked to stop; or there
            is no Prefect server.
    """
    made = chosen(paths, overrides, choice)
    given = ([str(path) for path in paths], list(overrides), command)
    how = (choice.drawn, choice.trials, choice.metric, choice.seed)
    served(partial(sweep, *given, *how), made.runs[0].config.logging.level)


def _run_name() -> str:
    """The flow run's name: the sweep's."""
    given = runtime.flow_run.parameters
    paths, overrides = [Path(path) for path in given["configs"]], given["overrides"]
    choice = Choice(given["drawn"], given["trials"], given["metric"], given["seed"])
    try:
        return chosen(paths, overrides, choice).name
    except AlignTuneError:
        return "sweep"  # the flow itself is about to fail with the same error


@flow(name="sweep", flow_run_name=_run_name, persist_result=False)
@reported
async def sweep(
    configs: list[str],
    overrides: Sequence[str] = (),
    command: str = "",
    drawn: int | None = None,
    trials: int | None = None,
    metric: str | None = None,
    seed: int = 0,
) -> State[None] | None:
    """A config with several settings: every run, their comparison, the best as candidate.

    Args:
        configs: Paths of YAML files, merged from left to right.
        overrides: Settings that come after them, `key=value`; several values vary.
        command: What makes this sweep again.
        drawn: So many combinations at random, instead of all.
        trials: So many runs that Optuna chooses.
        metric: What says which run is best.
        seed: Of what is drawn.
    """
    made = chosen([Path(path) for path in configs], overrides, Choice(drawn, trials, metric, seed))
    going = Going(made)
    with alone(made):
        try:
            for each in going.runs():
                with going.attempt(each), told():
                    await post_train(configs, each.overrides, made.command(each.overrides))
        except Interrupted as error:
            going.report(screen())
            return Cancelled(name="Interrupted", message=str(error), data=error)
        with going.reporting(screen()) as best:
            if best and completed(going, best):
                with told():
                    await post_train(configs, best.registered, made.command(best.registered))
    going.check()
    return None

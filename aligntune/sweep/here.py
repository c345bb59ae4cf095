"""A sweep in this process, one run after the other, with a terminal to watch."""

from aligntune.console import configure, screen
from aligntune.direct import run_stages
from aligntune.errors import Interrupted
from aligntune.interrupt import stop_on_signals
from aligntune.launch import kill_children
from aligntune.plan import Plan, plan
from aligntune.session import opened
from aligntune.sweep.going import Going, alone, completed
from aligntune.sweep.runs import Sweep


def sweep_here(sweep: Sweep, *, as_json: bool = False) -> None:
    """Run every run of `sweep` that is not finished, register the best, and print what came of it.

    With `as_json` the results are JSON on standard output, and everything else goes to the other.

    Raises:
        AlignTuneError: a run failed, though all others were run; or someone asked to stop.
    """
    console = screen(stderr=as_json)
    configure(sweep.runs[0].config.logging.level, console)
    going = Going(sweep)
    with alone(sweep), stop_on_signals(at_once=kill_children) as stopping:

        def execute(planned: Plan, command: str) -> None:
            with opened(planned, command) as session:
                run_stages(planned.config, console, session, stopping)

        try:
            for run in going.runs():
                with going.attempt(run):
                    execute(plan(run.config, known=going.known), sweep.command(run.overrides))
        except Interrupted:
            going.report(console, as_json=as_json)
            raise
        with going.reporting(console, as_json=as_json) as best:
            if best and (planned := completed(going, best)):
                execute(planned, sweep.command(best.registered))
    going.check()

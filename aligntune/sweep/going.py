"""A sweep that is going on, whoever runs its runs: which is next, and what became of each."""

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from rich.console import Console

from aligntune.artifacts import make_folder, write_atomic
from aligntune.compare.history import run_at
from aligntune.config.load import load
from aligntune.errors import AlignTuneError, ConfigError, Interrupted, ServiceError
from aligntune.paths import tracking_uri
from aligntune.plan import Known, Plan, plan
from aligntune.sweep.results import Outcome, Results, is_done, keep, measured, record, results
from aligntune.sweep.runs import Run, Sweep
from aligntune.sweep.show import show_results
from aligntune.sweep.study import asked

LOG = logging.getLogger("aligntune.sweep")


@dataclass(frozen=True)
class Registered:
    """What the best run is in the registry."""

    version: str
    """`<name> v3`."""
    decision: str
    why: str


class Going:
    """Its state between one run and the next."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.known: Known = {}
        """The stages planned last: what lies outside is read once for all runs."""
        self.began = 0
        self._outcomes: dict[str, Outcome] = {}

    @property
    def outcomes(self) -> list[Outcome]:
        return list(self._outcomes.values())

    def runs(self) -> Iterator[Run]:
        """The runs to start, one after the other; those that are finished are not among them."""
        for run in self._chosen():
            self.began += 1
            place = f"run {self.began} of {self.sweep.size}: {run.name}"
            try:
                finished = is_done(plan(run.config, known=self.known))
            except Interrupted:
                raise
            except AlignTuneError as error:  # what it reads has gone since all were checked
                self._failed(run, error)
                continue
            if finished:
                LOG.info("%s: finished before", place)
                self._finished(run)
                continue
            LOG.info("%s", place)
            yield run

    def _chosen(self) -> Iterator[Run]:
        if self.sweep.trials is None:
            yield from self.sweep.runs
            return
        sweep, metric = self.sweep, self.sweep.metric
        assert metric is not None, "checked"
        file = sweep.folder / "optuna.db"
        for trial in asked(sweep.axes, metric, sweep.size, sweep.seed, file):
            try:
                run = sweep.run(trial.point)
            except ConfigError as error:
                LOG.warning("a trial is no run: %s", error)
                trial.tell(None)
                continue
            yield run
            outcome = self._outcomes[run.name]
            trial.tell(None if outcome.error else measured(run, sweep.root, metric))

    @contextmanager
    def attempt(self, run: Run) -> Iterator[None]:
        """Takes down how the block ends; only a request to stop goes through."""
        try:
            yield
        except Interrupted:
            raise
        except AlignTuneError as error:
            self._failed(run, error)
        except Exception as error:  # noqa: BLE001  # the others go on, whatever it was
            place = self.sweep.folder / f"{run.name}.log"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, traceback.format_exc())
            told = f"{type(error).__name__}: {error}; its traceback is in {place}"
            self._failed(run, AlignTuneError(told))
        else:
            self._finished(run)

    def _finished(self, run: Run) -> None:
        if self.sweep.metric:
            measured(run, self.sweep.root, self.sweep.metric)
        self._outcomes[run.name] = Outcome(run)

    def _failed(self, run: Run, error: AlignTuneError) -> None:
        LOG.error("%s failed: %s", run.name, error)
        self._outcomes[run.name] = Outcome(run, error)

    @contextmanager
    def reporting(self, console: Console, *, as_json: bool = False) -> Iterator[Run | None]:
        """Compares the runs and yields the best, for the block to register; after that, or if it
        fails, the results are printed and kept."""
        found, candidate = self._results(), None
        try:
            if found:
                LOG.info("the best of %d: %s", len(found.ranked), found.best.name)
            yield found.best if found else None
            if found:
                candidate = make_candidate_of(self.sweep, found.best)
        finally:
            self._say(found, candidate, console, as_json)

    def report(self, console: Console, *, as_json: bool = False) -> None:
        """Prints and keeps what is known of the runs that are over."""
        self._say(self._results(), None, console, as_json)

    def _results(self) -> Results | None:
        return results(self.outcomes, self.sweep.root, self.sweep.metric)

    def _say(
        self, found: Results | None, made: Registered | None, console: Console, as_json: bool
    ) -> None:
        keep(self.sweep.folder, self.sweep.name, found, self.outcomes)
        if as_json:
            told = record(self.sweep.name, found, self.outcomes)
            told["candidate"] = asdict(made) if made else None
            sys.stdout.write(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        else:
            lines = [f"model    {made.version} (candidate)"] if made else []
            if made and made.decision:
                lines.append(f"decided  {made.decision}: {made.why}")
            show_results(self.sweep, self.outcomes, found, lines, console)

    def check(self) -> None:
        """Raises an error of the first failure's kind if a run failed, naming all that did."""
        failed = [outcome for outcome in self.outcomes if outcome.error]
        if not failed:
            return
        first = failed[0].error
        assert first is not None
        names = ", ".join(outcome.run.name for outcome in failed)
        raise type(first)(
            f"{len(failed)} of {len(self._outcomes)} runs failed ({names}); the first: {first}"
        )


@contextmanager
def alone(sweep: Sweep) -> Iterator[None]:
    """While the block runs, no other process runs the same sweep.

    Raises:
        ServiceError: another one does.
    """
    from filelock import FileLock, Timeout

    make_folder(sweep.folder)
    lock = FileLock(sweep.folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ServiceError(
            f"the sweep {sweep.name} is going on in another process; wait for that one, or give "
            "this one another --run-name"
        ) from None
    try:
        yield
    finally:
        lock.release()


def completed(going: Going, best: Run) -> Plan | None:
    """The plan of the best run with its registration; None where nothing is left to do of it."""
    sweep = going.sweep
    if not best.registry.enabled:
        return None
    planned = plan(load(sweep.paths, best.registered), known=going.known)
    return None if is_done(planned) else planned


def make_candidate_of(sweep: Sweep, best: Run) -> Registered | None:
    """Give the best run's version the alias `candidate`, whichever was registered last. None where
    the run is not registered."""
    from aligntune.registry import CANDIDATE
    from aligntune.store import asking
    from aligntune.track import connect

    past = run_at(sweep.root / "runs" / best.name)
    if not (facts := past.registered):
        return None
    name, version = str(facts["registered_model"]), str(facts["versions"][best.config.algo])
    with asking("the best run is finished, run the same command again"):
        client = connect(tracking_uri(sweep.root), sweep.root)
        client.set_registered_model_alias(name, CANDIDATE, version)
    return Registered(f"{name} v{version}", past.decision, past.why)

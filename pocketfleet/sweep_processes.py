"""One process a run: starts a sweep's runs, so many at a time, and tells how each ended.

Rules:

1. Processes are spawned, not forked: a fork of a process that runs threads (torch, arrow) may hang.
2. Of the runs that can share a bundle's programs the first exports them; the others wait until its bundle is there and
   take it (``task.bundle``). If the export fails, all of them fail; if its process dies, the next one exports.
3. A run that fails ends no other. One that was begun is continued from its last checkpoint.
4. The processes end with this one, however it ends; Ctrl-C reaches this one alone.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from pocketfleet.device_sim.child_process import end_with_parent, interrupts_ignored
from pocketfleet.errors import PocketfleetError
from pocketfleet.simulation import resume, simulate
from pocketfleet.sweep_plan import PlannedRun

__all__ = ["Told", "run_all"]

# Called with a run and what happened: a stage ("export", "simulate"), "done", or "failed" and why.
Told = Callable[[PlannedRun, str, str], None]


@dataclass(slots=True, kw_only=True)
class _Running:
    """A run's process; ``stage`` is the last that it told of."""

    run: PlannedRun
    process: SpawnProcess
    pipe: Connection
    stage: str = ""


def run_all(runs: Sequence[PlannedRun], *, processes: int, told: Told) -> None:
    """Run what is not complete, and return when all have ended.

    Args:
        runs: of one sweep, complete ones among them.
        processes: how many runs at once.
        told: hears of every run that is started.
    """
    waiting = [run for run in runs if not run.complete]
    running: list[_Running] = []
    try:
        while waiting or running:
            while len(running) < processes and (run := _next(waiting, running, runs)):
                waiting.remove(run)
                running.append(_started(run, _shared_bundle(run, runs)))
            for pipe in wait([one.pipe for one in running]):
                one = next(one for one in running if one.pipe is pipe)
                stage, text = _message(one)
                if stage in {"done", "failed"}:
                    running.remove(one)
                told(one.run, stage, text)
                if stage == "failed" and one.stage == "export":
                    _fail_group(one.run, text, waiting, told)
                one.stage = stage
    finally:
        _end(running)


def _next(waiting: Sequence[PlannedRun], running: Sequence[_Running], runs: Sequence[PlannedRun]) -> PlannedRun | None:
    """The first that need not wait for another run's export."""
    exporting = {one.run.group for one in running if one.run.bundle is None}
    for run in waiting:
        if run.experiment.task.bundle or _shared_bundle(run, runs) or run.group not in exporting:
            return run
    return None


def _shared_bundle(run: PlannedRun, runs: Sequence[PlannedRun]) -> Path | None:
    """A bundle whose programs the run can take, if one is there yet."""
    if run.experiment.task.bundle:
        return None
    found = (one.bundle for one in runs if one.group == run.group)
    return next((bundle for bundle in found if bundle is not None), None)


def _fail_group(run: PlannedRun, text: str, waiting: list[PlannedRun], told: Told) -> None:
    """What cannot be exported for one run cannot be for those that would have shared it."""
    for other in [one for one in waiting if one.group == run.group and not one.experiment.task.bundle]:
        waiting.remove(other)
        told(other, "failed", text)


def _message(one: _Running) -> tuple[str, str]:
    """What a run tells next; its process has ended after ``done`` and ``failed``."""
    try:
        stage, text = one.pipe.recv()
    except EOFError:
        one.process.join()
        code = one.process.exitcode
        stage, text = "failed", f"its process died (exit code {code}): it was killed or ran out of memory; try --resume"
    if stage in {"done", "failed"}:
        one.process.join()
        one.pipe.close()
    return stage, text


def _started(run: PlannedRun, bundle: Path | None) -> _Running:
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run_one, args=(run, bundle, sending), name=run.name)
    with interrupts_ignored():
        process.start()
    # Held open here, it would hide the end of the process.
    sending.close()
    return _Running(run=run, process=process, pipe=receiving)


def _end(running: Sequence[_Running]) -> None:
    for one in running:
        one.process.terminate()
    for one in running:
        one.process.join()
        one.pipe.close()


def _run_one(run: PlannedRun, bundle: Path | None, pipe: Connection) -> None:
    """A run's process, whole."""
    end_with_parent()
    try:
        _simulated(run, bundle, told=lambda stage: pipe.send((stage, "")))
    except PocketfleetError as exc:
        pipe.send(("failed", str(exc)))
    except Exception as exc:  # noqa: BLE001 - the outermost handler of this process: what gets here is our failure
        pipe.send(("failed", f"internal error ({type(exc).__name__}): {exc}"))
    else:
        pipe.send(("done", ""))


def _simulated(run: PlannedRun, bundle: Path | None, *, told: Callable[[str], None]) -> None:
    def observer(stage: str, row: object) -> None:  # noqa: ARG001 - simulate's signature
        if stage != "round":
            told(stage)

    if run.started:
        resume(run.path, observer=observer)
        return
    experiment = run.experiment
    if bundle is not None:
        # As a table: a path with quotes in it needs no quoting there.
        table = experiment.model_dump(exclude_none=True)
        table["task"]["bundle"] = str(bundle.resolve())
        experiment = type(experiment).from_table(table)
    simulate(experiment, run.path, observer=observer)

"""A sweep's table while it fills: one row a combination, in order of the grid, whatever ended first."""

from collections.abc import Sequence

from pocketfleet.device_sim.run import Run
from pocketfleet.device_sim.run_comparison import Row, aligned, run_figures
from pocketfleet.sweep_plan import PlannedRun

__all__ = ["SweepRows"]

# Why a row has no figures while its run has not ended.
_NOT_YET = "has not ended: go on with --resume"


class SweepRows:
    """The rows; runs that are complete already have their figures.

    Args:
        runs: of one sweep, at least one.
    """

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._runs = runs
        self._figures: dict[str, Row] = {}
        self._problems: dict[str, str] = {}
        for run in runs:
            if run.complete:
                self.ended(run)

    def ended(self, run: PlannedRun, problem: str = "") -> None:
        """Take the figures of a run that ended, or why it has none."""
        if problem:
            self._problems[run.name] = problem
            return
        run.forget_bundle()
        self._figures[run.name] = run_figures(Run(run.path))

    def table(self) -> list[Row]:
        """All rows, with the same columns: the varied values, the status, the figures, what went wrong."""
        figures = aligned([self._figures.get(run.name, {}) for run in self._runs])
        return [
            {"run": run.name, **run.typed_values(), "status": self._status(run), **row, "problem": self._problem(run)}
            for run, row in zip(self._runs, figures, strict=True)
        ]

    def _status(self, run: PlannedRun) -> str:
        if run.name in self._figures:
            return "done"
        return "failed" if run.name in self._problems else "missing"

    def _problem(self, run: PlannedRun) -> str:
        return "" if run.name in self._figures else self._problems.get(run.name, _NOT_YET)

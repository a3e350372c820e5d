"""Live progress of a simulation: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

__all__ = ["Progress"]

# Seconds between two plain lines.
_LINE_EVERY_S = 2.0
_STAGES = {
    "export": "exporting and checking the model",
    "simulate": "starting the phones",
}


class Progress:
    """Called as a simulation's observer; use as a context manager around it.

    Args:
        shown: False prints nothing.
        stream: where to; standard error by default, so that results alone are on standard output.
    """

    def __init__(self, *, shown: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = shown
        self._bar: Any = None
        self._task: Any = None
        self._count = 0
        self._name = "run"
        self._printed_s = 0.0
        self.simulating = False  # whether the run directory is there

    def expect(self, rounds: int, *, name: str) -> None:
        """How many model versions there will be (0: not known) and of which experiment; before entering."""
        self._count, self._name = rounds, name

    def __enter__(self) -> Self:
        if self._shown and self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                console=Console(file=self._stream),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._count or None, state="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, row: Mapping[str, Any]) -> None:
        """Show a stage, or a closed round's row."""
        self.simulating |= stage == "simulate"
        if not self._shown:
            return
        if stage in _STAGES:
            self._show(_STAGES[stage], _STAGES[stage], at_once=True)
            return
        version = f"{row['model_version']}/{self._count}" if self._count else f"{row['model_version']}"
        # The headline metric alone: a terminal's line is short, and the tables have the rest.
        names = [name for name in row if name.startswith("test_") and name != "test_loss"]
        metric = f", {names[0]} {row[names[0]]:.4g}" if names else ""
        metric += f", epsilon {row['epsilon']:.3g}" if "epsilon" in row else ""
        self._show(
            f"version {version}, {row['accepted']} of {row['assigned']} phones reported, "
            f"virtual {row['closed_s']:,.0f} s{metric}",
            f"{version}, virtual {row['closed_s']:,.0f} s{metric}",
            at_once=row["model_version"] == self._count,
            done=row["model_version"],
        )

    def _show(self, line: str, state: str, *, at_once: bool, done: int = 0) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, state=state)
            return
        now_s = time.monotonic()
        if at_once or now_s - self._printed_s >= _LINE_EVERY_S:
            self._printed_s = now_s
            print(f"{self._name}: {line}", file=self._stream, flush=True)

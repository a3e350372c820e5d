"""A service's decisions as they lie in an exported run: when devices came, and how each assignment fared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pocketfleet.errors import InputError
from pocketfleet.training.round import CheckInCode

__all__ = ["DECISIONS", "Recording", "ReportOf", "Story", "decisions_table"]

# In the run directory of an export.
DECISIONS = "decisions.parquet"
_COLUMNS = ("sequence", "time_s", "kind", "device", "assignment", "num_examples", "code", "steps", "bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOf:
    """One report on an assignment; ``sequence`` places it among what came at the same time."""

    time_s: float
    sequence: int
    num_examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """How an assignment fared: when it was handed out, and the reports on it, in order; ``steps`` 0: not known."""

    time_s: float
    reports: Sequence[ReportOf]
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """A log.

    Attributes:
        check_in_s: when devices checked in, not decreasing, ``[n]``.
        sequence: of each check-in, ``[n]``.
        device: likewise, ``[n]``.
        stories: of each device's assignments, in order.
        end_s: of the last decision.
        devices: one more than the highest number.
        update_bytes: of a report; 0: none came.
    """

    check_in_s: npt.NDArray[np.float64]
    sequence: npt.NDArray[np.int64]
    device: npt.NDArray[np.int64]
    stories: Mapping[int, Sequence[Story]]
    end_s: float
    devices: int
    update_bytes: int

    @classmethod
    def load(cls, run: Path) -> "Recording":
        """Read the run directory of an export.

        Raises:
            InputError: there is none, or its log is empty or damaged.
        """
        file = run / DECISIONS
        try:
            table = pd.read_parquet(file, columns=list(_COLUMNS))
        except (OSError, ValueError, pa.ArrowException) as exc:
            raise InputError(
                f"rounds.recording {run} holds no service's log ({DECISIONS}): name what admin export wrote"
            ) from exc
        if table.empty:
            raise InputError(f"rounds.recording {run}: the service had decided nothing yet")
        return cls.of(table)

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Recording":
        """Of the table in the file."""
        check_ins = table[table["kind"] == "check_in"]
        return cls(
            check_in_s=check_ins["time_s"].to_numpy(dtype=np.float64),
            sequence=check_ins["sequence"].to_numpy(dtype=np.int64),
            device=check_ins["device"].to_numpy(dtype=np.int64),
            stories=_stories(table),
            end_s=float(table["time_s"].iloc[-1]),
            devices=int(table["device"].max()) + 1,
            update_bytes=int(table["bytes"].max()),
        )


def _stories(table: pd.DataFrame) -> dict[int, list[Story]]:
    reports: dict[int, list[ReportOf]] = {}
    steps: dict[int, int] = {}
    told = table[table["kind"] == "report"]
    names = ("assignment", "time_s", "sequence", "num_examples", "steps")
    for assignment, time_s, sequence, num_examples, taken in zip(*(told[name].tolist() for name in names), strict=True):
        one = ReportOf(time_s=time_s, sequence=sequence, num_examples=num_examples)
        reports.setdefault(assignment, []).append(one)
        steps[assignment] = max(taken, steps.get(assignment, 0))
    stories: dict[int, list[Story]] = {}
    handed_out = table[(table["kind"] == "check_in") & (table["code"] == CheckInCode.ASSIGNED)]
    columns = (handed_out[name].tolist() for name in ("device", "assignment", "time_s"))
    for device, assignment, time_s in zip(*columns, strict=True):
        story = Story(time_s=time_s, reports=reports.get(assignment, []), steps=steps.get(assignment, 0))
        stories.setdefault(device, []).append(story)
    return stories


def decisions_table(decisions: pd.DataFrame, reports: pd.DataFrame) -> pd.DataFrame:
    """What an export writes: a service's decisions, with the steps of accepted reports and the bytes of all.

    Args:
        decisions: of ``training.server.recorded_log``.
        reports: likewise.
    """
    is_report = decisions["kind"] == "report"
    # All reports of a service have one size: it is a function of shapes.
    size = int(reports["bytes"].max()) if len(reports) else 0
    steps = decisions["assignment"].map(reports.set_index("assignment")["steps"])
    return decisions.assign(
        steps=steps.where(is_report).fillna(0).astype(np.int64), bytes=np.where(is_report, size, 0).astype(np.int64)
    )

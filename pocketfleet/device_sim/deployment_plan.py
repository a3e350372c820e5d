"""A plan for a deployment: what runs of one experiment say of its users, hours, server and duration.

Rules:

1. Everything is computed from the tables that a run leaves; its events are read in pieces.
2. Of several seeds a figure is the median, ``low`` and ``high`` the range; unknown for one is unknown. Hours are
   pooled.
3. What is stored: every model of a month, the largest round's accepted reports until they are added up, the bundle.
4. Each figure names what it rests on most, ``ASSUMPTIONS`` says how sure that is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pocketfleet.device_sim.hour_of_day import HoursOfDay
from pocketfleet.device_sim.milestone import Target, days_to_rounds, days_to_target
from pocketfleet.device_sim.run import Run
from pocketfleet.device_sim.server_load import ServerLoad
from pocketfleet.device_sim.user_cost import DAYS_A_MONTH, TrainingDays, user_figures
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.training.codec.lossless import tensors_bytes
from pocketfleet.training.round import BufferedPlan, RoundPlan

__all__ = ["ASSUMPTIONS", "DeploymentPlan", "Figure", "make_plan"]

_DAY_S = 86_400.0
_GIGA = 1e9
# Rows of events that are held at a time: some 20 MB.
_PIECE_ROWS = 1 << 18
_EVENT_COLUMNS = ["time_s", "device", "round", "kind", "seconds", "bytes", "reason"]

# What figures rest on: how sure it is. docs/limits.md has more of each.
ASSUMPTIONS = {
    "step time": "predicted, not measured on a phone: our guess is that a time may be off by more than a factor of 2, "
    "a ratio of two by up to 2; pocketfleet calibrate puts measurements of your phones in its place",
    "watts": "the catalogue's watts of the CPU and the radio times predicted seconds: off as those are, and by the "
    "catalogue's own rules where it estimates",
    "day": "when phones charge, idle and are on Wi-Fi: of flash-2020 only the conjunction is published, for 723 "
    "phones; over eight seeds 7.6 to 8.3 % of the time (published 8.1 %), 90 % of sessions within 4 to 4.5 h (5.5 h), "
    "27 to 30 % of the phones never (29 %)",
    "sizes": "bytes of one transfer are exact; how many there are rests on the day and on your pace and cohort",
    "links": "rates are drawn from published quantiles of tests, and are within 10 % of these; your users may differ",
    "pace": "when phones come is yours to set (rounds.pace_s, interval_s); peaks follow it",
    "learning": "what was learnt is of the task's own data and of this seed",
}
# The beginning of a figure's name: what it rests on.
_RESTS_ON = {
    "battery_": "watts",
    "metered_": "sizes",
    "unmetered_": "sizes",
    "training_": "step time",
    "never_": "day",
    "round_": "step time",
    "check_ins_": "pace",
    "reports_": "pace",
    "download_": "links",
    "upload_": "links",
    "stored_": "sizes",
    "models_to_": "learning",
    "models_": "day",
    "days_to_rounds": "day",
    "days_to_target": "learning",
    "target_": "learning",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a plan: of one seed ``low`` and ``high`` are the value; ``None`` is not known."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    rests_on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPlan:
    """What ``make_plan`` found; ``days`` that each run took, ``hours`` as ``HoursOfDay.rows``."""

    days: tuple[float, ...]
    figures: tuple[Figure, ...]
    hours: tuple[dict[str, Any], ...]

    def figure(self, name: str) -> Figure:
        """The figure of that name."""
        return next(one for one in self.figures if one.name == name)


def make_plan(
    runs: Sequence[Run],
    *,
    round_plan: RoundPlan | BufferedPlan,
    count: int,
    update_bytes: int,
    target: Target | None = None,
) -> DeploymentPlan:
    """Put the runs of one experiment, a seed each, into a plan.

    Args:
        runs: that ended, at least one.
        round_plan: their own.
        count: models wanted, 1 or more; the runs may have made more.
        update_bytes: of a report's body.
        target: with a direction; the runs must have trained for it to be met.

    Raises:
        InputError: a run's tables cannot be read.
    """
    hours, found = HoursOfDay(), []
    for run in runs:
        try:
            found.append(
                _figures(run, hours, round_plan=round_plan, count=count, update_bytes=update_bytes, target=target)
            )
        except (OSError, KeyError, pa.ArrowException) as exc:
            raise InputError(
                f"the run in {run.path} cannot be planned with ({type(exc).__name__}: {exc}): make it anew with --force"
            ) from exc
    return DeploymentPlan(
        days=tuple(_days(run) for run in runs),
        figures=tuple(_combined(name, [one[name] for one in found]) for name in found[0]),
        hours=tuple(hours.rows()),
    )


def _days(run: Run) -> float:
    return float(run.summary["virtual_seconds"]) / _DAY_S


def _figures(
    run: Run,
    hours: HoursOfDay,
    *,
    round_plan: RoundPlan | BufferedPlan,
    count: int,
    update_bytes: int,
    target: Target | None,
) -> dict[str, float | None]:
    days, rounds, devices = _days(run), run.rounds, run.devices
    if isinstance(round_plan, RoundPlan):
        load = ServerLoad(days * _DAY_S, paced=round_plan.pace_s > 0.0, slots=round_plan.selected)
    else:
        load = ServerLoad(days * _DAY_S, paced=False, slots=round_plan.concurrency)
    training_days = TrainingDays(len(devices), days * _DAY_S)
    for piece in _pieces(run):
        for reader in (load, training_days, hours):
            reader.add_events(piece)
    load.add_rounds(rounds)
    hours.add_rounds(rounds)
    seconds = (rounds["closed_s"] - rounds["opened_s"]).to_numpy(np.float64)
    return {
        **user_figures(devices, training_days=training_days.counts(), days=days),
        "round_p50_s": float(np.percentile(seconds, 50)) if len(seconds) else None,
        "round_p95_s": float(np.percentile(seconds, 95)) if len(seconds) else None,
        **load.figures(),
        **_stored(run, days=days, update_bytes=update_bytes),
        **days_to_rounds(rounds, count, days=days),
        **(days_to_target(rounds, target, days=days) if target else {}),
    }


def _pieces(run: Run) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(run.path / "events.parquet") as file:
        for batch in file.iter_batches(batch_size=_PIECE_ROWS, columns=_EVENT_COLUMNS):
            yield batch.to_pandas()


def _stored(run: Run, *, days: float, update_bytes: int) -> dict[str, float | None]:
    """Gigabytes on the server after a month; see rule 3."""
    bundle = Bundle.load(run.path / "bundle")
    weights = bundle.weights()
    model_bytes = tensors_bytes(weights.trainable | weights.buffers)
    models = 1 + int((run.rounds["outcome"] != "abandoned").sum()) * DAYS_A_MONTH / days
    updates = int(run.rounds["accepted"].max()) if len(run.rounds) else 0
    bundle_bytes = sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file())
    parts = {
        "stored_models_gb_per_month": models * model_bytes / _GIGA,
        "stored_updates_gb": updates * update_bytes / _GIGA,
        "stored_bundle_gb": bundle_bytes / _GIGA,
    }
    return {**parts, "stored_gb_after_a_month": sum(parts.values())}


def _combined(name: str, values: list[float | None]) -> Figure:
    rests_on = next(text for beginning, text in _RESTS_ON.items() if name.startswith(beginning))
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Figure(name=name, value=None, low=None, high=None, rests_on=rests_on)
    return Figure(name=name, value=float(np.median(known)), low=min(known), high=max(known), rests_on=rests_on)

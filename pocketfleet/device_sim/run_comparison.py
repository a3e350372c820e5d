"""What finished runs came to, one row a run, and the keys in which their experiments differ.

Rules:

1. Every figure is of the whole run: of its summary, or of its table of rounds. Seconds a round are from a round's first
   assignment to its end, of rounds that made a model and of abandoned ones alike; the 90th percentile is interpolated.
2. Shares are of all assignments: accepted, lost by each reason, and under way when the run ended add up to 1.
3. What an accepted report cost is what the whole run spent, divided by the accepted reports: lost work is paid for too.
4. Megabytes are 10**6 bytes. ``None`` stands for what is not known: nothing trained, nothing accepted, no round closed,
   nothing promised of privacy.
5. A difference is in percent of the first run's figure, ``None`` where that is 0 or either is not known.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pocketfleet.device_sim.run import Run
from pocketfleet.device_sim.run_directory import EXPERIMENT
from pocketfleet.errors import InputError

__all__ = [
    "CHOSEN_BY_THE_ENGINE",
    "DIFFERENCE",
    "LOST",
    "Row",
    "aligned",
    "changed_keys",
    "compared_keys",
    "comparison_rows",
    "flat_experiment",
    "flattened",
    "run_figures",
]

Row = dict[str, Any]

# What a probe of the machine settles, and measured: it differs from run to run of the same experiment.
CHOSEN_BY_THE_ENGINE = ("engine.plan", "engine.plan_reason", "engine.processes", "engine.compile")
# How the column of a reason's share of lost assignments begins.
LOST = "lost_ratio_"
# How the column of a figure's difference to the first run ends.
DIFFERENCE = "_difference_percent"


def run_figures(run: Run) -> Row:
    """The figures of a finished run, by column name; see rules 1 to 4.

    Raises:
        InputError: its files are damaged, or are not those of a run.
    """
    try:
        return {
            **_of_rounds(run),
            **_of_reports(run.summary),
            **_of_costs(run.summary),
            **_of_learning(run.summary),
            **_of_protection(run.summary),
        }
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as exc:
        raise InputError(
            f"the run in {run.path} is damaged ({type(exc).__name__}: {exc}): simulate it again with --force"
        ) from exc


def _of_rounds(run: Run) -> Row:
    seconds = (run.rounds["closed_s"] - run.rounds["opened_s"]).to_numpy(dtype=np.float64)
    return {
        "rounds": run.summary["rounds"],
        "rounds_abandoned": run.summary["rounds_abandoned"],
        "virtual_hours": run.summary["virtual_seconds"] / 3600.0,
        "round_mean_s": float(seconds.mean()) if len(seconds) else None,
        "round_p90_s": float(np.percentile(seconds, 90)) if len(seconds) else None,
    }


def _of_reports(summary: Mapping[str, Any]) -> Row:
    asked = summary["device_rounds"]
    return {
        "device_rounds": asked,
        "accepted": summary["reports_accepted"],
        "accepted_ratio": _ratio(summary["reports_accepted"], asked),
        "in_flight_ratio": _ratio(summary["in_flight"], asked),
        **{f"{LOST}{reason}": _ratio(count, asked) for reason, count in summary["dropouts"].items()},
    }


def _of_costs(summary: Mapping[str, Any]) -> Row:
    accepted, joules = summary["reports_accepted"], summary["energy_joules"]
    downlink_mb, uplink_mb = summary["downlink_bytes"] / 1e6, summary["uplink_bytes"] / 1e6
    return {
        "downlink_mb": downlink_mb,
        "uplink_mb": uplink_mb,
        "energy_joules": joules,
        "joules_per_accepted": _ratio(joules, accepted),
        "mb_per_accepted": _ratio(downlink_mb + uplink_mb, accepted),
    }


def _of_learning(summary: Mapping[str, Any]) -> Row:
    name = f"test_{summary['headline_metric']}"
    return {
        "metric": name,
        "metric_last": summary["metrics"]["last"].get(name),
        "metric_mean_of_last_five": summary["metrics"]["mean_of_last_five"].get(name),
    }


def _of_protection(summary: Mapping[str, Any]) -> Row:
    private = summary.get("privacy", {})
    return {
        "epsilon": private.get("epsilon"),
        "clip_norm": private.get("clip_norm"),
        "rounds_without_sum": summary.get("rounds_without_sum"),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def flat_experiment(run: Run) -> Row:
    """Every key of a run's experiment, dotted, with its value.

    Raises:
        InputError: the run's experiment file cannot be read.
    """
    try:
        return flattened(tomllib.loads((run.path / EXPERIMENT).read_text(encoding="utf-8")))
    except (OSError, ValueError) as exc:
        raise InputError(f"the run in {run.path} is damaged: its {EXPERIMENT} cannot be read: {exc}") from exc


def flattened(table: Mapping[str, Any]) -> Row:
    """A TOML table's keys, dotted, with their values; lists stay whole."""
    flat: Row = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{key}.{inner}": one for inner, one in flattened(value).items()}
        else:
            flat[key] = value
    return flat


def changed_keys(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all of some flat tables, in order of their first appearance."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if len({_told(table.get(key)) for table in tables}) > 1]


def _told(value: object) -> str:
    # As JSON, 1 and 1.0 are told apart, and so are True and 1; absent is null, which TOML does not have.
    return json.dumps(value, sort_keys=True, default=str)


def compared_keys(runs: Sequence[Run]) -> list[str]:
    """The keys in which the experiments of runs differ, but for what the engine chose: how the host computes.

    Raises:
        InputError: one of them is damaged.
    """
    found = changed_keys([flat_experiment(run) for run in runs])
    return [key for key in found if key not in CHOSEN_BY_THE_ENGINE]


def comparison_rows(runs: Sequence[Run]) -> list[Row]:
    """One row a run: ``run``, their ``compared_keys``, the figures, differences to the first run.

    Raises:
        InputError: one of them is damaged.
    """
    keys = compared_keys(runs)
    figures = aligned([run_figures(run) for run in runs])
    return [
        {
            "run": str(run.path),
            **{key: experiment.get(key) for key in keys},
            **row,
            **_differences(row, figures[0]),
        }
        for run, experiment, row in zip(runs, map(flat_experiment, runs), figures, strict=True)
    ]


def aligned(rows: Sequence[Row]) -> list[Row]:
    """The same rows with the same columns each: a reason that cost a run nothing has share 0 of it.

    Rows that hold no figures at all (``{}``) get ``None`` throughout.
    """
    reasons = sorted({name for row in rows for name in row if name.startswith(LOST)})
    names: list[str] = []
    for name in next((row for row in rows if row), {}):
        if not name.startswith(LOST):
            names.append(name)
        if name == "in_flight_ratio":
            names += reasons
    return [{name: row.get(name, 0.0 if row and name in reasons else None) for name in names} for row in rows]


def _differences(row: Row, first: Row) -> Row:
    """In percent, by the figure's name and a suffix; see rule 5."""
    found: Row = {}
    for name, before in first.items():
        if isinstance(before, str):
            continue
        now = row[name]
        known = now is not None and before
        found[f"{name}{DIFFERENCE}"] = 100.0 * (now - before) / before if known else None
    return found

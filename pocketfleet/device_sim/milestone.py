"""When a run got somewhere: so many models published, or a metric reached.

Rules:

1. Days count from the run's start to the end of the round that made the model. What the run did not reach has no time,
   and the days simulated are a lower bound; at the mean pace of the run so many rounds would take so long.
2. How long it takes depends on the hour at which one starts: the spread is over all rounds of the run as starts, of
   those after which enough rounds followed.
3. A target ``metric>=value`` or ``metric<=value`` is met by the first evaluation that fulfils it; ``metric=value`` by
   the first that has come from the untrained model's side of the value to it or beyond.
"""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pocketfleet.errors import InputError

__all__ = ["Target", "days_to_rounds", "days_to_target", "parse_target"]

_DAY_S = 86_400.0
_TARGET = re.compile(r"\s*(?P<metric>[\w.\-]+?)\s*(?P<sign><=|>=|=)\s*(?P<value>\S+)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A metric and the value it shall have; ``metric`` begins with ``test_``."""

    metric: str
    sign: Literal["<=", ">=", "="]
    value: float

    @property
    def text(self) -> str:
        """As a user writes it."""
        return f"{self.metric}{self.sign}{self.value:g}"

    def against(self, untrained: dict[str, float]) -> "Target":
        """The same with a direction, ``<=`` or ``>=``.

        Args:
            untrained: the metrics of the model before any training.

        Raises:
            InputError: there is no such metric, or the untrained model meets the target already.
        """
        if self.metric not in untrained:
            raise InputError(
                f"--target names {self.metric!r}, which the task does not measure; it has {', '.join(untrained)}"
            )
        start = untrained[self.metric]
        sign = self.sign if self.sign != "=" else (">=" if start < self.value else "<=")
        directed = Target(metric=self.metric, sign=sign, value=self.value)
        if (start >= self.value if sign == ">=" else start <= self.value) and (self.sign != "=" or start == self.value):
            raise InputError(
                f"--target {self.text} is met before any training ({self.metric} is {start:g}): ask for more"
            )
        return directed

    def met(self, values: pd.Series) -> "pd.Series[bool]":
        """Where a value fulfils the target; what was not evaluated does not."""
        return values >= self.value if self.sign == ">=" else values <= self.value


def parse_target(text: str) -> Target:
    """``"accuracy>=0.9"`` as a target; ``test_`` may be left out.

    Raises:
        InputError: it is not of that form.
    """
    match = _TARGET.fullmatch(text)
    try:
        value = float(match["value"]) if match else np.nan
    except ValueError:
        value = np.nan
    if match is None or not np.isfinite(value):
        raise InputError(f"--target takes metric=value, metric>=value or metric<=value with a number, got {text!r}")
    return Target(metric=f"test_{match['metric'].removeprefix('test_')}", sign=match["sign"], value=value)  # type: ignore[arg-type]


def days_to_rounds(rounds: pd.DataFrame, count: int, *, days: float) -> dict[str, float | None]:
    """Days to ``count`` models, from the start and from later starts; see rules 1 and 2."""
    made = rounds[rounds["outcome"] != "abandoned"]
    opened_s, closed_s = made["opened_s"].to_numpy(), made["closed_s"].to_numpy()
    reached = float(closed_s[count - 1]) / _DAY_S if len(made) >= count else None
    spans = (closed_s[count - 1 :] - opened_s[: max(len(made) - count + 1, 0)]) / _DAY_S
    p5, p95 = np.percentile(spans, (5, 95)).tolist() if len(spans) > 1 else (None, None)
    return {
        "models_made": float(len(made)),
        "days_to_rounds": reached,
        "days_to_rounds_by_start_p5": p5,
        "days_to_rounds_by_start_p95": p95,
        "days_to_rounds_at_least": reached if reached is not None else days,
        "days_to_rounds_at_mean_pace": days * count / len(made) if len(made) else None,
    }


def days_to_target(rounds: pd.DataFrame, target: Target, *, days: float) -> dict[str, float | None]:
    """Days and models until a directed target was met, and the best value seen."""
    values = rounds[target.metric] if target.metric in rounds else pd.Series(np.nan, index=rounds.index)
    met = rounds[target.met(values)]
    best = values.max() if target.sign == ">=" else values.min()
    return {
        "days_to_target": float(met["closed_s"].iloc[0]) / _DAY_S if len(met) else None,
        "models_to_target": float(met["model_version"].iloc[0]) if len(met) else None,
        "days_to_target_at_least": float(met["closed_s"].iloc[0]) / _DAY_S if len(met) else days,
        "target_metric_best": float(best) if pd.notna(best) else None,
    }

"""Closings that nobody has taken yet, as arrays of a checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.training.round import RoundClosed

__all__ = ["closings_from", "saved_closings"]

_REPORTS = ("assignment_id", "device", "num_examples")
_CLOSING = np.dtype(
    [
        ("round", np.int64),
        ("model_version", np.int64),
        ("time_s", np.float64),
        ("opened_s", np.float64),
        ("succeeded", np.bool_),
        ("reason", "U8"),
        ("assigned", np.int64),
        ("withdrawn", np.int64),
    ]
)


def saved_closings(closings: Sequence[RoundClosed]) -> dict[str, npt.NDArray[Any]]:
    """Their numbers, a row each; how many reports each accepted; and all of these, one closing after the other."""
    rows = [tuple(getattr(closing, name) for name in _CLOSING.names or ()) for closing in closings]
    return {
        "closings": np.array(rows, _CLOSING),
        "closings_accepted": np.array([closing.device.size for closing in closings], np.int64),
        **{
            f"closings_{name}": np.concatenate(
                [np.empty(0, np.int64), *(getattr(closing, name) for closing in closings)]
            )
            for name in _REPORTS
        },
    }


def closings_from(state: Mapping[str, npt.NDArray[Any]]) -> list[RoundClosed]:
    """What ``saved_closings`` was given."""
    stops = np.cumsum(state["closings_accepted"])[:-1]
    columns = {name: np.split(state[f"closings_{name}"], stops) for name in _REPORTS}
    closings = []
    for number, row in enumerate(state["closings"]):
        numbers: dict[str, Any] = {name: row[name].item() for name in _CLOSING.names or ()}
        reports: dict[str, Any] = {name: columns[name][number].copy() for name in _REPORTS}
        closings.append(RoundClosed(**numbers, **reports))
    return closings

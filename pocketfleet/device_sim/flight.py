"""Attempts under way or over, as rows of one table: plain numbers, so that a checkpoint can hold them."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FLIGHT", "Flights", "no_flights"]

Flights = npt.NDArray[np.void]

# Seconds, bytes and joules are those spent; ``stage``, ``interrupted`` and ``drop`` as in ``attempt.Attempts``.
# ``first_example`` and ``num_present``: what the device held at its start, see ``arrival.Held``. ``held_back_s``: how
# much of ``train_s`` was slowed by heat. ``free_s``: when the device may look again. The last six are what the device
# had before, to take an attempt back.
FLIGHT = np.dtype(
    [
        ("assignment_id", np.int64),
        ("device", np.int64),
        ("round", np.int64),
        ("model_version", np.int64),
        ("batch_seed", np.int64),
        ("start_s", np.float64),
        ("steps", np.int64),
        ("num_examples", np.int64),
        ("first_example", np.int64),
        ("num_present", np.int64),
        ("download_s", np.float64),
        ("train_s", np.float64),
        ("held_back_s", np.float64),
        ("upload_s", np.float64),
        ("downlink_bytes", np.int64),
        ("uplink_bytes", np.int64),
        ("metered_downlink_bytes", np.int64),  # those of the bytes that cost money
        ("metered_uplink_bytes", np.int64),
        ("download_joules", np.float64),
        ("train_joules", np.float64),
        ("upload_joules", np.float64),
        ("end_s", np.float64),
        ("stage", np.int8),
        ("interrupted", np.int8),
        ("drop", np.int8),
        ("free_s", np.float64),
        ("before_free_s", np.float64),
        ("before_level_joules", np.float64),
        ("before_celsius", np.float64),
        ("before_level_s", np.float64),
        ("before_failures", np.int64),
        ("before_has_bundle", np.bool_),
    ],
    align=True,
)


def no_flights(count: int = 0, **columns: Any) -> Flights:  # noqa: ANN401 - whatever a column holds
    """A table of ``count`` rows with the given columns, the others zero."""
    flights = np.zeros(count, dtype=FLIGHT)
    for name, values in columns.items():
        flights[name] = values
    return flights

"""Efficiencies, dispatch and fixed cost fitted to measurements: the work of ``pocketfleet calibrate``.

Rules:

1. Rows of one phone and runtime are fitted together. What was measured on a machine named ``host`` holds for any phone,
   by the ratio of peaks; what was measured on a phone holds for that phone.
2. Bounded nonlinear least squares on the logarithm of predicted over measured seconds, so that a step of microseconds
   counts as much as one of seconds. Parameters are fitted as logarithms: an efficiency is in (0, 1], seconds are
   positive. A whole step weighs 1, some operators of a step ``efficiency_fit.OPERATORS_WEIGHT``.
3. Each parameter is drawn toward its start by ``efficiency_fit.PULL`` times its logarithm's distance: what the rows
   cannot tell stays where it was. The start is the packaged profile where it knows the runtime, else ``GENERAL``.
4. Before any fit, the packaged profile tells what a phone was predicted to take: how far that was off is how far the
   simulator was.
5. Held out, a half of the models is predicted from the other: models in order of name, every other one. Then the start
   is ``GENERAL``, for the packaged profile has seen every model. Rows of no model are in every fit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pocketfleet.device_sim.compute import step_seconds
from pocketfleet.device_sim.efficiency import ANY_PHONE, ClassCost, Efficiency, Profile, load_profile
from pocketfleet.device_sim.efficiency_fit import fit_efficiency
from pocketfleet.device_sim.fedscale_rule import fit_fedscale_rule
from pocketfleet.device_sim.measurement import Measurement
from pocketfleet.device_sim.operator_class import CLASSES
from pocketfleet.errors import InputError

__all__ = [
    "GENERAL",
    "HOST",
    "Calibration",
    "Prediction",
    "calibrate",
    "hold_out_halves",
    "predict_by_packaged",
    "predict_held_out",
    "predicted_seconds",
]

HOST = "host"
# Where nothing is known: orders of magnitude of kernels without and with tuning, on a core of 100 GFLOP/s.
GENERAL = Efficiency(
    runtime="",
    classes={
        name: ClassCost(efficiency=0.2 if name == "matmul" else 0.05, byte_s=1e-10, dispatch_s=None) for name in CLASSES
    },
    dispatch_s=3e-7,
    fixed_s=2e-5,
    parallel_ratio=0.5,
    core_peak_flops=1e11,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One measurement beside what a fit says of it.

    Attributes:
        fedscale_s: by FedScale's rule; ``None`` for what is no whole step, or where inference is not given.
    """

    measurement: Measurement
    predicted_s: float
    fedscale_s: float | None

    @property
    def error(self) -> float:
        """Relative error, with its sign."""
        return self.predicted_s / self.measurement.seconds - 1.0

    @property
    def fedscale_error(self) -> float | None:
        """That of FedScale's rule."""
        return None if self.fedscale_s is None else self.fedscale_s / self.measurement.seconds - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A profile, and how well it tells what it was fitted to."""

    profile: Profile
    predictions: tuple[Prediction, ...]


def calibrate(measurements: Sequence[Measurement], *, start: Efficiency | None = None) -> Calibration:
    """Fit every phone and runtime of the measurements.

    Args:
        measurements: of any phones and runtimes.
        start: where every fit begins; rule 3's if left out.
    """
    efficiencies, predictions = {}, []
    for (phone, runtime), rows in _by_phone_and_runtime(measurements).items():
        efficiency = fit_efficiency(rows, start=start or _packaged_start(runtime))
        efficiencies[runtime, ANY_PHONE if phone == HOST else phone] = efficiency
        predictions += _predictions(rows, fitted_to=rows, efficiency=efficiency)
    return Calibration(
        profile=Profile(where="the measurements", efficiencies=efficiencies), predictions=tuple(predictions)
    )


def predict_by_packaged(measurements: Iterable[Measurement]) -> tuple[Prediction, ...]:
    """What the packaged profile says of measurements that it was not fitted to; see rule 4.

    Measurements of runtimes that it does not know are left out.
    """
    packaged = load_profile()
    return tuple(
        Prediction(
            measurement=one, predicted_s=predicted_seconds(one, packaged.efficiency(one.runtime)), fedscale_s=None
        )
        for one in measurements
        if (one.runtime, ANY_PHONE) in packaged.efficiencies and _classes_known(one, packaged.efficiency(one.runtime))
    )


def _classes_known(measurement: Measurement, efficiency: Efficiency) -> bool:
    return all(work.operator_class in efficiency.classes for work in measurement.work)


def hold_out_halves(measurements: Sequence[Measurement]) -> tuple[Prediction, ...]:
    """Every whole step of a model, predicted from the half of the models that its own is not in; see rule 5.

    Raises:
        InputError: a phone and runtime has fewer than two models.
    """
    predictions: list[Prediction] = []
    for (phone, runtime), rows in _by_phone_and_runtime(measurements).items():
        models = sorted({row.model for row in rows if row.model})
        if len(models) < 2:
            raise InputError(
                f"halves need measurements of two or more models, got {len(models)} of {runtime} on {phone}"
            )
        for half in (models[0::2], models[1::2]):
            predictions += predict_held_out(rows, models=half)
    return tuple(predictions)


def predict_held_out(rows: Sequence[Measurement], *, models: Iterable[str]) -> list[Prediction]:
    """The whole steps of some models of one phone and runtime, by a fit that has not seen them."""
    out = set(models)
    seen = [row for row in rows if row.model not in out]
    unseen = [row for row in rows if row.model in out and row.scope == "step"]
    return _predictions(unseen, fitted_to=seen, efficiency=fit_efficiency(seen, start=GENERAL))


def _by_phone_and_runtime(measurements: Iterable[Measurement]) -> dict[tuple[str, str], list[Measurement]]:
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.phone, one.runtime), []).append(one)
    return groups


def _packaged_start(runtime: str) -> Efficiency:
    packaged = load_profile().efficiencies
    return packaged.get((runtime, ANY_PHONE), GENERAL)


def _predictions(
    rows: Sequence[Measurement], *, fitted_to: Sequence[Measurement], efficiency: Efficiency
) -> list[Prediction]:
    rule = fit_fedscale_rule([row for row in fitted_to if row.model])
    return [
        Prediction(
            measurement=row,
            predicted_s=predicted_seconds(row, efficiency),
            fedscale_s=None if rule is None or row.scope != "step" or not row.model else rule.step_s(row),
        )
        for row in rows
    ]


def predicted_seconds(measurement: Measurement, efficiency: Efficiency) -> float:
    """What an efficiency says of a measurement, by ``compute.step_seconds``."""
    kind, flops, bytes_ = [], [], []
    for work in measurement.work:
        kind += [work.operator_class] * work.operators
        flops += [work.flops / work.operators] * work.operators
        bytes_ += [work.bytes / work.operators] * work.operators
    step_s = step_seconds(
        kind=kind,
        flops=flops,
        bytes=bytes_,
        peak_flops=np.array([measurement.peak_flops]),
        memory_bytes_per_s=np.array([measurement.memory_bytes_per_s]),
        efficiency=efficiency,
        parallel_peak_flops=np.array([measurement.parallel_peak_flops]),
    )
    slower = (efficiency.core_peak_flops / measurement.peak_flops) ** 0.5
    return float(step_s[0]) - (0.0 if measurement.scope == "step" else efficiency.fixed_s * slower)

"""What a training step takes by FedScale's rule, to compare with: three times inference, one scalar a phone.

FedScale (Lai et al. 2022, arXiv:2105.11367) takes a training example for three times as long as an inference, whose
time on a phone is one published figure of that phone. Here the rule is treated kindly: the scalar is fitted to the very
measurements that the compute model is fitted to, one a phone and runtime, and multiplies the inference of the very
model: its measured seconds where there are any, else its operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pocketfleet.device_sim.measurement import Measurement

__all__ = ["FedScaleRule", "fit_fedscale_rule"]

_STEP_OVER_INFERENCE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FedScaleRule:
    """``scalar``: seconds, or seconds an operation, where inference is given by its operations."""

    scalar: float
    timed: bool

    def step_s(self, measurement: Measurement) -> float:
        """Seconds of a step by the rule."""
        return self.scalar * _STEP_OVER_INFERENCE * _inference(measurement, timed=self.timed)


def fit_fedscale_rule(measurements: Sequence[Measurement]) -> FedScaleRule | None:
    """The rule fitted to the whole steps among the measurements: the median ratio, which no single row can move.

    Returns:
        ``None`` where some step says neither how long inference takes nor how many operations it has.
    """
    steps = [one for one in measurements if one.scope == "step"]
    for timed in (True, False):
        inference = np.array([_inference(one, timed=timed) for one in steps])
        if len(steps) and (inference > 0.0).all():
            ratios = np.array([one.seconds for one in steps]) / (_STEP_OVER_INFERENCE * inference)
            return FedScaleRule(scalar=float(np.median(ratios)), timed=timed)
    return None


def _inference(measurement: Measurement, *, timed: bool) -> float:
    return measurement.inference_s if timed else measurement.inference_flops

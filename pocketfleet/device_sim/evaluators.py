"""The phones that evaluate versions of the model: which may, and what an evaluation takes.

Rules:

1. A phone may evaluate while its day is as the rule wants it for training (idle, charging, unmetered) and it holds
   examples out. Battery, heat and memory are not looked at, nor is it kept from training, or by it.
2. It downloads two models over the link of that moment, at a rate drawn for this evaluation, on a radio that is awake
   and never loses the link. That it has the programs already is assumed.
3. It runs through its held-out examples twice, once a model. A batch takes ``FORWARD_RATIO`` of a training step.
4. Its battery is not charged for it; the joules of its CPU are counted, those of its radio are not.

All of it is a function of (device, time, evaluation): that a run has a gate changes nothing of its training.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.arrival import Held
from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.connection import connect
from pocketfleet.device_sim.eligibility import Reason, Rule, judge
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.transfer import transfer_rate_factor, transfer_seconds
from pocketfleet.device_sim.workload import Workload

__all__ = ["FORWARD_RATIO", "EvaluationCosts", "Evaluators"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# A backward pass takes about twice the operations of a forward one: Kaplan et al. 2020, arXiv:2001.08361, section 2.1.
FORWARD_RATIO = 1 / 3
_MODELS = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationCosts:
    """What evaluations take, columns ``[n]``.

    Attributes:
        seconds: from asking to reporting.
        bytes: downloaded; ``metered_bytes`` are those that cost money.
        joules: of the CPU.
    """

    seconds: Floats
    bytes: Int64s
    metered_bytes: Int64s
    joules: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluators:
    """See the module's rules.

    Attributes:
        fleet: of the phones.
        availability: their days.
        rule: when they may train.
        workload: of their training.
        seed: of the transfers' draws.
    """

    fleet: Fleet
    availability: Availability
    rule: Rule
    workload: Workload
    seed: int

    def held(self, device: Int64s, at_s: Floats) -> tuple[Held, Int64s]:
        """What devices ``[n]`` hold at ``at_s`` ``[n]``, and how many of these examples they hold out."""
        held, num_training, _ = self.workload.wanted(device, at_s)
        return held, held.num_present - num_training

    def able(self, device: Int64s, at_s: Floats) -> Bools:
        """Rule 1, ``[n]``."""
        day = self.availability.state(device, at_s)
        reason = judge(
            self.rule,
            idle=day.idle,
            charging=day.charging & self.fleet.has_charger[device],
            unmetered=day.wifi & ~self.fleet.metered[device],
            battery_ratio=np.ones(len(device)),
            fits_memory=np.ones(len(device), dtype=np.bool_),
            has_examples=self.workload.hold(device, at_s, self.rule.min_examples),
        )
        able: Bools = reason == Reason.ELIGIBLE
        able[able] = self.held(device[able], at_s[able])[1] > 0
        return able

    def costs(self, device: Int64s, at_s: Floats, *, number: Int64s) -> EvaluationCosts:
        """Rules 2 to 4.

        Args:
            device: ``[n]``.
            at_s: when each is asked, ``[n]``.
            number: of the evaluation, ``[n]``.
        """
        wifi = self.availability.state(device, at_s).wifi
        link = connect(self.fleet, self.availability, device, at_s, wifi=wifi)
        moved = _MODELS * self.workload.moved_bytes(device)[0]
        rate = transfer_rate_factor(self.seed, "evaluate", number, device, link.down_variation_ratio)
        download_s = transfer_seconds(
            payload_bytes=moved, bits_per_s=link.down_bits_per_s * rate, latency_s=link.latency_s
        )
        batches = np.ceil(self.held(device, at_s)[1] / self.workload.batch_size)
        evaluate_s = _MODELS * batches * self.workload.step_s[device] * FORWARD_RATIO
        size = moved.astype(np.int64)
        return EvaluationCosts(
            seconds=download_s + evaluate_s,
            bytes=size,
            metered_bytes=np.where(link.metered, size, 0),
            joules=evaluate_s * self.fleet.compute_watts[device],
        )

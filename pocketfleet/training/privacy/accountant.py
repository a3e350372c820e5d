"""How much privacy the noise so far has cost: epsilon at a stated delta, by the library ``dp-accounting``.

Adjacent are two histories that differ in one device's updates, all of them, being replaced by zeros; who took part in
which round is the same in both ("zero-out": Kairouz et al. 2021, arXiv:2103.00039, section 2). Rules:

1. *participations* (the default): devices come when they can, which is no random sample that nobody knows, so that no
   amplification by sampling is claimed. Of rounds that a device was not in, all it has to do with is through models
   already noised. One that took part in ``p`` has lost what ``p`` Gaussian mechanisms give away together, which is one
   of multiplier ``z / sqrt(p)``, and exactly known (Balle and Wang 2018, arXiv:1805.06530). Epsilon is that of the
   device that took part most often.
2. *poisson*: what would hold if in every round each device had been in with the same small probability, independently
   and unknown to all (Abadi et al. 2016, arXiv:1607.00133; McMahan et al. 2018): Renyi differential privacy (Mironov et
   al. 2019, arXiv:1908.10530) of all rounds. It is an assumption, which a fleet of phones does not keep.
"""

import functools
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pocketfleet.errors import InputError
from pocketfleet.training.privacy.dp_library import dp_library

__all__ = ["Accountant", "Accounting", "epsilon_of_rho", "noise_for"]

Accounting = Literal["participations", "poisson"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accountant:
    """Counts for one run.

    Attributes:
        accounting: by which rule.
        noise_multiplier: of each round's noise: its standard deviation over the longest update; 0: none.
        delta: at which epsilon is stated.
        sampling_ratio: of rule 2: how probable it is that a device is in a round; no matter for rule 1.
    """

    accounting: Accounting
    noise_multiplier: float
    delta: float
    sampling_ratio: float = 1.0

    def epsilon(self, *, rounds: int, participations: int) -> float:
        """After so many rounds that made a model, in which no device was oftener than ``participations`` times.

        inf: nothing is promised; 0 before the first.
        """
        count = participations if self.accounting == "participations" else rounds
        if count == 0:
            return 0.0
        if self.noise_multiplier == 0.0:
            return math.inf
        if self.accounting == "participations":
            return _gaussian_epsilon(self.noise_multiplier / math.sqrt(count), self.delta)
        return _sampled_epsilon(self.noise_multiplier, self.sampling_ratio, rounds, self.delta)


def noise_for(
    target_epsilon: float,
    *,
    delta: float,
    accounting: Accounting,
    rounds: int,
    participations: int,
    sampling_ratio: float = 1.0,
) -> float:
    """The noise multiplier with which a whole run costs ``target_epsilon``; 0 where that is inf.

    Args:
        target_epsilon: above 0.
        delta: at which it is stated.
        accounting: by which rule.
        rounds: that make a model, in all.
        participations: of a device at most.
        sampling_ratio: see ``Accountant``.

    Raises:
        InputError: the library finds no such noise.
    """
    if math.isinf(target_epsilon):
        return 0.0
    dp_accounting = dp_library()

    if accounting == "participations":
        return math.sqrt(participations) * float(dp_accounting.get_sigma_gaussian(target_epsilon, delta))
    try:
        with _without_left_out_orders():
            found = dp_accounting.calibrate_dp_mechanism(
                dp_accounting.rdp.RdpAccountant,
                lambda noise: _sampled_event(noise, sampling_ratio, rounds),
                target_epsilon,
                delta,
                # From its own least: noise of nothing is no mechanism to the library.
                dp_accounting.LowerEndpointAndGuess(1e-3, 1.0),
                tol=1e-6,
            )
    except (ValueError, RuntimeError) as exc:
        raise InputError(
            f"privacy.target_epsilon {target_epsilon} at privacy.delta {delta} is out of reach in {rounds} rounds "
            f"({exc}): raise one of them, or lower rounds.count"
        ) from exc
    return float(found)


def epsilon_of_rho(rho: float, *, delta: float) -> float:
    """Epsilon at ``delta`` of a mechanism that is ``rho``-zero-concentrated, such as sums of discrete Gaussians.

    Those of several sums that a device is in are added up.
    """
    dp_accounting = dp_library()

    accountant = dp_accounting.rdp.RdpAccountant()
    accountant.compose(dp_accounting.ZCDpEvent(rho))
    return float(accountant.get_epsilon(delta))


@functools.lru_cache(maxsize=1024)
def _gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    dp_accounting = dp_library()

    return float(dp_accounting.get_epsilon_gaussian(noise_multiplier, delta))


@functools.lru_cache(maxsize=1024)
def _sampled_epsilon(noise_multiplier: float, sampling_ratio: float, rounds: int, delta: float) -> float:
    dp_accounting = dp_library()

    accountant = dp_accounting.rdp.RdpAccountant()
    with _without_left_out_orders():
        accountant.compose(_sampled_event(noise_multiplier, sampling_ratio, rounds))
    return float(accountant.get_epsilon(delta))


@contextmanager
def _without_left_out_orders() -> Iterator[None]:
    """Without a line of the library's log for each order of Renyi's that it leaves out, as its series converges slowly.

    Epsilon is the least over the orders: one fewer makes it no smaller.
    """
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _sampled_event(noise_multiplier: float, sampling_ratio: float, rounds: int) -> Any:  # noqa: ANN401 - the library's
    dp_accounting = dp_library()

    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    return dp_accounting.SelfComposedDpEvent(dp_accounting.PoissonSampledDpEvent(sampling_ratio, gaussian), rounds)

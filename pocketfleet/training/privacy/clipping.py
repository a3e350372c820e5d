"""How long an update may be: a norm that stays, or one that follows a quantile of what devices report.

Rules:

1. An update longer than ``max_norm`` is shortened to it; a shorter one stays as it is. The norm is of the whole delta,
   all tensors as one vector (McMahan et al. 2018, arXiv:1710.06963: "flat clipping").
2. Adaptive clipping (Andrew et al. 2021, "Differentially private learning with adaptive clipping", arXiv:1905.03871,
   algorithm 1): after a round the norm is multiplied by ``exp(-rate * (share - target_quantile))``, where ``share`` is
   that of the updates that were not longer than it, counted with noise.
3. Each device adds ``b - 1/2`` to the count, ``b`` being 1 where its update was not clipped: it can move that by half.
   With noise of ``count_stddev`` on it, and of multiplier ``z`` together, the updates' own multiplier is
   ``(z ** -2 - (2 * count_stddev) ** -2) ** (-1/2)``, a little above ``z`` (the paper's theorem 1).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.errors import InputError
from pocketfleet.training.privacy.random_bits import Bits, normals

__all__ = ["AdaptiveClipping", "clip_factors"]

Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def clip_factors(norms: Float64s, max_norm: npt.ArrayLike) -> Float64s:
    """Rule 1: what to multiply deltas of these norms by, ``[k]`` in [0, 1]; where a norm is no finite number, 0.

    Args:
        norms: ``[k]``, of the deltas.
        max_norm: above 0, one or ``[k]``; inf clips nothing.
    """
    bound = np.broadcast_to(np.asarray(max_norm, dtype=np.float64), norms.shape)
    factors = np.ones(len(norms))
    longer = norms > bound
    factors[longer] = bound[longer] / norms[longer]
    factors[~np.isfinite(norms)] = 0.0
    return factors


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveClipping:
    """Rules 2 and 3.

    Attributes:
        target_quantile: share of the updates that are not to be clipped, 0 to 1.
        learning_rate: of the logarithm of the norm, above 0.
        count_stddev: noise on the count, in devices, above 0.
    """

    target_quantile: float
    learning_rate: float
    count_stddev: float

    def update_multiplier(self, noise_multiplier: float) -> float:
        """Rule 3: the multiplier of the noise on the updates, such that both together are of ``noise_multiplier``.

        Raises:
            InputError: the noise on the count is so small that it alone gives away more.
        """
        if noise_multiplier == 0.0:
            return 0.0
        rest = noise_multiplier**-2 - (2.0 * self.count_stddev) ** -2
        if rest <= 0.0:
            raise InputError(
                f"privacy.count_stddev must be above half the noise multiplier, {noise_multiplier / 2:.4g}, got "
                f"{self.count_stddev:.4g}: the count of clipped updates alone would give away more than is allowed; "
                'raise it, or set privacy.clipping to "fixed"'
            )
        return float(rest**-0.5)

    def next_norm(self, max_norm: float, *, norms: Float64s, counted: Bools, bits: Bits | None) -> float:
        """Rules 2 and 3: the norm of the next round.

        Args:
            max_norm: of this round.
            norms: ``[n]`` of the updates before they were clipped.
            counted: ``[n]``, those that count; the others add nothing to the count, and stay among the ``n``.
            bits: of the noise; ``None``: there is none.
        """
        centred = np.where(counted, np.where(norms <= max_norm, 0.5, -0.5), 0.0).sum()
        noise = 0.0 if bits is None else self.count_stddev * float(normals(bits, 1)[0])
        share = (float(centred) + noise) / len(norms) + 0.5
        return max_norm * math.exp(-self.learning_rate * (share - self.target_quantile))

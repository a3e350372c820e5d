"""Gaussian noise on a sum of tensors: the same spread in every coordinate of all of them."""

import torch

from pocketfleet.training.privacy.random_bits import Bits, normals
from pocketfleet.training.weights import Tensors

__all__ = ["noised"]


def noised(tensors: Tensors, *, stddev: float, bits: Bits) -> Tensors:
    """Add noise of variance ``stddev ** 2`` to each coordinate.

    Args:
        tensors: by name, any shapes; not changed.
        stddev: of the noise, in the tensors' own unit, 0 or more: ``noise_multiplier * max_norm`` on a sum of updates
            none of which is longer than ``max_norm`` is the Gaussian mechanism of that multiplier.
        bits: drawn once for all tensors, in order of their names; none at 0.

    Returns:
        ``float64`` tensors.

    Source: Dwork and Roth 2014, "The algorithmic foundations of differential privacy", appendix A; on sums of updates:
    McMahan et al. 2018, arXiv:1710.06963, algorithm 1. Floats are a grid, so that the noise is Gaussian but for their
    last bits (Mironov 2012, "On significance of the least significant bits"): docs/privacy.md says what follows.
    """
    exact = {name: value.to(torch.float64) for name, value in tensors.items()}
    if stddev == 0.0:
        return exact
    sizes = {name: exact[name].numel() for name in sorted(exact)}
    noise = torch.from_numpy(normals(bits, sum(sizes.values())) * stddev)
    pieces = dict(zip(sizes, torch.split(noise, list(sizes.values())), strict=True))
    return {name: value + pieces[name].reshape(value.shape) for name, value in exact.items()}

"""Updates to encode: of LeNet-5's shapes, which the mnist task trains, and small ones with a bit of everything."""

import numpy as np
import torch

from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

__all__ = ["LENET", "drawn_values", "lenet_update", "small_update", "squared"]

LENET = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (120, 400),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
    "fc3.weight": (10, 84),
    "fc3.bias": (10,),
}


def drawn_values(name: str, count: int, seed: int = 1) -> np.ndarray:
    """About normal, of a spread of 1, by additions alone: the same bits on any machine."""
    thrown = uniform(draw_key(seed, f"test_{name}"), 3 * count).reshape(3, count)
    return (2.0 * (thrown[0] + thrown[1] + thrown[2] - 1.5)).astype(np.float32)


def _drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    return {
        name: torch.from_numpy(drawn_values(name, int(np.prod(shape)), seed).reshape(shape))
        for name, shape in shapes.items()
    }


def lenet_update(seed: int = 1) -> Update:
    return Update(_drawn(LENET, seed), {})


def small_update(seed: int = 1) -> Update:
    delta = _drawn({"b.weight": (7, 30), "b.bias": (7,), "a": (1,), "none": (0, 3), "scalar": ()}, seed)
    buffers = {"bn.mean": torch.tensor([0.1, float("nan")]), "bn.count": torch.tensor(3)}
    return Update(delta, buffers, {"variate": torch.tensor([1e-30], dtype=torch.float64)})


def squared(tensors: Tensors, other: Tensors | None = None) -> float:
    """The squared norm of all values, or of how far they are from others."""
    moved = {name: value if other is None else value - other[name] for name, value in tensors.items()}
    return sum(float(value.to(torch.float64).square().sum()) for value in moved.values())

"""Updates to encode: of LeNet-5's shapes, which are those of the mnist task, and small ones with a bit of everything."""

import numpy as np
import torch

from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

__all__ = ["LENET", "lenet_update", "small_update", "squared"]

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


def _drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    return {
        name: torch.from_numpy(
            normal(draw_key(seed, f"test_{name}"), int(np.prod(shape))).astype(np.float32).reshape(shape)
        )
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

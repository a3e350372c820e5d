"""Two classes of points in eight dimensions, a few more on each further partition, and a model of nine weights."""

import numpy as np

DIMENSIONS = 8
TRUTH = np.cos(np.arange(1.0, DIMENSIONS + 1.0))


def load_data(partition_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Points ``[n, 8]`` and their classes ``[n]``, spread by a formula so that every machine has the same."""
    rows = 20 + 5 * partition_id
    index = 1000.0 * (partition_id + 1) + np.arange(rows)
    x = np.sin(np.outer(index, np.arange(1.0, DIMENSIONS + 1.0) ** 1.5))
    return x, (x @ TRUTH > 0.0).astype(np.float64)


def predict(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Chances of class 1."""
    return 1.0 / (1.0 + np.exp(-(x @ weights[:-1] + weights[-1])))


def train(weights: np.ndarray, x: np.ndarray, y: np.ndarray, *, rate: float, epochs: int) -> tuple[np.ndarray, float]:
    """Gradient descent on all points at once; the new weights and the loss before the last step."""
    loss = 0.0
    for _ in range(epochs):
        chance = predict(weights, x)
        loss = log_loss(chance, y)
        error = (chance - y) / len(y)
        weights = weights - rate * np.append(error @ x, error.sum())
    return weights, loss


def log_loss(chance: np.ndarray, y: np.ndarray) -> float:
    """Mean over the points."""
    return float(-np.mean(y * np.log(chance) + (1.0 - y) * np.log(1.0 - chance)))

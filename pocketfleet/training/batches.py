"""Which examples make up which batch on a device: a function of the assignment's ``batch_seed`` alone.

Rules, the same in every language:

1. Epoch ``e`` visits the examples in the permutation of ``draw_key(batch_seed, "epoch", e)``.
2. Its batches are consecutive runs of ``batch_size``; the last one of an epoch may be shorter.
3. Work in steps goes on through as many epochs as it takes.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, permutation, permutations

__all__ = ["BatchTable", "batch_indices", "examples_processed", "steps_of_epochs"]

Int64s = npt.NDArray[np.int64]


def steps_of_epochs(num_examples: Int64s, *, epochs: int, batch_size: int) -> Int64s:
    """Steps that ``epochs`` passes over ``num_examples`` ``[n]`` take."""
    return epochs * -(-num_examples // batch_size)


def examples_processed(num_examples: Int64s, *, steps: Int64s, batch_size: int) -> Int64s:
    """Examples seen in the first ``steps`` batches, repeats counted; both ``[n]``."""
    # Without examples there are no steps either.
    steps_per_epoch = np.maximum(-(-num_examples // batch_size), 1)
    whole, rest = np.divmod(steps, steps_per_epoch)
    # The rest stops short of an epoch's last batch, so its batches are full.
    processed: Int64s = whole * num_examples + rest * batch_size
    return processed


def batch_indices(
    num_examples: int, *, steps: int, batch_size: int, batch_seed: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield ``steps`` arrays of example indices, each ``[1..batch_size]`` long.

    Raises:
        ValueError: there are no examples but steps are wanted.
    """
    if num_examples < 1 and steps > 0:
        raise ValueError("no examples to make batches of")
    done, epoch = 0, 0
    while done < steps:
        order = permutation(draw_key(batch_seed, "epoch", epoch), num_examples)
        for start in range(0, num_examples, batch_size):
            if done == steps:
                return
            yield order[start : start + batch_size]
            done += 1
        epoch += 1


class BatchTable:
    """``batch_indices`` of many devices at once.

    Args:
        num_examples: ``[k]``, 1 or more.
        steps: that each device takes, ``[k]``.
        batch_size: examples a step, at most.
        batch_seed: ``[k]``.
    """

    def __init__(self, num_examples: Int64s, *, steps: Int64s, batch_size: int, batch_seed: Int64s) -> None:
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._steps_an_epoch = -(-num_examples // batch_size)
        epochs = int((-(-steps // self._steps_an_epoch)).max(initial=0))
        keys = draw_key(batch_seed[:, np.newaxis], "epoch", np.arange(epochs))
        width = int(num_examples.max(initial=0))
        # A device's epochs; ``int32`` holds the places of as many examples as a device can have.
        self._orders = permutations(keys, num_examples[:, np.newaxis], width).astype(np.int32)

    def step(self, step: int, devices: int) -> tuple[Int64s, Int64s]:
        """A step's batches of the first ``devices`` ones, which all take it.

        Returns:
            Example indices ``[devices, b]``, ``b`` the largest batch, and the batches' sizes ``[devices]``; what is
            beyond a size repeats the batch's last example.
        """
        epoch, batch = np.divmod(step, self._steps_an_epoch[:devices])
        start = batch * self._batch_size
        size = np.minimum(self._num_examples[:devices] - start, self._batch_size)
        places = start[:, np.newaxis] + np.minimum(np.arange(size.max(initial=0)), size[:, np.newaxis] - 1)
        row = np.arange(devices)[:, np.newaxis]
        return self._orders[row, epoch[:, np.newaxis], places].astype(np.int64), size

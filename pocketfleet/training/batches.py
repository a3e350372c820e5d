"""Which examples make up which batch on a device: a function of the assignment's ``batch_seed`` alone.

Rules, the same in every language:

1. Epoch ``e`` visits the examples in the permutation of ``draw_key(batch_seed, "epoch", e)``.
2. Its batches are consecutive runs of ``batch_size``; the last one of an epoch may be shorter.
3. Work in steps goes on through as many epochs as it takes.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, permutation

__all__ = ["batch_indices", "examples_processed", "steps_of_epochs"]

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

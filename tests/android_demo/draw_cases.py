"""Cases that both Python's and the Android app's draws, batches and counts are held against: ``cases/draws.json``.

Run it to write the file anew. Numbers of 64 bits are hexadecimal texts, since JSON's readers stop at 63 bits or at a
double's 53; seeds of 63 bits are numbers. A ``digest`` is the first 16 digits of the SHA-256 of little-endian
``int32``.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.device_sim.own_examples import OwnExamples
from pocketfleet.training.batches import batch_indices, examples_processed, steps_of_epochs
from pocketfleet.training.draws import draw_key, mix, numbers, permutation, uniform
from pocketfleet.training.dropout import drawn, step_seeds
from pocketfleet.training.examples import Examples

__all__ = ["FILE", "cases", "text"]

FILE = Path(__file__).parent / "cases" / "draws.json"
_PERMUTATIONS = 1_000
_MOST_EXAMPLES = 600
# Seeds that a reader of doubles or of 32 bits gets wrong, and the ends.
_SEEDS = (0, 1, 2**31, 2**32 + 5, 2**53 + 1, 2**62 + 12_345_678_901, 2**63 - 2, 2**63 - 1)
_PURPOSES = (("epoch", [0]), ("epoch", [7]), ("dropout", [3]), ("held_out", []), ("größe", [2**40, 5]))


def _hexadecimal(number: object) -> str:
    return f"{int(number):016x}"  # type: ignore[call-overload]


def _digest(values: npt.NDArray[np.int64]) -> str:
    return hashlib.sha256(values.astype("<i4").tobytes()).hexdigest()[:16]


def _keys() -> list[Any]:
    return [
        [seed, purpose, indices, _hexadecimal(draw_key(seed, purpose, *indices))]
        for seed in _SEEDS
        for purpose, indices in _PURPOSES
    ]


def _permutations() -> list[list[Any]]:
    """Seed, epoch, count, digest."""
    first, second, third = (numbers(draw_key(0, "cases", column), _PERMUTATIONS) for column in range(3))
    seeds = [*_SEEDS, *(first[len(_SEEDS) :] >> np.uint64(1)).tolist()]
    rows = []
    for seed, epoch, count in zip(seeds, (second % np.uint64(50)).tolist(), third.tolist(), strict=True):
        # Half of them small: most phones hold few examples.
        n = count % _MOST_EXAMPLES if count >> 63 else count % 40
        rows.append([seed, epoch, n, _digest(permutation(draw_key(seed, "epoch", epoch), n))])
    return rows


def _whole_permutations() -> list[list[Any]]:
    return [[seed, 3, 12, permutation(draw_key(seed, "epoch", 3), 12).tolist()] for seed in _SEEDS]


def _batches() -> list[dict[str, Any]]:
    shapes = [(1, 3, 8), (5, 4, 2), (8, 6, 4), (13, 9, 5), (20, 3, 64), (0, 0, 4), (404, 40, 32)]
    found = []
    for seed, (num_examples, steps, batch_size) in zip(_SEEDS, shapes, strict=False):
        batches = list(batch_indices(num_examples, steps=steps, batch_size=batch_size, batch_seed=seed))
        found.append(
            {
                "batch_seed": seed,
                "num_examples": num_examples,
                "steps": steps,
                "batch_size": batch_size,
                "sizes": [len(batch) for batch in batches],
                "digest": _digest(np.concatenate(batches) if batches else np.empty(0, dtype=np.int64)),
                "first": batches[0].tolist() if batches else [],
                "dropout_seeds": [_hexadecimal(one) for one in step_seeds(seed, steps)],
            }
        )
    return found


def _counts() -> list[list[int]]:
    """Examples, epochs, batch size, steps that they take, steps that are done, examples processed in those."""
    found = []
    for num_examples in (0, 1, 7, 32, 33, 100, 2**30):
        for epochs, batch_size in ((1, 32), (3, 8), (5, 1), (2, 100)):
            steps = int(steps_of_epochs(np.array([num_examples]), epochs=epochs, batch_size=batch_size)[0])
            for done in sorted({0, min(1, steps), steps // 2, steps}):
                processed = examples_processed(np.array([num_examples]), steps=np.array([done]), batch_size=batch_size)
                found.append([num_examples, epochs, batch_size, steps, done, int(processed[0])])
    return found


def _dropout() -> list[dict[str, Any]]:
    seeds = [0, 2**64 - 1, step_seeds(2**63 - 1, 2)[1]]
    return [
        {"seed": _hexadecimal(seed), "site": site, "numbers": drawn(seed)(site, (2, 4)).flatten().tolist()}
        for seed in seeds
        for site in (0, 1, 5)
    ]


def _held_out() -> list[dict[str, Any]]:
    found = []
    for count in (0, 1, 4, 5, 6, 10, 23):
        places = torch.arange(count)
        own = OwnExamples(Examples(places, places))
        found.append({"count": count, "training": own.training(0).x.tolist(), "held_out": own.held_out(0).x.tolist()})
    return found


def cases() -> dict[str, list[Any]]:
    """All of them, by what they try."""
    words = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF]
    return {
        "mix": [[_hexadecimal(word), _hexadecimal(mix(np.array(word, dtype=np.uint64)))] for word in words],
        "key": _keys(),
        "uniform": [[_hexadecimal(word), uniform(np.uint64(word), 5).tolist()] for word in words],
        "permutation": _permutations(),
        "whole_permutation": _whole_permutations(),
        "batches": _batches(),
        "counts": _counts(),
        "dropout": _dropout(),
        "held_out": _held_out(),
    }


def text() -> str:
    """The file: a line for each case."""
    groups = (
        f" {json.dumps(name)}: [\n" + ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]"
        for name, rows in cases().items()
    )
    return "{\n" + ",\n".join(groups) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")

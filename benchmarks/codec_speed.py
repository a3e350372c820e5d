"""How fast updates are encoded and decoded: megabytes of float32 a second of one core, and bytes.

``python benchmarks/codec_speed.py`` prints a line for each format: quantisation alone (codes, packed, unpacked,
decoded) and whole chains as a phone and the server run them. What arrives is checked against the vector, so that
faster cannot mean less.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from pocketfleet.training.codec import Seeds, load_codec
from pocketfleet.training.codec.packing import packed, unpacked
from pocketfleet.training.codec.quantisation import blocks_of, dequantised, levels, quantised
from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.update import Update

_CHAINS = (
    ("quantised", {"bits": 8}),
    ("rotation+quantised", {"bits": 4}),
    ("random_k+quantised", {"bits": 4, "ratio": 0.05, "error_feedback": True}),
    ("top_k+quantised", {"bits": 4, "ratio": 0.05, "error_feedback": True}),
)


def best_s(work: Callable[[], object], *, repeats: int) -> float:
    """Seconds of a core that the fastest go takes; the first, which pays for what is made once, does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        # Of this process, not of the wall: whatever else runs on this machine does not count.
        began_s = time.process_time()
        work()
        seconds.append(time.process_time() - began_s)
    return min(seconds)


def quantisation(vector: np.ndarray, *, bits: int, repeats: int) -> float:
    """Megabytes of float32 a second, there and back.

    Raises:
        SystemExit: what came back is not within a step of the vector.
    """
    blocks = blocks_of((len(vector),))

    def there_and_back() -> np.ndarray:
        codes, steps = quantised(vector, blocks, bits=bits, dice_seed=7)
        data = packed(codes, bits=bits)
        assert len(data) == len(vector) * bits // 8
        return dequantised(unpacked(data, bits=bits, count=len(vector)), steps, blocks, bits=bits)

    # A value lies within one step, 1 / L at most, of what arrives.
    if not np.abs(there_and_back() - vector).max() <= 1.001 / levels(bits):
        raise SystemExit(f"{bits} bits: what came back is another vector")
    return vector.nbytes / 1e6 / best_s(there_and_back, repeats=repeats)


def chain(vector: np.ndarray, name: str, options: dict[str, int | float | bool], *, repeats: int) -> tuple[float, int]:
    """Megabytes of float32 a second from an update to what arrives, and its bytes."""
    codec, update, seeds = (
        load_codec(name, options),
        Update({"w": torch.from_numpy(vector)}, {}),
        Seeds(shared=1, own=2),
    )
    taken_s = best_s(lambda: codec.decode(codec.encode(update, seeds), update, seeds.shared), repeats=repeats)
    return vector.nbytes / 1e6 / taken_s, codec.encoded_bytes(update)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--values", type=int, default=10_000_000)
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    vector = (2.0 * uniform(draw_key(1, "codec_speed"), given.values) - 1.0).astype(np.float32)
    print(f"{given.values} float32 values, one core")
    for bits in (8, 4, 2):
        print(
            f"quantise, pack, unpack at {bits} bits: {quantisation(vector, bits=bits, repeats=given.repeats):.0f} MB/s"
        )
    for name, options in _CHAINS:
        rate, size = chain(vector, name, options, repeats=given.repeats)
        print(f"{name} {options}: {rate:.0f} MB/s, {vector.nbytes / size:.1f} times fewer bytes")


if __name__ == "__main__":
    main()

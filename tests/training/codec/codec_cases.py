"""Encodings that codecs in other languages are held against: ``tests/codec_cases.json``.

``updates`` are by name; a tensor is its type, shape and little-endian bytes in hexadecimal. Each of ``encodings`` is of
one of them: the codec, its options and seeds, the body and the delta that it arrives as; where errors are fed
back, the update's residual is what is added first, and ``residual_after`` what stays behind. Of the large update
there are SHA-256 of the same bytes: ``delta`` and ``residual_after`` as one vector in the order of the names.
``downloads`` are of the small update's delta and buffers as weights. ``refused`` are bodies that are none of the
small update, by what is wrong with them.

``python tests/training/codec/codec_cases.py`` writes the file anew.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parent))

from updates import drawn_values, small_update

from pocketfleet.training.codec import Codec, DownloadCodec, Seeds, load_codec
from pocketfleet.training.codec.error_feedback import compensated, residual_after
from pocketfleet.training.codec.flat_vector import flat_vector
from pocketfleet.training.update import Update, tensors_from_bytes, tensors_to_bytes
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["CHAINS", "FILE", "cases", "text"]

FILE = Path(__file__).parents[2] / "codec_cases.json"
CHAINS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("quantised", {"bits": 8}),
    ("quantised", {"bits": 4}),
    ("quantised", {"bits": 2}),
    ("quantised", {"bits": 2, "error_feedback": True}),
    ("rotation+quantised", {"bits": 4}),
    ("top_k", {"ratio": 0.1, "error_feedback": True}),
    ("top_k+quantised", {"ratio": 0.1, "bits": 8}),
    ("rotation+top_k+quantised", {"ratio": 0.05, "bits": 4}),
    ("random_k", {"ratio": 0.3}),
    ("random_k+quantised", {"ratio": 0.1, "bits": 4, "error_feedback": True}),
    ("rotation+random_k+quantised", {"ratio": 0.1, "bits": 4, "error_feedback": True}),
    ("random_k+rotation+quantised", {"ratio": 0.3, "bits": 2}),
)
# The first is the least, the second is no double and no number of 32 bits, the third the largest.
_SEEDS = (Seeds(shared=0, own=0), Seeds(shared=2**53 + 1, own=2**62 + 3), Seeds(shared=2**63 - 1, own=2**63 - 1))
_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}


def _large_update() -> Update:
    """Two whole blocks of rotation and some, five of quantisation and some; many equal values, and some tiny ones."""
    values = drawn_values("cases", 9_000)
    values[100:1_500] = np.round(values[100:1_500] * 4) / 4
    values[4_000:6_100] *= np.float32(2.0**-101)
    return Update({"w": torch.from_numpy(values.reshape(90, 100)), "a": torch.from_numpy(values[:7].copy())}, {})


def _updates() -> dict[str, Update]:
    small = small_update()
    # Names whose order is not that of their UTF-16.
    small.delta["\uffee"], small.delta["\U0001f4f1"] = torch.tensor([1.5, -2.5]), torch.tensor([-0.0, 1e-30, 65_504.0])
    return {"small": small, "large": _large_update()}


def _tensors(tensors: Tensors) -> dict[str, Any]:
    return {
        name: {"dtype": _DTYPES[value.dtype], "shape": list(value.shape), "hex": value.numpy().tobytes().hex()}
        for name, value in sorted(tensors.items())
    }


def _residual(update: Update) -> Tensors:
    return {name: value * -0.375 + 0.125 for name, value in update.delta.items()}


def _encoding(name: str, update: Update, codec: Codec, seeds: Seeds) -> dict[str, Any]:
    wanted = compensated(update, _residual(update)) if codec.error_feedback else update
    body = codec.encode(wanted, seeds)
    arrived = codec.decode(body, update, seeds.shared)
    vectors = {"delta": flat_vector(arrived.delta)}
    if codec.error_feedback:
        vectors["residual_after"] = flat_vector(residual_after(wanted, arrived))
    found = {name: vector.astype("<f4").tobytes() for name, vector in vectors.items()} | {"body": body}
    shown = {
        key: data.hex() if name == "small" else hashlib.sha256(data).hexdigest() for key, data in sorted(found.items())
    }
    return {
        "update": name,
        "codec": codec.name,
        "codec_options": dict(codec.options),
        "codec_seed": seeds.shared,
        "batch_seed": seeds.own,
        "bytes": len(body),
        **shown,
    }


def _encodings() -> Iterator[dict[str, Any]]:
    for name, update in _updates().items():
        for place, chain in enumerate(CHAINS):
            yield _encoding(name, update, load_codec(*chain), _SEEDS[place % len(_SEEDS)])


def _downloads() -> Iterator[dict[str, Any]]:
    small = _updates()["small"]
    weights = Weights(trainable=small.delta, buffers=small.buffers, frozen={})
    for bits in (0, 8, 4, 2):
        codec = DownloadCodec(frozenset(weights.trainable | weights.buffers), bits=bits)
        seen = flat_vector(codec.seen(weights).trainable).astype("<f4").tobytes()
        yield {"download_bits": bits, "body": codec.encode(weights).hex(), "weights": seen.hex()}


def _refused() -> Iterator[dict[str, Any]]:
    small, chain = _updates()["small"], ("rotation+top_k+quantised", {"ratio": 0.05, "bits": 4})
    body = load_codec(*chain).encode(small, _SEEDS[1])
    tensors = tensors_from_bytes(body)
    places, steps, codes = (tensors[f"delta/{name}"].clone() for name in ("places", "steps", "codes"))
    places[1], steps[0], codes[0] = places[0], float("nan"), 0xF0
    changed: dict[str, Tensors] = {
        "places do not rise": tensors | {"delta/places": places},
        "a step is no number": tensors | {"delta/steps": steps},
        "a step is negative": tensors | {"delta/steps": -tensors["delta/steps"]},
        "a code is 15": tensors | {"delta/codes": codes},
        "a tensor is missing": {name: value for name, value in tensors.items() if name != "delta/steps"},
        "a tensor more": tensors | {"more": torch.zeros(1)},
    }
    for wrong, found in changed.items():
        yield {
            "wrong": wrong,
            "codec": chain[0],
            "codec_options": chain[1],
            "codec_seed": _SEEDS[1].shared,
            "body": tensors_to_bytes(found).hex(),
        }


def cases() -> dict[str, Any]:
    """All of them."""
    return {
        "updates": {
            name: {group: _tensors(tensors) for group, tensors in update.groups().items()}
            | {"residual": _tensors(_residual(update))}
            for name, update in _updates().items()
        },
        "encodings": list(_encodings()),
        "downloads": list(_downloads()),
        "refused": list(_refused()),
    }


def text() -> str:
    """The file."""
    return json.dumps(cases(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())

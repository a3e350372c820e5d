"""Codecs by name: ``lossless``, or parts in the order of their work, such as ``rotation+random_k+quantised``.

Parts are ``rotation``, ``top_k``, ``random_k`` and ``quantised``. Which chains make sense:

1. Each part comes once, ``quantised`` last, and something in the chain saves bytes.
2. ``top_k`` and ``random_k`` exclude each other: what one keeps is what the other would choose from.
3. ``lossless`` stands alone.
"""

import math
from collections.abc import Mapping
from typing import Any

from pocketfleet.errors import InputError
from pocketfleet.training.codec.codec import Codec
from pocketfleet.training.codec.lossless import LosslessCodec
from pocketfleet.training.codec.lossy import LossyCodec
from pocketfleet.training.codec.stages import RandomK, Rotation, Stage, TopK

__all__ = ["DEVICE_PARTS", "ERROR_FEEDBACK", "QUANTISED_DOWNLOAD", "load_codec"]

_CHAINED = ("quantised", "random_k", "rotation", "top_k")
# What a device says beside the parts' names: it keeps what an update left out; it reads quantised weights.
ERROR_FEEDBACK, QUANTISED_DOWNLOAD = "error_feedback", "quantised_download"
# All that a device of this package can do.
DEVICE_PARTS = (LosslessCodec.name, *_CHAINED, ERROR_FEEDBACK, QUANTISED_DOWNLOAD)


def load_codec(name: str, options: Mapping[str, Any] | None = None) -> Codec:
    """The codec of a name.

    Args:
        name: ``lossless``, or parts joined by ``+``.
        options: ``bits`` (8, 4 or 2) where something is quantised, ``ratio`` (above 0, at most 1) where a few values
            are kept, ``error_feedback`` where anything is lost; 0 and false are as not given.

    Raises:
        InputError: there is no such codec, or its parts or options do not fit together.
    """
    given = {key: value for key, value in (options or {}).items() if value}
    unknown = sorted(set(given) - {"bits", "ratio", ERROR_FEEDBACK})
    if unknown:
        raise InputError(f"codec options are bits, ratio and error_feedback, got {', '.join(unknown)}")
    if name == LosslessCodec.name:
        if given:
            raise InputError(f'codec.{min(given)} says nothing where codec.name is "lossless": leave it out')
        return LosslessCodec()
    parts = name.split("+")
    _check_chain(name, parts)
    _check_options(name, parts, given)
    feedback = bool(given.get(ERROR_FEEDBACK, False))
    ratio = float(given.get("ratio", 0.0))
    made: dict[str, Stage] = {
        "rotation": Rotation(),
        "top_k": TopK(ratio=ratio),
        "random_k": RandomK(ratio=ratio, unbiased=not feedback),
    }
    return LossyCodec(
        [made[part] for part in parts if part in made],
        name=name,
        parts=(*parts, ERROR_FEEDBACK) if feedback else tuple(parts),
        options=given,
        bits=given.get("bits", 0),
        error_feedback=feedback,
    )


def _check_chain(name: str, parts: list[str]) -> None:
    for part in parts:
        if part == LosslessCodec.name:
            raise InputError(f'codec.name "{name}": lossless keeps every bit: leave it or the rest out')
        if part not in _CHAINED:
            raise InputError(
                f'codec.name must be "lossless", or {", ".join(_CHAINED)} joined by +, such as "rotation+quantised", '
                f'got "{name}"'
            )
        if parts.count(part) > 1:
            raise InputError(f'codec.name "{name}" holds {part} twice: leave one out')
    if {"top_k", "random_k"} <= set(parts):
        raise InputError(
            f'codec.name "{name}" holds top_k and random_k, and each would throw away most of what the other keeps: '
            "leave one out"
        )
    if "quantised" in parts[:-1]:
        raise InputError(
            f'codec.name "{name}": quantised must come last, since its codes are whole numbers, which can neither be '
            "rotated nor kept in part"
        )
    if parts[-1] == "rotation":
        raise InputError(
            f'codec.name "{name}" ends in rotation, which saves no bytes by itself: put top_k, random_k or quantised '
            "behind it"
        )


def _check_options(name: str, parts: list[str], given: Mapping[str, Any]) -> None:
    wanted = {"bits": "quantised" in parts, "ratio": not {"top_k", "random_k"}.isdisjoint(parts)}
    for key, example in (("bits", "8"), ("ratio", "0.1")):
        if wanted[key] and key not in given:
            raise InputError(f'codec.name "{name}" needs codec.{key}: set it, such as to {example}')
        if not wanted[key] and key in given:
            raise InputError(f'codec.{key} says nothing where codec.name is "{name}": leave it out')
    # True and 8.0 equal whole numbers.
    if wanted["bits"] and (type(given["bits"]) is not int or given["bits"] not in {2, 4, 8}):
        raise InputError(f"codec.bits must be 8, 4 or 2, got {given['bits']!r}")
    ratio = given.get("ratio", 0.5)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0.0 < ratio <= 1.0 or math.isnan(ratio):
        raise InputError(f"codec.ratio must be above 0 and at most 1, got {ratio!r}")
    if not isinstance(given.get(ERROR_FEEDBACK, False), bool):
        raise InputError(f"codec.error_feedback must be true or false, got {given[ERROR_FEEDBACK]!r}")

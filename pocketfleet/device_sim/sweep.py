"""A sweep's plan: the values that vary, every combination of them, a folder's name for each, who shares a bundle.

Rules:

1. A list of values is split at its top-level commas: brackets, braces and quotes keep theirs.
2. The combinations are the grid of all values; the key given last varies fastest.
3. A folder is named ``key=value,key=value``, a key by its last part where that tells it apart. What a file name cannot
   say (or tells apart by capitals alone) is replaced, and a hash of the values is added: no two combinations share one.
4. A name depends on its combination and the varied keys alone, so that the same sweep finds its folders again.
5. Experiments share a bundle's programs where ``BUNDLE_KEYS`` are equal.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketfleet.errors import InputError

__all__ = [
    "BUNDLE_KEYS",
    "Variation",
    "bundle_group",
    "combinations",
    "folder_name",
    "parse_variations",
    "split_values",
]

# What ``assembly`` makes a bundle's programs of; a section stands for all of its keys. Learning rates are inputs of the
# programs, and the initial weights are replaced in each run.
BUNDLE_KEYS = (
    "task",
    "algorithm",
    *("training.optimizer", "training.momentum", "training.nesterov", "training.weight_decay", "training.max_norm"),
    *("training.batch_size", "training.trainable", "training.lora_rank"),
)
_CLOSING = {"[": "]", "{": "}"}
_PLAIN = re.compile(r"[a-z0-9.,=_+-]+")
# Most file systems take names of 255 bytes (ext4, APFS, NTFS); a run's folder has neighbours with longer names.
_LONGEST_NAME = 120
# Hexadecimal digits of SHA-256 in a name: with 16**8 values, a thousand combinations collide once in 8,000 sweeps, and
# then ``--vary`` is refused.
_HASH_DIGITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """An experiment's key, and the TOML values that it takes, as text."""

    key: str
    values: tuple[str, ...]


def parse_variations(texts: Sequence[str]) -> tuple[Variation, ...]:
    """``["rounds.over_selection=1.0,1.3"]`` as variations.

    Raises:
        InputError: no text, one without a key or a value, or a key that comes twice.
    """
    if not texts:
        raise InputError("sweep varies at least one key, such as --vary rounds.over_selection=1.0,1.3")
    variations: dict[str, Variation] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError(f"--vary takes KEY=V1,V2, such as rounds.over_selection=1.0,1.3, got {text!r}")
        if key in variations:
            raise InputError(f"--vary {key} comes twice: put all of its values behind one")
        variations[key] = Variation(key=key, values=split_values(values, key=key))
    return tuple(variations.values())


def split_values(text: str, *, key: str) -> tuple[str, ...]:
    """The values between top-level commas, without the space around them; see rule 1.

    Args:
        text: such as ``1.0, [2, 3], "a,b"``.
        key: whose values they are, for messages.

    Raises:
        InputError: a value is empty, or a bracket or quote is not closed.
    """
    values = [value.strip() for value in _pieces(text, key=key)]
    if "" in values:
        raise InputError(f"--vary {key}={text}: an empty value; write values with one comma between, such as 1.0,1.3")
    return tuple(values)


def _pieces(text: str, *, key: str) -> Iterator[str]:
    """The text between top-level commas."""
    awaited: list[str] = []  # what closes the brackets and the quote that are open
    start = place = 0
    while place < len(text):
        one = text[place]
        if awaited and awaited[-1] in {'"', "'"}:
            if one == "\\" and awaited[-1] == '"':
                place += 1
            elif one == awaited[-1]:
                awaited.pop()
        elif one in {'"', "'"}:
            awaited.append(one)
        elif one in _CLOSING:
            awaited.append(_CLOSING[one])
        elif awaited and one == awaited[-1]:
            awaited.pop()
        elif one == "," and not awaited:
            yield text[start:place]
            start = place + 1
        place += 1
    if awaited:
        raise InputError(f"--vary {key}={text}: {awaited[-1]} is missing; quote the whole option for your shell")
    yield text[start:]


def combinations(variations: Sequence[Variation]) -> tuple[dict[str, str], ...]:
    """Every combination of the values, each by key; see rule 2."""
    keys = [variation.key for variation in variations]
    grid = itertools.product(*(variation.values for variation in variations))
    return tuple(dict(zip(keys, values, strict=True)) for values in grid)


def folder_name(values: Mapping[str, str]) -> str:
    """The folder of a combination; see rules 3 and 4."""
    last_parts = [key.rpartition(".")[2] for key in values]
    whole = ",".join(
        f"{last if last_parts.count(last) == 1 else key}={value}"
        for (key, value), last in zip(values.items(), last_parts, strict=True)
    )
    if _PLAIN.fullmatch(whole) and len(whole) <= _LONGEST_NAME and whole.count(",") == len(values) - 1:
        return whole
    digest = hashlib.sha256(json.dumps(dict(values)).encode()).hexdigest()[:_HASH_DIGITS]
    told = re.sub(r"[^a-z0-9.,=_+-]+", "-", whole.lower())[: _LONGEST_NAME - _HASH_DIGITS - 1]
    return f"{told}-{digest}"


def bundle_group(table: Mapping[str, Any]) -> str:
    """What experiments that can share a bundle's programs have in common; see rule 5.

    Args:
        table: an experiment's sections, every key with its value.
    """
    chosen: dict[str, Any] = {}
    for key in BUNDLE_KEYS:
        section, _, name = key.partition(".")
        chosen[key] = table[section][name] if name else table[section]
    return json.dumps(chosen, sort_keys=True, default=str)

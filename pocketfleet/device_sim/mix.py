"""A mix: which share of a fleet each catalogue phone has.

Rules:

1. A packaged mix lies in ``catalog/mixes.csv``; a user's is a CSV file with the columns ``phone`` and ``weight``.
   Weights need not add up to 1.
2. Each packaged weight has its source: a key of ``catalog/sources.csv`` with the brand and its published share, over
   whose phones the share is divided as assumed there; or *assumed*.
3. A mix names phones of the catalogue in use, a user's own phones included.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pocketfleet.device_sim.catalog import Row, file_rows, packaged_rows
from pocketfleet.device_sim.phone import Phone, find_phone, load_phones
from pocketfleet.errors import InputError

__all__ = ["load_mix", "mix_names", "weighted_quantile"]


def mix_names() -> tuple[str, ...]:
    """The names of the packaged mixes."""
    return tuple(_packaged())


def load_mix(mix: str | Path, *, phones: tuple[Phone, ...] | None = None) -> dict[str, float]:
    """The weights of a mix by phone name, in the table's order.

    Args:
        mix: a packaged mix's name, or the path of a table.
        phones: the catalogue that its names come from; the packaged one without.

    Raises:
        InputError: neither a packaged mix nor a readable table, or a row is wrong.
    """
    packaged = _packaged()
    catalogue = load_phones() if phones is None else phones
    if isinstance(mix, str) and mix in packaged:
        return _weights(packaged[mix], catalogue)
    if isinstance(mix, str) and not Path(mix).exists():
        raise InputError(f"fleet.mix must be one of {', '.join(packaged)} or the path of a CSV file, got {mix!r}")
    return _weights(file_rows(Path(mix), columns=("phone", "weight")), catalogue)


def weighted_quantile(values: Iterable[float], weights: Iterable[float], probability: float) -> float:
    """The smallest value that at least ``probability`` of the weight is not over.

    Args:
        values: at least one.
        weights: as many, more than 0.
        probability: 0 to 1.
    """
    ordered = sorted(zip(values, weights, strict=True))
    total = sum(weight for _, weight in ordered)
    reached = 0.0
    for value, weight in ordered:
        reached += weight / total
        if reached >= probability:
            return value
    # What rounding leaves of the sum.
    return ordered[-1][0]


def _packaged() -> Mapping[str, list[Row]]:
    packaged: dict[str, list[Row]] = {}
    for row in packaged_rows("mixes.csv"):
        packaged.setdefault(row.text("mix"), []).append(row)
    return packaged


def _weights(rows: Iterable[Row], catalogue: tuple[Phone, ...]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for row in rows:
        name = _phone_name(row, catalogue)
        if name in weights:
            raise InputError(f"{row.where}, column phone: {name!r} is there twice; add up its weights")
        weights[name] = row.number("weight")
    return weights


def _phone_name(row: Row, catalogue: tuple[Phone, ...]) -> str:
    try:
        return find_phone(row.text("phone"), catalogue).name
    except InputError as exc:
        raise InputError(f"{row.where}, column phone: {exc}") from exc

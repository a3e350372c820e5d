"""A mix: which share of a fleet each catalogue phone has.

A packaged mix lies in ``catalog/mixes.csv`` with the source of each weight; a user's is a CSV file with the
columns ``phone`` and ``weight``. Weights need not add up to 1.
"""

from pathlib import Path

from pocketfleet.device_sim.catalog import Row, file_rows, packaged_rows
from pocketfleet.device_sim.phone import find_phone
from pocketfleet.errors import InputError

__all__ = ["load_mix"]


def load_mix(mix: str | Path) -> dict[str, float]:
    """The weights of a mix by phone name, in the table's order.

    Raises:
        InputError: neither a packaged mix nor a readable table, or a row is wrong.
    """
    packaged: dict[str, list[Row]] = {}
    for row in packaged_rows("mixes.csv"):
        packaged.setdefault(row.text("mix"), []).append(row)
    if isinstance(mix, str) and mix in packaged:
        return _weights(packaged[mix])
    if isinstance(mix, str) and not Path(mix).exists():
        raise InputError(f"fleet.mix must be one of {', '.join(packaged)} or the path of a CSV file, got {mix!r}")
    return _weights(file_rows(Path(mix), columns=("phone", "weight")))


def _weights(rows: list[Row] | tuple[Row, ...]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for row in rows:
        name = _phone_name(row)
        if name in weights:
            raise InputError(f"{row.where}, column phone: {name!r} is there twice; add up its weights")
        weights[name] = row.number("weight")
    return weights


def _phone_name(row: Row) -> str:
    try:
        return find_phone(row.text("phone")).name
    except InputError as exc:
        raise InputError(f"{row.where}, column phone: {exc}") from exc

"""FedScale's client availability, ``client_behave_trace``, as a recorded trace in the long format.

The file is a pickled dictionary from a client's number to ``active`` and ``inactive``, lists of seconds of the same
length, and ``finish_time``; it is read without unpickling (``plain_pickle``). Rules:

1. A client is available from each ``active`` to the ``inactive`` at the same place, and again every ``finish_time``.
   Both ends belong to the interval there; here its last instant does not, so that what starts where it ends is empty.
2. FedScale takes a charging phone for an available one: the intervals become ``charge_on`` and ``charge_off``. Screen
   and Wi-Fi were not recorded, so they hold always. A client does not charge before its first interval.
3. ``finish_time`` becomes ``end``: a recording of whole days repeats as it does in FedScale. What lies beyond it is
   never reached there, and is cut off. Intervals that overlap become one.
4. ``duration`` and ``model`` (the phone's) are left alone.

Sources of the format: SymbioticLab/FedScale@7ec441c benchmark/dataset/data/device_info/README.md, how
fedscale/cloud/internal/client_metadata.py reads it, and docs/dataset/sys.md of its pages (Apache-2.0).
"""

from collections import Counter
from pathlib import Path

from pocketfleet.device_sim.plain_pickle import Plain, load_plain
from pocketfleet.device_sim.trace_events import MOST_S, TraceEvents
from pocketfleet.errors import InputError

__all__ = ["read_fedscale"]

# Integers from here on are no client's number; Python does not even print those of more than 4,300 digits.
_MOST_CLIENTS = 2**63


def read_fedscale(path: str | Path) -> tuple[TraceEvents, Counter[str]]:
    """The events of a file in FedScale's format, and what of it was left out, counted by what it is.

    Raises:
        InputError: it is no such file, or its pickle holds anything but plain data.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise InputError(f"cannot read FedScale's trace {path}: {exc}") from exc
    found = load_plain(data, name=str(path))
    if not isinstance(found, dict) or not found:
        got = "but holds none" if found == {} else f"got {_shown(found)}"
        raise InputError(f"{path}: FedScale's trace is a dictionary of clients, {got}")
    left_out: Counter[str] = Counter()
    devices: dict[str, list[tuple[float, str]]] = {}
    for key, client in found.items():
        if not isinstance(key, str) and not (isinstance(key, int) and 0 <= key < _MOST_CLIENTS):
            raise InputError(f"{path}: a client's name must be a string or an integer from 0 on, got {_shown(key)}")
        name = str(key).strip()
        where = f"{path}: client {name[:40]!r}"
        if name in devices:
            raise InputError(f"{where} is there twice, as a number and as a string")
        devices[name] = _events(client, left_out, where=where)
    return TraceEvents.of_devices(devices, name=str(path)), left_out


def _events(client: Plain, left_out: Counter[str], *, where: str) -> list[tuple[float, str]]:
    if not isinstance(client, dict):
        raise InputError(f"{where} must be a dictionary with active, inactive and finish_time, got {_shown(client)}")
    finish_s = _number(client.get("finish_time"), where=f"{where}, finish_time")
    if finish_s == 0.0:
        raise InputError(f"{where}, finish_time: must be more than 0, got 0")
    starts, ends = (_numbers(client.get(key), where=f"{where}, {key}") for key in ("active", "inactive"))
    if len(starts) != len(ends):
        raise InputError(f"{where}: active and inactive must be as long as each other, got {len(starts)}, {len(ends)}")
    events = [(0.0, "charge_off")]
    for start_s, end_s in _joined(sorted(zip(starts, ends, strict=True)), where=where):
        if start_s >= finish_s:
            left_out["intervals beyond finish_time"] += 1
        elif start_s == end_s:
            left_out["intervals of no length"] += 1
        else:
            events += [(start_s, "charge_on"), (min(end_s, finish_s), "charge_off")]
    return [*events, (finish_s, "end")]


def _joined(intervals: list[tuple[float, float]], *, where: str) -> list[tuple[float, float]]:
    """Sorted intervals, those that meet made one."""
    joined: list[tuple[float, float]] = []
    for start_s, end_s in intervals:
        if end_s < start_s:
            raise InputError(f"{where}: an interval ends before it starts: active {start_s:g}, inactive {end_s:g}")
        if joined and start_s <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_s))
        else:
            joined.append((start_s, end_s))
    return joined


def _numbers(value: Plain, *, where: str) -> list[float]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}: must be a list of seconds, got {_shown(value)}")
    return [_number(item, where=where) for item in value]


def _number(value: Plain, *, where: str) -> float:
    # At most what a trace may hold, see ``trace_events``; an integer beyond a float's range is refused too.
    if not isinstance(value, int | float) or not 0 <= value <= MOST_S:
        raise InputError(f"{where}: must be seconds, 0 to {MOST_S:.0e}, got {_shown(value)}")
    return float(value)


def _shown(value: Plain) -> str:
    # Without its parts: they may be many, and deep.
    if isinstance(value, int) and abs(value) >= _MOST_CLIENTS:
        return "a larger integer"
    return repr(value)[:40] if isinstance(value, int | float | str) else f"a {type(value).__name__}"

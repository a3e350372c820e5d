"""FLASH's state traces, ``data/state_traces.json``, as a recorded trace in the long format.

The file is a JSON object of devices, each with ``messages``: lines of a local date and time, a tab, and a state. Rules:

1. Time 0 is midnight of the file's first day; the clock is the devices' own, its time zone is not known. A device's
   recording ends with its last line.
2. ``battery_charged_on`` and ``battery_charged_off`` are charging; ``wifi`` is on Wi-Fi, any other network (``2G`` to
   ``5G``, ``Unknown``) is off it.
3. A phone is in use while its screen is on and not locked (``screen_on``, ``screen_off``, ``screen_lock``,
   ``screen_unlock``). FLASH takes it for in use while it is not locked, whatever its screen.
4. Lines are taken in the order of their times. Capitals do not matter.
5. Battery levels, other states and lines that are no time and state are left out, and counted; so are devices of which
   nothing is left. (FLASH leaves out every device with such a line.)

Source of the format: how PKU-Chengxu/FLASH@55cbede models/timer.py and models/client.py read it (BSD-2-Clause); paper:
Yang et al. 2021, WWW, "Characterizing impacts of heterogeneity in federated learning upon large-scale smartphone data".
"""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from pocketfleet.device_sim.trace_events import TraceEvents
from pocketfleet.errors import InputError

__all__ = ["read_flash"]

_DAY_S = 86400
_WORDS = {
    "battery_charged_on": "charge_on",
    "battery_charged_off": "charge_off",
    "wifi": "wifi_on",
    **dict.fromkeys(("unknown", "2g", "3g", "4g", "5g"), "wifi_off"),
}
# What a line says of the screen: off or not, locked or not.
_SCREEN = {
    "screen_on": ("off", False),
    "screen_off": ("off", True),
    "screen_lock": ("locked", True),
    "screen_unlock": ("locked", False),
}
# Year, month, day, hour, minute and second, and what stands between them; ``fromisoformat`` takes more forms.
_STAMP_LENGTH = 19


def read_flash(path: str | Path) -> tuple[TraceEvents, Counter[str]]:
    """The events of a file in FLASH's format, and what of it was left out, counted by what it is.

    Raises:
        InputError: it is no such file.
    """
    left_out: Counter[str] = Counter()
    lines = {name: _lines(text, left_out) for name, text in _messages(Path(path)).items()}
    first_s = min((time_s for device in lines.values() for time_s, _ in device), default=0)
    devices: dict[str, list[tuple[float, str]]] = {}
    for name, device in lines.items():
        events = _events(device, left_out, from_s=first_s // _DAY_S * _DAY_S)
        if events:
            devices[name] = events
        else:
            left_out["devices without a state"] += 1
    if not devices:
        raise InputError(f"{path}: no device has a state that FLASH's traces have, such as battery_charged_on or wifi")
    return TraceEvents.of_devices(devices, name=str(path)), left_out


def _messages(path: Path) -> dict[str, str]:
    """Each device's lines as one text."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise InputError(f"cannot read FLASH's trace {path}: {exc}") from exc
    if not isinstance(found, dict):
        raise InputError(f"{path}: FLASH's trace is a JSON object of devices, got a {type(found).__name__}")
    messages: dict[str, str] = {}
    for name, device in found.items():
        text = device.get("messages") if isinstance(device, dict) else None
        if not isinstance(text, str):
            raise InputError(f"{path}: device {name!r} must be an object with messages, a text of one state a line")
        if name.strip() in messages:
            raise InputError(f"{path}: device {name!r} is there twice, but for spaces around its name")
        messages[name.strip()] = text
    return messages


def _lines(text: str, left_out: Counter[str]) -> list[tuple[int, str]]:
    """Seconds since year 1 and states, sorted by time; lines at the same time as they stand."""
    lines = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        stamp, _, state = line.partition("\t")
        seconds = _seconds(stamp.strip())
        if seconds is None or not state.strip():
            left_out["lines that are no time and state"] += 1
        else:
            lines.append((seconds, state.strip().lower()))
    return sorted(lines, key=lambda line: line[0])


def _seconds(stamp: str) -> int | None:
    try:
        when = datetime.fromisoformat(stamp) if len(stamp) == _STAMP_LENGTH else None
    except ValueError:
        return None
    if when is None:
        return None
    return when.toordinal() * _DAY_S + when.hour * 3600 + when.minute * 60 + when.second


def _events(lines: Iterable[tuple[int, str]], left_out: Counter[str], *, from_s: int) -> list[tuple[float, str]]:
    """A device's events since ``from_s``, its end among them; none without a state."""
    events: list[tuple[float, str]] = []
    screen: dict[str, Any] = {"off": False, "locked": False}
    shown, last_s = "", 0.0
    for seconds, state in lines:
        last_s = float(seconds - from_s)
        if state in _WORDS:
            events.append((last_s, _WORDS[state]))
        elif state in _SCREEN:
            part, holds = _SCREEN[state]
            screen[part] = holds
            word = "screen_off" if any(screen.values()) else "screen_on"
            if word != shown:
                events.append((last_s, word))
            shown = word
        else:
            left_out["battery levels" if state.endswith("%") else f"states {state[:40]!r}"] += 1
    return [*events, (last_s, "end")] if events else []

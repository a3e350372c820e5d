"""How batteries and skins fare over a while that is cut into pieces of constant conditions.

Rules:

1. Within a piece a phone is idle or in use, on its charger or not. Its level is a straight line in time, or, above the
   charger's knee, a taper (``charging.py``); its skin nears where the piece would let it settle (``thermal.py``).
2. A piece is lived from the level and the skin that the piece before it left. Levels need no skins: what heat keeps a
   charger from giving is settled beforehand. So all levels come first, and then all skins.
3. Whatever does not depend on the piece before is worked out for all pieces at once: arrays of ``[pieces, n]``.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.charging import CHARGING_EFFICIENCY_RATIO, KNEE_RATIO, Taper
from pocketfleet.device_sim.day_changes import CHARGING, IDLE, DayChanges
from pocketfleet.device_sim.thermal import Cases, warmed_by_decay

__all__ = ["Supply", "lived_through"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# What a charger loses in the phone for each watt that arrives.
_LOST_PER_ARRIVED = (1.0 - CHARGING_EFFICIENCY_RATIO) / CHARGING_EFFICIENCY_RATIO


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Supply:
    """What devices draw and are fed with while they live, ``[n]``.

    Attributes:
        capacity_joules: of the battery.
        full_watts: what arrives of the charger at full power.
        idle_watts: drawn while idle.
        in_use_watts: drawn while in use.
        idle_fed_watts: what arrives of the charger while idle.
        in_use_fed_watts: while in use.
        cases: what the skins' warmth follows; ``None``: nothing warms.
    """

    capacity_joules: Floats
    full_watts: Floats
    idle_watts: Floats
    in_use_watts: Floats
    idle_fed_watts: Floats
    in_use_fed_watts: Floats
    cases: Cases | None


def lived_through(
    supply: Supply, changes: DayChanges, level_joules: Floats, skin_celsius: Floats
) -> tuple[Floats, Floats]:
    """Levels and skins after a while, ``[n]`` each.

    Args:
        supply: the devices'.
        changes: of their days over the while.
        level_joules: in the batteries at its start, ``[n]``.
        skin_celsius: at its start, ``[n]``; without cases they stay as they are.
    """
    pieces = _Pieces.of(supply, changes)
    level_joules, tapers = _levels(supply, pieces, level_joules)
    if supply.cases is not None:
        skin_celsius = _skins(supply.cases, pieces, tapers, skin_celsius)
    return level_joules, skin_celsius


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pieces:
    """Watts drawn, watts that arrive, and seconds; ``[pieces, n]``."""

    draw_watts: Floats
    fed_watts: Floats
    seconds: Floats

    @classmethod
    def of(cls, supply: Supply, changes: DayChanges) -> Self:
        start_s, end_s = changes.pieces()
        code = np.ascontiguousarray(changes.code.T)
        idle = (code & IDLE) > 0
        fed = np.where(idle, supply.idle_fed_watts, supply.in_use_fed_watts)
        return cls(
            draw_watts=np.where(idle, supply.idle_watts, supply.in_use_watts),
            fed_watts=np.where(code & CHARGING, fed, 0.0),
            seconds=np.ascontiguousarray((end_s - start_s).T),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ToppedUp:
    """Charging that ended above the knee: in one piece, of some rows ``[k]``."""

    piece: int
    row: Indices
    taper: Taper


def _levels(supply: Supply, pieces: _Pieces, level: Floats) -> tuple[Floats, list[_ToppedUp]]:
    """Levels in the end ``[n]``, and what charging ended above the knee on the way."""
    net, seconds, capacity = pieces.fed_watts - pieces.draw_watts, pieces.seconds, supply.capacity_joules
    gained, charging, knee = net * seconds, (net > 0.0) & (seconds > 0.0), KNEE_RATIO * capacity
    tapers: list[_ToppedUp] = []
    for piece, (gain, charges) in enumerate(zip(gained, charging, strict=True)):
        after = np.minimum(np.maximum(level + gain, 0.0), capacity)
        row = (charges & (after > knee)).nonzero()[0]
        if len(row):
            taper = Taper.of(
                level[row],
                net_watts=net[piece, row],
                full_watts=supply.full_watts[row],
                capacity_joules=capacity[row],
                seconds=seconds[piece, row],
            )
            after[row] = taper.level_joules
            tapers.append(_ToppedUp(piece=piece, row=row, taper=taper))
        level = after
    return level, tapers


def _skins(cases: Cases, pieces: _Pieces, tapers: list[_ToppedUp], celsius: Floats) -> Floats:
    """Skins in the end, ``[n]``."""
    settles_at = _settles_at(cases, pieces.draw_watts, pieces.fed_watts)
    kept_ratio = np.exp(-pieces.seconds / cases.time_constant_s)
    warmths, start = _Warmth.of(cases, pieces, tapers), 0
    topped_up = iter(tapers)
    coming = next(topped_up, None)
    for piece, (settles, kept) in enumerate(zip(settles_at, kept_ratio, strict=True)):
        warmed = settles + (celsius - settles) * kept
        if coming is not None and coming.piece == piece:
            stop = start + len(coming.row)
            warmed[coming.row] = warmths.after(celsius[coming.row], slice(start, stop))
            coming, start = next(topped_up, None), stop
        celsius = warmed
    return celsius


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Warmth:
    """What topping up does to skins, in its three parts: constant, falling and no watts; all ``[k]``.

    ``kept`` is the share of what a skin is off its settled temperature that is left after a part.
    """

    constant_settles_at: Floats
    constant_kept: Floats
    settles_at: Floats
    falling_kept: Floats
    falling_kelvin: Floats
    full_kept: Floats

    @classmethod
    def of(cls, cases: Cases, pieces: _Pieces, tapers: list[_ToppedUp]) -> Self:
        """Of all tapers at once, one after another."""
        none = np.empty(0, dtype=np.int64)
        row = np.concatenate([none, *(each.row for each in tapers)])
        piece = np.repeat(np.array([each.piece for each in tapers], dtype=np.int64), [len(each.row) for each in tapers])
        cases, draw, fed = cases.rows(row), pieces.draw_watts[piece, row], pieces.fed_watts[piece, row]
        constant_s, falling_s, full_s, falling_watts, falling_per_s = (
            np.concatenate([none, *(getattr(each.taper, name) for each in tapers)])
            for name in ("constant_s", "falling_s", "full_s", "falling_watts", "falling_per_s")
        )
        tau = cases.time_constant_s
        share = warmed_by_decay(falling_s, rate_per_s=falling_per_s, time_constant_s=tau)
        return cls(
            constant_settles_at=_settles_at(cases, draw, draw + (fed - draw)),
            constant_kept=np.exp(-constant_s / tau),
            # What arrives feeds the phone; what the battery takes on top falls, and then is none.
            settles_at=_settles_at(cases, draw, draw),
            falling_kept=np.exp(-falling_s / tau),
            falling_kelvin=cases.kelvin_per_watt * (_LOST_PER_ARRIVED * falling_watts) * share,
            full_kept=np.exp(-full_s / tau),
        )

    def after(self, celsius: Floats, some: slice) -> Floats:
        """Skins after ``some`` of them have topped up."""
        first, settles_at = self.constant_settles_at[some], self.settles_at[some]
        celsius = first + (celsius - first) * self.constant_kept[some]
        celsius = settles_at + (celsius - settles_at) * self.falling_kept[some] + self.falling_kelvin[some]
        return settles_at + (celsius - settles_at) * self.full_kept[some]


def _settles_at(cases: Cases, draw_watts: Floats, fed_watts: Floats) -> Floats:
    return cases.settles_at_celsius(draw_watts + _LOST_PER_ARRIVED * fed_watts)

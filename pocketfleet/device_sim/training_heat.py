"""What heat does to training: pieces of constant power between thresholds of the skin, in closed form.

Rules:

1. While a phone trains, its skin nears where CPU, idle and the charger's losses let it settle (``thermal.py``).
2. At a threshold of ``thermal_policy.py`` the CPU falls to a budget or is let go, the charger is held, or training
   stops for good. In between all power is constant, so that each next threshold has a time in closed form.
3. A piece that begins as the last but one did, begins a cycle: from there on two pieces alternate for ever.
4. The charger gives what it gives to a cool phone, less as the battery's level at the start asks; at the limit of
   charging and above it is held to what keeps the skin there. Once held it stays so: the skin cools no more below.
5. A phone that comes hot begins as if it had just passed the thresholds below its temperature.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.charging import CHARGING_EFFICIENCY_RATIO
from pocketfleet.device_sim.thermal import Cases, relaxed
from pocketfleet.device_sim.thermal_policy import (
    CHARGE_CELSIUS,
    CPU_CELSIUS,
    HYSTERESIS_KELVIN,
    STOP_CELSIUS,
    budget_watts,
    speed_ratio,
    too_hot,
)

__all__ = ["Course", "Power", "course_of"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# The longest way to a cycle: from a cool phone over the charger's limit and both budgets, and one of each kind again.
_MOST_PIECES = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Power:
    """What phones draw and get while they train, watts ``[n]``.

    Attributes:
        cpu_watts: of unhindered training, above idle.
        idle_watts: of all the rest.
        charger_watts: what the charger gives at most to the cool phone; 0 off the charger.
        taken_watts: what the battery takes at most, ``charging.accepted_watts``.
    """

    cpu_watts: Floats
    idle_watts: Floats
    charger_watts: Floats
    taken_watts: Floats

    def given_watts(self, cpu_watts: Floats) -> Floats:
        """What the charger gives a cool phone whose CPU draws ``cpu_watts``."""
        wanted = (self.taken_watts + self.idle_watts + cpu_watts) / CHARGING_EFFICIENCY_RATIO
        return np.minimum(self.charger_watts, wanted)

    def rows(self, chosen: Indices) -> "Power":
        """The same of some."""
        return Power(**{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """Trainings under heat: pieces, of ``[n, m]`` columns, and the cycle that the last two may be.

    Seconds count from the start of each training. Beyond what ``course_of`` was asked for, the last piece goes on.

    Attributes:
        begin_s: rising; infinite where a row has fewer pieces.
        length_s: infinite for the last piece, unless it ends a cycle; 0 where a row has fewer.
        begin_celsius: of the skin.
        settles_at_celsius: where the piece leads.
        time_constant_s: ``[n]``.
        speed: over the full speed.
        cpu_watts: drawn for training.
        charger_watts: given by the charger.
        withheld_watts: what the charger could give and does not, because of the heat.
        cycle_from_s: when the first cycle begins, infinite without; ``[n]``.
        cycle_s: its length; ``[n]``.
        too_hot_s: when the phone must stop, infinite if never; ``[n]``.
    """

    begin_s: Floats
    length_s: Floats
    begin_celsius: Floats
    settles_at_celsius: Floats
    time_constant_s: Floats
    speed: Floats
    cpu_watts: Floats
    charger_watts: Floats
    withheld_watts: Floats
    cycle_from_s: Floats
    cycle_s: Floats
    too_hot_s: Floats

    def work_s(self, elapsed_s: Floats) -> Floats:
        """Seconds of full speed that the work done until ``elapsed_s`` is worth, ``[n]``."""
        return self.total(self.speed, elapsed_s)

    def joules(self, elapsed_s: Floats) -> Floats:
        """Drawn by the CPU for training until ``elapsed_s``, ``[n]``."""
        return self.total(self.cpu_watts, elapsed_s)

    def held_back_s(self, elapsed_s: Floats) -> Floats:
        """Seconds until ``elapsed_s`` at less than full speed, ``[n]``."""
        return self.total((self.speed < 1.0).astype(np.float64), elapsed_s)

    def total(self, rate: Floats, elapsed_s: Floats) -> Floats:
        """The integral of a rate that is constant in each piece.

        Args:
            rate: ``[n, m]``, one of this object's columns or made of them.
            elapsed_s: finite, 0 or more, ``[n]``.
        """
        whole, within_s = self._folded(elapsed_s)
        return self._within(rate, within_s) + np.where(whole > 0.0, whole * self.total_of_cycle(rate), 0.0)

    def total_of_cycle(self, rate: Floats) -> Floats:
        """The integral over one cycle, ``[n]``; 0 without."""
        begins_s = np.where(np.isfinite(self.cycle_from_s), self.cycle_from_s, 0.0)
        return self._within(rate, begins_s + self.cycle_s) - self._within(rate, begins_s)

    def elapsed_s(self, work_s: Floats) -> Floats:
        """When so much work is done, ``[n]``: the inverse of ``work_s``."""
        done_s = np.cumsum(_product(self.speed, self.length_s), axis=1)
        before_s = np.concatenate([np.zeros((len(work_s), 1)), done_s[:, :-1]], axis=1)
        cycle_work_s = self.total_of_cycle(self.speed)
        cycles = cycle_work_s > 0.0
        first_s = self._within(self.speed, np.where(cycles, self.cycle_from_s, 0.0))
        whole = np.where(cycles, np.floor((work_s - first_s) / np.where(cycles, cycle_work_s, 1.0)), 0.0)
        whole = np.maximum(whole, 0.0)
        left_s = work_s - whole * cycle_work_s
        begun = np.isfinite(self.begin_s) & (before_s <= left_s[:, np.newaxis])
        last = begun.sum(axis=1) - 1
        row = np.arange(len(work_s))
        elapsed: Floats = self.begin_s[row, last] + (left_s - before_s[row, last]) / self.speed[row, last]
        return elapsed + whole * self.cycle_s

    def celsius(self, elapsed_s: Floats) -> Floats:
        """Of the skin at ``elapsed_s``, ``[n]``."""
        _, within_s = self._folded(elapsed_s)
        row, last = np.arange(len(within_s)), (self.begin_s <= within_s[:, np.newaxis]).sum(axis=1) - 1
        return relaxed(
            self.begin_celsius[row, last],
            self.settles_at_celsius[row, last],
            within_s - self.begin_s[row, last],
            self.time_constant_s,
        )

    def _folded(self, elapsed_s: Floats) -> tuple[Floats, Floats]:
        """Whole cycles that are over, and the time within the pieces."""
        cycles = np.isfinite(self.cycle_from_s) & (elapsed_s > self.cycle_from_s)
        into_s = np.where(cycles, elapsed_s - np.where(cycles, self.cycle_from_s, 0.0), 0.0)
        whole = np.floor(into_s / np.where(cycles, self.cycle_s, 1.0))
        return whole, elapsed_s - whole * self.cycle_s

    def _within(self, rate: Floats, within_s: Floats) -> Floats:
        spent_s = np.clip(within_s[:, np.newaxis] - self.begin_s, 0.0, self.length_s)
        sums: Floats = _product(rate, spent_s).sum(axis=1)
        return sums


def _product(rate: Floats, seconds: Floats) -> Floats:
    """Zero where a rate is, also over an infinite time."""
    return np.multiply(rate, seconds, out=np.zeros_like(rate), where=rate != 0.0)


def course_of(power: Power, cases: Cases, celsius: Floats, *, work_s: Floats, until_s: Floats) -> Course:
    """How trainings go.

    Args:
        power: of the phones, ``[n]``.
        cases: of the phones, ``[n]``.
        celsius: of their skins at the start, ``[n]``.
        work_s: seconds of work at full speed; no pieces are looked for beyond it, ``[n]``.
        until_s: nor beyond so many seconds, ``[n]``.

    Returns:
        Pieces, as few as the longest row needs: one where no phone comes near a threshold.
    """
    walk = _Walk(power, cases, celsius)
    left = np.arange(len(celsius))
    for number in range(_MOST_PIECES):
        # The first piece there is also where nobody trains.
        if number > 0 and len(left) == 0:
            break
        left = walk.next_piece(left)
        left = left[(walk.reached_s[left] < until_s[left]) & (walk.work_s[left] < work_s[left])]
    return walk.course()


class _Walk:
    """Phones on their way from piece to piece."""

    def __init__(self, power: Power, cases: Cases, celsius: Floats) -> None:
        n = len(celsius)
        self.power, self.cases = power, cases
        self.reached_s, self.work_s = np.zeros(n), np.zeros(n)
        self.celsius = celsius.astype(np.float64)
        self.severity = np.searchsorted(CPU_CELSIUS, celsius, side="right").astype(np.int8)
        self.held = celsius >= CHARGE_CELSIUS
        self.too_hot_s = np.where(too_hot(celsius, training=True), 0.0, np.inf)
        self.cycle_from_s, self.cycle_s = np.full(n, np.inf), np.zeros(n)
        self.pieces: list[dict[str, Floats]] = []
        self._before: list[tuple[Floats, npt.NDArray[np.int8], Bools]] = []

    def next_piece(self, rows: Indices) -> Indices:
        """Let phones reach their next thresholds; returns those that go on behind them."""
        rows = rows[~self._cycling(rows)]
        if len(rows) == 0 and self.pieces:
            return rows
        self._before.append((self.celsius.copy(), self.severity.copy(), self.held.copy()))
        piece = self._powers(rows)
        target, seconds = self._next_threshold(rows, piece["settles_at_celsius"])
        self._note(rows, piece | {"begin_s": self.reached_s[rows], "length_s": seconds})
        self.work_s[rows] += piece["speed"] * seconds
        self.reached_s[rows] += seconds
        on = np.flatnonzero(np.isfinite(seconds))
        rows, target = rows[on], target[on]
        self._cross(rows, target)
        going: Indices = rows[self.too_hot_s[rows] == np.inf]
        return going

    def _powers(self, rows: Indices) -> dict[str, Floats]:
        power, cases = self.power.rows(rows), self.cases.rows(rows)
        cpu = np.minimum(power.cpu_watts, budget_watts(self.severity[rows], cases.kelvin_per_watt))
        draw = cpu + power.idle_watts
        given = power.given_watts(cpu)
        charger = np.where(self.held[rows], np.minimum(given, cases.held_charge_watts(draw)), given)
        return {
            "begin_celsius": self.celsius[rows],
            "settles_at_celsius": cases.settles_at_celsius(draw + (1.0 - CHARGING_EFFICIENCY_RATIO) * charger),
            "speed": speed_ratio(cpu, power.cpu_watts),
            "cpu_watts": cpu,
            "charger_watts": charger,
            "withheld_watts": np.where(charger < given, power.charger_watts - charger, 0.0),
        }

    def _next_threshold(self, rows: Indices, settles_at: Floats) -> tuple[Floats, Floats]:
        """The threshold that each phone reaches next, and after how long: infinite if none."""
        celsius, severity = self.celsius[rows], self.severity[rows]
        above = np.array([*CPU_CELSIUS, STOP_CELSIUS])[severity]
        above = np.where(~self.held[rows] & (celsius < CHARGE_CELSIUS), CHARGE_CELSIUS, above)
        below = np.array([-np.inf, *CPU_CELSIUS])[severity] - HYSTERESIS_KELVIN
        target = np.where(settles_at > celsius, above, below)
        reached = np.where(settles_at > celsius, settles_at > above, settles_at < below) & (settles_at != celsius)
        ratio = (settles_at - celsius) / np.where(reached, settles_at - target, 1.0)
        seconds = self.cases.time_constant_s[rows] * np.log(np.where(reached, ratio, 1.0))
        return target, np.where(reached, seconds, np.inf)

    def _cross(self, rows: Indices, target: Floats) -> None:
        rising = target > self.celsius[rows]
        self.celsius[rows] = target
        stops = rising & (target == STOP_CELSIUS)
        self.too_hot_s[rows[stops]] = self.reached_s[rows[stops]]
        charge = rising & (target == CHARGE_CELSIUS)
        self.held[rows[charge]] = True
        cpu = ~charge & ~stops
        self.severity[rows[cpu]] += np.where(rising[cpu], 1, -1).astype(np.int8)

    def _cycling(self, rows: Indices) -> Bools:
        """Whose next piece would begin as the last but one did; notes the cycle of these."""
        if len(self._before) < 2:
            return np.zeros(len(rows), dtype=np.bool_)
        celsius, severity, held = self._before[-2]
        same: Bools = (self.celsius == celsius)[rows] & (self.severity == severity)[rows] & (self.held == held)[rows]
        begin_s = self.pieces[-2]["begin_s"]
        self.cycle_from_s[rows[same]] = begin_s[rows[same]]
        self.cycle_s[rows[same]] = self.reached_s[rows[same]] - begin_s[rows[same]]
        return same

    def _note(self, rows: Indices, piece: dict[str, Floats]) -> None:
        columns = {name: np.full(len(self.celsius), _PADDING.get(name, 0.0)) for name in piece}
        for name, values in piece.items():
            columns[name][rows] = values
        self.pieces.append(columns)

    def course(self) -> Course:
        """The pieces so far."""
        columns = {name: np.stack([piece[name] for piece in self.pieces], axis=1) for name in self.pieces[0]}
        endless = np.flatnonzero(~np.isfinite(self.cycle_from_s))
        columns["length_s"][endless, np.isfinite(columns["begin_s"]).sum(axis=1)[endless] - 1] = np.inf
        return Course(
            **columns,
            time_constant_s=self.cases.time_constant_s,
            cycle_from_s=self.cycle_from_s,
            cycle_s=self.cycle_s,
            too_hot_s=self.too_hot_s,
        )


# What a row has in pieces that it does not come to.
_PADDING = {"begin_s": np.inf, "speed": 1.0}

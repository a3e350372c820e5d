"""The phones of a simulation with all that changes about them: who may train now, and what becomes of an attempt.

Rules:

1. What an attempt will take, what ends it, and how it leaves battery and skin, is settled when it starts; it is logged
   when it ends (``exertion.py``).
2. The first download of a device brings the bundle's programs and frozen weights too.
3. A device in an attempt is not free before the attempt's end; one that dropped out backs off from there.
4. A look writes nothing down, and an attempt can be taken back: a round is played to its end before it is known who of
   those that would have come was early enough.
5. Where data arrives with use, how many examples a device holds is found out when nothing else but its battery stands
   in the way: one that is in use and holds too few counts as in use.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Attempts, Drop, Journey, Stage, carry_out
from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.battery import Battery
from pocketfleet.device_sim.day_changes import CHARGING, DayChanges
from pocketfleet.device_sim.eligibility import Reason, Rule, judge
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.exchange import Exchange
from pocketfleet.device_sim.exertion import Exertion
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.flight import Flights, no_flights
from pocketfleet.device_sim.flight_log import log_ends
from pocketfleet.device_sim.ledger import Ledger, back_off_s, ineligible_column
from pocketfleet.device_sim.look import Look
from pocketfleet.device_sim.memory import RUNTIME_BYTES, FreeMemory, fits
from pocketfleet.device_sim.thermal_class import ROOM_CELSIUS
from pocketfleet.device_sim.thermal_policy import too_hot
from pocketfleet.device_sim.training_heat import Course
from pocketfleet.device_sim.workload import Workload
from pocketfleet.training.batches import examples_processed
from pocketfleet.training.draws import draw_key
from pocketfleet.training.round import ReportCode

__all__ = ["Population"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]


class Population:
    """The fleet at work; without ``room_celsius`` nothing warms."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        availability: Availability,
        rule: Rule,
        workload: Workload,
        seed: int,
        log: EventLog,
        room_celsius: float | None = ROOM_CELSIUS,
        memory_moments: bool = True,
    ) -> None:
        self.fleet = fleet
        self.ledger = Ledger(len(fleet))
        self.seed = seed
        self._day = availability
        self._rule = rule
        self._workload = workload
        self._log = log
        self._battery = Battery.of_fleet(fleet, room_celsius=room_celsius)
        self._memory = FreeMemory(seed=seed, typical_bytes=fleet.free_memory_bytes, moments=memory_moments)
        self._fits_memory = fits(workload.training_memory_bytes, fleet.free_memory_bytes)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Columns for a checkpoint."""
        battery = {f"battery.{name}": column for name, column in self._battery.state().items()}
        arrival = self._workload.arrival.state() if self._workload.arrival is not None else {}
        return (
            battery
            | {f"ledger.{name}": column for name, column in self.ledger.state().items()}
            | {f"arrival.{name}": column for name, column in arrival.items()}
        )

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        parts = [("battery.", self._battery.restore), ("ledger.", self.ledger.restore)]
        if self._workload.arrival is not None:
            parts.append(("arrival.", self._workload.arrival.restore))
        for prefix, restore in parts:
            restore({name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)})

    def look(self, device: Int64s, at_s: Floats) -> Look:
        """Let free devices look whether they may train, ``[n]``."""
        day = self._day.state(device, at_s)
        conditions = {
            "idle": day.idle,
            "charging": day.charging & self.fleet.has_charger[device],
            "unmetered": day.wifi & ~self.fleet.metered[device],
            "fits_memory": self._fits_memory[device],
            "has_examples": self._workload.may_hold(device, self._rule.min_examples),
        }
        reason = judge(self._rule, battery_ratio=np.ones(len(device)), **conditions)
        level, celsius = np.full((2, len(device)), np.nan)
        able = np.flatnonzero(reason == Reason.ELIGIBLE)
        level[able], celsius[able] = self._battery.advanced(device[able], at_s[able], day=self._day)
        conditions["fits_memory"][able] = self._memory.may_start(
            device[able],
            at_s[able],
            ~day.idle[able],
            training_memory_bytes=self._workload.training_memory_bytes,
        )
        ratio = level[able] / self.fleet.battery_capacity_joules[device[able]]
        known = {name: values[able] for name, values in conditions.items()}
        known["has_examples"] = self._workload.hold(device[able], at_s[able], self._rule.min_examples)
        reason[able] = judge(self._rule, battery_ratio=ratio, cool=~too_hot(celsius[able]), **known)
        return Look(device=device, at_s=at_s, reason=reason, level_joules=level, skin_celsius=celsius)

    def ask(self, workload: Workload) -> None:
        """Ask devices that start from now on for other work, which needs as much memory as before."""
        self._workload = workload

    def next_change_s(self, device: Int64s, at_s: Floats) -> Floats:
        """When the day of each device next changes, ``[n]``."""
        return self._day.next_change_s(device, at_s)

    def start(self, look: Look, *, round_index: int, model_version: int, deadline_s: float | Floats) -> Flights:
        """Let eligible devices start an attempt, each at the time of its look; a device comes once.

        Args:
            look: of the devices, ``[n]``.
            round_index: of the round that they start in.
            model_version: that they train from.
            deadline_s: when they stop, one for all or ``[n]``.
        """
        device, column = look.device, self.ledger.column
        held, num_training, steps = self._workload.wanted(device, look.at_s)
        until_s = np.broadcast_to(np.asarray(deadline_s, dtype=np.float64), device.shape)
        day = self._day.changes(device, look.at_s, until_s)
        exchange = self._exchange(look, day)
        exertion = self._exertion(look, day, exchange)
        journey = self._journey(look, exchange, exertion, steps=steps, deadline_s=until_s)
        attempts = carry_out(
            journey,
            day=day,
            rule=self._rule,
            partial_work=self._workload.partial_work,
            memory=self._memory,
            needed_bytes=self._workload.training_memory_bytes + RUNTIME_BYTES,
        )
        downlink_bytes = (attempts.downloaded_ratio * self._download_bytes(device)).astype(np.int64)
        uplink_bytes = (attempts.uploaded_ratio * self._workload.moved_bytes(device)[1]).astype(np.int64)
        download_joules, upload_joules = exchange.joules(
            attempts, downlink_bytes=downlink_bytes, uplink_bytes=uplink_bytes
        )
        flights = no_flights(
            len(device),
            device=device,
            round=round_index,
            model_version=model_version,
            batch_seed=(draw_key(self.seed, "batch_seed", round_index, device) >> np.uint64(1)).astype(np.int64),
            start_s=look.at_s,
            num_examples=examples_processed(num_training, steps=attempts.steps, batch_size=self._workload.batch_size),
            first_example=held.first_example,
            num_present=held.num_present,
            downlink_bytes=downlink_bytes,
            uplink_bytes=uplink_bytes,
            metered_downlink_bytes=np.where(exchange.down_link.metered, downlink_bytes, 0),
            metered_uplink_bytes=np.where(exchange.up_link.metered, uplink_bytes, 0),
            download_joules=download_joules,
            train_joules=_train_joules(journey.course, attempts.train_s, self.fleet.compute_watts[device]),
            upload_joules=upload_joules,
            before_free_s=column["free_s"][device],
            before_level_joules=self._battery.level_joules[device],
            before_celsius=self._battery.skin_celsius[device],
            before_level_s=self._battery.at_s[device],
            before_failures=column["failures"][device],
            before_has_bundle=column["has_bundle"][device],
            **_numbers(attempts),
        )
        if journey.course is not None:
            flights["held_back_s"] = journey.course.held_back_s(attempts.train_s)
        level, celsius = exertion.after(flights, journey.course, day, transmit_watts=exchange.up_link.transmit_watts)
        self._battery.set(device, level, flights["end_s"], skin_celsius=celsius)
        self._settle(flights)
        return flights

    def _settle(self, flights: Flights) -> None:
        """Write down what attempts leave behind on their devices, when these are free again, and what they cost."""
        device, column = flights["device"], self.ledger.column
        dropped = flights["drop"] != Drop.NONE
        failures = np.where(dropped, column["failures"][device] + 1, 0)
        flights["free_s"] = flights["end_s"] + np.where(dropped, back_off_s(np.maximum(failures, 1)), 0.0)
        column["free_s"][device] = flights["free_s"]
        column["failures"][device] = failures
        column["has_bundle"][device] |= flights["stage"] > Stage.DOWNLOAD
        column["assigned"][device] += 1

    def take_back(self, flights: Flights) -> None:
        """Undo attempts, the latest of these devices' own, as if they had never started."""
        device, column = flights["device"], self.ledger.column
        for name in ("free_s", "failures", "has_bundle"):
            column[name][device] = flights[f"before_{name}"]
        column["assigned"][device] -= 1
        self._battery.set(
            device, flights["before_level_joules"], flights["before_level_s"], skin_celsius=flights["before_celsius"]
        )

    def remember(self, look: Look) -> None:
        """Count a look that happened, and write down the batteries that were looked into."""
        for reason in Reason:
            if reason is not Reason.ELIGIBLE:
                self.ledger.add(ineligible_column(reason), look.device[look.reason == reason])
        # Not of a device that started an attempt after this look, or looked again: its battery is known of later.
        known = ~np.isnan(look.level_joules) & (self._battery.at_s[look.device] < look.at_s)
        look = look.rows(known)
        self._battery.set(look.device, look.level_joules, look.at_s, skin_celsius=look.skin_celsius)

    def end(self, flights: Flights, report_code: Int8s) -> None:
        """Attempts are over: log their stages and what came of them.

        Args:
            flights: in the order of their ends, ``[n]``.
            report_code: ``ReportCode`` of those that reported, ``[n]``; anything for those that dropped out.
        """
        log_ends(self._log, flights, report_code)
        device, ledger = flights["device"], self.ledger
        dropped = flights["drop"] != Drop.NONE
        accepted = ~dropped & (report_code == ReportCode.ACCEPTED)
        for name, mask in (("dropped", dropped), ("accepted", accepted), ("rejected", ~dropped & ~accepted)):
            ledger.add(name, device[mask])
        for name in ("steps", "train_s", "held_back_s", "downlink_bytes", "uplink_bytes"):
            ledger.add(name, device, flights[name])
        ledger.add("metered_bytes", device, flights["metered_downlink_bytes"] + flights["metered_uplink_bytes"])
        ledger.add("energy_joules", device, _joules(flights))

    def _exchange(self, look: Look, day: DayChanges) -> Exchange:
        device = look.device
        return Exchange(
            self.fleet,
            self._day,
            day,
            device,
            # Each attempt of a device draws its transfers anew; how often it tried before is the running number.
            self.ledger.column["assigned"][device],
            seed=self.seed,
            start_s=look.at_s,
            deadline_s=day.until_s,
            download_bytes=self._download_bytes(device),
            upload_bytes=self._workload.moved_bytes(device)[1],
        )

    def _journey(
        self, look: Look, exchange: Exchange, exertion: Exertion, *, steps: Int64s, deadline_s: Floats
    ) -> Journey:
        work, device, download_s = self._workload, look.device, exchange.download.seconds
        course = exertion.course(
            download_s=download_s,
            work_s=steps * work.step_s[device],
            until_s=deadline_s - look.at_s - download_s,
        )
        floor_joules = self._rule.min_battery_ratio * self.fleet.battery_capacity_joules[device]
        return Journey(
            device=device,
            start_s=look.at_s,
            deadline_s=deadline_s,
            steps=steps,
            download_s=download_s,
            step_s=work.step_s[device],
            download_lost_after_s=exchange.download.lost_after_s,
            upload=exchange.begin_upload,
            battery_lasts_s=exertion.battery_lasts_s(course, floor_joules=floor_joules),
            course=course,
        )

    def _download_bytes(self, device: Int64s) -> Floats:
        first = np.where(self.ledger.column["has_bundle"][device], 0.0, float(self._workload.bundle_bytes))
        return first + self._workload.moved_bytes(device)[0]

    def _exertion(self, look: Look, day: DayChanges, exchange: Exchange) -> Exertion:
        return Exertion(
            fleet=self.fleet,
            battery=self._battery,
            charging=(day.code[:, 0] & CHARGING) > 0,
            device=look.device,
            level_joules=look.level_joules,
            skin_celsius=look.skin_celsius,
            receive_watts=exchange.down_link.receive_watts,
        )


def _joules(flights: Flights) -> Floats:
    joules: Floats = flights["download_joules"] + flights["train_joules"] + flights["upload_joules"]
    return joules


def _train_joules(course: Course | None, train_s: Floats, watts: Floats) -> Floats:
    return train_s * watts if course is None else course.joules(train_s)


def _numbers(attempts: Attempts) -> dict[str, npt.NDArray[Any]]:
    names = ("steps", "download_s", "train_s", "upload_s", "end_s", "stage", "interrupted", "drop")
    return {name: getattr(attempts, name) for name in names}

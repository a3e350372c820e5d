"""The phone around an emulated device: may it train, what will become of an attempt, over which link.

Rules:

1. All of it is the simulator's own physics (``population``) for one device of a fleet, asked at times of the phone's
   clock.
2. What becomes of an attempt is settled when it starts, as in the simulator: how many steps are done, what cuts it
   short and when. The device then acts it out, with real transfers and real steps.
3. Heat slows an attempt's steps by as much in all as in the simulator, evenly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.arrival import Arrival
from pocketfleet.device_sim.attempt import Drop, Stage
from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.connection import connect
from pocketfleet.device_sim.efficiency import Profile
from pocketfleet.device_sim.eligibility import Reason, Rule
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.ledger import back_off_s
from pocketfleet.device_sim.link_plan import LinkPlan
from pocketfleet.device_sim.look import Look
from pocketfleet.device_sim.memory import FreeMemory
from pocketfleet.device_sim.network import PoweredLinks
from pocketfleet.device_sim.open_round import LOOK_EVERY_S
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.radio import load_radios
from pocketfleet.device_sim.thermal_class import ROOM_CELSIUS
from pocketfleet.device_sim.workload import Workload
from pocketfleet.training.batches import steps_of_epochs
from pocketfleet.training.server.protocol import Conditions

__all__ = ["Attempt", "EmulatedPhone", "PhoneUnit", "Task"]

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneUnit:
    """One device of a fleet, and the examples on it.

    Attributes:
        fleet: whose row ``device`` it is.
        availability: the fleet's days.
        seed: of what is drawn as time goes by.
        profile: what runtimes make of a core.
        num_training, num_held_out: examples, once all are there.
        arrival: when they come; ``None``: all are there from the start.
        room_celsius: the air around it; ``None``: nothing warms.
        memory_moments: whether other apps take memory.
    """

    fleet: Fleet
    device: int
    availability: Availability
    seed: int
    profile: Profile
    num_training: int
    num_held_out: int
    arrival: Arrival | None = None
    room_celsius: float | None = ROOM_CELSIUS
    memory_moments: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """What an assignment asks of a phone.

    Attributes:
        epochs, steps, batch_size: as in ``protocol.Assignment``.
        step_s: seconds of a step on each device of the fleet, ``[devices]``.
        training_memory_bytes: planned by the program.
        bundle_bytes: downloaded once.
        weights_bytes: downloaded for each attempt.
        update_bytes: sent.
        partial_work: whether interrupted training is reported.
    """

    epochs: int
    steps: int
    batch_size: int
    step_s: npt.NDArray[np.float64]
    training_memory_bytes: int
    bundle_bytes: int
    weights_bytes: int
    update_bytes: int
    partial_work: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What will become of an attempt; seconds are the phone's.

    Attributes:
        start_s: when it starts.
        steps: training steps that it completes.
        num_examples: processed in them, repeats counted.
        num_present: examples on the device; ``present``: their places where they arrive one by one.
        download_s, train_s, upload_s: spent in each stage.
        stage: that it reaches.
        interrupted: what ends training early; a report may follow.
        drop: what ends it without a report.
    """

    start_s: float
    steps: int
    num_examples: int
    num_present: int
    present: range | None
    download_s: float
    train_s: float
    upload_s: float
    stage: Stage
    interrupted: Drop
    drop: Drop

    @property
    def step_s(self) -> float:
        """What a step takes, in the mean."""
        return self.train_s / max(self.steps, 1)


class EmulatedPhone:
    """One phone, from now on asked by ``rule``."""

    def __init__(self, unit: PhoneUnit, rule: Rule) -> None:
        self.unit = unit
        self.rule = rule
        self._device = np.array([unit.device])
        self._task: Task | None = None
        self._memory = FreeMemory(
            seed=unit.seed, typical_bytes=unit.fleet.free_memory_bytes, moments=unit.memory_moments
        )
        self._population = self._made()

    def _made(self) -> Population:
        unit = self.unit
        return Population(
            fleet=unit.fleet,
            availability=unit.availability,
            rule=self.rule,
            workload=self._workload(),
            seed=unit.seed,
            log=EventLog(),
            room_celsius=unit.room_celsius,
            memory_moments=unit.memory_moments,
        )

    def _workload(self) -> Workload:
        """The device's own examples in every row: only its row is looked at."""
        unit, devices = self.unit, len(self.unit.fleet)
        training = np.full(devices, unit.num_training)
        task = self._task or Task(
            epochs=1,
            steps=0,
            batch_size=1,
            step_s=np.ones(devices),
            training_memory_bytes=0,
            bundle_bytes=0,
            weights_bytes=0,
            update_bytes=0,
            partial_work=True,
        )
        by_epochs = steps_of_epochs(training, epochs=task.epochs, batch_size=task.batch_size)
        return Workload(
            num_training=training,
            steps=np.full(devices, task.steps) if task.steps else by_epochs,
            num_examples=training + unit.num_held_out,
            arrival=unit.arrival,
            epochs=0 if task.steps else task.epochs,
            step_s=task.step_s,
            batch_size=task.batch_size,
            training_memory_bytes=task.training_memory_bytes,
            bundle_bytes=task.bundle_bytes,
            weights_bytes=task.weights_bytes,
            update_bytes=task.update_bytes,
            partial_work=task.partial_work,
        )

    @property
    def task(self) -> Task | None:
        """What it was asked for last."""
        return self._task

    def ask(self, rule: Rule, task: Task) -> None:
        """From now on the phone is asked for this, by this rule."""
        before, self.rule, self._task = self._population.state(), rule, task
        self._population = self._made()
        self._population.restore(before)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Columns for the disk."""
        return self._population.state()

    def restore(self, state: Columns) -> None:
        """Go on from what ``state`` returned."""
        self._population.restore(state)

    def known_until_s(self, state: Columns) -> float:
        """The phone's time that has passed at least, by what ``state`` returned."""
        return float(state["battery.at_s"][self.unit.device])

    @property
    def free_s(self) -> float:
        """Until when it is in an attempt, or backs off."""
        return float(self._population.ledger.column["free_s"][self.unit.device])

    def look(self, at_s: float) -> Look:
        """May it train? ``[1]``."""
        look = self._population.look(self._device, np.array([at_s]))
        self._population.remember(look)
        return look

    def again_s(self, at_s: float) -> float:
        """When one that may not train looks again: when its day changes, and at the latest after 15 minutes."""
        return min(float(self._population.next_change_s(self._device, np.array([at_s]))[0]), at_s + LOOK_EVERY_S)

    def conditions(self, look: Look) -> Conditions:
        """What the phone says of itself at a look."""
        day, fleet, device = self.unit.availability.state(self._device, look.at_s), self.unit.fleet, self.unit.device
        level, celsius = float(look.level_joules[0]), float(look.skin_celsius[0])
        return Conditions(
            idle=bool(day.idle[0]),
            charging=bool(day.charging[0] & fleet.has_charger[device]),
            unmetered=bool(day.wifi[0] & ~fleet.metered[device]),
            battery_ratio=None if math.isnan(level) else level / float(fleet.battery_capacity_joules[device]),
            free_memory_bytes=int(self.free_memory_bytes(float(look.at_s[0]))),
            skin_celsius=None if math.isnan(celsius) else celsius,
        )

    def free_memory_bytes(self, at_s: float) -> float:
        """What other apps leave at that moment."""
        times = np.array([at_s])
        in_use = ~self.unit.availability.state(self._device, times).idle
        return float(self._memory.free_bytes(self._device, times, in_use)[0])

    def start(self, look: Look, *, round_index: int, model_version: int, deadline_s: float) -> Attempt:
        """Settle an attempt that starts at a look that found the phone able."""
        if look.reason[0] != Reason.ELIGIBLE or self._task is None:
            raise ValueError("an attempt starts at a look that found the phone able, with a task")
        (flight,) = self._population.start(
            look, round_index=round_index, model_version=model_version, deadline_s=deadline_s
        )
        first, present = int(flight["first_example"]), int(flight["num_present"])
        return Attempt(
            start_s=float(flight["start_s"]),
            steps=int(flight["steps"]),
            num_examples=int(flight["num_examples"]),
            num_present=present,
            present=None if self.unit.arrival is None else range(first, first + present),
            **{name: float(flight[name]) for name in ("download_s", "train_s", "upload_s")},
            stage=Stage(int(flight["stage"])),
            interrupted=Drop(int(flight["interrupted"])),
            drop=Drop(int(flight["drop"])),
        )

    def download(self, at_s: float, payload_bytes: int, *, settled: bool) -> LinkPlan:
        """The link for downloads of an attempt that starts at ``at_s``: the latest or, not yet settled, the next."""
        number = self._number() - settled
        return self._drawn("download", at_s, number, payload_bytes=payload_bytes, asleep=True)

    def upload(self, attempt: Attempt, at_s: float) -> LinkPlan:
        """The link for the report of an attempt, the latest."""
        if self._task is None:
            raise ValueError("there is no task yet")
        tail_s = float(load_radios().tail_s[self._link(at_s).radio][0])
        return self._drawn(
            "upload",
            at_s,
            self._number() - 1,
            payload_bytes=self._task.update_bytes,
            asleep=attempt.train_s > tail_s,
        )

    def request(self, at_s: float) -> LinkPlan:
        """The link for a request beside the work."""
        return LinkPlan.of_request(self._link(at_s))

    @property
    def failures(self) -> int:
        """Drops since its last report; the latest attempt counts by what was settled when it started."""
        return int(self._population.ledger.column["failures"][self.unit.device])

    def dropped(self, at_s: float, *, failures: int) -> None:
        """Something is over without a report: the device backs off, if it does not yet by what was settled.

        Args:
            at_s: when.
            failures: before it began.
        """
        column, device = self._population.ledger.column, self.unit.device
        settled = self.failures == failures + 1 and self.free_s > at_s
        column["failures"][device] = failures + 1
        if not settled:
            column["free_s"][device] = at_s + float(back_off_s(column["failures"][self._device])[0])

    def has_bundle(self, has: bool) -> None:
        """Whether programs and frozen weights are on the device, by its disk."""
        self._population.ledger.column["has_bundle"][self.unit.device] = has

    def _number(self) -> int:
        return int(self._population.ledger.column["assigned"][self.unit.device])

    def _link(self, at_s: float) -> PoweredLinks:
        times = np.array([at_s])
        wifi = self.unit.availability.state(self._device, times).wifi
        return connect(self.unit.fleet, self.unit.availability, self._device, times, wifi=wifi)

    def _drawn(
        self, purpose: Literal["download", "upload"], at_s: float, number: int, *, payload_bytes: float, asleep: bool
    ) -> LinkPlan:
        return LinkPlan.drawn(
            self.unit.fleet,
            self._link(at_s),
            purpose,
            seed=self.unit.seed,
            device=self.unit.device,
            number=number,
            payload_bytes=payload_bytes,
            asleep=asleep,
        )

"""The phones of a simulation with all that changes about them: who may train now, and what becomes of an attempt.

Rules:

1. A phone looks whether it may train when its conditions change, when a back-off ends, and at the latest every
   ``LOOK_EVERY_S``. Those who may and are not at work check in, in an order drawn anew for each round.
2. What an attempt will take, and what ends it, is settled when it starts; it is logged when it ends.
3. The first download of a device brings the bundle's programs and frozen weights too.
4. A device that dropped out backs off before it looks again (``Ledger.drop``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Attempts, Drop, Journey, Stage, carry_out
from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.battery import CHARGING_EFFICIENCY_RATIO, Battery
from pocketfleet.device_sim.eligibility import Reason, Rule, judge
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.memory import fits
from pocketfleet.device_sim.network import link_lost_after_s, transfer_rate_factor, transfer_seconds
from pocketfleet.training.batches import examples_processed
from pocketfleet.training.draws import draw_key

__all__ = ["InFlight", "Population", "Workload"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# The shortest period of a periodic job: JobInfo.getMinPeriodMillis, 15 min (developer.android.com, android.app.job).
LOOK_EVERY_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a round asks of each device.

    Attributes:
        num_training: examples each device trains on, ``[devices]``.
        steps: steps each device is asked for, ``[devices]``.
        step_s: seconds a step takes on each device, ``[devices]``.
        batch_size: examples a step.
        training_memory_bytes: planned by the program.
        bundle_bytes: programs, manifest and frozen weights; downloaded once.
        weights_bytes: one model version; downloaded for each attempt.
        update_bytes: one encoded update.
        partial_work: whether interrupted training is reported.
    """

    num_training: Int64s
    steps: Int64s
    step_s: Floats
    batch_size: int
    training_memory_bytes: int
    bundle_bytes: int
    weights_bytes: int
    update_bytes: int
    partial_work: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """One attempt under way, its outcome already settled; plain numbers, so that a checkpoint can hold it."""

    assignment_id: int
    device: int
    round: int
    model_version: int
    batch_seed: int
    start_s: float
    steps: int
    num_examples: int
    download_s: float
    train_s: float
    upload_s: float
    downlink_bytes: int
    uplink_bytes: int
    end_s: float
    stage: int
    interrupted: int
    drop: int


class Population:
    """The fleet at work. Times never go back."""

    def __init__(
        self, *, fleet: Fleet, availability: Availability, rule: Rule, workload: Workload, seed: int, log: EventLog
    ) -> None:
        self.fleet = fleet
        self.ledger = Ledger(len(fleet))
        self._availability = availability
        self._rule = rule
        self._workload = workload
        self._seed = seed
        self._log = log
        self._battery = Battery.of_fleet(fleet)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Columns for a checkpoint."""
        battery = {f"battery.{name}": column for name, column in self._battery.state().items()}
        return battery | {f"ledger.{name}": column for name, column in self.ledger.state().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        for prefix, restore in (("battery.", self._battery.restore), ("ledger.", self.ledger.restore)):
            restore({name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)})

    def askable(self, *, round_index: int, returning: bool) -> Int64s:
        """Devices that are free and have not reported in this round.

        Args:
            round_index: the open round.
            returning: only those that dropped out of this round: their slot is still theirs.
        """
        column = self.ledger.column
        askable = ~column["busy"] & (column["reported_round"] != round_index)
        if returning:
            askable &= column["dropped_round"] == round_index
        return np.flatnonzero(askable)

    def checking_in(self, devices: Int64s, now_s: float, *, round_index: int) -> Int64s:
        """Those of ``devices`` that may train now, in the order of checking in.

        Logs an ``ineligible`` row for each whose reason has changed since it was last looked at.
        """
        column = self.ledger.column
        free = devices[column["not_before_s"][devices] <= now_s]
        reason = self._reasons(free, now_s)
        changed = np.flatnonzero((reason != column["reason"][free]) & (reason != Reason.ELIGIBLE))
        for row in changed:
            self._log.add(now_s, int(free[row]), round_index, "ineligible", reason=Reason(int(reason[row])).word)
        column["reason"][free] = reason
        able = free[reason == Reason.ELIGIBLE]
        order = np.argsort(draw_key(self._seed, "check_in", round_index, able), kind="stable")
        checking_in: Int64s = able[order]
        return checking_in

    def next_look_s(self, devices: Int64s, now_s: float) -> float:
        """When one of ``devices`` may have changed its mind: later than now, at most ``LOOK_EVERY_S`` later."""
        if len(devices) == 0:
            return np.inf
        change_s = float(self._availability.next_change_s(devices, np.full(len(devices), now_s)).min())
        waiting = self.ledger.column["not_before_s"][devices]
        back_s = float(waiting[waiting > now_s].min(initial=np.inf))
        return min(change_s, back_s, now_s + LOOK_EVERY_S)

    def start(
        self,
        device: Int64s,
        assignment_id: Int64s,
        *,
        round_index: int,
        model_version: int,
        now_s: float,
        deadline_s: float,
    ) -> list[InFlight]:
        """Let devices start their assignments; returns one record each, ``end_s`` telling when to ``end`` it."""
        journey = self._journey(device, now_s=now_s, deadline_s=deadline_s)
        attempts = carry_out(
            journey, availability=self._availability, rule=self._rule, partial_work=self._workload.partial_work
        )
        downlink_bytes = (attempts.downloaded_ratio * self._download_bytes(device)).astype(np.int64)
        uplink_bytes = (attempts.uploaded_ratio * self._workload.update_bytes).astype(np.int64)
        batch_seed = draw_key(self._seed, "batch_seed", round_index, device) >> np.uint64(1)
        self.ledger.column["busy"][device] = True
        self.ledger.column["assigned"][device] += 1
        flights = []
        for row, number in enumerate(device.tolist()):
            self._log.add(now_s, number, round_index, "assign")
            flights.append(
                InFlight(
                    assignment_id=int(assignment_id[row]),
                    device=number,
                    round=round_index,
                    model_version=model_version,
                    batch_seed=int(batch_seed[row]),
                    start_s=now_s,
                    num_examples=self._examples(number, int(attempts.steps[row])),
                    downlink_bytes=int(downlink_bytes[row]),
                    uplink_bytes=int(uplink_bytes[row]),
                    **_numbers(attempts, row),
                )
            )
        return flights

    def end(self, flight: InFlight) -> None:
        """An attempt is over: log its stages, spend its joules, let the device go."""
        fleet, device, column = self.fleet, flight.device, self.ledger.column
        cut = Drop(flight.drop).word
        stages = (
            (Stage.DOWNLOAD, "download", flight.download_s, flight.downlink_bytes, fleet.receive_watts[device]),
            (Stage.TRAIN, "train", flight.train_s, 0, fleet.compute_watts[device]),
            (Stage.UPLOAD, "upload", flight.upload_s, flight.uplink_bytes, fleet.transmit_watts[device]),
        )
        time_s, spent_joules = flight.start_s, 0.0
        for stage, kind, seconds, moved_bytes, watts in stages:
            if stage > flight.stage:
                break
            time_s, joules = time_s + seconds, seconds * float(watts)
            reason = cut if stage == flight.stage else ""
            steps = flight.steps if stage == Stage.TRAIN else 0
            if stage == Stage.TRAIN and flight.interrupted:
                reason = Drop(flight.interrupted).word
            self._log.add(
                time_s,
                device,
                flight.round,
                kind,
                seconds=seconds,
                bytes=moved_bytes,
                joules=joules,
                steps=steps,
                reason=reason,
            )
            spent_joules += joules
        # Taken out as of the last look, when the attempt started; charging since then is added at the next look.
        self._battery.spend(np.array([device]), spent_joules)
        column["busy"][device] = False
        column["has_bundle"][device] |= flight.stage > Stage.DOWNLOAD
        for name, amount in (
            ("steps", flight.steps),
            ("train_s", flight.train_s),
            ("downlink_bytes", flight.downlink_bytes),
            ("uplink_bytes", flight.uplink_bytes),
            ("energy_joules", spent_joules),
        ):
            column[name][device] += amount

    def _reasons(self, devices: Int64s, now_s: float) -> npt.NDArray[np.int8]:
        self._charge_to(devices, now_s)
        state = self._availability.state(devices, np.full(len(devices), now_s))
        return judge(
            self._rule,
            idle=state.idle,
            charging=state.charging & self.fleet.has_charger[devices],
            unmetered=state.wifi & ~self.fleet.metered[devices],
            battery_ratio=self._battery.ratio(devices),
            fits_memory=fits(self._workload.training_memory_bytes, self.fleet.free_memory_bytes[devices]),
            has_examples=self._workload.num_training[devices] > 0,
        )

    def _charge_to(self, devices: Int64s, now_s: float) -> None:
        """Advance batteries through every change of conditions up to now."""
        behind = devices
        while len(behind):
            at_s = self._battery.at_s[behind]
            state = self._availability.state(behind, at_s)
            until_s = np.minimum(self._availability.next_change_s(behind, at_s), now_s)
            self._battery.advance(behind, until_s, charging=state.charging, in_use=~state.idle)
            behind = behind[until_s < now_s]

    def _journey(self, device: Int64s, *, now_s: float, deadline_s: float) -> Journey:
        fleet, work = self.fleet, self._workload
        # Each attempt of a device draws its links anew; how often it tried before is the running number.
        attempt = self.ledger.column["assigned"][device]
        down = transfer_rate_factor(self._seed, "download", attempt, device, fleet.down_variation_ratio[device])
        up = transfer_rate_factor(self._seed, "upload", attempt, device, fleet.up_variation_ratio[device])
        return Journey(
            device=device,
            start_s=np.full(len(device), now_s),
            deadline_s=np.full(len(device), deadline_s),
            steps=work.steps[device],
            download_s=transfer_seconds(
                payload_bytes=self._download_bytes(device),
                bits_per_s=fleet.down_bits_per_s[device] * down,
                latency_s=fleet.latency_s[device],
            ),
            step_s=work.step_s[device],
            upload_s=transfer_seconds(
                payload_bytes=float(work.update_bytes),
                bits_per_s=fleet.up_bits_per_s[device] * up,
                latency_s=fleet.latency_s[device],
            ),
            download_lost_after_s=link_lost_after_s(
                self._seed, "download", attempt, device, fleet.link_losses_per_s[device]
            ),
            upload_lost_after_s=link_lost_after_s(
                self._seed, "upload", attempt, device, fleet.link_losses_per_s[device]
            ),
            battery_lasts_s=self._battery_lasts_s(device, now_s),
        )

    def _download_bytes(self, device: Int64s) -> Floats:
        first = np.where(self.ledger.column["has_bundle"][device], 0.0, float(self._workload.bundle_bytes))
        return first + self._workload.weights_bytes

    def _battery_lasts_s(self, device: Int64s, now_s: float) -> Floats:
        """Seconds of training until the rule's floor, under the conditions of now; inf where charging keeps up."""
        fleet = self.fleet
        state = self._availability.state(device, np.full(len(device), now_s))
        charging = state.charging & fleet.has_charger[device]
        gained_watts = np.where(charging, fleet.charger_watts[device] * CHARGING_EFFICIENCY_RATIO, 0.0)
        drawn_watts = fleet.compute_watts[device] + fleet.idle_watts[device] - gained_watts
        above_joules = (self._battery.ratio(device) - self._rule.min_battery_ratio) * fleet.battery_capacity_joules[
            device
        ]
        lasts: Floats = np.full(len(device), np.inf)
        np.divide(np.maximum(above_joules, 0.0), drawn_watts, out=lasts, where=drawn_watts > 0.0)
        return lasts

    def _examples(self, device: int, steps: int) -> int:
        count = int(self._workload.num_training[device])
        return examples_processed(count, steps=steps, batch_size=self._workload.batch_size)


def _numbers(attempts: Attempts, row: int) -> dict[str, Any]:
    names: Sequence[str] = ("steps", "download_s", "train_s", "upload_s", "end_s", "stage", "interrupted", "drop")
    return {name: getattr(attempts, name)[row].item() for name in names}

"""A closed round's way to a sum that hides its parts, on the virtual network: who answers at which stage, and when.

Rules:

1. The accepted devices of a round that closed are its *group*; their reports were their public keys. They go through
   three stages together (Bonawitz et al. 2017, doi:10.1145/3133956.3133982): ``shares``, ``masked``, ``unmask``. In
   each a device receives what the server made of the stage before, and sends its own message.
2. A stage opens when the one before is over. It is over when all who are left have answered, the last one when the
   shares are there that unmask the sum. The server does not see that a device is gone: for one that is, it waits until
   ``stage_deadline_s``.
3. A device is gone for good where at a stage's opening, or before its answer is whole, it is off the network that the
   rule asks for, its link is lost, or the deadline passes. Idle and charging do not matter any more, as for an upload.
4. Each transfer uses the link of the stage's opening, on a radio that sleeps then. What encryption and masks take to
   compute is not counted, nor are the battery's charge and heat; joules of the radio are.
5. Who sent a masked vector is in the sum, if there is one: too few answers at a stage, or too few among the neighbours
   of a device, and there is none. Then the round teaches nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Drop, first_violation
from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.connection import connect
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import REASONS, SERVER, EventLog
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.flight import Flights
from pocketfleet.device_sim.ledger import Ledger
from pocketfleet.device_sim.network import PoweredLinks
from pocketfleet.device_sim.radio import load_radios, tail_joules, transfer_joules
from pocketfleet.device_sim.secure_group import SecureGroup
from pocketfleet.device_sim.transfer import Transfers, carry_transfers, transfer_rate_factor
from pocketfleet.training.privacy.secure_aggregation.messages import STAGES

__all__ = ["Group", "SecureStages"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]

_MASKED = STAGES.index("masked")
_LAST = len(STAGES) - 1
_REASON = np.array([REASONS.index("" if drop is Drop.NONE else drop.word) for drop in Drop], dtype=np.int8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """How a group fared.

    Attributes:
        flights: its devices' attempts ``[n]``, in rising order of device.
        answered: how many stages each answered, ``[n]``, 0 to 3.
        played: how many stages there were: three, or fewer where it was clear before that there is no sum.
        ended_s: when the last of them was over.
        no_sum: why there is no sum; empty: there is one.
    """

    flights: Flights
    answered: Int8s
    played: int
    ended_s: float
    no_sum: str

    @property
    def in_sum(self) -> Bools:
        """Whose vectors are in the sum, ``[n]``; nobody's where there is none."""
        return (self.answered > _MASKED) & (not self.no_sum)

    @property
    def to_the_end(self) -> Bools:
        """Of those in the sum, who answered all stages: the others do not know that they are in it."""
        return self.answered[self.in_sum] > _LAST


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureStages:
    """See the module's rules.

    Attributes:
        fleet: of the phones.
        availability: their days.
        rule: whether they must stay on unmetered Wi-Fi.
        seed: of the transfers' draws.
        ledger: takes what the stages cost.
        log: takes their events.
        stage_deadline_s: how long the server waits.
        group_of: what holds in a group of so many, of that round.
    """

    fleet: Fleet
    availability: Availability
    rule: Rule
    seed: int
    ledger: Ledger
    log: EventLog
    stage_deadline_s: float
    group_of: Callable[[int, int], SecureGroup]

    def play(self, flights: Flights, *, round_index: int, opens_s: float) -> Group:
        """Let the group of a round that closed at ``opens_s`` go through its stages."""
        rules = self.group_of(len(flights), round_index)
        answered, now_s = np.zeros(len(flights), dtype=np.int8), opens_s
        no_sum, played = "", 0
        while played < len(STAGES) and not no_sum:
            stage, played = played, played + 1
            members = np.flatnonzero(answered == stage)
            answer_s = np.full(len(flights), np.inf)
            answer_s[members] = self._play_stage(stage, flights["device"][members], rules, round_index, now_s)
            ends_s = rules.enough_s(answered, answer_s) if stage == _LAST else float(answer_s[members].max())
            answered += np.isfinite(answer_s)
            now_s = ends_s if np.isfinite(ends_s) else now_s + self.stage_deadline_s
            no_sum = rules.no_sum(stage, answered)
        self.log.add(now_s, SERVER, round_index, "sum", reason="no_sum" if no_sum else "")
        return Group(flights=flights, answered=answered, played=played, ended_s=now_s, no_sum=no_sum)

    def _play_stage(self, stage: int, device: Int64s, rules: SecureGroup, round_index: int, opens_s: float) -> Floats:
        """When the devices ``[k]`` answered, infinite where they did not."""
        start_s = np.full(len(device), opens_s)
        deadline_s = start_s + self.stage_deadline_s
        day = self.availability.changes(device, start_s, deadline_s)
        wifi = self.availability.state(device, start_s).wifi
        link = connect(self.fleet, self.availability, device, start_s, wifi=wifi)
        down_bytes, up_bytes = (np.full(len(device), float(size)) for size in rules.stage_bytes(stage))
        number = np.full(len(device), round_index)
        name = STAGES[stage]
        down = self._drawn(f"{name}.receive", link, device, number, down_bytes, up=False)
        up = self._drawn(name, link, device, number, up_bytes, up=True)

        network = Rule(idle=False, charging=False, unmetered=self.rule.unmetered, min_battery_ratio=0.0)
        off_s, off = first_violation(day, network, start_s)
        away = np.full(len(device), self.rule.unmetered) & (~wifi | self.fleet.metered[device])
        causes = (
            (np.where(away, opens_s, off_s), np.where(away, np.int8(Drop.METERED), off)),
            (start_s + down.lost_after_s, np.full(len(device), Drop.LINK_LOST, np.int8)),
            (start_s + down.seconds + up.lost_after_s, np.full(len(device), Drop.LINK_LOST, np.int8)),
            (deadline_s, np.full(len(device), Drop.DEADLINE, np.int8)),
        )
        times = np.stack([when for when, _ in causes])
        first = times.argmin(axis=0)
        cut_s, cause = times.min(axis=0), np.stack([what for _, what in causes])[first, np.arange(len(device))]
        end_s = start_s + down.seconds + up.seconds
        done = end_s < cut_s
        cause = np.where(done, np.int8(Drop.NONE), cause)
        end_s = np.where(done, end_s, cut_s)
        self._note(name, device, round_index, link, (down, up), (down_bytes, up_bytes), start_s, end_s, cause)
        self.ledger.column["free_s"][device] = np.maximum(self.ledger.column["free_s"][device], end_s)
        return np.where(done, end_s, np.inf)

    def _drawn(
        self, purpose: str, link: PoweredLinks, device: Int64s, number: Int64s, payload_bytes: Floats, *, up: bool
    ) -> Transfers:
        rate = link.up_bits_per_s if up else link.down_bits_per_s
        variation = link.up_variation_ratio if up else link.down_variation_ratio
        return carry_transfers(
            self.seed,
            purpose,
            number,
            device,
            payload_bytes=payload_bytes,
            bits_per_s=rate * transfer_rate_factor(self.seed, purpose, number, device, variation),
            latency_s=link.latency_s,
            losses_per_s=link.link_losses_per_s,
            wake_s=load_radios().wake_s[link.radio],
            wakes=np.full(len(device), not up),
            outage=self.fleet.outage,
        )

    def _note(
        self,
        name: str,
        device: Int64s,
        round_index: int,
        link: PoweredLinks,
        transfers: tuple[Transfers, Transfers],
        payload_bytes: tuple[Floats, Floats],
        start_s: Floats,
        end_s: Floats,
        cause: Int8s,
    ) -> None:
        """Log what devices received and sent, and charge them for it."""
        radios, spent_s = load_radios(), end_s - start_s
        on_watts = (link.receive_watts, link.transmit_watts)
        per_byte = (radios.receive_joules_per_byte, radios.transmit_joules_per_byte)
        kinds, columns = ("receive", name), ("downlink_bytes", "uplink_bytes")
        for way, (transfer, payload) in enumerate(zip(transfers, payload_bytes, strict=True)):
            seconds = np.minimum(spent_s, transfer.seconds)
            # What a cut leaves of the bytes, as of the seconds.
            cut = (cause != Drop.NONE) & (seconds < transfer.seconds)
            ratio = np.divide(seconds, transfer.seconds, out=np.ones_like(seconds), where=cut)
            moved = (ratio * payload).astype(np.int64)
            metered = np.where(link.metered, moved, 0)
            joules = transfer_joules(
                radio=link.radio,
                spent_s=seconds,
                wake_s=transfer.wake_s,
                on_watts=on_watts[way],
                moved_bytes=moved.astype(np.float64),
                joules_per_byte=per_byte[way][link.radio],
            )
            # The tail is paid once, after the last byte.
            ends = (spent_s <= transfer.seconds) if way == 0 else (spent_s > 0.0)
            joules += np.where(ends & (spent_s > 0.0), tail_joules(link.radio, np.full(len(device), np.inf)), 0.0)
            began = np.ones(len(device), dtype=np.bool_) if way == 0 else spent_s > 0.0
            self.log.add(
                (start_s + seconds if way == 0 else end_s)[began],
                device[began],
                round_index,
                kinds[way],
                seconds=seconds[began],
                bytes=moved[began],
                metered_bytes=metered[began],
                joules=joules[began],
                reason=_REASON[np.where(ends, cause, Drop.NONE)][began],
            )
            self.ledger.add(columns[way], device[began], moved[began])
            self.ledger.add("metered_bytes", device[began], metered[began])
            self.ledger.add("energy_joules", device[began], joules[began])
            spent_s = spent_s - seconds

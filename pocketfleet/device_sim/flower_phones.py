"""Phones as the nodes of a Flower app: who is connected, and what becomes of a message from its sending to its reply.

Rules:

1. A node is connected while its phone may train (``eligibility.judge``), as a node would be that the phone's scheduler
   runs, and while it works on a message. A phone that dropped out backs off first.
2. A message to a phone that is busy or may not train waits. It expires after ``deadline_s``, or after its own time to
   live where that is less; so does the work on it.
3. Its bytes are downloaded, before a phone's first message the app's bundle too; the app runs here and now, the phone
   is charged for it (``phone_work``); the reply's bytes are uploaded. A phone that is cut short loses its work and what
   the app kept: the app ran here for nothing.
4. The server gets a reply when it has arrived, the error of an expired message when it expires, and that of a phone
   that dropped out when Flower notices: after two heartbeats.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Error, Message

from pocketfleet.device_sim.attempt import Drop
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.flight import Flights, no_flights
from pocketfleet.device_sim.flower_api import FIRST_NODE_ID, MESSAGE_EXPIRED, NODE_LOST, NODE_LOST_AFTER_S
from pocketfleet.device_sim.flower_exchange import Answer, FlowerExchange
from pocketfleet.device_sim.flower_nodes import FlowerNodes, Ran
from pocketfleet.device_sim.look import Look
from pocketfleet.device_sim.open_round import LOOK_EVERY_S
from pocketfleet.device_sim.phone_work import PhoneWork
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.workload import Workload
from pocketfleet.training.round import ReportCode

__all__ = ["FlowerPhones", "Reply", "Sent"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

# While nobody comes, phones are looked at for twice as long each time, and so long at most; no result depends on it.
_LONGEST_WHILE_S = 86_400.0
# A message with the exchange that it belongs to; what the server gets for it, with the message that says so.
Sent = tuple[FlowerExchange, Any]
Reply = tuple[Answer, Any]


class FlowerPhones:
    """The phones; see the module's rules.

    Args:
        population: the phones' physics.
        workload: what they were made for; its bytes, seconds and steps are set anew for each message.
        nodes: what runs on them.
        work: how long that takes a phone.
        log: of the population.
        deadline_s: seconds until a message expires.
    """

    def __init__(
        self,
        *,
        population: Population,
        workload: Workload,
        nodes: FlowerNodes,
        work: PhoneWork,
        log: EventLog,
        deadline_s: float,
    ) -> None:
        self._population, self._workload, self._nodes, self._work = population, workload, nodes, work
        self._log, self._deadline_s = log, deadline_s
        self._starts_s, self._ends_s = np.full((2, len(population.fleet)), -np.inf)  # of each device's last attempt
        self._under_way, self._codes = no_flights(), np.empty(0, dtype=np.int8)
        self._unlogged = no_flights()  # attempts whose start is not logged yet
        self._asked_at_s = -1.0  # when the phones were last looked at
        self._looks = 0

    def __len__(self) -> int:
        return len(self._starts_s)

    def connected(self, now_s: float) -> Bools:
        """Rule 1, ``[devices]``."""
        connected: Bools = (self._starts_s <= now_s) & (now_s < self._ends_s)
        free = np.flatnonzero(self._population.ledger.column["free_s"] <= now_s)
        look = self._population.look(free, np.full(len(free), now_s))
        if self._asked_at_s < now_s:
            self._asked_at_s = now_s
            self._looks += len(free)
            self._population.remember(look)
        connected[look.device[look.eligible]] = True
        return connected

    def take_looks(self) -> int:
        """How often phones were looked at since the last call."""
        looks, self._looks = self._looks, 0
        return looks

    def next_connection_s(self, now_s: float, *, until_s: float) -> float:
        """When the first phone connects that is not connected now; inf: none before ``until_s``."""
        waiting = np.flatnonzero(~self.connected(now_s))
        later = self._starts_s[waiting] > now_s
        first_s = float(self._starts_s[waiting[later]].min(initial=np.inf))
        device = waiting[~later]
        free_s = self._population.ledger.column["free_s"][device]
        at_s = np.where(free_s > now_s, free_s, self._again_s(device, np.full(len(device), now_s)))
        while_s = LOOK_EVERY_S
        while now_s < min(first_s, until_s):
            now_s = min(now_s + while_s, until_s)
            while_s = min(2.0 * while_s, _LONGEST_WHILE_S)
            looks, due = [self._population.look(device[:0], at_s[:0])], np.flatnonzero(at_s < now_s)
            while len(due):
                look = self._population.look(device[due], at_s[due])
                looks.append(look)
                first_s = min(first_s, float(look.at_s[look.eligible].min(initial=np.inf)))
                due = due[~look.eligible]
                at_s[due] = self._again_s(device[due], at_s[due])
                due = due[at_s[due] < now_s]
            # Those that the clock will pass.
            looked = Look.joined(looks)
            looked = looked.rows(looked.at_s < first_s)
            self._looks += len(looked.device)
            self._population.remember(looked)
        return first_s if first_s < until_s else np.inf

    def _again_s(self, device: Int64s, at_s: Floats) -> Floats:
        """When phones that may not train at ``at_s`` look again, ``[n]``; as in a round."""
        return np.minimum(self._population.next_change_s(device, at_s), at_s + LOOK_EVERY_S)

    def deliver(self, sent: list[Sent], now_s: float) -> list[Reply]:
        """What the server gets for messages, at most one of them to a node; settled now, also what comes later."""
        found: list[tuple[int, FlowerExchange, Any]] = []
        replies = []
        for exchange, message in sent:
            device = message.metadata.dst_node_id - FIRST_NODE_ID
            if 0 <= device < len(self):
                found.append((device, exchange, message))
            else:
                replies.append(_lost(message, -1, now_s, NODE_LOST, "there is no such node"))
                exchange.answers.append(replies[-1][0])
        found.sort(key=lambda one: one[0])
        device = np.array([one[0] for one in found], dtype=np.int64)
        until_s = np.array([now_s + min(self._deadline_s, one[2].metadata.ttl) for one in found])
        look = self._first_look(device, until_s, now_s)
        rows = np.searchsorted(device, look.device)
        started = self._start(look, until_s[rows], [found[row][1:] for row in rows])
        by_row = dict(zip(rows.tolist(), started, strict=True))
        for row, (number, exchange, message) in enumerate(found):
            never = "the phone could not train before the message expired"
            reply = by_row.get(row) or _lost(message, number, float(until_s[row]), MESSAGE_EXPIRED, never)
            exchange.answers.append(reply[0])
            replies.append(reply)
        return replies

    def _first_look(self, device: Int64s, until_s: Floats, now_s: float) -> Look:
        """Looks at which devices may start before ``until_s``, in rising order of device; rule 2."""
        at_s = np.maximum(self._population.ledger.column["free_s"][device], now_s)
        found = [self._population.look(device[:0], at_s[:0])]
        due = np.flatnonzero(at_s < until_s)
        while len(due):
            look = self._population.look(device[due], at_s[due])
            found.append(look.rows(look.eligible))
            due = due[~look.eligible]
            at_s[due] = self._again_s(device[due], at_s[due])
            due = due[at_s[due] < until_s[due]]
        looks = Look.joined(found)
        return looks.rows(np.argsort(looks.device, kind="stable"))

    def _start(self, look: Look, until_s: Floats, sent: list[Sent]) -> list[Reply]:
        """Run the app for phones that start, and let these work; what the server gets. All are ``[n]``."""
        if not sent:
            return []
        ran = [self._nodes.run(int(device), message) for device, (_, message) in zip(look.device, sent, strict=True)]
        self._population.ask(self._asked(look.device, ran, sent))
        # Which version of a model a message holds, the app alone knows.
        flights = self._population.start(look, round_index=0, model_version=0, deadline_s=until_s)
        flights["round"] = [exchange.round for exchange, _ in sent]
        self._starts_s[look.device], self._ends_s[look.device] = flights["start_s"], flights["end_s"]
        replies = [
            self._reply(message, flight, one, exchange.limit_s)
            for (exchange, message), flight, one in zip(sent, flights, ran, strict=True)
        ]
        codes = np.array([int(answer.code) for answer, _ in replies], dtype=np.int8)
        self._under_way, self._codes = np.concatenate([self._under_way, flights]), np.concatenate([self._codes, codes])
        self._unlogged = np.concatenate([self._unlogged, flights])
        return replies

    def _asked(self, device: Int64s, ran: list[Ran], sent: list[Sent]) -> Workload:
        """What devices ``[n]`` are asked for; a step is an example that the reply speaks for."""
        steps, down_bytes, up_bytes = np.ones((3, len(self)), dtype=np.int64)
        step_s = np.ones(len(self))
        for number, one, (exchange, _) in zip(device.tolist(), ran, sent, strict=True):
            steps[number] = max(one.num_examples, 1)
            down_bytes[number], up_bytes[number] = one.message_bytes, one.reply_bytes
            seconds = self._work.seconds(number, kind=exchange.kind, cpu_s=one.cpu_s, num_examples=one.num_examples)
            step_s[number] = (seconds + one.slept_s) / steps[number]
        return replace(
            self._workload,
            num_training=steps,
            steps=steps,
            step_s=step_s,
            weights_bytes=down_bytes,
            update_bytes=up_bytes,
        )

    def _reply(self, message: Any, flight: Flights, ran: Ran, limit_s: float) -> Reply:  # noqa: ANN401
        """Rule 4; the node keeps its state where it was not cut short."""
        device, end_s, drop = int(flight["device"]), float(flight["end_s"]), Drop(int(flight["drop"]))
        if drop is Drop.DEADLINE:
            late = "the phone was not done before the message expired"
            return _lost(message, device, end_s, MESSAGE_EXPIRED, late)
        if drop is not Drop.NONE:
            dropped = f"the phone dropped out: {drop.word}"
            return _lost(message, device, end_s + NODE_LOST_AFTER_S, NODE_LOST, dropped)
        self._nodes.keep(device, ran)
        code = ReportCode.APP_FAILED if ran.reply.has_error() else ReportCode.ACCEPTED
        answer = Answer(
            message_id=message.metadata.message_id,
            device=device,
            arrives_s=end_s,
            reported=True,
            code=ReportCode.LATE if end_s > limit_s else code,
            num_examples=ran.num_examples,
            metrics=ran.metrics,
        )
        return answer, ran.reply

    def finish(self, now_s: float) -> None:
        """Log what has begun and ended by now."""
        begun = self._unlogged["start_s"] <= now_s
        first, self._unlogged = self._unlogged[begun], self._unlogged[~begun]
        self._log.add(first["start_s"], first["device"], first["round"], "assign")
        over = self._under_way["end_s"] <= now_s
        order = np.argsort(self._under_way["end_s"][over], kind="stable")
        self._population.end(self._under_way[over][order], self._codes[over][order])
        self._under_way, self._codes = self._under_way[~over], self._codes[~over]

    def stop(self) -> int:
        """Take back what has not begun; how many attempts are under way."""
        # One at a time, the latest first: a device may come more than once.
        for number in reversed(range(len(self._unlogged))):
            self._population.take_back(self._unlogged[number : number + 1])
        return len(self._under_way) - len(self._unlogged)


def _lost(message: Any, device: int, arrives_s: float, code: int, reason: str) -> Reply:  # noqa: ANN401
    """The error that the server gets in place of a reply."""
    answer = Answer(message_id=message.metadata.message_id, device=device, arrives_s=arrives_s)
    return answer, Message(Error(code=code, reason=reason), reply_to=message)

"""The grid that a Flower server sends its messages through, and the virtual clock that moves while it waits.

Rules:

1. The clock moves when the server waits: for replies, in ``time.sleep``, and where its strategy waits for nodes (then
   to the next time at which another phone connects). Computing on the server takes no time. A server that asks for
   replies again and again without sleeping is given the next one.
2. What other threads than the server's own send starts at the clock's time and is answered at once; the clock moves to
   the last of these answers when the server's own thread asks for something next. So the many threads of a strategy
   without messages, which wait for a phone each, wait for all of them at the same time.
3. Replies are given in order of their arrival; of one time, by device.
4. At ``horizon_s`` the app is stopped.
"""

import threading
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from pocketfleet.device_sim.flower_api import FIRST_NODE_ID, begin_run, checked_messages, run_over, stamp
from pocketfleet.device_sim.flower_exchange import FlowerExchange
from pocketfleet.device_sim.flower_nodes import FlowerNodes
from pocketfleet.device_sim.flower_phones import FlowerPhones, Reply, Sent
from pocketfleet.errors import InputError

__all__ = ["HorizonReached", "PhoneGrid"]


class HorizonReached(BaseException):
    """The clock is at the horizon: no error, and not for the app to catch."""


class PhoneGrid(Grid):  # type: ignore[misc]
    """A grid for the thread that makes it, the server's; see the module's rules.

    Args:
        phones: that are its nodes.
        nodes: what runs on them.
        run_id: of the run.
        horizon_s: virtual time at which the app is stopped.

    Attributes:
        now_s: the clock.
        exchanges: so far.
    """

    def __init__(self, phones: FlowerPhones, nodes: FlowerNodes, *, run_id: int, horizon_s: float) -> None:
        self.now_s = 0.0
        self.exchanges: list[FlowerExchange] = []
        self._phones, self._nodes, self._horizon_s = phones, nodes, horizon_s
        self._run = begin_run(run_id)
        self._kept: dict[str, Reply] = {}  # by the message's id, not pulled yet
        self._sent = 0
        self._ahead_s = 0.0  # rule 2
        self._empty_pulls = 0
        self._thread, self._lock = threading.get_ident(), threading.RLock()
        self._closed = False
        self._began_s = time.perf_counter()

    def set_run(self, run: Any) -> None:  # noqa: ANN401 - flwr's Run
        """Take another description of the run."""
        self._run = run

    @property
    def run(self) -> Any:  # noqa: ANN401 - flwr's Run
        """Flower's description of the run."""
        return self._run

    def create_message(
        self,
        content: Any,  # noqa: ANN401 - flwr's RecordDict
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Any:  # noqa: ANN401 - flwr's Message
        """A message; ``flwr.app.Message`` makes the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Of the nodes that are connected now."""
        with self._lock:
            if self._closed:
                raise run_over()
            self._catch_up()
            return [FIRST_NODE_ID + int(device) for device in np.flatnonzero(self._phones.connected(self.now_s))]

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        """Send messages; their ids."""
        with self._lock:
            self._catch_up()
            sent = self._send(messages, limit_s=np.inf)
            self._kept |= {answer.message_id: (answer, reply) for answer, reply in sent}
            return [answer.message_id for answer, _ in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Any]:
        """Replies that are there by now, each given once."""
        with self._lock:
            self._catch_up()
            asked = [self._kept[each] for each in set(message_ids) if each in self._kept]
            if asked and self._empty_pulls > 0 and self._is_server:
                self._advance(min(answer.arrives_s for answer, _ in asked))
            ready = [one for one in asked if one[0].arrives_s <= self.now_s]
            self._empty_pulls = 0 if ready else self._empty_pulls + 1
            for answer, _ in ready:
                del self._kept[answer.message_id]
            return _in_order(ready)

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        """Send messages and wait for the replies, for ``timeout`` virtual seconds at most."""
        with self._lock:
            self._catch_up()
            limit_s = np.inf if timeout is None else self.now_s + timeout
            sent = self._send(messages, limit_s=limit_s)
            over_s = min(max((answer.arrives_s for answer, _ in sent), default=self.now_s), limit_s)
            if self._is_server:
                self._advance(over_s)
            else:
                self._ahead_s = max(self._ahead_s, over_s)
            return _in_order([one for one in sent if one[0].arrives_s <= limit_s])

    def sleep(self, seconds: float) -> bool:
        """Let the server, or the app on a phone, sleep in virtual time; False if neither runs on this thread."""
        if self._nodes.sleep(seconds):
            return True
        if not self._is_server or self._closed:
            return False
        with self._lock:
            self._catch_up()
            self._empty_pulls = 0
            self._advance(self.now_s + max(seconds, 0.0))
        return True

    def wait_for_nodes(self) -> None:
        """Wait until a phone connects that is not connected now.

        Raises:
            InputError: all are.
        """
        with self._lock:
            self._catch_up()
            before = self._phones.connected(self.now_s)
            if before.all():
                raise InputError(
                    f"the app waits for more nodes than the fleet has ({len(before)}): raise fleet.devices, or lower "
                    "what its strategy asks for, such as min_available_nodes"
                )
            self._advance(self._phones.next_connection_s(self.now_s, until_s=self._horizon_s))

    def close(self) -> int:
        """End the run; how many attempts are still under way."""
        with self._lock:
            self._closed = True
            # What the server's last threads waited for is over, though its own did not ask for anything after it.
            self.now_s = min(max(self.now_s, self._ahead_s), self._horizon_s)
            self._phones.finish(self.now_s)
            return self._phones.stop()

    def wall_s(self) -> float:
        """Seconds on this machine since the grid was made."""
        return time.perf_counter() - self._began_s

    @property
    def _is_server(self) -> bool:
        return threading.get_ident() == self._thread

    def _catch_up(self) -> None:
        """Rule 2, as far as this is the server's own thread."""
        if self._is_server and self._ahead_s > self.now_s:
            self._advance(self._ahead_s)

    def _advance(self, to_s: float) -> None:
        """Move the clock; rule 4."""
        self.now_s = min(max(to_s, self.now_s), self._horizon_s)
        self._phones.finish(self.now_s)
        if to_s > self._horizon_s:
            raise HorizonReached

    def _send(self, messages: Iterable[Any], *, limit_s: float) -> list[Reply]:
        """Send messages, any number to a node; what the server gets for each, in their order."""
        self._empty_pulls = 0
        checked = checked_messages(messages)
        for message in checked:
            self._stamp(message)
        waiting: list[Sent] = [(self._exchange(message, limit_s), message) for message in checked]
        replies: dict[str, Reply] = {}
        while waiting:
            # The first to each node; those behind it wait for their turn.
            first: dict[int, Sent] = {}
            for one in waiting:
                first.setdefault(one[1].metadata.dst_node_id, one)
            for answer, reply in self._phones.deliver(list(first.values()), self.now_s):
                self._stamp(reply)
                replies[answer.message_id] = (answer, reply)
            waiting = [one for one in waiting if one[1].metadata.message_id not in replies]
        return [replies[message.metadata.message_id] for message in checked]

    def _exchange(self, message: Any, limit_s: float) -> FlowerExchange:  # noqa: ANN401 - flwr's Message
        """What a message belongs to: the last exchange, if that is of this time, kind and group."""
        kind, group = message.metadata.message_type.partition(".")[0], message.metadata.group_id
        last = self.exchanges[-1] if self.exchanges else None
        if last is None or (last.opened_s, last.kind, last.group, last.limit_s) != (self.now_s, kind, group, limit_s):
            last = FlowerExchange(
                round=len(self.exchanges),
                kind=kind,
                group=group,
                opened_s=self.now_s,
                limit_s=limit_s,
                connected=int(self._phones.connected(self.now_s).sum()),
                looks=self._phones.take_looks(),
            )
            self.exchanges.append(last)
        return last

    def _stamp(self, message: Any) -> None:  # noqa: ANN401 - flwr's Message
        self._sent += 1
        stamp(message, str(self._sent))


def _in_order(replies: list[Reply]) -> list[Any]:
    """The replies alone; rule 3."""
    return [reply for _, reply in sorted(replies, key=lambda one: (one[0].arrives_s, one[0].device))]

"""The nodes of a Flower app, one a device: each keeps its state, and runs the ClientApp on the messages it gets."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocketfleet.device_sim.flower_api import APP_RAISED, FIRST_NODE_ID, Packed, node_config, reply_figures, stamp

__all__ = ["FlowerNodes", "Ran"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ran:
    """What came of a message.

    Attributes:
        reply: with content, or with the error that the app raised.
        state: the node's, if the reply gets through; a phone that was cut short has lost it.
        message_bytes: of the message as it is sent.
        cpu_s: seconds of this process's cores, all threads together.
        slept_s: that the app slept, for the phone to sleep; no time passed here.
        num_examples: that the reply speaks for; 0: it does not say.
        metrics: numbers of the reply, by name.
        reply_bytes: of the reply as it is sent.
    """

    reply: Any
    state: Packed
    message_bytes: int
    cpu_s: float
    slept_s: float
    num_examples: int
    metrics: Mapping[str, float]
    reply_bytes: int


class FlowerNodes:
    """The nodes.

    Args:
        client_app: a ``flwr.clientapp.ClientApp``.
        devices: how many.
        run_id: of the run.
        run_config: what the app is configured with.
    """

    def __init__(self, client_app: Any, *, devices: int, run_id: int, run_config: Mapping[str, Any]) -> None:  # noqa: ANN401
        self._client_app = client_app
        self._devices = devices
        self._run_id = run_id
        self._run_config = dict(run_config)
        self._state: dict[int, Packed] = {}  # by device
        self._running = threading.local()  # ``slept_s`` while an app runs on this thread

    def run(self, device: int, message: Any) -> Ran:  # noqa: ANN401 - flwr's Message
        """Run the app on a copy of a message; its state is kept with ``keep`` only.

        An app that raises gives a reply with an error, as under Flower.
        """
        from flwr.app import Context, Error, Message, RecordDict

        state = self._state[device].unpacked() if device in self._state else RecordDict()
        context = Context(
            run_id=self._run_id,
            node_id=FIRST_NODE_ID + device,
            node_config=node_config(device, self._devices),
            state=state,
            run_config=dict(self._run_config),
        )
        sent = Packed.of(message)
        own = sent.unpacked()
        stamp(own, message.metadata.message_id)
        self._running.slept_s = 0.0
        began_s = time.process_time()
        try:
            reply = self._client_app(own, context)
            if not isinstance(reply, Message):
                raise TypeError(f"the ClientApp must return a Message, got {type(reply).__name__}")  # noqa: TRY301
        except Exception as exc:  # noqa: BLE001 - whatever an app raises is an error reply, as under Flower
            reply = Message(Error(code=APP_RAISED, reason=f"{type(exc).__name__}: {exc}"), reply_to=message)
        cpu_s, slept_s = time.process_time() - began_s, self._running.slept_s
        del self._running.slept_s
        num_examples, metrics = reply_figures(reply.content) if reply.has_content() else (0, {})
        return Ran(
            reply=reply,
            state=Packed.of(context.state),
            message_bytes=sent.bytes,
            cpu_s=cpu_s,
            slept_s=slept_s,
            num_examples=num_examples,
            metrics=metrics,
            reply_bytes=Packed.of(reply).bytes,
        )

    def sleep(self, seconds: float) -> bool:
        """Let the app that runs on this thread sleep, if one does."""
        if not hasattr(self._running, "slept_s"):
            return False
        self._running.slept_s += max(seconds, 0.0)
        return True

    def keep(self, device: int, ran: Ran) -> None:
        """Let a node keep its state of a message."""
        self._state[device] = ran.state

"""What is needed of Flower beyond its documented API; tried with flwr 1.41.0 and 1.42.0, which are equal there.

What other modules import of Flower is documented: ``flwr.app``, ``flwr.serverapp``, ``flwr.clientapp``.
"""

import contextlib
import importlib.util
import os
import random  # noqa: TID251 - strategies draw from it, see seed_sampling
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketfleet.errors import InputError

__all__ = [
    "APP_RAISED",
    "FIRST_NODE_ID",
    "MESSAGE_EXPIRED",
    "NODE_LOST",
    "NODE_LOST_AFTER_S",
    "Packed",
    "app_bundle_bytes",
    "begin_run",
    "check_installed",
    "checked_messages",
    "flwr_version",
    "node_config",
    "reply_figures",
    "run_over",
    "seed_sampling",
    "stamp",
    "virtual_sleep",
    "wait_virtually",
]

# ``flwr.common.constant.ErrorCode``.
APP_RAISED, MESSAGE_EXPIRED, NODE_LOST = 2, 3, 5
# A node that says nothing for two of its heartbeats' intervals of 30 s is gone: ``HEARTBEAT_DEFAULT_INTERVAL`` and
# ``HEARTBEAT_PATIENCE``; only then does the server get an error in place of a reply.
NODE_LOST_AFTER_S = 2 * 30.0
# ``SUPERLINK_NODE_ID``: who sends the server's messages.
_SERVER_NODE_ID = 1
# Flower's own are random; ours say which device is meant.
FIRST_NODE_ID = 1000


def check_installed() -> None:
    """Raise ``InputError`` if there is no Flower; and let it send no telemetry unless the user asks for it."""
    if importlib.util.find_spec("flwr") is None:
        raise InputError(
            "a Flower app needs the package flwr, which is not installed: pip install 'pocketfleet[flower]' (in a "
            "clone: pip install '.[flower]')"
        )
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")


def flwr_version() -> str:
    """Of the installed Flower."""
    from importlib.metadata import version

    return version("flwr")


def app_bundle_bytes(app_dir: Path) -> int:
    """The size of the app's bundle (FAB), which a node downloads before its first message.

    Raises:
        InputError: Flower finds the app's pyproject.toml wrong, or a file cannot be read.
    """
    import click
    from flwr.cli.build import build_fab_from_disk

    try:
        with warnings.catch_warnings():
            # pathspec's, of a name that flwr uses.
            warnings.simplefilter("ignore", DeprecationWarning)
            return len(build_fab_from_disk(app_dir))
    except (ValueError, OSError, click.ClickException, click.exceptions.Exit) as exc:
        raise InputError(f"flwr cannot bundle the app in {app_dir}: {exc}") from exc


def begin_run(run_id: int) -> Any:  # noqa: ANN401 - flwr's Run
    """What messages of this process are stamped with; returns Flower's description of the run."""
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, _SERVER_NODE_ID
    return Run.create_empty(run_id)


def run_over() -> BaseException:
    """What a grid raises once its run has ended; Flower's own threads stop at it."""
    from flwr.supercore.run import RunNotRunningException

    error: BaseException = RunNotRunningException()
    return error


def stamp(message: Any, message_id: str) -> None:  # noqa: ANN401 - flwr's Message
    """Give a message its id, as the server's link does."""
    message.metadata.__dict__["_message_id"] = message_id


def node_config(device: int, devices: int) -> dict[str, int]:
    """What Flower's own simulation tells a node about itself."""
    return {"partition-id": device, "num-partitions": devices}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """A message or a record as Flower sends it: its objects by hash, equal ones once; framing and encryption apart."""

    object_id: str
    contents: Mapping[str, bytes]

    @classmethod
    def of(cls, record: Any) -> "Packed":  # noqa: ANN401 - flwr's Message or RecordDict
        """Pack."""
        from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute

        with no_object_id_recompute():
            objects = get_all_nested_objects(record)
            return cls(object_id=record.object_id, contents={key: part.deflate() for key, part in objects.items()})

    @property
    def bytes(self) -> int:
        """Of all objects together."""
        return sum(map(len, self.contents.values()))

    def unpacked(self) -> Any:  # noqa: ANN401 - what was packed
        """A copy, which shares nothing with what was packed."""
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        return inflate_object_from_contents(self.object_id, dict(self.contents))


def reply_figures(content: Any) -> tuple[int, dict[str, float]]:  # noqa: ANN401 - flwr's RecordDict
    """How many examples a reply speaks for (0: it does not say), and its metrics that are one number each, by name.

    ``num-examples`` is what Flower's strategies weight by; a NumPyClient's reply is taken apart as Flower builds it.
    """
    figures: dict[str, float] = {}
    for name, record in (*content.metric_records.items(), *content.config_records.items()):
        of_client = name.startswith(("fitres.", "evaluateres."))
        if (of_client and name.endswith(".status")) or not (of_client or name in content.metric_records):
            continue
        figures |= {
            key: float(value)
            for key, value in record.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
    counts = [int(figures.pop(key)) for key in ("num-examples", "num_examples") if key in figures]
    return (max(counts[0], 0) if counts else 0), figures


def seed_sampling(seed: int) -> None:
    """Let Flower's strategies sample the same nodes in each run: they draw from Python's shared generator."""
    random.seed(seed)


@contextlib.contextmanager
def virtual_sleep(sleep: Callable[[float], bool], wait_for_nodes: Callable[[], None]) -> Iterator[None]:
    """Let the server's sleep pass in virtual time.

    Args:
        sleep: called with the seconds of a ``time.sleep``; says whether it was the server's, now slept. Others sleep
            as ever.
        wait_for_nodes: called where a strategy sleeps until more nodes are there.
    """
    from flwr.serverapp.strategy import strategy_utils

    def slept(seconds: float) -> None:
        if not sleep(seconds):
            real(seconds)

    real, real_wait = time.sleep, strategy_utils.sleep  # noqa: TID251 - kept for everybody but the server
    time.sleep = slept  # type: ignore[assignment]  # noqa: TID251
    strategy_utils.sleep = lambda _: wait_for_nodes()
    try:
        yield
    finally:
        time.sleep = real  # noqa: TID251
        strategy_utils.sleep = real_wait


def wait_virtually(server_app: Any, wait_for_nodes: Callable[[], None]) -> None:  # noqa: ANN401 - flwr's ServerApp
    """Let an app without a main function, of a strategy and clients, wait for clients in virtual time.

    Its client manager would wait for a thread that looks for new nodes every few seconds of wall time.
    """
    from flwr.server import ServerAppComponents, SimpleClientManager

    if server_app._main is not None:
        return
    make = server_app._server_fn

    def components(context: Any) -> Any:  # noqa: ANN401
        if make is not None:
            given = make(context)
        else:
            given = ServerAppComponents(
                server=server_app._server,
                config=server_app._config,
                strategy=server_app._strategy,
                client_manager=server_app._client_manager,
            )
        if given.server is None and given.client_manager is None:
            given.client_manager = SimpleClientManager()
        manager = given.client_manager if given.server is None else given.server.client_manager()

        def wait_for(num_clients: int, timeout: int = 0) -> bool:
            del timeout
            # Each look at how many there are asks the grid anew.
            while manager.num_available() < num_clients:
                wait_for_nodes()
            return True

        manager.wait_for = wait_for
        return given

    server_app._server_fn = components


def checked_messages(messages: Iterable[Any]) -> list[Any]:
    """Messages that may come from a generator, checked.

    Raises:
        TypeError: one is none.
    """
    from flwr.app import Message

    found = list(messages)
    for message in found:
        if not isinstance(message, Message):
            raise TypeError(f"a grid takes flwr.app.Message, got {type(message).__name__}")
    return found

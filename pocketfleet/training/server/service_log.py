"""What a service tells of itself: a line of JSON an event, with its time of day. No secret and no update is in it."""

import contextlib
import datetime
import json
import sys
import threading
from typing import IO, Any

__all__ = ["ServiceLog"]


class ServiceLog:
    """Lines to a stream.

    Args:
        stream: where to; ``None``: standard error.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:  # noqa: ANN401 - what JSON holds
        """One line.

        Args:
            event: a word for what happened.
            fields: what else is to be told.
        """
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "event": event, **fields}, default=str)
        # Where the disk is full the service goes on without its log.
        with self._lock, contextlib.suppress(OSError):
            print(line, file=self._stream, flush=True)

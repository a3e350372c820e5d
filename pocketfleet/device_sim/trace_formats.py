"""The formats of recorded traces that are converted to the long one, by name."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pocketfleet.device_sim.fedscale_trace import read_fedscale
from pocketfleet.device_sim.flash_trace import read_flash
from pocketfleet.device_sim.trace_events import TraceEvents
from pocketfleet.errors import InputError

__all__ = ["TRACE_FORMATS", "read_foreign_trace"]

TRACE_FORMATS: dict[str, Callable[[Path], tuple[TraceEvents, Counter[str]]]] = {
    "flash": read_flash,
    "fedscale": read_fedscale,
}


def read_foreign_trace(path: Path, *, form: str) -> tuple[TraceEvents, Counter[str]]:
    """The events of a file, and what of it was left out, counted by what it is.

    Args:
        path: the file.
        form: a name of ``TRACE_FORMATS``.

    Raises:
        InputError: there is no such format, or the file is not of it.
    """
    if form not in TRACE_FORMATS:
        raise InputError(f"a trace's format must be one of {', '.join(TRACE_FORMATS)}, got {form!r}")
    return TRACE_FORMATS[form](path)

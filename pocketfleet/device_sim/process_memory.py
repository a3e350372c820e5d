"""What this process holds of the machine's memory, and held at most."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["data_bytes", "forget_peak", "peak_bytes", "resident_bytes"]

_BYTES_PER_KIB = 1024
_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """What this process holds now; elsewhere than on Linux the most that it ever held."""
    return _status_bytes("VmRSS") or _ever_most_bytes()


def peak_bytes() -> int:
    """The most that this process held since ``forget_peak``; elsewhere than on Linux since it started."""
    # Not getrusage where there is another way: on Linux its peak includes that of the process which started this one.
    return _status_bytes("VmHWM") or _ever_most_bytes()


def data_bytes() -> int:
    """What counts against ``RLIMIT_DATA``: private memory that can be written to; 0 elsewhere than on Linux."""
    return _status_bytes("VmData")


def forget_peak() -> None:
    """Let the peak begin anew: importing took memory that has been given back."""
    with suppress(OSError):
        # 5 resets VmHWM: proc(5), /proc/pid/clear_refs.
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    """A line of ``/proc/self/status``, such as ``VmRSS``; 0 without one."""
    if not _STATUS.is_file():
        return 0
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines[key].split()[0]) * _BYTES_PER_KIB if key in lines else 0


def _ever_most_bytes() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # getrusage(2): kilobytes, but bytes on macOS.
    return most if sys.platform == "darwin" else most * _BYTES_PER_KIB

"""The process of an emulation's service: ``pocketfleet serve``, which ends when who started it is gone.

``emulation`` holds the other end of its standard input and never writes: when that closes, however it came about, the
service is asked to end as by SIGTERM.
"""

import os
import signal
import sys
import threading

from pocketfleet.cli import main


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    main()

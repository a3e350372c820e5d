"""The process of an emulation's service: ``pocketfleet serve``, which ends when who started it is gone.

``emulation`` holds the other end of its standard input and never writes: when that closes, however it came about, the
service is asked to end as by SIGTERM.
"""

import os
import signal
import threading

from pocketfleet.cli import main


def _end_with_input() -> None:
    # Not by ``sys.stdin``, whose lock this thread would hold when the interpreter ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    main()

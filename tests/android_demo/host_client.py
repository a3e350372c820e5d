"""The app's round loop as a process of a desktop's JVM, on the wheel's runtime."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["started_client"]

sys.path.append(str(Path(__file__).parents[2] / "android_demo" / "toolchain"))

from compile import class_path, compiled, locked, program
from host_runtime import host_libraries
from modules import MODULES


@contextmanager
def started_client(log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The client, compiled if it is not, with its arguments; what it prints goes to ``log``. Ended with the block."""
    with locked():
        jars = [compiled("host"), *class_path(MODULES["host"])]
        libraries = host_libraries()
    command = [program("java"), "-Xmx512m", f"-Djava.library.path={libraries}", "-cp", os.pathsep.join(map(str, jars))]
    with log.open("wb") as output:
        running = subprocess.Popen(
            [*command, "org.pocketfleet.host.MainKt", *arguments], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield running
        finally:
            running.kill()
            running.wait()

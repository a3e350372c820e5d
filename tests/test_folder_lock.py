import subprocess
import sys
from pathlib import Path

from pocketfleet.folder_lock import LOCK, try_lock

HOLD = """
import sys, pathlib
from pocketfleet.folder_lock import try_lock
lock = try_lock(pathlib.Path(sys.argv[1]))
print(lock is not None, flush=True)
sys.stdin.read()
"""


def test_one_process_holds_a_folder_until_it_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert try_lock(tmp_path) is None
        other.kill()
    lock = try_lock(tmp_path)
    assert lock is not None
    # A second handle of the same process is refused too, until the first is closed.
    assert try_lock(tmp_path) is None
    lock.close()
    again = try_lock(tmp_path)
    assert again is not None
    again.close()
    assert (tmp_path / LOCK).exists()

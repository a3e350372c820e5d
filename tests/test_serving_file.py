"""A service's file is believed while its process runs, and no longer."""

import os
import subprocess
import sys
from pathlib import Path

from pocketfleet.serving_file import SERVING, Serving, forget_serving, read_serving, tell_serving


def test_a_running_service_is_found_and_gone_when_it_ends(tmp_path: Path) -> None:
    assert read_serving(tmp_path) is None
    tell_serving(tmp_path, "http://here/v1/populations/main")
    assert read_serving(tmp_path) == Serving(url="http://here/v1/populations/main", pid=os.getpid())
    forget_serving(tmp_path)
    assert not (tmp_path / SERVING).exists()
    forget_serving(tmp_path)


def test_what_a_killed_service_left_is_told_apart(tmp_path: Path) -> None:
    told = "import sys, pathlib, pocketfleet.serving_file as file; file.tell_serving(pathlib.Path(sys.argv[1]), 'u')"
    subprocess.run([sys.executable, "-c", told, str(tmp_path)], check=True)
    assert (tmp_path / SERVING).exists()
    assert read_serving(tmp_path) is None
    # It is another process's: it stays.
    forget_serving(tmp_path)
    assert (tmp_path / SERVING).exists()


def test_another_process_of_the_same_number_is_none(tmp_path: Path) -> None:
    tell_serving(tmp_path, "u")
    file = tmp_path / SERVING
    found = read_serving(tmp_path)
    assert found is not None
    began = file.read_text().rpartition('"began":"')[2].rstrip('"}')
    file.write_text(file.read_text().replace(f'"{began}"', f'"{int(began) - 1}"'))
    assert read_serving(tmp_path) is None


def test_a_damaged_file_is_none(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"url": "u"}', '{"url": "u", "pid": "x", "began": "1"}'):
        (tmp_path / SERVING).write_text(text)
        assert read_serving(tmp_path) is None

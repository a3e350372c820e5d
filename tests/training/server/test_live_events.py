"""A stream that somebody watches does not hold up a server that is told to stop."""

import threading
import time
from pathlib import Path

import httpx
from server_process import ServerProcess

from pocketfleet.training.server import administration


def test_a_server_stops_under_a_stream(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    try:
        credential = administration.new_admin_credential(server.folder / "state")
        headers, seen, began = {"Authorization": f"Bearer {credential}"}, [], threading.Event()
        until_s = time.monotonic() + 20.0
        while httpx.get(f"{server.url}/metrics", headers=headers).status_code != 200:
            assert time.monotonic() < until_s
            time.sleep(0.05)  # noqa: TID251 - another process is waited for

        def watch() -> None:
            stream = httpx.stream("GET", f"{server.url}/live/events?seconds=60", headers=headers, timeout=60.0)
            with stream as answer:
                for line in answer.iter_lines():
                    seen.append(line)
                    began.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert began.wait(30.0)
        stopped_s = time.monotonic()
        assert server.stop() == 0
        # It looks four times a second; without looking it would go on for 30 s, the time that requests have to end.
        assert time.monotonic() - stopped_s < 15.0
        watcher.join(10.0)
        # It was ended in order: the answer is whole.
        assert not watcher.is_alive()
        assert seen[0] == "event: figures"
        assert seen[-1] == ""
    finally:
        server.stop()

from pathlib import Path

import pytest

from pocketfleet.device_sim import process_memory
from pocketfleet.device_sim.process_memory import data_bytes, forget_peak, peak_bytes, resident_bytes

MEGABYTES = 10**6


def test_what_is_held_counts_and_what_was_held_is_remembered() -> None:
    forget_peak()
    before, data_before = resident_bytes(), data_bytes()
    block = bytearray(200 * MEGABYTES)
    block[::4096] = b"x" * len(block[::4096])
    assert resident_bytes() > before + 180 * MEGABYTES
    assert data_bytes() > data_before + 180 * MEGABYTES
    del block
    assert peak_bytes() > before + 180 * MEGABYTES
    forget_peak()
    assert peak_bytes() < before + 180 * MEGABYTES


def test_elsewhere_than_on_linux_memory_is_the_processes_own_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_memory, "_STATUS", Path("/nowhere"))
    assert peak_bytes() == resident_bytes() > 10_000_000
    assert data_bytes() == 0

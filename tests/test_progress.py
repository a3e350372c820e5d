"""What a watcher of a simulation sees: a bar on a terminal, a line now and then elsewhere, nothing if not wanted."""

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest

from pocketfleet.progress import Progress

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Its ``now_s`` is what the module takes for the time."""
    time = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("pocketfleet.progress.time", SimpleNamespace(monotonic=lambda: time.now_s))
    return time


def row(version: int, **more: float) -> dict[str, Any]:
    return {
        "round": version - 1,
        "model_version": version,
        "closed_s": 1234.5 * version,
        "assigned": 13,
        "accepted": 10,
        "train_loss": 9.0,
        **more,
    }


def told(stream: io.StringIO, *, rounds: int, versions: list[int], name: str = "mine") -> str:
    """What a run of these versions prints."""
    progress = Progress(shown=True, stream=stream)
    progress.expect(rounds, name=name)
    with progress:
        progress("export", {})
        progress("simulate", {})
        for version in versions:
            progress("round", row(version, test_loss=8.0, test_mse=7.0 / version))
    return stream.getvalue()


def screen(text: str) -> str:
    """Without a terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n")


def test_a_terminal_shows_a_bar_with_version_and_metric() -> None:
    text = told(Terminal(), rounds=3, versions=[1, 2, 3])
    last = screen(text).rstrip().splitlines()[-1]
    assert last.startswith("mine ")
    assert "━" in last
    # 3 * 1234.5 = 3703.5, to even; 7 / 3 = 2.333.
    assert "3/3, virtual 3,704 s, test_mse 2.333" in last
    assert "test_loss" not in screen(text)


def test_a_terminals_bar_stays_on_one_line_of_80_columns() -> None:
    text = told(Terminal(), rounds=100, versions=[100], name="boston-two-phones")
    (last,) = [line for line in screen(text).splitlines() if "100/100" in line][-1:]
    assert len(last.rstrip()) <= 80
    # Not shortened, and not broken onto the next line: the elapsed time is at its end.
    assert "100/100, virtual 123,450 s, test_mse 0.07" in last
    assert re.search(r"\d:\d\d:\d\d$", last.rstrip())


def test_a_terminal_is_left_as_it_was() -> None:
    text = told(Terminal(), rounds=2, versions=[1, 2])
    assert text.count(HIDE_CURSOR) == text.count(SHOW_CURSOR) == 1
    assert text.index(HIDE_CURSOR) < text.index(SHOW_CURSOR)
    assert screen(text).endswith("\n")


def test_a_terminal_is_left_as_it_was_by_an_error_too() -> None:
    stream = Terminal()
    with pytest.raises(KeyError), Progress(shown=True, stream=stream) as progress:
        # A row without its version stands for whatever fails inside.
        progress("round", {})
    assert stream.getvalue().count(SHOW_CURSOR) == 1
    assert screen(stream.getvalue()).endswith("\n")


def test_a_bar_of_an_unknown_number_of_versions() -> None:
    last = screen(told(Terminal(), rounds=0, versions=[1, 2])).rstrip().splitlines()[-1]
    assert " 2, virtual 2,469 s, test_mse 3.5" in last
    assert "2/" not in last


def test_elsewhere_stages_and_the_last_version_are_printed_at_once(clock: SimpleNamespace) -> None:
    # No time passes: of the versions in between none is printed.
    exporting, starting, last = told(io.StringIO(), rounds=5, versions=[1, 2, 3, 4, 5]).splitlines()
    assert exporting.startswith("mine: exporting")
    assert starting == "mine: starting the phones"
    # 5 * 1234.5 = 6172.5, to even; 7 / 5 = 1.4.
    assert last == "mine: version 5/5, 10 of 13 phones reported, virtual 6,172 s, test_mse 1.4"


def test_elsewhere_a_line_is_printed_every_two_seconds_at_most(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    progress = Progress(shown=True, stream=stream)
    progress.expect(1000, name="mine")
    with progress:
        progress("simulate", {})
        for version in range(1, 101):
            clock.now_s += 0.25
            progress("round", row(version))
    printed = [int(found) for found in re.findall(r"version (\d+)/1000", stream.getvalue())]
    # 2 s after the stage's line and after each line: every eighth version.
    assert printed == list(range(8, 101, 8))
    assert "\x1b" not in stream.getvalue()


def test_a_version_that_was_not_evaluated_shows_no_metric(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    progress = Progress(shown=True, stream=stream)
    progress.expect(1, name="mine")
    with progress:
        progress("round", row(1))
    assert stream.getvalue() == "mine: version 1/1, 10 of 13 phones reported, virtual 1,234 s\n"


def test_elsewhere_an_unknown_number_of_versions_is_not_guessed(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    progress = Progress(shown=True, stream=stream)
    progress.expect(0, name="run")
    with progress:
        progress("round", row(7))
    assert stream.getvalue().startswith("run: version 7, 10 of 13")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["plain", "terminal"])
def test_nothing_is_printed_when_not_shown(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(shown=False, stream=stream)
    progress.expect(1, name="mine")
    with progress:
        progress("export", {})
        progress("round", row(1, test_mse=1.0))
    assert stream.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_lines_go_to_standard_error(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(shown=True) as progress:
        progress("simulate", {})
    assert capsys.readouterr() == ("", "run: starting the phones\n")

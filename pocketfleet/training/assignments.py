"""Every assignment that a coordinator ever handed out: whose it is, and what its next report is answered.

Rules:

1. An assignment's id is its place in the order of handing out, over all rounds: those of the open round are the last.
2. Its whole state is the ``ReportCode`` that the next report on it gets: ACCEPTED while it is live, REPEATED once a
   report was counted, and so on.
3. Of the open round's there are whole rows. A closed round never changes and nobody is accepted in it any more: of its
   assignments no more is kept than that code, and of the round its model version.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.training.round import Int64s, ReportCode

__all__ = ["COUNTED", "LIVE", "NOT_YET", "Assignments"]

Int8s = npt.NDArray[np.int8]

# The states as plain integers, which numpy compares several times faster than members of an IntEnum.
LIVE, COUNTED = int(ReportCode.ACCEPTED), int(ReportCode.REPEATED)
_WITHDRAWN, _UNKNOWN = int(ReportCode.WITHDRAWN), int(ReportCode.UNKNOWN)
# Of a device without an assignment in the open round.
NOT_YET = -1
_SPARE = 64


class Assignments:
    """The open round's assignments and what is left of closed rounds'; devices are 0 to ``population - 1``."""

    def __init__(self, *, population: int) -> None:
        # [population] each device's newest assignment; one below first_id is of a closed round.
        self._newest: Int64s = np.full(population, -1, np.int64)
        self._first_id = self._count = 0
        # All columns grow by doubling; places at the end are spare. Those of the open round's assignments:
        self._device, self._examples = np.empty(_SPARE, np.int64), np.zeros(_SPARE, np.int64)
        self._answer = np.empty(_SPARE, np.int8)
        # Answers of closed rounds, by id; of each closed round its first id, and which model version it trained from.
        self._past_answer = np.empty(_SPARE, np.int8)
        self._closed = 0
        self._first_ids, self._versions = np.empty(_SPARE, np.int64), np.empty(_SPARE, np.int64)

    @property
    def population(self) -> int:
        """How many devices there are."""
        return self._newest.size

    @property
    def handed_out(self) -> int:
        """Assignments of the open round, withdrawn ones too."""
        return self._count - self._first_id

    def states(self, device: Int64s) -> Int8s:
        """What a report on the newest assignment of each of ``device`` ``[n]`` gets; NOT_YET: none in this round."""
        newest = self._newest[device]
        states: Int8s = np.full(device.size, NOT_YET, np.int8)
        present = newest >= self._first_id
        states[present] = self._answer[newest[present] - self._first_id]
        return states

    def live_of(self, device: int) -> int:
        """The assignment of the open round that a device has not reported on; -1: it holds none."""
        live = self.states(np.array([device]))[0] == LIVE
        return int(self._newest[device]) if live else -1

    def withdraw(self, device: Int64s) -> None:
        """The newest assignments of devices, which are of the open round, are lost."""
        self._answer[self._newest[device] - self._first_id] = _WITHDRAWN

    def hand_out(self, device: Int64s) -> Int64s:
        """Live assignments of the open round for ``device`` ``[n]``; returns their ids ``[n]``."""
        start, stop = self.handed_out, self.handed_out + device.size
        self._device, self._answer = _grown(self._device, start, stop), _grown(self._answer, start, stop)
        self._examples = _grown(self._examples, start, stop)
        self._device[start:stop], self._answer[start:stop] = device, LIVE
        ids = np.arange(self._count, self._count + device.size, dtype=np.int64)
        self._newest[device] = ids
        self._count += device.size
        return ids

    def answers(self, ids: Int64s, *, model_version: int) -> tuple[Int8s, Int64s]:
        """What reports on ``ids`` get, each looked at by itself, and how stale their versions are; ``[n]`` each.

        Args:
            ids: any integers.
            model_version: the newest.
        """
        row = ids - self._first_id
        here = (row >= 0) & (row < self.handed_out)
        if here.all():
            return self._answer[row], np.zeros(ids.size, np.int64)
        code, staleness = np.full(ids.size, _UNKNOWN, np.int8), np.full(ids.size, -1, np.int64)
        code[here], staleness[here] = self._answer[row[here]], 0
        past = np.flatnonzero((ids >= 0) & (row < 0))
        code[past] = self._past_answer[ids[past]]
        closed = self._first_ids[: self._closed].searchsorted(ids[past], side="right") - 1
        staleness[past] = model_version - self._versions[closed]
        return code, staleness

    def count(self, ids: Int64s, num_examples: Int64s) -> None:
        """Reports on live assignments of the open round are accepted, ``[n]``."""
        row = ids - self._first_id
        self._answer[row], self._examples[row] = COUNTED, num_examples

    def close(self, live_becomes: ReportCode, *, model_version: int) -> dict[str, Int64s]:
        """The open round closes; another begins.

        Args:
            live_becomes: the state of assignments that nobody has reported on.
            model_version: that the round trained from.

        Returns:
            The accepted reports' columns ``assignment_id``, ``device`` and ``num_examples``, in order of device.
        """
        answer = self._answer[: self.handed_out]
        accepted: Int64s = np.flatnonzero(answer == COUNTED).astype(np.int64)
        accepted = accepted[self._device[accepted].argsort(kind="stable")]
        reports = {
            "assignment_id": self._first_id + accepted,
            "device": self._device[accepted],
            "num_examples": self._examples[accepted],
        }
        answer[answer == LIVE] = int(live_becomes)
        self._past_answer = _grown(self._past_answer, self._first_id, self._count)
        self._past_answer[self._first_id : self._count] = answer
        self._first_ids = _grown(self._first_ids, self._closed, self._closed + 1)
        self._versions = _grown(self._versions, self._closed, self._closed + 1)
        self._first_ids[self._closed], self._versions[self._closed] = self._first_id, model_version
        self._closed += 1
        self._first_id = self._count
        return reports

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copies for a checkpoint."""
        rows = slice(self.handed_out)
        return {
            "open_device": self._device[rows].copy(),
            "open_examples": np.where(self._answer[rows] == COUNTED, self._examples[rows], 0),
            "open_answer": self._answer[rows].copy(),
            "past_answer": self._past_answer[: self._first_id].copy(),
            "past_first_ids": self._first_ids[: self._closed].copy(),
            "past_versions": self._versions[: self._closed].copy(),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        self._device, self._examples = state["open_device"].copy(), state["open_examples"].copy()
        self._answer, self._past_answer = state["open_answer"].copy(), state["past_answer"].copy()
        self._first_ids, self._versions = state["past_first_ids"].copy(), state["past_versions"].copy()
        self._closed, self._first_id = self._first_ids.size, self._past_answer.size
        self._count = self._first_id + self._device.size
        # Only the open round's assignments are looked up by device; the last of a device's is its newest.
        self._newest[self._device] = np.arange(self._first_id, self._count, dtype=np.int64)


def _grown(column: npt.NDArray[Any], used: int, wanted: int) -> npt.NDArray[Any]:
    """``column``, or a longer one with the ``used`` first values, so that ``wanted`` fit in."""
    if wanted <= column.size:
        return column
    longer = np.empty(max(wanted, 2 * column.size, _SPARE), column.dtype)
    longer[:used] = column[:used]
    return longer

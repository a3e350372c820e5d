"""Those that came in a round that was played, brought to the coordinator, which has to say what the round says."""

import numpy as np

from pocketfleet.device_sim.flight import Flights
from pocketfleet.device_sim.played_round import PlayedRound
from pocketfleet.training.coordinator import Coordinator
from pocketfleet.training.round import CheckInCode

__all__ = ["check_in"]


def check_in(coordinator: Coordinator, played: PlayedRound) -> Flights:
    """Let everybody check in, and those leave that were gone at a window's end; the flights with their assignments.

    Raises:
        AssertionError: the coordinator answers otherwise than was played.
    """
    flights, held, refused = played.flights, played.held, played.refused
    # Of one time, who is refused comes last: the others filled the population before.
    device = np.concatenate([held.device, flights["device"], played.turned_away, refused.device])
    at_s = np.concatenate([held.at_s, flights["start_s"], played.turned_away_s, refused.at_s])
    codes = (CheckInCode.HELD, CheckInCode.ASSIGNED, CheckInCode.ROUND_FULL)
    counts = [len(held.device), len(flights), len(played.turned_away)]
    spent = coordinator.admission.spent(refused.device)
    refusals = np.where(spent, int(CheckInCode.PRIVACY_SPENT), int(CheckInCode.POPULATION_FULL)).astype(np.int8)
    code = np.concatenate([np.repeat(np.array([int(each) for each in codes], dtype=np.int8), counts), refusals])
    order = np.argsort(at_s, kind="stable")
    ids = np.full(len(order), -1, dtype=np.int64)
    start = 0
    for ends_s in (*np.unique(played.left.at_s).tolist(), np.inf):
        stop = int(at_s[order].searchsorted(ends_s))
        rows = order[start:stop]
        answer = coordinator.check_in_many(device[rows], at_s[rows])
        if not np.array_equal(answer.code, code[rows]):
            raise AssertionError(f"round {coordinator.round}: others were assigned than started")
        ids[rows] = answer.assignment_id
        gone = played.left.device[played.left.at_s == ends_s]
        coordinator.leave_many(gone, np.full(len(gone), ends_s))
        start = stop
    flights["assignment_id"] = ids[code == CheckInCode.ASSIGNED]
    return flights

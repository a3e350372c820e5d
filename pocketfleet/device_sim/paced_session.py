"""A session at a phone's pace: each step takes as long as the phone would need for it, on the phone's clock.

Steps are held to a schedule, not to a length each: one that the host was late with is caught up on by the next. What
the host cannot keep up with is counted. Evaluations and predictions are not paced: the simulator charges nothing for
them either.
"""

import math
from collections.abc import Callable

import torch

from pocketfleet.device_sim.phone_clock import PhoneClock
from pocketfleet.errors import PocketfleetError
from pocketfleet.export.session import Session
from pocketfleet.training.train_step import Hyper, TrainState
from pocketfleet.training.weights import Tensors, Weights

__all__ = ["OutOfTime", "PacedSession"]


class OutOfTime(PocketfleetError):  # noqa: N818 - nothing went wrong
    """The time that there was for training is over, and it is not done."""


def _nothing(calls: int) -> None:
    """What is done after each step unless there is something to do."""


class PacedSession:
    """Executes by another session.

    Attributes:
        calls: steps since the last ``start``.
        late: how many of them ended later than a phone's would have.
        late_s: by how much the last one did at most, seconds of the phone.
    """

    def __init__(self, session: Session, clock: PhoneClock) -> None:
        self._session, self._clock = session, clock
        self._after: Callable[[int], None] = _nothing
        self._from_s, self._call_s, self._until_s = 0.0, 0.0, math.inf
        self.calls = self.late = 0
        self.late_s = 0.0

    def start(self, *, call_s: float, until_s: float = math.inf, after: Callable[[int], None] = _nothing) -> None:
        """Training begins now.

        Args:
            call_s: seconds of the phone that a call of ``train_step`` takes.
            until_s: no step ends later.
            after: called with the number of calls after each.
        """
        self._from_s, self._call_s, self._until_s = self._clock.now_s(), call_s, until_s
        self._after = after
        self.calls = self.late = 0
        self.late_s = 0.0

    def train_step(
        self, state: TrainState, x: torch.Tensor, y: torch.Tensor, hyper: Hyper, *, dropout_seed: int = 0
    ) -> tuple[torch.Tensor, TrainState]:
        """One step, and the rest of its time.

        Raises:
            OutOfTime: it would end too late.
        """
        result = self._session.train_step(state, x, y, hyper, dropout_seed=dropout_seed)
        self.calls += 1
        due_s, now_s = self._from_s + self.calls * self._call_s, self._clock.now_s()
        if now_s > due_s:
            self.late += 1
            self.late_s = max(self.late_s, now_s - due_s)
        self._clock.wait_until(min(due_s, self._until_s))
        if self._clock.now_s() >= self._until_s:
            raise OutOfTime(f"{self.calls} steps are done and the time for training is over")
        self._after(self.calls)
        return result

    def predict(self, weights: Weights, x: torch.Tensor) -> torch.Tensor:
        """As the session does."""
        return self._session.predict(weights, x)

    def evaluate(self, weights: Weights, x: torch.Tensor, y: torch.Tensor) -> Tensors:
        """As the session does."""
        return self._session.evaluate(weights, x, y)

"""Oort: devices whose data taught most are chosen again, slow ones less often, and unknown ones are tried.

Rules, for round ``R`` (1, 2, ...) and a device last heard of in round ``L``:

1. *Statistical utility* is ``|B| * sqrt(mean loss^2)`` of its last accepted report: equation 1. Here ``|B|`` is the
   examples that it processed, and a mean is over steps, not examples: a report carries no more.
2. It is clipped at a quantile of all known ones, and divided by that: so it is 0 to 1. (Undivided, the next rule's
   number would vanish beside it. The authors' code takes the least off first, and divides by the unclipped range.)
3. *Staleness* adds ``sqrt(0.1 * log(R) / L)``: who was not heard of for long is worth a try. Algorithm 1.
4. *System utility*: what took longer than the preferred duration ``T`` is multiplied by ``(T / duration) ** penalty``.
   ``T`` is a quantile of the durations seen; the *pacer* raises that quantile by a step where the utility gained in
   the last ``pacer_window`` rounds is below that of as many before, as in Algorithm 1. (There ``T`` is in seconds; the
   authors' code has a quantile too, raises it where the two windows are within a tenth of each other, and lowers it
   where one is six times the other.)
5. *Exploitation*: of those with a score of at least ``cutoff`` times the last place's that would do, as many as
   needed are drawn by score. *Exploration*: a share, which decays, is drawn of those never heard of; who is known to
   be slow, by the wait for a report that never counted, with the weight of rule 4. Where either group is too small,
   the other fills up.
6. Who was accepted in ``blacklist_rounds`` rounds is chosen only where nobody else is left.

Draws without replacement by weight are the ``k`` least of ``-log(u) / weight``, ``u`` keyed by (seed, round, device).

Source: Lai et al. 2021, "Oort: Efficient Federated Learning via Guided Participant Selection", OSDI '21,
arXiv:2010.06081; the authors' code: github.com/SymbioticLab/Oort@05a3aa1 oort/oort.py. That drawing: Efraimidis and
Spirakis 2006, Information Processing Letters 97(5).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.round import Float64s, Int64s
from pocketfleet.training.selection import Feedback

__all__ = ["Oort"]

_STATE = ("utility", "duration_s", "heard", "accepted", "gained", "paced")


class Oort:
    """A ``Selection``; columns ``[population]``.

    Args:
        seed: of the experiment.
        population: how many devices there are.
        exploration: share of a round's devices that are explored at first.
        exploration_decay: its factor from round to round.
        exploration_min: it stays above this.
        penalty: alpha of rule 4; 0: slow devices are as good as fast ones.
        cutoff: share of the last place's score that still takes part in the draw.
        clip: quantile at which utilities are clipped.
        preferred: quantile of durations at first.
        pacer_window: rounds between two looks of the pacer.
        pacer_step: by how much it raises the quantile.
        blacklist_rounds: accepted reports after which a device is left out; 0: never.

    Raises:
        InputError: a value is out of its range.
    """

    needs_losses = True

    def __init__(
        self,
        *,
        seed: int,
        population: int,
        # Defaults of the authors' code, which has them in two places: SymbioticLab/FedScale@7ec441c
        # fedscale/cloud/config_parser.py and SymbioticLab/Oort@05a3aa1 training/argParser.py. One figure: they agree;
        # two: FedScale's, then Oort's. Factor 0.9; decay 0.98, 0.95; least 0.3, 0.2: ours is 0.2.
        exploration: float = 0.9,
        exploration_decay: float = 0.98,
        exploration_min: float = 0.2,
        # round_penalty 2, there called the paper's alpha.
        penalty: float = 2.0,
        # Both codes' comment: "take 95% of the cut-off loss". Their defaults are others: cut_off_util 0.05, 0.7 (0.4 in
        # a configuration); clip_bound 0.9, 0.98, between which ours lies.
        cutoff: float = 0.95,
        clip: float = 0.95,
        # round_threshold 30, 10 (percent; 30 in a configuration); pacer_step 20 rounds; pacer_delta 5 (percent).
        preferred: float = 0.3,
        pacer_window: int = 20,
        pacer_step: float = 0.05,
        # blacklist_rounds -1, which is never.
        blacklist_rounds: int = 0,
    ) -> None:
        """Take the settings; see the class."""
        shares = {
            "exploration": exploration,
            "exploration_decay": exploration_decay,
            "exploration_min": exploration_min,
            "cutoff": cutoff,
            "clip": clip,
            "preferred": preferred,
            "pacer_step": pacer_step,
        }
        _check(shares, penalty=penalty, pacer_window=pacer_window, blacklist_rounds=blacklist_rounds)
        self._seed = seed
        self._first, self._decay, self._least = exploration, exploration_decay, exploration_min
        self._penalty, self._cutoff, self._clip = penalty, cutoff, clip
        self._pacer_window, self._pacer_step, self._blacklist = pacer_window, pacer_step, blacklist_rounds
        self._utility: Float64s = np.full(population, np.nan)
        self._duration_s: Float64s = np.full(population, np.nan)
        self._heard: Int64s = np.zeros(population, dtype=np.int64)  # L of rule 3
        self._accepted: Int64s = np.zeros(population, dtype=np.int64)
        self._gained: Float64s = np.empty(0)  # utility of the latest rounds, two windows of them at most
        self._paced: Float64s = np.array([preferred])  # the quantile of rule 4

    def exploration(self, round_index: int) -> float:
        """The share of a round's devices that are explored, rule 5."""
        return max(self._least, self._first * self._decay**round_index)

    def scores(self, device: Int64s, *, round_index: int) -> Float64s:
        """Rules 1 to 4 for devices ``[n]`` that were heard of."""
        known = self._utility[~np.isnan(self._utility)]
        bound = float(np.quantile(known, self._clip))
        worth = np.minimum(self._utility[device], bound) / bound if bound > 0.0 else np.ones(len(device))
        stale = np.sqrt(0.1 * np.log(round_index + 1) / self._heard[device])
        scores: Float64s = (worth + stale) * self._speed(device)
        return scores

    def _speed(self, device: Int64s) -> Float64s:
        """Rule 4: a factor in (0, 1] for devices ``[n]``; 1 where nothing is known."""
        known = self._duration_s[~np.isnan(self._duration_s)]
        if len(known) == 0:
            return np.ones(len(device))
        preferred_s = float(np.quantile(known, self._paced[0]))
        duration_s = np.fmax(self._duration_s[device], preferred_s)
        return np.divide(preferred_s, duration_s, out=np.ones(len(device)), where=duration_s > 0.0) ** self._penalty

    def choose(self, candidates: Int64s, *, count: int, round_index: int) -> Int64s:
        """Rules 5 and 6."""
        u = uniform(draw_key(self._seed, "oort", round_index, candidates), 1)[..., 0]
        tired = (self._accepted[candidates] >= self._blacklist) & (self._blacklist > 0)
        chosen = self._draw(candidates[~tired], u[~tired], count=count, round_index=round_index)
        rest = candidates[tired][np.argsort(u[tired], kind="stable")[: count - len(chosen)]]
        return np.concatenate([chosen, rest])

    def _draw(self, candidates: Int64s, u: Float64s, *, count: int, round_index: int) -> Int64s:
        known = ~np.isnan(self._utility[candidates])
        old, new = candidates[known], candidates[~known]
        # As many as are left of a group where it is too small.
        explored = max(count - len(old), min(len(new), round(count * self.exploration(round_index))))
        exploited = min(count - explored, len(old))
        chosen = [_heaviest(new, u[~known], self._speed(new), count=explored)]
        if exploited > 0:
            scores = self.scores(old, round_index=round_index)
            within = scores >= self._cutoff * np.sort(scores)[-exploited]
            chosen.append(_heaviest(old[within], u[known][within], scores[within], count=exploited))
        return np.concatenate(chosen)

    def learn(self, feedback: Feedback) -> None:
        """Rules 1, 3 and 4: of reports that counted; of the others how long they were waited for."""
        taught = (feedback.num_examples > 0) & ~np.isnan(feedback.loss)
        device = feedback.device[taught]
        utility = feedback.num_examples[taught] * feedback.loss[taught]
        self._utility[device] = utility
        self._heard[device] = feedback.round + 1
        self._accepted[device] += 1
        reported, waiting = feedback.num_examples > 0, feedback.num_examples == 0
        self._duration_s[feedback.device[reported]] = feedback.duration_s[reported]
        late = feedback.device[waiting]
        self._duration_s[late] = np.fmax(self._duration_s[late], feedback.duration_s[waiting])
        self._gained = np.append(self._gained, utility.sum())[-2 * self._pacer_window :]
        if (feedback.round + 1) % self._pacer_window == 0 and len(self._gained) == 2 * self._pacer_window:
            before, now = self._gained.reshape(2, -1).sum(axis=1)
            self._paced = np.minimum(self._paced + self._pacer_step * (now < before), 1.0)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What was learnt."""
        return {name: getattr(self, f"_{name}").copy() for name in _STATE}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what ``state`` returned."""
        for name in _STATE:
            setattr(self, f"_{name}", state[name].copy())


def _heaviest(device: Int64s, u: Float64s, weight: Float64s, *, count: int) -> Int64s:
    """``count`` of ``device`` ``[n]``, all if they are fewer, drawn without replacement by weight."""
    # A weight of zero is drawn last, but drawn.
    key = -np.log1p(-u) / np.maximum(weight, 1e-300)
    drawn: Int64s = device[np.argsort(key, kind="stable")[:count]]
    return drawn


def _check(shares: Mapping[str, float], *, penalty: float, pacer_window: int, blacklist_rounds: int) -> None:
    for name, value in shares.items():
        if not (_is_number(value) and 0.0 <= value <= 1.0):
            raise InputError(f"rounds.selection_options.{name} must be 0..1, got {value!r}")
    if not (_is_number(penalty) and 0.0 <= penalty < np.inf):
        raise InputError(f"rounds.selection_options.penalty must be a number, 0 or more, got {penalty!r}")
    for name, count, least in (("pacer_window", pacer_window, 1), ("blacklist_rounds", blacklist_rounds, 0)):
        if not (type(count) is int and count >= least):
            raise InputError(f"rounds.selection_options.{name} must be an integer, {least} or more, got {count!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

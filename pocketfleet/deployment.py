"""The runs that a plan of a deployment is made from: one a seed, by the clock alone unless a metric counts.

Rules:

1. A plan's days stand for ``rounds.horizon_s``: to tell one hour from another, days must be whole. So a run goes on
   when ``rounds.count`` models are made; when that was is read off.
2. Rounds of a second would go on for a week's 600,000: ``MOST_ROUNDS``, or ``rounds.count`` if that is more, end a run
   too, and its plan is of the days until then. So do as many as ``privacy.max_participations`` leaves phones for.
3. With a target the phones train, and ``rounds.count`` ends the run as it does any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketfleet.assembly import Parts, given_path
from pocketfleet.device_sim.client import mean_evaluation
from pocketfleet.device_sim.milestone import Target
from pocketfleet.device_sim.sweep import Variation
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.export.session import EagerSession
from pocketfleet.sweep_plan import PlannedRun, plan_runs
from pocketfleet.update_parts import report_bytes

__all__ = ["Deployment", "plan_deployment"]

# A round a minute for a week: 7 x 1440.
MOST_ROUNDS = 10_080
# A season: the server's load is kept by the second, 8 million of them.
_MOST_DAYS = 92.0
# Examples of one evaluation at a time; the result depends on it by rounding alone.
_EVALUATION_BATCH = 256
_OWN = {"rounds.horizon_s": "--days", "engine.timing_only": "--target", "seed": "--seeds or the experiment's own"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What is planned: the experiment as given, a run a seed, and the target with its direction.

    ``update_bytes`` are those of a report's body.
    """

    experiment: Experiment
    update_bytes: int
    runs: tuple[PlannedRun, ...]
    target: Target | None


def plan_deployment(
    source: str, settings: Sequence[str], *, days: float, seeds: int, target: Target | None, out: Path
) -> Deployment:
    """Check an experiment and what is asked of it.

    Args:
        source: an experiment by packaged name or path.
        settings: ``--set``; not of what a plan settles itself.
        days: of virtual time, over 0.
        seeds: how many runs, 1 or more: the experiment's own seed and those after it.
        target: what training shall reach; ``None`` trains nothing.
        out: the folder of the runs; only looked at.

    Raises:
        InputError: something does not fit.
    """
    if not 0.0 < days <= _MOST_DAYS:
        raise InputError(f"--days must be over 0 and at most {_MOST_DAYS:g}, got {days:g}")
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key in _OWN:
            raise InputError(f"plan settles {key} itself: leave out --set {key}, and use {_OWN[key]}")
    experiment = Experiment.load(source, settings)
    parts = Parts.of(experiment, given_path(experiment))
    directed = target.against(_untrained_metrics(parts)) if target else None
    numbers = tuple(str(experiment.seed + number) for number in range(seeds))
    own = [f"rounds.horizon_s={days * 86_400.0!r}", f"engine.timing_only={'false' if target else 'true'}"]
    if not target:
        # By the clock alone there is nothing to evaluate.
        own += ["release={}"]
        own += [f"rounds.count={max(experiment.rounds.count, _most_rounds(experiment))}"]
    runs = plan_runs(source, [Variation(key="seed", values=numbers)], [*settings, *own], out)
    update_bytes = report_bytes(experiment, parts.traffic.report)
    return Deployment(experiment=experiment, update_bytes=update_bytes, runs=runs, target=directed)


def _most_rounds(experiment: Experiment) -> int:
    """Rule 2: no more than phones may be in."""
    cap = experiment.privacy.max_participations
    return min(MOST_ROUNDS, cap * experiment.fleet.devices // experiment.rounds.cohort) if cap else MOST_ROUNDS


def _untrained_metrics(parts: Parts) -> dict[str, float]:
    session = EagerSession(parts.task, parts.model, parts.settings)
    values = mean_evaluation(session, parts.weights, parts.data.test, batch_size=_EVALUATION_BATCH)
    return {f"test_{name}": value for name, value in values.items()}

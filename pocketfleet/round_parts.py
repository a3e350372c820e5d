"""From an experiment's rounds and releases to what plays, closes and judges them."""

import math

from pocketfleet.assembly import Parts, batch_size
from pocketfleet.device_sim.buffered_rounds import BufferedRounds
from pocketfleet.device_sim.eligibility import Rule
from pocketfleet.device_sim.events import EventLog
from pocketfleet.device_sim.population import Population
from pocketfleet.device_sim.recorded_rounds import RecordedRounds
from pocketfleet.device_sim.rounds import Rounds
from pocketfleet.device_sim.secure_stages import SecureStages
from pocketfleet.device_sim.simulator import Schedule
from pocketfleet.device_sim.synchronous_rounds import SynchronousRounds
from pocketfleet.experiment import Experiment
from pocketfleet.privacy_parts import secure_group_of, secure_plan
from pocketfleet.training.release_verdict import ReleasePlan
from pocketfleet.training.round import BufferedPlan, RoundPlan

__all__ = ["make_rounds", "release_plan", "round_plan", "schedule"]


def round_plan(experiment: Experiment) -> RoundPlan | BufferedPlan:
    """What the coordinator of the experiment's policy keeps to."""
    rounds = experiment.rounds
    plan = RoundPlan(
        cohort=rounds.cohort,
        over_selection=rounds.over_selection,
        minimum_ratio=rounds.minimum_ratio,
        deadline_s=rounds.deadline_s,
        interval_s=rounds.interval_s,
        pace_s=rounds.pace_s,
        selection_window_s=rounds.selection_window_s,
        population_cap=rounds.population_cap,
        max_participations=experiment.privacy.max_participations,
    )
    if rounds.policy == "synchronous":
        return plan
    return BufferedPlan(
        buffer=rounds.cohort,
        concurrency=rounds.concurrency or plan.selected,
        max_staleness=rounds.max_staleness,
        deadline_s=rounds.deadline_s,
    )


def release_plan(experiment: Experiment) -> ReleasePlan | None:
    """What the gate of the experiment's versions keeps to; ``None``: devices use the newest."""
    section = experiment.release
    if section.gate == "none":
        return None
    return ReleasePlan(
        seed=experiment.seed,
        lower_is_better=section.better == "lower",
        bound=None if math.isinf(section.bound) else section.bound,
        **section.model_dump(exclude={"gate", "metric", "better", "bound"}),
    )


def make_rounds(experiment: Experiment, population: Population, log: EventLog, parts: Parts) -> Rounds:
    """The rounds of the experiment's policy, or a recorded service's."""
    plan, selection = round_plan(experiment), parts.selection
    if parts.recording is not None:
        size = batch_size(experiment, parts.data)
        return RecordedRounds(plan, population, log, recording=parts.recording, batch_size=size, selection=selection)
    if isinstance(plan, RoundPlan):
        stages = _secure_stages(experiment, population, log, parts)
        return SynchronousRounds(plan, population, log, selection=selection, stages=stages)
    return BufferedRounds(plan, population, log)


def _secure_stages(experiment: Experiment, population: Population, log: EventLog, parts: Parts) -> SecureStages | None:
    """The stages of rounds whose sums hide their parts."""
    plan = secure_plan(experiment, parts.traffic.report)
    if plan is None:
        return None
    return SecureStages(
        fleet=parts.fleet,
        availability=parts.availability,
        rule=Rule(**experiment.eligibility.model_dump()),
        seed=experiment.seed,
        ledger=population.ledger,
        log=log,
        stage_deadline_s=plan.stage_deadline_s,
        group_of=secure_group_of(plan),
    )


def schedule(experiment: Experiment) -> Schedule:
    """When the simulator stops, evaluates and writes."""
    return Schedule(
        count=experiment.rounds.count,
        horizon_s=experiment.rounds.horizon_s,
        evaluate_every=experiment.rounds.evaluate_every,
        checkpoint_share=experiment.engine.checkpoint_share,
    )

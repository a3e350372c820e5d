"""What a device that checks in is told: work to train or to measure, or why there is none; made of the plan alone."""

import math
from collections.abc import Mapping

from pocketfleet.training.codec import round_seed
from pocketfleet.training.draws import draw_key
from pocketfleet.training.privacy.secure_aggregation.secure_plan import SecurePlan
from pocketfleet.training.release_gate import Evaluation
from pocketfleet.training.release_verdict import ReleaseState
from pocketfleet.training.round import CheckInCode
from pocketfleet.training.server.downloads import Download, Downloads
from pocketfleet.training.server.durable_coordinator import CheckedIn
from pocketfleet.training.server.protocol import (
    PROTOCOL_VERSION,
    Assignment,
    CheckIn,
    EvaluationWork,
    FileEntry,
    SecureTerms,
    TurnedAway,
    TurnedAwayReason,
)
from pocketfleet.training.server.service_plan import ServicePlan

__all__ = ["assignment", "chosen_program", "evaluation_work", "incapable", "turned_away"]

_TURNED_AWAY: dict[CheckInCode, tuple[TurnedAwayReason, str]] = {
    CheckInCode.ROUND_FULL: ("round_full", "the round has the devices that it wants"),
    CheckInCode.ALREADY_REPORTED: ("already_reported", "this round has your report"),
    CheckInCode.NOT_YET: ("not_yet", "the next round has not opened"),
    CheckInCode.HELD: ("held", "the round is choosing among those that wait"),
    CheckInCode.POPULATION_FULL: ("population_full", "the population has all the devices that it takes"),
    CheckInCode.PRIVACY_SPENT: ("privacy_spent", "models have learnt from this device as often as they may"),
}


def chosen_program(plan: ServicePlan, request: CheckIn, programs: Mapping[str, object]) -> str | None:
    """The program that a device is to run; ``None``: it can run none of them."""
    wanted = [plan.preferred_program, *programs]
    return next((name for name in wanted if name in request.programs and name in programs), None)


def incapable(plan: ServicePlan, request: CheckIn, programs: Mapping[str, object]) -> TurnedAway | None:
    """Why a device can never take part with this app; ``None``: it can."""
    if request.protocol != PROTOCOL_VERSION:
        message = f"this service speaks protocol {PROTOCOL_VERSION}, got {request.protocol}: another app is needed"
        return TurnedAway(reason="upgrade", message=message, retry_after_s=None)
    if chosen_program(plan, request, programs) is None:
        message = f"the bundle holds programs for {', '.join(programs)}, got {', '.join(request.programs)}"
        return TurnedAway(reason="no_program", message=message, retry_after_s=None)
    if not set(plan.device_parts) <= set(request.codecs):
        message = f"this population's devices can do {', '.join(plan.device_parts)}, got {', '.join(request.codecs)}"
        return TurnedAway(reason="no_codec", message=message, retry_after_s=None)
    return None


def turned_away(plan: ServicePlan, answer: CheckedIn) -> TurnedAway:
    """The coordinator's answer to a device that was not assigned."""
    reason, message = _TURNED_AWAY[answer.code]
    if math.isinf(answer.retry_at_s):
        return TurnedAway(reason=reason, message=message, retry_after_s=None)
    wait_s = min(max(answer.retry_at_s - answer.time_s, 0.0), plan.limits.longest_retry_s)
    return TurnedAway(reason=reason, message=message, retry_after_s=wait_s)


def assignment(
    plan: ServicePlan,
    answer: CheckedIn,
    *,
    device: int,
    program: str,
    bundle: dict[str, FileEntry],
    download: Download,
) -> Assignment:
    """The work that a device was given.

    Args:
        plan: of the service.
        answer: the coordinator's.
        device: its number, which draws its batches.
        program: that it runs.
        bundle: the program's files.
        download: of the version.
    """
    seed = draw_key(plan.seed, "batch_seed", answer.round, device)
    return Assignment(
        assignment_id=answer.assignment,
        work="train",
        round=answer.round,
        model_version=answer.model_version,
        deadline_in_s=max(answer.deadline_s - answer.time_s, 0.0),
        program=program,
        bundle=bundle,
        weights=download.weights,
        broadcast=download.broadcast,
        algorithm=plan.algorithm_name,
        algorithm_options=dict(plan.algorithm_options),
        hyper=dict(plan.hyper),
        epochs=plan.epochs,
        steps=plan.steps,
        batch_size=plan.batch_size,
        batch_seed=int(seed) >> 1,
        codec=plan.codec.name,
        codec_options=dict(plan.codec.options),
        codec_seed=round_seed(plan.seed, answer.model_version),
        download_bits=plan.download.bits,
        update_bytes=plan.report_bytes,
        partial_work=plan.partial_work,
        rule=plan.rule,
        secure=secure_terms(plan.secure) if plan.secure is not None else None,
    )


def secure_terms(plan: SecurePlan) -> SecureTerms:
    """What a device must know of how sums hide their parts."""
    return SecureTerms(stage_deadline_s=plan.stage_deadline_s, **plan.terms())


def evaluation_work(
    plan: ServicePlan, asked: Evaluation, *, deadline_in_s: float, program: str, downloads: Downloads
) -> EvaluationWork:
    """Two versions that a device is to measure, by the gate's wish."""
    return EvaluationWork(
        evaluation_id=asked.number,
        work="evaluate",
        stage="candidate" if asked.stage is ReleaseState.CANDIDATE else "canary",
        deadline_in_s=deadline_in_s,
        program=program,
        bundle=downloads.programs[program],
        tried=downloads.model(asked.version),
        released=downloads.model(asked.released),
        metric=plan.release_metric,
        batch_size=plan.batch_size,
        rule=plan.rule,
    )

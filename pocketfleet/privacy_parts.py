"""From the sections that protect updates to what protects them: secure sums, and a model's promise to each device."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from pocketfleet.device_sim.secure_group import SecureGroup
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.training.codec import load_codec
from pocketfleet.training.privacy.accountant import Accountant, noise_for
from pocketfleet.training.privacy.clipping import AdaptiveClipping
from pocketfleet.training.privacy.distributed_gaussian import share_stddev
from pocketfleet.training.privacy.distributed_mean import DistributedAccountant, DistributedMean, noise_for_sums
from pocketfleet.training.privacy.privacy_plan import PrivacyPlan
from pocketfleet.training.privacy.private_mean import PrivateMean
from pocketfleet.training.privacy.private_run import PrivateRun
from pocketfleet.training.privacy.random_bits import BitSource, keyed_bits
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import share_of
from pocketfleet.training.privacy.secure_aggregation.secure_plan import SecurePlan
from pocketfleet.training.round import RoundPlan
from pocketfleet.training.update import Update

__all__ = [
    "privacy_plan",
    "privacy_summary",
    "private_run",
    "secure_group_of",
    "secure_plan",
    "with_noise_found",
]

# Andrew et al. 2021 (arXiv:1905.03871), section 3.1: the noise on the count is a twentieth of a round's devices.
_COUNT_NOISE_SHARE = 1 / 20


def secure_plan(experiment: Experiment, report: Update) -> SecurePlan | None:
    """How the experiment's rounds make sums that hide their parts; ``None``: reports are updates.

    Raises:
        InputError: updates such as ``report`` cannot be summed.
    """
    section = experiment.secure_aggregation
    if not section.enabled:
        return None
    codec, privacy = load_codec(experiment.codec.name, experiment.codec.options()), experiment.privacy
    noise_stddev = 0.0
    if privacy.mechanism == "distributed":
        noise_stddev = share_stddev(privacy.noise_multiplier, privacy.max_norm, devices=_honest_members(experiment))
    plan = SecurePlan(
        seed=experiment.seed,
        value_range=section.value_range,
        bits=section.bits,
        max_weight=section.max_examples,
        cohort=experiment.rounds.cohort,
        minimum=_least_members(experiment),
        rotation="rotation" in codec.parts,
        ratio=float(codec.options.get("ratio", 1.0)),
        max_norm=privacy.max_norm,
        noise_stddev=noise_stddev,
        like=report,
        corrupt_ratio=section.corrupt_ratio,
        dropout_ratio=section.dropout_ratio,
        stage_deadline_s=section.stage_deadline_s,
    )
    try:
        plan.settings  # noqa: B018 - made once, to be refused here
    except ValueError as exc:
        noise = ", privacy.max_norm or privacy.noise_multiplier" if noise_stddev else ""
        raise InputError(
            f"secure_aggregation: {exc}; lower secure_aggregation.bits, max_examples, rounds.cohort{noise}"
        ) from exc
    return plan


def _least_members(experiment: Experiment) -> int:
    """Of a secure sum: half of a round's least reports, 2 at least; all of them where noise counts on them."""
    rounds = experiment.rounds
    reports = RoundPlan(cohort=rounds.cohort, minimum_ratio=rounds.minimum_ratio).minimum
    return reports if experiment.privacy.mechanism == "distributed" else max(2, reports // 2)


def _honest_members(experiment: Experiment) -> int:
    """Those of the least sum whose noise nobody tells the server: all the corrupt of a group may be in it.

    Raises:
        InputError: there may be none.
    """
    corrupt_ratio, cohort = experiment.secure_aggregation.corrupt_ratio, experiment.rounds.cohort
    least, corrupt = _least_members(experiment), share_of(cohort, corrupt_ratio)
    if corrupt >= least:
        raise InputError(
            f'privacy.mechanism "distributed" counts on the noise of honest devices, and of rounds.cohort {cohort} '
            f"secure_aggregation.corrupt_ratio {corrupt_ratio} are {corrupt}, which may be all of the {least} that "
            "rounds.minimum_ratio asks for: raise the minimum, or lower the ratio"
        )
    return least - corrupt


def secure_group_of(plan: SecurePlan) -> Callable[[int, int], SecureGroup]:
    """What holds in a group of so many, of that round."""
    return lambda members, round_index: SecureGroup(plan.settings, plan.neighbourhood(members, round_index))


def with_noise_found(experiment: Experiment, report: Update) -> Experiment:
    """The experiment with ``privacy.noise_multiplier`` in the place of a ``privacy.target_epsilon``.

    So that a run that is continued for more rounds keeps its noise, whatever they cost. A target of inf stays.

    Args:
        experiment: what is to run.
        report: any update of it, for its names and shapes.

    Raises:
        InputError: something would be reported that no noise is added to, or the noise cannot be divided.
    """
    privacy = experiment.privacy
    if privacy.noisy and privacy.target_epsilon:
        noise = {"noise_multiplier": _noise(experiment, report), "target_epsilon": 0.0}
        experiment = experiment.model_copy(update={"privacy": privacy.model_copy(update=noise)})
    _check_whole(experiment, report)
    return experiment


def _noise(experiment: Experiment, report: Update) -> float:
    privacy = experiment.privacy
    if privacy.mechanism == "distributed":
        return noise_for_sums(
            privacy.target_epsilon,
            participations=privacy.max_participations,
            delta=privacy.delta,
            rho_of=lambda noise: _rho(experiment, report, noise),
        )
    return noise_for(
        privacy.target_epsilon,
        delta=privacy.delta,
        accounting=privacy.accounting,
        rounds=experiment.rounds.count,
        participations=privacy.max_participations,
        sampling_ratio=experiment.rounds.cohort / experiment.fleet.devices,
    )


def _check_whole(experiment: Experiment, report: Update) -> None:
    """Whether all that devices report is protected."""
    privacy, plan = experiment.privacy, privacy_plan(experiment, report, bits=keyed_bits(0))
    if plan is None:
        return
    for names, what in ((report.buffers, "batch-norm statistics"), (report.extra, "what the algorithm adds")):
        if names:
            raise InputError(
                f'privacy.mechanism "{privacy.mechanism}" protects updates of weights, and devices would report '
                f"{what} beside them: {', '.join(sorted(names))}; choose a model, or an algorithm, without"
            )
    plan.mean.check()


def privacy_plan(experiment: Experiment, report: Update, *, bits: BitSource) -> PrivacyPlan | None:
    """What protects the models of an experiment whose noise is found; ``None``: nothing does."""
    privacy = experiment.privacy
    if privacy.mechanism == "none":
        return None
    if privacy.mechanism == "distributed":
        rho = _rho(experiment, report, privacy.noise_multiplier)
        return PrivacyPlan(
            mean=DistributedMean(max_norm=privacy.max_norm),
            accountant=DistributedAccountant(rho=rho, delta=privacy.delta),
        )
    adaptive = None
    if privacy.clipping == "adaptive":
        adaptive = AdaptiveClipping(
            target_quantile=privacy.target_quantile,
            learning_rate=privacy.clip_learning_rate,
            count_stddev=privacy.count_stddev or _COUNT_NOISE_SHARE * experiment.rounds.cohort,
        )
    return PrivacyPlan(
        mean=PrivateMean(
            noise_multiplier=privacy.noise_multiplier, max_norm=privacy.max_norm, adaptive=adaptive, bits=bits
        ),
        accountant=Accountant(
            accounting=privacy.accounting,
            noise_multiplier=privacy.noise_multiplier,
            delta=privacy.delta,
            sampling_ratio=experiment.rounds.cohort / experiment.fleet.devices,
        ),
    )


def private_run(experiment: Experiment, report: Update) -> PrivateRun | None:
    """What a simulation keeps of its privacy, noise drawn from its seed; ``None``: it has none."""
    plan = privacy_plan(experiment, report, bits=keyed_bits(experiment.seed))
    return None if plan is None else PrivateRun(plan, devices=experiment.fleet.devices)


def _rho(experiment: Experiment, report: Update, noise_multiplier: float) -> float:
    """What a sum of such reports gives away of a device that counts on the honest ones of the least sum."""
    noisy = experiment.privacy.model_copy(update={"noise_multiplier": noise_multiplier, "target_epsilon": 0.0})
    plan = secure_plan(experiment.model_copy(update={"privacy": noisy}), report)
    assert plan is not None
    assert plan.vector.noise is not None
    return plan.vector.noise.rho(_honest_members(experiment))


def privacy_summary(experiment: Experiment, figures: Mapping[str, float]) -> dict[str, Any]:
    """What a private run's ``summary.json`` says of it; ``epsilon`` null: nothing is promised."""
    names = ("mechanism", "delta", "accounting", "noise_multiplier", "clipping", "max_participations")
    kept = experiment.privacy.model_dump(include=set(names))
    epsilon = figures["epsilon"]
    return {
        "epsilon": None if math.isinf(epsilon) else epsilon,
        "clip_norm": figures["clip_norm"],
        **{name: kept[name] for name in names},
    }

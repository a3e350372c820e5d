"""From the sections that say what becomes of updates to the objects that they name."""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment
from pocketfleet.training.aggregation import Aggregator
from pocketfleet.training.aggregation_by_rule import make_aggregator
from pocketfleet.training.privacy.accountant import Accountant, noise_for
from pocketfleet.training.privacy.clipping import AdaptiveClipping
from pocketfleet.training.privacy.privacy_plan import PrivacyPlan
from pocketfleet.training.privacy.private_mean import PrivateMean
from pocketfleet.training.privacy.private_run import PrivateRun
from pocketfleet.training.privacy.random_bits import BitSource, keyed_bits
from pocketfleet.training.update import Update

__all__ = [
    "aggregator_factory",
    "check_private",
    "privacy_plan",
    "privacy_summary",
    "private_run",
    "with_noise_found",
]

# Andrew et al. 2021 (arXiv:1905.03871), section 3.1: the noise on the count is a twentieth of a round's devices.
_COUNT_NOISE_SHARE = 1 / 20


def aggregator_factory(experiment: Experiment, folder: Path | None = None) -> Callable[[], Aggregator]:
    """What makes an empty aggregator of the experiment's rule; see ``aggregation_by_rule.make_aggregator``."""
    return functools.partial(make_aggregator, **experiment.aggregation.model_dump(), folder=folder)


def with_noise_found(experiment: Experiment) -> Experiment:
    """The experiment with ``privacy.noise_multiplier`` in the place of a ``privacy.target_epsilon``.

    So that a run that is continued for more rounds keeps its noise, whatever they cost. A target of inf stays.
    """
    privacy = experiment.privacy
    if not privacy.noisy or not privacy.target_epsilon:
        return experiment
    noise = noise_for(
        privacy.target_epsilon,
        delta=privacy.delta,
        accounting=privacy.accounting,
        rounds=experiment.rounds.count,
        participations=privacy.max_participations,
        sampling_ratio=experiment.rounds.cohort / experiment.fleet.devices,
    )
    found = privacy.model_copy(update={"noise_multiplier": noise, "target_epsilon": 0.0})
    return experiment.model_copy(update={"privacy": found})


def check_private(experiment: Experiment, report: Update) -> None:
    """Whether what devices report is protected whole.

    Args:
        experiment: whose noise is found.
        report: any update, for its names.

    Raises:
        InputError: something would be reported that no noise is added to, or the noise cannot be divided.
    """
    privacy, plan = experiment.privacy, privacy_plan(experiment, bits=keyed_bits(0))
    if plan is None:
        return
    for names, what in ((report.buffers, "batch-norm statistics"), (report.extra, "what the algorithm adds")):
        if names:
            raise InputError(
                f'privacy.mechanism "{privacy.mechanism}" protects updates of weights, and devices would report '
                f"{what} beside them: {', '.join(sorted(names))}; choose a model, or an algorithm, without"
            )
    plan.mean.check()


def privacy_plan(experiment: Experiment, *, bits: BitSource) -> PrivacyPlan | None:
    """What protects the models of an experiment whose noise is found; ``None``: nothing does."""
    privacy = experiment.privacy
    if privacy.mechanism == "none":
        return None
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


def private_run(experiment: Experiment) -> PrivateRun | None:
    """What a simulation keeps of its privacy, noise drawn from its seed; ``None``: it has none."""
    plan = privacy_plan(experiment, bits=keyed_bits(experiment.seed))
    return None if plan is None else PrivateRun(plan, devices=experiment.fleet.devices)


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

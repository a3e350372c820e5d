"""How an experiment's rounds make sums that hide their parts: the vector, the graph of each group, the waits.

Service and simulation keep to the same plan; ``terms`` is the part of it that devices are told.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocketfleet.errors import InputError
from pocketfleet.training.codec.seeds import round_seed
from pocketfleet.training.draws import draw_key
from pocketfleet.training.privacy.secure_aggregation.fixed_point import FixedPoint
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood, chosen_degree
from pocketfleet.training.privacy.secure_aggregation.secure_vector import SecureVector
from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings
from pocketfleet.training.update import Update

__all__ = ["SecurePlan", "vector_of_terms"]


@dataclass(frozen=True, kw_only=True)
class SecurePlan:
    """See the module.

    Attributes:
        seed: of the experiment: draws the order of each group's graph.
        value_range, bits, max_weight: of a value and a weight; see ``fixed_point``.
        cohort: members of a group at most.
        minimum: members without whom there is no sum.
        rotation, ratio: see ``secure_vector``.
        max_norm, noise_stddev: likewise; 0: members add no noise.
        like: any update of the model.
        corrupt_ratio, dropout_ratio: of a group; see ``neighbourhood.chosen_degree``.
        stage_deadline_s: how long a stage waits.

    Raises:
        InputError: updates like this one cannot be summed, or the sums have no room in 8 bytes.
    """

    seed: int
    value_range: float
    bits: int
    max_weight: int
    cohort: int
    minimum: int
    rotation: bool
    ratio: float
    max_norm: float
    noise_stddev: float
    like: Update
    corrupt_ratio: float
    dropout_ratio: float
    stage_deadline_s: float

    @functools.cached_property
    def vector(self) -> SecureVector:
        """The form of updates."""
        fixed_point = FixedPoint(
            value_range=self.value_range, bits=self.bits, max_weight=self.max_weight, cohort=self.cohort
        )
        return SecureVector(
            fixed_point,
            self.like,
            rotation=self.rotation,
            ratio=self.ratio,
            max_norm=self.max_norm,
            noise_stddev=self.noise_stddev,
        )

    @property
    def settings(self) -> SecureSettings:
        """Of the vectors."""
        return self.vector.settings(minimum=self.minimum)

    def neighbourhood(self, members: int, round_index: int) -> Neighbourhood:
        """The graph of a group of so many, 2 or more."""
        degree, threshold = chosen_degree(members, corrupt_ratio=self.corrupt_ratio, dropout_ratio=self.dropout_ratio)
        seed = int(draw_key(self.seed, "secure group", round_index)) >> 1
        return Neighbourhood.drawn(members, degree=degree, threshold=threshold, seed=seed)

    def codec_seed(self, model_version: int) -> int:
        """What the devices of a round share: of the version that they train from."""
        return round_seed(self.seed, model_version)

    def terms(self) -> dict[str, Any]:
        """What a device must know, as JSON has it."""
        return {
            "value_range": self.value_range,
            "bits": self.bits,
            "max_weight": self.max_weight,
            "cohort": self.cohort,
            "minimum": self.minimum,
            "rotation": self.rotation,
            "ratio": self.ratio,
            "max_norm": self.max_norm,
            "noise_stddev": self.noise_stddev,
        }


def vector_of_terms(terms: Mapping[str, Any], like: Update) -> SecureVector:
    """The form of updates that ``SecurePlan.terms`` speak of; ``like``: the device's own update.

    Raises:
        InputError: updates like this one cannot be summed, or the terms are none.
    """
    fixed = {name: terms[name] for name in ("value_range", "bits", "max_weight", "cohort")}
    others = {name: terms[name] for name in ("rotation", "ratio", "max_norm", "noise_stddev")}
    try:
        return SecureVector(FixedPoint(**fixed), like, **others)
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"the service's terms of secure sums are none that this device knows: {exc}") from exc

"""Sections of an experiment file that say what becomes of updates on their way from the phones to the next model."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from pocketfleet.errors import InputError
from pocketfleet.sections import NotNegative, Positive, Ratio, Section
from pocketfleet.training.codec import load_codec

__all__ = ["AggregationSection", "CodecSection", "PrivacySection", "SecureAggregationSection"]


class AggregationSection(Section):
    """How a round's updates become one; see ``training.robust_rules``.

    What a rule needs must be given: how many may lie is not for us to say. 0: not given.
    """

    rule: Literal["mean", "median", "trimmed_mean", "norm_bounded", "multi_krum"] = "mean"
    trim_ratio: float = Field(default=0.0, ge=0, lt=0.5)  # trimmed_mean: of the values, at each end
    max_norm: NotNegative = 0.0  # norm_bounded: the longest delta
    byzantine: int = Field(default=0, ge=0)  # multi_krum: reports of a round that may lie

    @model_validator(mode="after")
    def _of_the_rule(self) -> Self:
        needed = {
            "trimmed_mean": ("trim_ratio", "such as 0.2"),
            "norm_bounded": ("max_norm", "such as 1.0"),
            "multi_krum": ("byzantine", "such as 2"),
        }
        for rule, (key, example) in needed.items():
            given = getattr(self, key)
            if rule == self.rule and not given:
                raise ValueError(f'aggregation.rule "{rule}" needs aggregation.{key}: set it, {example}')
            if rule != self.rule and given:
                raise ValueError(
                    f'aggregation.{key} is for aggregation.rule "{rule}", which is "{self.rule}": leave one out'
                )
        return self


class SecureAggregationSection(Section):
    """Sums that hide their parts; see ``training.privacy.secure_aggregation``."""

    enabled: bool = False
    # Our choice: weights of trained models are seldom further apart, and 20 bits make a step of 1.5e-5.
    value_range: Positive = 8.0  # a delta's values are cut off beyond plus or minus this
    bits: int = Field(default=20, ge=2, le=32)  # of a value
    max_examples: int = Field(default=1024, ge=1, le=2**20)  # that a report counts for at most
    # Bell et al. 2020 (eprint 2020/704) reckon with a fifth that collude; 6 to 10 % drop out of rounds (Bonawitz et al.
    # 2019, arXiv:1902.01046, section 9), fewer of those that have trained already.
    corrupt_ratio: Ratio = 0.2  # of a group, who may tell the server what they know
    dropout_ratio: float = Field(default=0.1, ge=0, lt=0.5)  # of a group, who may leave before the end
    # Our choice: several times what a phone takes to answer.
    stage_deadline_s: Positive = 60.0
    masks: bool = True  # a simulation computes them; false: adds in clear, to the same bits

    @model_validator(mode="after")
    def _only_where_enabled(self) -> Self:
        changed = [key for key, field in type(self).model_fields.items() if getattr(self, key) != field.default]
        if not self.enabled and changed:
            raise ValueError(
                f"secure_aggregation.{changed[0]} is for secure_aggregation.enabled, which is false: set it to true, "
                "or leave the key out"
            )
        if self.corrupt_ratio + self.dropout_ratio >= 1.0:
            raise ValueError(
                f"secure_aggregation.corrupt_ratio {self.corrupt_ratio} and dropout_ratio {self.dropout_ratio} must be "
                "below 1 together: somebody has to stay whom the others do not know; lower one"
            )
        return self


class CodecSection(Section):
    """In how few bytes updates and weights travel; see ``training.codec``. 0 and false: not given."""

    name: str = "lossless"  # or parts joined by +, such as "rotation+random_k+quantised"
    bits: Literal[0, 2, 4, 8] = 0  # quantised: of a value
    ratio: float = Field(default=0.0, ge=0, le=1)  # top_k, random_k: of the values are sent
    error_feedback: bool = False  # what an update does not say is added to the device's next one
    download_bits: Literal[0, 2, 4, 8] = 0  # of a weight that devices download; 0: all

    @model_validator(mode="after")
    def _of_the_codec(self) -> Self:
        try:
            load_codec(self.name, self.options())
        except InputError as exc:
            raise ValueError(str(exc)) from exc
        return self

    def options(self) -> dict[str, int | float | bool]:
        """Of the codec."""
        return {"bits": self.bits, "ratio": self.ratio, "error_feedback": self.error_feedback}


class PrivacySection(Section):
    """How much a model may tell of any one device; see ``training.privacy`` and docs/privacy.md.

    0: not given. Of ``noise_multiplier`` and ``target_epsilon`` exactly one is.
    """

    # central: the server clips and adds noise; distributed: the devices do, under secure aggregation.
    mechanism: Literal["none", "central", "distributed"] = "none"
    # No default: how long updates are is the task's. Andrew et al. 2021 begin adaptive clipping at 0.1.
    max_norm: NotNegative = 0.0
    clipping: Literal["fixed", "adaptive"] = "fixed"
    # Of adaptive clipping, these three: Andrew et al. 2021 (arXiv:1905.03871), section 3, where the noise on the count
    # is a twentieth of the devices of a round: 0 here.
    target_quantile: float = Field(default=0.5, gt=0, lt=1)
    clip_learning_rate: Positive = 0.2
    count_stddev: NotNegative = 0.0
    noise_multiplier: NotNegative = 0.0  # standard deviation of the noise on the sum, over max_norm
    target_epsilon: float = Field(default=0.0, ge=0)  # inf: updates are clipped, and there is no noise
    delta: float = Field(default=0.0, ge=0, lt=1)
    accounting: Literal["participations", "poisson"] = "participations"
    max_participations: int = Field(default=0, ge=0)  # models that a device is in at most; 0: any number

    @model_validator(mode="after")
    def _of_the_mechanism(self) -> Self:
        fields = type(self).model_fields
        if self.mechanism == "none":
            changed = [key for key, field in fields.items() if getattr(self, key) != field.default]
            if changed:
                raise ValueError(
                    f'privacy.{changed[0]} is for a privacy.mechanism such as "central", which is "none": set it, or '
                    "leave it out"
                )
            return self
        if not self.max_norm:
            raise ValueError(
                f'privacy.mechanism "{self.mechanism}" needs privacy.max_norm, the length that updates are clipped to: '
                "set it, such as 1.0"
            )
        if bool(self.noise_multiplier) == bool(self.target_epsilon):
            raise ValueError(
                f'privacy.mechanism "{self.mechanism}" needs exactly one of privacy.noise_multiplier, such as 1.0, and '
                f"privacy.target_epsilon, such as 4.0, got {self.noise_multiplier} and {self.target_epsilon}"
            )
        if not self.delta:
            raise ValueError(
                f'privacy.mechanism "{self.mechanism}" needs privacy.delta, at which epsilon is stated: set it well '
                "below one over the number of devices, such as 1e-6"
            )
        if self.mechanism == "distributed":
            for key, wanted in (("clipping", "fixed"), ("accounting", "participations")):
                if getattr(self, key) != wanted:
                    raise ValueError(
                        f'privacy.{key} "{getattr(self, key)}" is for privacy.mechanism "central", which is '
                        f'"distributed": leave it at "{wanted}"'
                    )
            if math.isinf(self.target_epsilon):
                raise ValueError(
                    'privacy.mechanism "distributed" is noise that devices add: for none, leave the mechanism out, got '
                    "privacy.target_epsilon inf"
                )
        for key in ("target_quantile", "clip_learning_rate", "count_stddev"):
            if self.clipping == "fixed" and getattr(self, key) != fields[key].default:
                raise ValueError(
                    f'privacy.{key} is for privacy.clipping "adaptive", which is "fixed": leave it at '
                    f"{fields[key].default}"
                )
        return self

    @property
    def noisy(self) -> bool:
        """Whether there is noise: not where a target of inf asks for none."""
        return self.mechanism != "none" and not math.isinf(self.target_epsilon)

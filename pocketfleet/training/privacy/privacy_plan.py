"""What protects a population's models: what is done to each round's mean, and who counts what that costs."""

from dataclasses import dataclass

from pocketfleet.training.privacy.accountant import Accountant
from pocketfleet.training.privacy.private_mean import PrivateMean

__all__ = ["PrivacyPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    """Both are of one noise multiplier."""

    mean: PrivateMean
    accountant: Accountant

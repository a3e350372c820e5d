"""What protects a population's models: what is done to each round's mean, and who counts what that costs."""

from dataclasses import dataclass

from pocketfleet.training.privacy.accountant import Accountant
from pocketfleet.training.privacy.distributed_mean import DistributedAccountant, DistributedMean
from pocketfleet.training.privacy.private_mean import PrivateMean

__all__ = ["PrivacyPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    """Both are of one noise, which the server adds, or the devices did."""

    mean: PrivateMean | DistributedMean
    accountant: Accountant | DistributedAccountant

"""From a rule's word and numbers, as an experiment gives them, to an empty aggregator."""

from pathlib import Path

from pocketfleet.training.aggregation import Aggregator, MeanAggregator
from pocketfleet.training.norm_bound import NormBoundedAggregator
from pocketfleet.training.robust_aggregation import Median, MultiKrum, RowAggregator, RowRule, TrimmedMean

__all__ = ["make_aggregator"]


def make_aggregator(
    *, rule: str, trim_ratio: float, max_norm: float, byzantine: int, folder: Path | None = None
) -> Aggregator:
    """An empty aggregator.

    Args:
        rule: ``mean``, ``median``, ``trimmed_mean``, ``norm_bounded`` or ``multi_krum``.
        trim_ratio: of ``trimmed_mean``.
        max_norm: of ``norm_bounded``.
        byzantine: of ``multi_krum``.
        folder: where a rule that needs all updates together keeps them; ``None``: in memory.
    """
    if rule == "mean":
        return MeanAggregator()
    if rule == "norm_bounded":
        return NormBoundedAggregator(max_norm)
    rules: dict[str, RowRule] = {
        "median": Median(),
        "trimmed_mean": TrimmedMean(ratio=trim_ratio),
        "multi_krum": MultiKrum(byzantine=byzantine),
    }
    return RowAggregator(rules[rule], folder=folder)

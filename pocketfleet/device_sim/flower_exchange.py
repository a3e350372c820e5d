"""Messages that a Flower server sent together, and what became of them: a row of a run's table of rounds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pocketfleet.training.round import ReportCode

__all__ = ["Answer", "FlowerExchange"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What the server gets for a message, and when; the reply itself apart.

    Attributes:
        message_id: of the message.
        device: dense index; -1: a node that there is not.
        arrives_s: virtual time.
        reported: whether the phone reported; else the server gets an error in place of a reply.
        code: what becomes of a report.
        num_examples: that the reply speaks for; 0: it does not say.
        metrics: numbers of the reply, by name.
    """

    message_id: str
    device: int
    arrives_s: float
    reported: bool = False
    code: ReportCode = ReportCode.UNKNOWN
    num_examples: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class FlowerExchange:
    """Messages of one kind, sent at one time.

    Attributes:
        round: running number of the exchange.
        kind: of the messages, such as ``"train"``; an action such as ``"train.lora"`` counts as its category.
        group: the messages' group id, by which Flower's strategies mean their round.
        opened_s: virtual time at which they were sent.
        limit_s: until when the server waits; inf: for all.
        connected: nodes that there were then.
        looks: how often phones were looked at for it.
        answers: by message.
    """

    round: int
    kind: str
    group: str
    opened_s: float
    limit_s: float
    connected: int
    looks: int
    answers: list[Answer] = field(default_factory=list)

    def accepted(self) -> list[Answer]:
        """Replies with content that came in time."""
        return [one for one in self.answers if one.reported and one.code is ReportCode.ACCEPTED]

    def closes_s(self) -> float:
        """When the server has all that it waits for."""
        return min(max((one.arrives_s for one in self.answers), default=self.opened_s), self.limit_s)

    def row(self, *, model_version: int, until_s: float) -> dict[str, Any]:
        """As a row of ``tables.ROUND_COLUMNS``, with ``message_type``, ``group`` and the replies' mean metrics.

        An evaluation's metrics are ``test_`` columns. Means are weighted by the examples that replies speak for.

        Args:
            model_version: after this exchange.
            until_s: end of the run; answers that come later did not come.
        """
        accepted = [one for one in self.accepted() if one.arrives_s <= until_s]
        on_time = all(one.arrives_s <= min(self.limit_s, until_s) for one in self.answers)
        metrics = _weighted_means(accepted)
        loss = next((metrics[name] for name in ("train_loss", "loss") if name in metrics), math.nan)
        return {
            "round": self.round,
            "message_type": self.kind,
            "group": self.group,
            "model_version": model_version,
            "opened_s": self.opened_s,
            "closed_s": min(self.closes_s(), until_s),
            "outcome": "abandoned" if not accepted else "cohort" if on_time else "deadline",
            "looks": self.looks,
            "assigned": len(self.answers),
            "accepted": len(accepted),
            "withdrawn": 0,
            "turned_away": 0,
            "held": 0,
            "candidates": self.connected,
            "refused": 0,
            "num_examples": sum(one.num_examples for one in accepted),
            "steps": sum(max(one.num_examples, 1) for one in accepted),
            "staleness_mean": 0.0 if accepted else math.nan,
            "staleness_max": 0,
            "train_loss": loss if self.kind == "train" else math.nan,
            "non_finite": 0,
            **({f"test_{name}": value for name, value in metrics.items()} if self.kind == "evaluate" else {}),
        }


def _weighted_means(replies: list[Answer]) -> dict[str, float]:
    """Of metrics that all replies have."""
    if not replies:
        return {}
    names = [name for name in replies[0].metrics if all(name in one.metrics for one in replies)]
    weight = np.array([float(one.num_examples) for one in replies])
    weight = weight if weight.any() else np.ones(len(replies))
    return {name: float(np.average([one.metrics[name] for one in replies], weights=weight)) for name in names}

import math

import pytest

from pocketfleet.device_sim.flower_exchange import Answer, FlowerExchange
from pocketfleet.training.round import ReportCode


def exchange(*answers: Answer, kind: str = "train", limit_s: float = math.inf) -> FlowerExchange:
    made = FlowerExchange(round=3, kind=kind, group="2", opened_s=10.0, limit_s=limit_s, connected=9, looks=4)
    made.answers.extend(answers)
    return made


def reply(device: int, arrives_s: float, examples: int = 1, **metrics: float) -> Answer:
    return Answer(
        message_id=str(device),
        device=device,
        arrives_s=arrives_s,
        reported=True,
        code=ReportCode.ACCEPTED,
        num_examples=examples,
        metrics=metrics,
    )


def lost(device: int, arrives_s: float) -> Answer:
    return Answer(message_id=str(device), device=device, arrives_s=arrives_s)


def test_metrics_are_weighted_by_examples() -> None:
    row = exchange(reply(0, 20.0, 10, train_loss=1.0, own=1.0), reply(1, 30.0, 30, train_loss=2.0), lost(2, 90.0)).row(
        model_version=7, until_s=1000.0
    )
    # (10 * 1 + 30 * 2) / 40; "own" is not in all replies.
    assert row["train_loss"] == pytest.approx(1.75)
    assert (row["round"], row["message_type"], row["group"], row["model_version"]) == (3, "train", "2", 7)
    assert (row["opened_s"], row["closed_s"], row["outcome"]) == (10.0, 90.0, "cohort")
    assert (row["assigned"], row["accepted"], row["num_examples"], row["candidates"], row["looks"]) == (3, 2, 40, 9, 4)


def test_an_evaluations_metrics_are_test_columns() -> None:
    row = exchange(reply(0, 20.0, 0, accuracy=0.5), reply(1, 30.0, 0, accuracy=1.0), kind="evaluate").row(
        model_version=0, until_s=1000.0
    )
    # Nobody says how many examples: all count alike.
    assert row["test_accuracy"] == pytest.approx(0.75)
    assert math.isnan(row["train_loss"])


def test_what_came_too_late_did_not_come() -> None:
    one, other = reply(0, 20.0, 1), reply(1, 50.0, 1)
    assert exchange(one, other, limit_s=40.0).row(model_version=0, until_s=100.0)["outcome"] == "deadline"
    assert exchange(one, other, limit_s=40.0).row(model_version=0, until_s=100.0)["closed_s"] == 40.0
    ended = exchange(one, other).row(model_version=0, until_s=30.0)
    assert (ended["accepted"], ended["closed_s"], ended["outcome"]) == (1, 30.0, "deadline")
    nothing = exchange(lost(0, 15.0)).row(model_version=0, until_s=100.0)
    assert (nothing["accepted"], nothing["outcome"], nothing["closed_s"]) == (0, "abandoned", 15.0)

"""A delegate is kept where it is right and dropped where it is not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import toy
from torch import nn

from pocketfleet.export import xnnpack
from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.delegated_predict import check_delegated_predict, write_fastest_predict
from pocketfleet.export.executorch import predict_is_delegated
from pocketfleet.export.gate_report import GateReport, GateRow
from pocketfleet.export.program import Programs, trace_programs
from pocketfleet.export.session import EagerSession
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import Weights, model_weights

Case = tuple[Programs, EagerSession, Weights, torch.Tensor]


def make_case(task: toy.Toy, *, max_batch: int) -> Case:
    model, examples = initial_model(task, seed=0), task.train_examples()
    weights, settings = model_weights(model, examples.x[:3]), StepSettings()
    programs = trace_programs(
        task,
        model,
        weights,
        settings=settings,
        examples=examples,
        max_batch=max_batch,
        table=decomposition_table("executorch"),
    )
    return programs, EagerSession(task, model, settings), weights, examples.x


def checker(case: Case) -> Callable[[Path], tuple[GateRow, ...]]:
    programs, eager, weights, x = case
    return lambda path: check_delegated_predict(path, programs, eager, weights=weights, x=x)


@pytest.mark.parametrize("make_task", [toy.dense_toy, toy.pooled_toy, toy.normalised_toy])
def test_a_right_delegate_is_kept(make_task: Callable[[], toy.Toy], tmp_path: Path) -> None:
    case = make_case(make_task(), max_batch=5)
    write_fastest_predict(case[0], tmp_path / "model.pte", check=checker(case))
    assert predict_is_delegated(tmp_path / "model.pte")
    rows = checker(case)(tmp_path / "model.pte")
    # Five batches, three sets of weights each.
    assert len(rows) == 15
    assert GateReport(rows).passed


def test_a_delegate_that_keeps_the_first_weights_is_refused(tmp_path: Path) -> None:
    case = make_case(toy.dense_toy(), max_batch=5)
    programs, eager, first, x = case

    class Stale(EagerSession):
        """Whatever weights come, the first ones answer: from its side a program looks as if it did."""

        def predict(self, weights: Weights, x: torch.Tensor) -> torch.Tensor:
            del weights
            return eager.predict(first, x)

    refused: set[str] = set()

    def check(path: Path) -> tuple[GateRow, ...]:
        stale = Stale(toy.dense_toy(), nn.Identity(), StepSettings())
        rows = check_delegated_predict(path, programs, stale, weights=first, x=x)
        refused.update(row.tensor for row in GateReport(rows).failures)
        return rows

    write_fastest_predict(programs, tmp_path / "model.pte", check=check)
    assert not predict_is_delegated(tmp_path / "model.pte")
    assert refused == {"output of the other weights"}


def test_what_cannot_be_delegated_is_written_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(toy.dense_toy(), max_batch=2)

    def refuse() -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(xnnpack, "input_weights", refuse)
    write_fastest_predict(case[0], tmp_path / "model.pte", check=checker(case))
    assert not predict_is_delegated(tmp_path / "model.pte")
    assert GateReport(checker(case)(tmp_path / "model.pte")).passed

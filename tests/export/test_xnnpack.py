"""XNNPACK counts for what it stands for, and takes only what it should."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import toy
from torch import nn

from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.executorch import planned_memory, predict_is_delegated, write_executorch
from pocketfleet.export.footprint import OperatorCost
from pocketfleet.export.program import Programs, trace_programs
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import model_weights


class Written(NamedTuple):
    """One program, written without a delegate and with one, and what its operators cost."""

    programs: Programs
    plain: Path
    plain_costs: Mapping[str, tuple[OperatorCost, ...]]
    delegated: Path
    delegated_costs: Mapping[str, tuple[OperatorCost, ...]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A convolution, a normalisation, a pool and a dense layer."""
    layers = (nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 4))
    task = toy.Toy(lambda: nn.Sequential(*layers), 1, 6, 6)
    model, examples = initial_model(task, seed=0), task.train_examples()
    programs = trace_programs(
        task,
        model,
        model_weights(model, examples.x[:3]),
        settings=StepSettings(),
        examples=examples,
        max_batch=4,
        table=decomposition_table("executorch"),
    )
    plain, delegated = (tmp_path_factory.mktemp("xnnpack") / name for name in ("plain.pte", "delegated.pte"))
    plain_costs = write_executorch(programs, plain)
    return Written(
        programs, plain, plain_costs, delegated, write_executorch(programs, delegated, delegate_predict=True)
    )


def test_a_delegated_predict_costs_the_operators_that_it_stands_for(written: Written) -> None:
    plain, delegated = written.plain_costs, written.delegated_costs
    assert not predict_is_delegated(written.plain)
    assert predict_is_delegated(written.delegated)
    assert sum(cost.flops[1] for cost in plain["predict"]) > 0
    # What runs without a delegate permutes by strided copies, of the same bytes.
    renamed = tuple(
        replace(cost, name="as_strided_copy") if cost.name == "permute_copy" else cost for cost in delegated["predict"]
    )
    assert renamed != delegated["predict"]
    assert {**delegated, "predict": renamed} == plain


def test_only_predict_is_delegated_and_lowering_is_repeatable(written: Written, tmp_path: Path) -> None:
    write_executorch(written.programs, tmp_path / "second.pte", delegate_predict=True)
    first, plain = planned_memory(written.delegated), planned_memory(written.plain)
    assert written.delegated.read_bytes() == (tmp_path / "second.pte").read_bytes()
    assert first["predict"] != plain["predict"]
    assert {**first, "predict": 0} == {**plain, "predict": 0}

"""XNNPACK counts for what it stands for, and takes only what it should."""

from dataclasses import replace
from pathlib import Path

import pytest
import toy

from pocketfleet.export.decompositions import decomposition_table
from pocketfleet.export.executorch import planned_memory, predict_is_delegated, write_executorch
from pocketfleet.export.program import Programs, trace_programs
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.weights import model_weights


@pytest.fixture(scope="module")
def programs() -> Programs:
    task = toy.normalised_toy()
    model, examples = initial_model(task, seed=0), task.train_examples()
    return trace_programs(
        task,
        model,
        model_weights(model, examples.x[:3]),
        settings=StepSettings(),
        examples=examples,
        max_batch=4,
        table=decomposition_table("executorch"),
    )


def test_a_delegated_predict_costs_the_operators_that_it_stands_for(programs: Programs, tmp_path: Path) -> None:
    plain = write_executorch(programs, tmp_path / "plain.pte")
    delegated = write_executorch(programs, tmp_path / "delegated.pte", delegate_predict=True)
    assert not predict_is_delegated(tmp_path / "plain.pte")
    assert predict_is_delegated(tmp_path / "delegated.pte")
    assert sum(cost.flops[1] for cost in plain["predict"]) > 0
    # What runs without a delegate permutes by strided copies, of the same bytes.
    renamed = tuple(
        replace(cost, name="as_strided_copy") if cost.name == "permute_copy" else cost for cost in delegated["predict"]
    )
    assert delegated | {"predict": renamed} == plain


def test_only_predict_is_delegated_and_lowering_is_repeatable(programs: Programs, tmp_path: Path) -> None:
    for name in ("first.pte", "second.pte"):
        write_executorch(programs, tmp_path / name, delegate_predict=True)
    write_executorch(programs, tmp_path / "plain.pte")
    first, plain = planned_memory(tmp_path / "first.pte"), planned_memory(tmp_path / "plain.pte")
    assert (tmp_path / "first.pte").read_bytes() == (tmp_path / "second.pte").read_bytes()
    assert first["predict"] != plain["predict"]
    assert {**first, "predict": 0} == {**plain, "predict": 0}

"""Operators of a profiled step are those that the bundle counts, and their seconds are most of the step."""

from pathlib import Path

import pytest
import torch

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.executorch import write_executorch
from pocketfleet.export.executorch_profile import profile_executorch
from pocketfleet.export.manifest import PTE_FILE


def inputs(bundle: Bundle) -> list[torch.Tensor]:
    return [
        torch.full(spec.sizes(bundle.max_batch), 1, dtype=getattr(torch, spec.dtype))
        for spec in bundle.signature.train_step.inputs
    ]


def test_operators_are_those_of_the_footprint(normalised_bundle: Bundle) -> None:
    profile = profile_executorch(normalised_bundle.path / PTE_FILE, inputs(normalised_bundle), warm_up=2, steps=3)
    counted: dict[str, int] = {}
    for operator in normalised_bundle.footprint("executorch").train_step:
        counted[operator.name] = counted.get(operator.name, 0) + 1
    found = {operator.name: operator.calls for operator in profile.operators if operator.name != "shapes"}
    assert found == counted
    seconds = [operator.seconds for operator in profile.operators]
    assert seconds == sorted(seconds, reverse=True)
    assert 0 <= profile.unaccounted_s < profile.step_s


def test_operators_of_lenet_are_most_of_the_step(tmp_path: Path) -> None:
    from pocketfleet.export.decompositions import decomposition_table
    from pocketfleet.export.program import trace_programs
    from pocketfleet.training.task import initial_model
    from pocketfleet.training.tasks.mnist import make_task
    from pocketfleet.training.train_step import StepSettings
    from pocketfleet.training.weights import model_weights

    task = make_task()
    model, examples = initial_model(task, seed=0), task.train_examples()
    weights = model_weights(model, examples.x[:3])
    programs = trace_programs(
        task,
        model,
        weights,
        settings=StepSettings(),
        examples=examples,
        max_batch=16,
        table=decomposition_table("executorch"),
    )
    write_executorch(programs, tmp_path / "model.pte")
    few = [*weights.trainable.values(), examples.x[:16], examples.y[:16], torch.tensor(0.01)]
    profile = profile_executorch(tmp_path / "model.pte", few, warm_up=2, steps=5)
    assert profile.unaccounted_s < 0.2 * profile.step_s


@pytest.mark.parametrize(("warm_up", "steps"), [(0, 0), (-1, 1)])
def test_no_steps_are_refused(dense_bundle: Bundle, warm_up: int, steps: int) -> None:
    with pytest.raises(ValueError, match=f"got {steps} and {warm_up}"):
        profile_executorch(dense_bundle.path / PTE_FILE, inputs(dense_bundle), warm_up=warm_up, steps=steps)

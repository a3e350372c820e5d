"""Models that drop, exported: their masks are inputs, and the same on every runtime."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import drawn

from pocketfleet.errors import GateError
from pocketfleet.export import program
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_bundle
from pocketfleet.export.session import EagerSession, Runtime, open_session
from pocketfleet.training import train_step
from pocketfleet.training.model_task import ModelTask
from pocketfleet.training.train_step import StepSettings, TrainState, hyper_tensors

LOSS = nn.CrossEntropyLoss(reduction="none")
STEPS = 3
both_runtimes = pytest.mark.parametrize("runtime", ["executorch", "onnx"])


def dense() -> tuple[nn.Module, torch.Tensor]:
    """Two sites, of which one drops half."""
    model = nn.Sequential(nn.Dropout(0.2), nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4))
    return model, drawn(4, 3)


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.encoder(x).mean(dim=1))
        return output


def exported(model: nn.Module, x: torch.Tensor, out: Path, **arguments: Any) -> tuple[Bundle, ModelTask]:  # noqa: ANN401
    with torch.no_grad():
        for seed, value in enumerate(model.parameters()):
            value.copy_(drawn(*value.shape, seed=seed) * 0.5)
    batch = (x, torch.arange(4))
    return export_bundle(model, LOSS, batch, out=out, gate_steps=STEPS, **arguments), ModelTask(model, LOSS, batch)


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ModelTask]:
    return exported(*dense(), tmp_path_factory.mktemp("dropping") / "bundle")


def uniforms(bundle: Bundle) -> list[tuple[str, tuple[int | str, ...], str]]:
    inputs = bundle.signature.train_step.inputs
    return [(spec.label, spec.shape, spec.dtype) for spec in inputs if spec.role == "uniform"]


def test_the_numbers_of_masks_are_the_last_inputs(dropping: tuple[Bundle, ModelTask]) -> None:
    bundle = dropping[0]
    assert uniforms(bundle) == [
        ("uniform/0", ("batch", 3), "float32"),
        ("uniform/1", ("batch", 8), "float32"),
    ]
    assert [spec.role for spec in bundle.signature.train_step.inputs[-2:]] == ["uniform", "uniform"]
    for method in ("predict", "evaluate"):
        assert not bundle.signature.method(method).input_names("uniform")


def losses(bundle: Bundle, task: ModelTask, seeds: range, runtime: Runtime | None, *, batch: int = 4) -> list[float]:
    """Of a step from the same start with each seed; of eager PyTorch where there is no runtime."""
    session = open_session(bundle, runtime) if runtime else EagerSession(task, task.make_model(), bundle.settings)
    start, hyper = TrainState.start(bundle.weights(), bundle.settings), hyper_tensors(StepSettings(), bundle.hyper)
    examples = task.train_examples()
    return [
        float(session.train_step(start, examples.x[:batch], examples.y[:batch], hyper, dropout_seed=seed)[0])
        for seed in seeds
    ]


@both_runtimes
@pytest.mark.parametrize("batch", [4, 3, 1])
def test_a_seed_gives_one_loss_everywhere(dropping: tuple[Bundle, ModelTask], runtime: Runtime, batch: int) -> None:
    found = losses(*dropping, range(10), runtime, batch=batch)
    assert found == pytest.approx(losses(*dropping, range(10), None, batch=batch), rel=1e-5)
    assert found == losses(*dropping, range(10), runtime, batch=batch)
    # A single example loses the same of its 3 and 8 values now and then.
    assert len(set(found)) == 10 if batch > 1 else len(set(found)) > 5


@both_runtimes
def test_steps_with_seeds_follow_eager(dropping: tuple[Bundle, ModelTask], runtime: Runtime) -> None:
    bundle, task = dropping
    hyper, examples = hyper_tensors(StepSettings(), {"learning_rate": 0.5}), task.train_examples()
    ends = []
    for session in (open_session(bundle, runtime), EagerSession(task, task.make_model(), bundle.settings)):
        state = TrainState.start(bundle.weights(), bundle.settings)
        for seed in range(10):
            _, state = session.train_step(state, examples.x, examples.y, hyper, dropout_seed=seed)
        ends.append(state.trainable)
    for name, value in ends[0].items():
        assert not torch.allclose(value, bundle.weights().trainable[name], atol=1e-2)
        torch.testing.assert_close(value, ends[1][name], rtol=1e-4, atol=1e-5)


@contextmanager
def runtimes_own_dice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While tracing, dropout stays torch's own operator."""
    trace: Callable[..., Any] = program._trace

    def without(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        with monkeypatch.context() as patch:
            patch.setattr(train_step, "Uniforms", lambda _: nullcontext())
            return trace(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(program, "_trace", without)
        yield


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        # It drops, but leaves what it keeps as it is.
        ("executorch", r"the executorch program .*gradient, batch 4 of .* is off by .*native_dropout does not scale"),
        ("onnx", r"(?s)the onnx program .*gradient, batch 4 of .* is off by .*onnx +repeat .*FAILED"),
    ],
)
def test_dropout_that_the_runtime_draws_is_caught(
    runtime: Runtime, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with runtimes_own_dice(monkeypatch), pytest.raises(GateError, match=message):
        exported(*dense(), tmp_path / "bundle", only=runtime)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_attention_that_drops(tmp_path: Path) -> None:
    bundle, task = exported(Attentive(), drawn(4, 5, 4), tmp_path / "bundle")
    # Attention by example and head, after attention, inside the feed-forward layer, after it.
    assert [shape for _, shape, _ in uniforms(bundle)] == [
        *(("batch", 2, 5, 5), ("batch", 5, 4), ("batch", 5, 6), ("batch", 5, 4))
    ]
    eager = losses(bundle, task, range(5), None)
    assert len(set(eager)) == 5
    for runtime in bundle.runtimes:
        assert losses(bundle, task, range(5), runtime) == pytest.approx(eager, rel=1e-5)

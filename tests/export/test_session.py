"""Both runtimes against eager PyTorch, step by step, and who owns which memory."""

from collections.abc import Callable

import pytest
import torch
import toy
from torch import nn

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.session import EagerSession, Runtime, Session, open_session
from pocketfleet.training.task import initial_model
from pocketfleet.training.train_step import StepSettings, TrainState, hyper_tensors
from pocketfleet.training.weights import model_weights

RUNTIMES: tuple[Runtime, ...] = ("executorch", "onnx")


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    chosen: Runtime = request.param
    return chosen


def eager_of(task: toy.Toy, bundle: Bundle) -> EagerSession:
    return EagerSession(task, initial_model(task, seed=0), bundle.settings)


def start_of(bundle: Bundle) -> TrainState:
    weights = bundle.weights()
    corrections = {name: torch.full_like(value, 0.01) for name, value in weights.trainable.items()}
    return TrainState.start(weights, bundle.settings, correction=corrections if bundle.settings.correction else None)


def flat(loss: torch.Tensor, state: TrainState) -> dict[str, torch.Tensor]:
    groups = {"trainable": state.trainable, "buffer": state.buffers, "slot": state.optimizer_slots}
    return {"loss": loss} | {f"{role}/{name}": value for role, group in groups.items() for name, value in group.items()}


def test_three_steps_of_different_sizes(normalised_bundle: Bundle, runtime: Runtime) -> None:
    task = toy.normalised_toy()
    eager, session = eager_of(task, normalised_bundle), open_session(normalised_bundle, runtime)
    hyper = hyper_tensors(normalised_bundle.settings, normalised_bundle.hyper)
    examples = task.train_examples()
    states = [start_of(normalised_bundle)] * 2
    for first, size in ((0, 8), (8, 3), (16, 8)):
        x, y = examples.x[first : first + size], examples.y[first : first + size]
        found, expected = (
            one.train_step(state, x, y, hyper) for one, state in zip((session, eager), states, strict=True)
        )
        torch.testing.assert_close(flat(*found), flat(*expected), rtol=1e-4, atol=1e-6)
        states = [found[1], expected[1]]
    # What a step does not update comes back as it was.
    assert states[0].anchor is not None
    assert states[0].correction.keys() == states[0].trainable.keys()


def test_prediction_and_evaluation_follow_the_weights(normalised_bundle: Bundle, runtime: Runtime) -> None:
    task = toy.normalised_toy()
    eager, session = eager_of(task, normalised_bundle), open_session(normalised_bundle, runtime)
    weights = normalised_bundle.weights()
    x, y = task.test_examples().x[:6], task.test_examples().y[:6]
    for factor in (1.0, -2.0):
        for value in weights.trainable.values():
            value.mul_(factor)
        torch.testing.assert_close(session.predict(weights, x), eager.predict(weights, x))
        scores = session.evaluate(weights, x, y)
        assert list(scores) == ["loss", "accuracy"]
        torch.testing.assert_close(scores, eager.evaluate(weights, x, y))


def steps(session: Session, bundle: Bundle, x: torch.Tensor) -> Callable[[], dict[str, torch.Tensor]]:
    state, hyper = start_of(bundle), hyper_tensors(bundle.settings, bundle.hyper)
    return lambda: flat(*session.train_step(state, x, torch.arange(len(x)) % 4, hyper))


def test_results_outlive_later_calls(dense_bundle: Bundle, runtime: Runtime) -> None:
    session = open_session(dense_bundle, runtime)
    first = steps(session, dense_bundle, toy.drawn(5, 3, seed=1))()
    kept = {name: value.clone() for name, value in first.items()}
    second = steps(session, dense_bundle, toy.drawn(5, 3, seed=2))()
    assert not torch.equal(first["trainable/0.weight"], second["trainable/0.weight"])
    for name, value in kept.items():
        assert torch.equal(first[name], value)


def test_results_outlive_their_session(dense_bundle: Bundle, runtime: Runtime) -> None:
    x = toy.drawn(5, 3)
    found = steps(open_session(dense_bundle, runtime), dense_bundle, x)()
    expected = steps(open_session(dense_bundle, runtime), dense_bundle, x)()
    for name, value in expected.items():
        assert torch.equal(found[name], value)


def test_inputs_are_not_changed(dense_bundle: Bundle, runtime: Runtime) -> None:
    session, state = open_session(dense_bundle, runtime), start_of(dense_bundle)
    before = {name: value.clone() for name, value in state.trainable.items()}
    x = toy.drawn(5, 3)
    session.train_step(state, x, torch.arange(5) % 4, hyper_tensors(dense_bundle.settings, dense_bundle.hyper))
    assert torch.equal(x, toy.drawn(5, 3))
    for name, value in before.items():
        assert torch.equal(state.trainable[name], value)


def test_inputs_may_lie_in_any_order_in_memory(dense_bundle: Bundle, runtime: Runtime) -> None:
    session, x = open_session(dense_bundle, runtime), toy.drawn(5, 3)
    weights = dense_bundle.weights()
    apart = x.t().contiguous().t()
    assert not apart.is_contiguous()
    assert torch.equal(session.predict(weights, apart), session.predict(weights, x))


@pytest.mark.parametrize("batch", [0, 6])
def test_a_batch_beyond_the_largest(dense_bundle: Bundle, runtime: Runtime, batch: int) -> None:
    session, x = open_session(dense_bundle, runtime), torch.zeros(batch, 3)
    with pytest.raises(ValueError, match=f"a batch holds 1 to 5 examples in this bundle, got {batch}"):
        session.predict(dense_bundle.weights(), x)
    with pytest.raises(ValueError, match="a batch holds 1 to 5 examples"):
        steps(session, dense_bundle, x)()


def test_an_unknown_runtime(dense_bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="runtime must be executorch or onnx, got 'tflite'"):
        open_session(dense_bundle, "tflite")  # type: ignore[arg-type]


def test_a_step_that_fails_before_a_mask_is_drawn_says_nothing_about_masks() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 4))
    task = toy.Toy(lambda: model, 3)
    session = EagerSession(task, model, StepSettings())
    state = TrainState.start(model_weights(model, toy.drawn(2, 3)), StepSettings())
    hyper, y = {"learning_rate": torch.tensor(0.1)}, torch.arange(4)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        session.train_step(state, toy.drawn(1, 3), y[:1], hyper)
    losses = [session.train_step(state, toy.drawn(4, 3), y, hyper, dropout_seed=3)[0] for _ in range(3)]
    assert len({float(loss) for loss in losses}) == 1

import contextlib
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from both_clients import BothClients, both_clients, distances
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from twenty_rounds import FLEETS

from pocketfleet.device_sim.chunk_result import ChunkResult
from pocketfleet.device_sim.client import Client
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.session import EagerSession, Session, open_session
from pocketfleet.training import replayed_step
from pocketfleet.training.examples import Examples
from pocketfleet.training.step_settings import Optimizer
from pocketfleet.training.task import load_task
from pocketfleet.training.train_step import StepSettings
from pocketfleet.training.unfolded_convolution import UnfoldedConvolutions
from pocketfleet.training.user_examples import UserExamples
from pocketfleet.training.weights import Tensors

ALL_TERMS = StepSettings(momentum=True, nesterov=True, weight_decay=True, clipping=True, correction=True)


def assert_alike(one: ChunkResult, many: ChunkResult, *, within: float) -> None:
    assert many.cohort is one.cohort
    assert distances(many.own_model, one.own_model).max() < within
    np.testing.assert_allclose(many.train_loss, one.train_loss, rtol=within)
    np.testing.assert_allclose(many.train_loss_rms, one.train_loss_rms, rtol=within)
    assert many.num_held_out.tolist() == one.num_held_out.tolist()
    assert many.finite.tolist() == one.finite.tolist()
    for found, expected in ((many.metrics_before, one.metrics_before), (many.metrics_after, one.metrics_after)):
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)
    ours, theirs = many.part.result(), one.part.result()
    for name, value in theirs.delta.items():
        torch.testing.assert_close(ours.delta[name], value, rtol=within * 10, atol=within)


@functools.cache
def boston(*, float64: bool, batch_size: int) -> BothClients:
    # 405 tracts by shares over 12 devices: from 3 to 94 training examples.
    return both_clients(
        load_task("boston"),
        devices=12,
        kind="quantity",
        alpha=1.0,
        settings=ALL_TERMS,
        batch_size=batch_size,
        float64=float64,
    )


class Dealt:
    """Boston's tracts dealt out by numbers of examples, one user after the other, again from the first when all are."""

    name = "dealt"

    def __init__(self, counts: list[int]) -> None:
        boston = load_task("boston")
        self.make_model, self.loss, self.metrics = boston.make_model, boston.loss, boston.metrics
        self.test_examples, self._tracts = boston.test_examples, boston.train_examples()
        self._counts = counts

    def train_examples(self) -> Examples:
        return self.user_examples().examples

    def user_examples(self) -> UserExamples:
        dealt = self._tracts.take(torch.arange(sum(self._counts)) % len(self._tracts))
        return UserExamples(dealt.x.double(), dealt.y.double(), np.cumsum([0, *self._counts]))


def dealt(both: BothClients, training: list[int]) -> BothClients:
    """The clients with as many devices as there are numbers of training examples."""
    # A fifth is held out, rounded down: of n + (n - 1) // 4 examples n are left.
    task = Dealt([count + (count - 1) // 4 for count in training])
    data = DeviceData(task, kind="natural", devices=len(training), seed=5, alpha=1.0, examples_per_device=0)
    assert data.num_training.tolist() == training
    return replace(both, one_by_one=replace(both.one_by_one, data=data), batched=replace(both.batched, data=data))


# Whole batches, and examples beyond them: a partial batch, none, or a single example on the device.
DEVICES = st.tuples(st.integers(1, 9), st.integers(0, 3), st.one_of(st.just(0), st.integers(1, 31)))


@settings(max_examples=25, deadline=None)
@given(
    devices=st.lists(DEVICES, min_size=1, max_size=12),
    chunk=st.integers(1, 13),
    batch_size=st.sampled_from([1, 5, 8, 32]),
)
# One example, multiples of the batch, fewer than a batch, and others: all in one chunk.
@example(devices=[(5, 0, 0), (4, 2, 0), (3, 1, 0), (3, 0, 5), (9, 1, 3)], chunk=5, batch_size=8)
def test_many_at_once_are_one_by_one_whatever_their_examples_steps_and_chunks(
    devices: list[tuple[int, int, int]], chunk: int, batch_size: int
) -> None:
    training = [max(1, whole * batch_size + left) for _, whole, left in devices]
    both = dealt(boston(float64=True, batch_size=batch_size), training)
    steps = [count for count, _, _ in devices]
    cohort = Cohort.of_devices(range(len(steps)), steps=steps, batch_seed=range(50, 50 + len(steps)))
    for one, many in both.results(cohort, size=chunk):
        assert_alike(one, many, within=1e-9)


def updates_apart(both: BothClients, found: ChunkResult, expected: ChunkResult) -> np.ndarray:
    """Relative norm of each device's difference between two updates from the same weights."""
    start = both.weights.trainable

    def update(own: Tensors) -> Tensors:
        return {name: own[name] - start[name] for name in start}

    return distances(update(found.own_model), update(expected.own_model))


def assert_the_same_in_float32(apart: list[np.ndarray]) -> None:
    assert np.concatenate(apart).max() < 1e-3
    assert np.median(np.concatenate(apart)) < 1e-5


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_in_float32_each_update_is_the_same_within_a_thousandth(optimizer: Optimizer) -> None:
    hyper = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    both = both_clients(
        load_task("boston"), devices=20, settings=StepSettings(optimizer=optimizer), hyper=hyper, batch_size=8
    )
    cohort = Cohort.of_devices(range(20), steps=[3 + number % 5 for number in range(20)], batch_seed=range(20))
    assert_the_same_in_float32([updates_apart(both, many, one) for one, many in both.results(cohort, size=7)])


@pytest.mark.parametrize("task", FLEETS)
def test_in_float32_too_on_every_packaged_task(task: str) -> None:
    devices, examples, steps = FLEETS[task]
    both = both_clients(
        load_task(task), devices=devices, examples_per_device=examples, settings=StepSettings(momentum=True)
    )
    cohort = Cohort.of_devices(range(devices), steps=steps, batch_seed=range(devices))
    assert_the_same_in_float32([updates_apart(both, many, one) for one, many in both.results(cohort, size=4)])


def test_in_float32_every_way_to_train_on_digits_gives_the_same_updates(mnist_bundle: Bundle) -> None:
    devices, examples, steps = FLEETS["mnist"]
    task, settings = load_task("mnist"), StepSettings(momentum=True)
    both = both_clients(task, devices=devices, examples_per_device=examples, settings=settings)
    cohort = Cohort.of_devices(range(devices), steps=steps, batch_seed=range(devices))

    def by(session: Session) -> Client:
        return replace(both.one_by_one, session=session)

    model = both.batched.train_step.model
    channels_last = by(EagerSession(task, model, settings, memory_format=torch.channels_last))
    onnx = by(open_session(mnist_bundle, "onnx"))
    both.batched.step.running = UnfoldedConvolutions
    plain = both.one_by_one.train_chunk(cohort, both.weights, {}, {})
    for way in (channels_last, onnx, both.batched):
        assert_the_same_in_float32([updates_apart(both, way.train_chunk(cohort, both.weights, {}, {}), plain)])


def test_digits_too() -> None:
    both = both_clients(load_task("mnist"), devices=4, examples_per_device=25, batch_size=8)
    cohort = Cohort.of_devices(range(4), steps=[4, 3, 2, 1], batch_seed=range(4))
    (one, many), *_ = both.results(cohort, size=4)
    assert_alike(one, many, within=1e-4)


class Normalised:
    """Batch norm: an example's gradient depends on its neighbours', so that padding would change it."""

    name = "normalised"

    def make_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(13, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def __init__(self) -> None:
        boston = load_task("boston")
        self.loss, self.metrics = boston.loss, boston.metrics
        self.train_examples, self.test_examples = boston.train_examples, boston.test_examples


def test_batch_norm_is_grouped_by_the_size_of_batches() -> None:
    both = both_clients(Normalised(), devices=9, float64=True, batch_size=8, kind="quantity", alpha=3.0)
    assert not both.batched.step.masked
    assert boston(float64=True, batch_size=8).batched.step.masked
    counts = both.one_by_one.data.num_training
    fitting = [device for device in range(9) if counts[device] % 8 != 1]
    assert len({int(counts[device]) % 8 for device in fitting}) > 2
    cohort = Cohort.of_devices(fitting, steps=5, batch_seed=range(len(fitting)))
    for one, many in both.results(cohort, size=9):
        assert_alike(one, many, within=1e-9)
        # The running statistics went along.
        assert many.own_model["1.running_mean"].shape == (len(fitting), 8)


def test_compiled_steps_are_the_same_steps() -> None:
    both = both_clients(load_task("boston"), devices=6, settings=ALL_TERMS, batch_size=8, compiled=True, chunk=4)
    cohort = Cohort.of_devices(range(6), steps=[6, 5, 4, 3, 2, 1], batch_seed=range(6))
    for one, many in both.results(cohort, size=4):
        assert_alike(one, many, within=1e-3)
    # One program, whatever the chunk's size and its devices' steps.
    assert both.batched.step.replayed.num_programs == 1


def test_an_update_that_is_not_finite_is_told_by_its_row() -> None:
    both = both_clients(load_task("boston"), devices=3, batch_size=8)
    data = both.batched.data
    data.examples.y[data._rows[1]] = torch.inf
    cohort = Cohort.of_devices(range(3), steps=2, batch_seed=range(3))
    for one, many in both.results(cohort, size=3):
        assert many.finite.tolist() == one.finite.tolist() == [True, False, True]
        assert many.part.num_updates == 2


@pytest.mark.parametrize("running", [contextlib.nullcontext, UnfoldedConvolutions])
def test_steps_that_come_often_are_replayed_with_the_same_bits(running, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = Cohort.of_devices(range(3), steps=[7, 7, 4], batch_seed=range(3))

    def trained() -> tuple[list[ChunkResult], int]:
        settings = StepSettings(momentum=True)
        both = both_clients(load_task("mnist"), devices=3, examples_per_device=20, batch_size=8, settings=settings)
        both.batched.step.running = running
        # Twice: a chunk's first step begins from tensors that lie in memory otherwise than those of its second.
        results = [both.batched.train_chunk(cohort, both.weights, {}, {}) for _ in range(2)]
        return results, both.batched.step.replayed.num_programs

    replayed, some = trained()
    monkeypatch.setattr(replayed_step, "_MOST_RECORDED", 0)
    plain, none = trained()
    assert none == 0 < some
    for one, other in zip(plain, replayed, strict=True):
        assert one.train_loss.tolist() == other.train_loss.tolist()
        for name, value in one.own_model.items():
            assert torch.equal(other.own_model[name], value)

import math

import pytest
import torch

from pocketfleet import Bundle
from pocketfleet.device_sim import bench_process
from pocketfleet.device_sim.bench_inputs import step_inputs
from pocketfleet.device_sim.bench_process import ProcessRequest, answer
from pocketfleet.device_sim.bench_report import Rules
from pocketfleet.errors import InputError, PocketfleetError
from pocketfleet.export.session import open_session
from pocketfleet.training.train_step import TrainState

RULES = Rules(warm_up_steps=1, least_steps=3, least_s=0.0)


def request(bundle: Bundle, what: str, *batches: int, **fields: object) -> ProcessRequest:
    values = {"runtime": "onnx", "threads": 1, "rules": RULES, "answer": "unused", **fields}
    return ProcessRequest(what=what, bundle=str(bundle.path), batches=batches, **values)


def test_inputs_follow_the_signature(mnist_bundle: Bundle) -> None:
    inputs = step_inputs(mnist_bundle, batch=5)
    specs = mnist_bundle.signature.train_step.inputs
    assert [tuple(value.shape) for value in inputs.flat] == [spec.sizes(5) for spec in specs]
    assert [str(value.dtype).removeprefix("torch.") for value in inputs.flat] == [spec.dtype for spec in specs]
    assert torch.equal(inputs.y, torch.zeros(5, dtype=torch.int64))
    assert 0.9 < float(inputs.x.std()) < 1.1
    # An untrained classifier of ten digits is about as wrong as chance: -log(1 / 10) = 2.3.
    assert abs(inputs.run(open_session(mnist_bundle, "onnx")) - math.log(10)) < 0.5


def test_steps_are_timed_at_every_batch(boston_bundle: Bundle) -> None:
    found = answer(request(boston_bundle, "steps", 8, 1, 4)).steps
    assert found is not None
    assert [step.batch for step in found.steps] == [8, 1, 4]
    for step in found.steps:
        latency = step.latency
        assert latency.steps == 3
        assert 0.0 < latency.minimum_s <= latency.median_s <= latency.p95_s
        assert step.examples_per_s == pytest.approx(step.batch / latency.median_s)
        operators = boston_bundle.footprint("onnx").at("train_step", batch=step.batch)
        assert step.flops_per_s == pytest.approx(sum(one.flops for one in operators) / latency.median_s)
    assert found.peak_rss_bytes >= found.idle_rss_bytes > 10_000_000


def test_a_sustained_curve_lasts_as_long_as_asked(boston_bundle: Bundle) -> None:
    points = answer(request(boston_bundle, "sustained", 8, sustained_s=1.0)).sustained
    assert len(points) == 2  # stretches of half a second
    assert points[0].at_s < points[1].at_s
    assert points[1].at_s == pytest.approx(1.0, abs=0.5)
    assert sum(point.latency.steps for point in points) > 100


@pytest.mark.parametrize("runtime", ["executorch", "onnx"])
def test_operators_add_up_to_the_step(mnist_bundle: Bundle, runtime: str) -> None:
    # The least of five: on a machine that others use, their time falls between operators too.
    shares = []
    for _ in range(5):
        profile = answer(request(mnist_bundle, "profile", 16, runtime=runtime, rules=Rules())).profile
        assert profile is not None
        total_s = sum(row.seconds for row in profile.operators)
        assert profile.unaccounted_s == pytest.approx(profile.step_s - profile.profiler_s - total_s)
        shares.append(abs(profile.unaccounted_s) / profile.step_s)
    assert min(shares) < 0.2


class Scripted:
    """A session whose losses are given."""

    def __init__(self, *losses: float) -> None:
        self._losses = list(losses)

    def train_step(self, state: TrainState, *_: object) -> tuple[torch.Tensor, TrainState]:
        return torch.tensor(self._losses.pop(0)), state


def scripted(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    monkeypatch.setattr(bench_process, "open_session", lambda *_: Scripted(*losses))


def test_a_step_that_computes_something_else_later_is_an_error(
    boston_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # First step, expectation, one to warm up, three timed, and the last one that differs.
    scripted(monkeypatch, *[2.0] * 6, 3.0)
    with pytest.raises(PocketfleetError, match=r"the same step gave a loss of 2\.0, and later of 3\.0"):
        answer(request(boston_bundle, "steps", 8))


def test_a_loss_that_is_not_finite_is_the_bundles(boston_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, math.nan, math.nan)
    with pytest.raises(InputError, match="the first step's loss is nan on drawn inputs"):
        answer(request(boston_bundle, "steps", 8))

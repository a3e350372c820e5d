import numpy as np
import pytest

from pocketfleet import Bundle
from pocketfleet.device_sim.efficiency import load_profile
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.program_cost import step_seconds_of, training_memory_bytes
from pocketfleet.training.codec.lossless import tensors_bytes


def test_a_measured_step_beats_the_prediction_and_a_second_model_doubles_it(boston_bundle: Bundle) -> None:
    footprint = boston_bundle.footprint("onnx")
    fleet = build_fleet(devices=3, seed=0, overrides=[DeviceOverride(devices=(1,), step_s=0.25)])
    one, two = (step_seconds_of(footprint, fleet, profile=load_profile(""), models=models) for models in (1, 2))
    assert one[1] == 0.25
    # Some thirty operators of microseconds each.
    assert np.all((one[[0, 2]] > 1e-5) & (one[[0, 2]] < 1e-2))
    assert two == pytest.approx(2.0 * one)


def test_a_second_model_has_weights_and_slots_of_its_own(boston_bundle: Bundle) -> None:
    footprint, trainable = boston_bundle.footprint("onnx"), boston_bundle.weights().trainable
    alone = training_memory_bytes(footprint, trainable, models=1)
    assert alone == footprint.training_memory_bytes
    more = training_memory_bytes(footprint, trainable, models=2) - alone
    assert more == tensors_bytes(trainable) + footprint.state_bytes

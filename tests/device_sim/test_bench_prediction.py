import numpy as np
import pytest

from pocketfleet import Bundle
from pocketfleet.device_sim.bench_prediction import chosen_phones, predict_phones
from pocketfleet.device_sim.compute import step_seconds
from pocketfleet.device_sim.efficiency import load_profile
from pocketfleet.device_sim.operator_class import operator_classes
from pocketfleet.device_sim.phone import find_phone, load_phones
from pocketfleet.errors import InputError


def test_phones_are_chosen_by_name() -> None:
    assert chosen_phones("all") == load_phones()
    assert chosen_phones("none") == ()
    assert [phone.name for phone in chosen_phones("Pixel 8, Redmi 6A")] == ["Pixel 8", "Redmi 6A"]
    with pytest.raises(InputError, match="no phone 'Pixel 88' in the catalogue; close names: Pixel 8"):
        chosen_phones("Pixel 8,Pixel 88")


def test_a_prediction_is_the_simulations_own(boston_bundle: Bundle) -> None:
    phones = chosen_phones("Redmi 6A,Pixel 8")
    rows = predict_phones(boston_bundle, phones, runtimes=("executorch", "onnx"), batch=8)
    assert [(row.phone, row.runtime) for row in rows] == [
        (phone, runtime) for runtime in ("executorch", "onnx") for phone in ("Redmi 6A", "Pixel 8")
    ]
    step = boston_bundle.footprint("onnx").train_step
    pixel = find_phone("Pixel 8")
    (seconds,) = step_seconds(
        kind=operator_classes(step),
        flops=[operator.flops for operator in step],
        bytes=[operator.bytes for operator in step],
        peak_flops=np.array([pixel.peak_flops_one_thread]),
        memory_bytes_per_s=np.array([pixel.memory_bytes_per_s]),
        efficiency=load_profile().efficiency("onnx"),
    )
    assert rows[3].step_s == pytest.approx(seconds)
    assert rows[3].joules == pytest.approx(seconds * pixel.compute_watts)
    assert rows[2].step_s > rows[3].step_s  # the older phone
    assert all(row.fits_memory for row in rows)


def test_a_smaller_batch_is_quicker(boston_bundle: Bundle) -> None:
    one, eight = (
        predict_phones(boston_bundle, chosen_phones("Pixel 8"), runtimes=("onnx",), batch=batch)[0] for batch in (1, 8)
    )
    assert one.step_s < eight.step_s


def test_no_phones_no_predictions(boston_bundle: Bundle) -> None:
    assert predict_phones(boston_bundle, (), runtimes=("onnx",), batch=8) == ()

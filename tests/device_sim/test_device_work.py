from pathlib import Path

import pytest
from small_service import SmallService, work_of

from pocketfleet import Bundle
from pocketfleet.device_sim.device_work import DeviceWork, assembled_bundle, needed_files
from pocketfleet.errors import BundleError, InputError
from pocketfleet.export.manifest import FROZEN_FILE, MANIFEST_FILE, WEIGHTS_FILE
from pocketfleet.training.server.protocol import Assignment


def files(bundle: Bundle, names: list[str]) -> dict[str, Path]:
    return {name: bundle.path / name for name in names}


def work(bundle: Bundle, **changed: object) -> Assignment:
    with SmallService() as service:
        return work_of(service, bundle, **changed)


def ready(bundle: Bundle, assignment: Assignment) -> DeviceWork:
    return DeviceWork.of(
        assignment,
        bundle,
        weights=bundle.path / WEIGHTS_FILE,
        broadcast=None,
        device_state={},
        own_code=False,
    )


def test_a_device_asks_for_what_it_needs_and_knows(boston_bundle: Bundle) -> None:
    assignment = work(boston_bundle)
    wanted = {MANIFEST_FILE, WEIGHTS_FILE, FROZEN_FILE, "train_step.onnx", "predict.onnx", "evaluate.onnx"}
    strange = assignment.bundle | {"../evil": assignment.weights, "model.pte": assignment.weights}
    assert set(needed_files(strange, "onnx")) == wanted
    with pytest.raises(InputError, match=r"bundle for executorch lacks model.pte"):
        needed_files(assignment.bundle, "executorch")


def test_a_runtimes_files_are_a_bundle(tmp_path: Path, boston_bundle: Bundle) -> None:
    names = [MANIFEST_FILE, FROZEN_FILE, "train_step.onnx", "predict.onnx", "evaluate.onnx"]
    bundle = assembled_bundle(files(boston_bundle, names), tmp_path / "made", runtime="onnx")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(names)
    assert not bundle.has_weights
    found = bundle.weights(version=boston_bundle.path / WEIGHTS_FILE)
    assert {name: value.tolist() for name, value in found.trainable.items()} == {
        name: value.tolist() for name, value in boston_bundle.weights().trainable.items()
    }
    # What is there is not made again.
    assert assembled_bundle({}, tmp_path / "made", runtime="onnx").path == bundle.path


def test_altered_files_are_no_bundle(tmp_path: Path, boston_bundle: Bundle) -> None:
    names = [MANIFEST_FILE, FROZEN_FILE, "train_step.onnx", "predict.onnx", "evaluate.onnx"]
    altered = tmp_path / "altered"
    altered.write_bytes((boston_bundle.path / "predict.onnx").read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="was altered"):
        assembled_bundle(files(boston_bundle, names) | {"predict.onnx": altered}, tmp_path / "made", runtime="onnx")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"algorithm": "my_module:make"}, "code of its own: devices run packaged algorithms"),
        ({"codec": "zip"}, "asks for the codec 'zip': codec.name must be \"lossless\", or quantised"),
        ({"batch_size": 9}, "batches of 9, its programs take 1 to 8"),
        ({"algorithm": "nothing"}, "algorithm.name must be one of"),
    ],
)
def test_what_a_device_does_not_do_is_told(boston_bundle: Bundle, changed: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ready(boston_bundle, work(boston_bundle, **changed))


def test_an_update_of_another_length_is_told(boston_bundle: Bundle) -> None:
    from device_kit import DEVICE, boston_data, trained_alone

    assignment = work(boston_bundle)
    result = trained_alone(boston_bundle, assignment, boston_data(), steps=1)
    found = ready(boston_bundle, assignment)
    sent = found.report(result)
    assert sent is not None
    assert (len(sent[0]), sent[1]) == (assignment.update_bytes, {})
    facts = found.facts(result, steps=1, num_examples=8, examples_held=63)
    assert facts.metric_global == result.metrics_before[found.headline]
    assert result.device == DEVICE
    with pytest.raises(InputError, match="not of one experiment"):
        ready(boston_bundle, work(boston_bundle, update_bytes=3)).report(result)

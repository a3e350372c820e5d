import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from pocketfleet import Bundle
from pocketfleet.device_sim.bench_suite import SUITES, export_workload, make_task, suite_bundles
from pocketfleet.errors import InputError
from pocketfleet.training.task import check_task, initial_model, load_task, task_examples

# Parameters by hand. A change of any is another suite.
# mlp: 13*32+32 + 32*24+24 + 24*16+16 + 16+1; lenet: as the task mnist;
# sensor-cnn: 9*5*32+32 + 32*5*32+32 + 928*64+64 + 64*6+6;
# char-lstm: 96*8 + 8*256+256 + 64*256 + 64*96+96;
# char-transformer: 96*64 + 32*64 + 2*(4*(64*64+64) + 64*256+256 + 256*64+64 + 4*64) + 2*64 + 64*96+96.
PARAMETERS = {
    "mlp": 1657,
    "lenet": 61_706,
    "mobilenet": 27_498,
    "sensor-cnn": 66_470,
    "char-lstm": 25_696,
    "char-transformer": 114_528,
}


@pytest.mark.parametrize("name", SUITES["v1"])
def test_a_workload_is_a_task_that_trains(name: str) -> None:
    task = load_task("pocketfleet.device_sim.bench_suite:make_task", {"suite": "v1", "workload": name})
    assert task.name == f"v1/{name}"
    model, examples = initial_model(task, seed=0), task_examples(task, "train")
    assert len(examples) == 32
    weights = check_task(task, model, examples)
    assert not weights.buffers
    count = sum(value.numel() for value in weights.trainable.values())
    assert count == PARAMETERS.get(name, count)


def test_version_1_is_what_it_was() -> None:
    lines = []
    for name in SUITES["v1"]:
        task = make_task(suite="v1", workload=name)
        examples = task.train_examples()
        lines.append(f"{name} {tuple(examples.x.shape)} {examples.x.dtype} {tuple(examples.y.shape)}")
        lines += [f"{key} {tuple(value.shape)}" for key, value in task.make_model().state_dict().items()]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == "162917f81e357098"


def test_the_lstm_is_torchs() -> None:
    model = make_task(suite="v1", workload="char-lstm").make_model()
    tokens = torch.arange(2 * 32).reshape(2, 32) % 96
    theirs = torch.nn.LSTM(8, 64, batch_first=True)
    state = {
        "weight_ih_l0": model.input.weight,
        "weight_hh_l0": model.recurrent.weight,
        "bias_ih_l0": model.input.bias,
        "bias_hh_l0": torch.zeros(256),
    }
    output, _ = torch.func.functional_call(theirs, state, (model.embedding(tokens),))
    torch.testing.assert_close(model(tokens), model.output(output[:, -1]))


def test_the_transformer_sees_no_later_character() -> None:
    model = make_task(suite="v1", workload="char-transformer").make_model().eval()
    tokens = torch.arange(32).reshape(1, 32)
    other = tokens.clone()
    other[0, 20] = 95
    same = (model(tokens) == model(other)).all(dim=2)[0]
    assert same[:20].all()
    assert not same[20:].any()


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="--suite must be one of v1, got 'v9'"):
        make_task(suite="v9", workload="mlp")
    with pytest.raises(InputError, match=r"suite v1 has the workloads mlp, lenet, .*, got 'vgg'"):
        make_task(suite="v1", workload="vgg")


def test_a_folder_with_something_else_under_the_name(tmp_path: Path, boston_bundle: Bundle) -> None:
    shutil.copytree(boston_bundle.path, tmp_path / "v1-mlp")
    with pytest.raises(InputError, match="holds a bundle of 'boston', not of 'v1/mlp': name another --bundles folder"):
        list(suite_bundles("v1", folder=tmp_path, workloads=("mlp",), observer=str))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder to export into"):
        list(suite_bundles("v1", folder=tmp_path / "file", workloads=("mlp",), observer=str))


@pytest.mark.long
@pytest.mark.parametrize("name", SUITES["v1"])
def test_every_workload_exports(name: str, tmp_path: Path) -> None:
    bundle = export_workload("v1", name, out=tmp_path / "bundle")
    assert bundle.max_batch == 16
    assert set(bundle.manifest.footprint) == {"executorch", "onnx"}

import numpy as np
import pytest
import torch

from pocketfleet.device_sim.device_store import DeviceStore
from pocketfleet.errors import InputError

START = {"c": torch.tensor([7.0, 8.0])}


def devices(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def test_what_devices_keep_is_read_back(tmp_path) -> None:
    store = DeviceStore(tmp_path, devices=6)
    assert store.model(4) == {}
    store.write(
        devices(4, 1),
        model={"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])},
        state={"c": torch.tensor([[5.0, 6.0], [0.0, 1.0]])},
    )
    assert store.model(4)["w"].tolist() == [1.0, 2.0]
    assert store.model(1)["w"].tolist() == [3.0, 4.0]
    assert store.model(5) == {}
    # Device 5 has not taken part: its state is the one that all start with.
    assert store.states(devices(1, 5, 4), START)["c"].tolist() == [[0.0, 1.0], [7.0, 8.0], [5.0, 6.0]]
    assert store.states(devices(1, 5), {}) == {}


def test_states_of_several_files_come_in_the_order_asked_for(tmp_path) -> None:
    store = DeviceStore(tmp_path, devices=5)
    for round_index in range(3):
        taking_part = devices(round_index, round_index + 2)
        state = torch.stack([torch.full((2,), 10.0 * round_index + device) for device in taking_part])
        store.write(taking_part, model={}, state={"c": state})
    # Device 2 took part in rounds 0 and 2, which counts.
    assert store.states(devices(4, 3, 2, 1, 0), START)["c"][:, 0].tolist() == [24.0, 13.0, 22.0, 11.0, 0.0]


def test_the_state_that_all_start_with_stays_as_it_is(tmp_path) -> None:
    store = DeviceStore(tmp_path, devices=2)
    store.write(devices(0), model={}, state={"c": torch.tensor([[1.0, 2.0]])})
    # One at a time, the first of which has a state of its own.
    assert [store.states(devices(device), START)["c"].tolist() for device in (0, 1)] == [[[1.0, 2.0]], [[7.0, 8.0]]]
    assert START["c"].tolist() == [7.0, 8.0]


def test_scalars_are_kept_too(tmp_path) -> None:
    store = DeviceStore(tmp_path, devices=2)
    store.write(devices(0, 1), model={"w": torch.tensor([1.5, 2.5])}, state={})
    assert store.model(1)["w"].item() == 2.5


def test_an_index_of_before_still_reads_what_was_there_then(tmp_path) -> None:
    store = DeviceStore(tmp_path, devices=1)
    store.write(devices(0), model={"w": torch.tensor([1.0])}, state={})
    before = store.index.copy()
    store.write(devices(0), model={"w": torch.tensor([2.0])}, state={})
    assert store.model(0)["w"].item() == 2.0
    store.index = before
    assert store.model(0)["w"].item() == 1.0


def test_files_that_no_kept_index_names_go(tmp_path) -> None:
    store = DeviceStore(tmp_path, devices=2)
    kept = []
    for round_index in range(4):
        store.write(devices(0), model={"w": torch.tensor([float(round_index)])}, state={})
        kept.append(store.index.copy())
    store.save_index()
    (tmp_path / "00000009.partial").write_bytes(b"half a file")
    store.keep(kept[2], kept[3])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "00000002.safetensors",
        "00000003.safetensors",
        "index.npy",
    ]


def test_a_store_is_opened_by_its_saved_index(tmp_path) -> None:
    store = DeviceStore(tmp_path, devices=3)
    store.write(devices(2), model={"w": torch.tensor([[4.0]])}, state={})
    store.save_index()
    assert DeviceStore.opened(tmp_path).model(2)["w"].tolist() == [4.0]
    with pytest.raises(InputError, match="holds no store of devices' models"):
        DeviceStore.opened(tmp_path / "none")


def test_of_nothing_no_file_is_written(tmp_path) -> None:
    store = DeviceStore(tmp_path, devices=3)
    store.write(devices(2), model={}, state={})
    assert list(tmp_path.iterdir()) == []
    assert (store.index == -1).all()


def test_a_state_that_is_the_model_is_kept_beside_it(tmp_path) -> None:
    store = DeviceStore(tmp_path, devices=2)
    both = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    store.write(np.array([1, 0]), model={"w": both}, state={"v": both, "first": both[:, :1]})
    start = {"v": torch.zeros(2), "first": torch.zeros(1)}
    assert store.model(1)["w"].tolist() == [1.0, 2.0]
    assert {name: value.tolist() for name, value in store.states(np.array([0]), start).items()} == {
        "v": [[3.0, 4.0]],
        "first": [[3.0]],
    }

import torch

from pocketfleet.device_sim.device_store import DeviceStore


def test_what_a_device_keeps_is_read_back(tmp_path) -> None:
    store = DeviceStore(tmp_path)
    assert store.model(4) == {}
    assert store.state(4) == {}
    store.write(4, round_index=2, model={"w": torch.tensor([1.0, 2.0])}, state={"c": torch.tensor(3)})
    assert store.model(4)["w"].tolist() == [1.0, 2.0]
    assert store.state(4)["c"].item() == 3
    assert store.model(5) == {}


def test_an_index_of_before_still_reads_what_was_there_then(tmp_path) -> None:
    store = DeviceStore(tmp_path)
    store.write(0, round_index=1, model={"w": torch.tensor(1.0)}, state={})
    before = dict(store.index)
    store.write(0, round_index=2, model={"w": torch.tensor(2.0)}, state={})
    assert DeviceStore(tmp_path, before).model(0)["w"].item() == 1.0
    assert store.model(0)["w"].item() == 2.0


def test_files_that_no_kept_index_names_go(tmp_path) -> None:
    store = DeviceStore(tmp_path)
    kept = []
    for round_index in range(4):
        store.write(0, round_index=round_index, model={"w": torch.tensor(float(round_index))}, state={})
        kept.append(dict(store.index))
    (tmp_path / "0000009-000009.partial").write_bytes(b"half a file")
    store.keep(kept[2], kept[3])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "0000000-000002.safetensors",
        "0000000-000003.safetensors",
    ]

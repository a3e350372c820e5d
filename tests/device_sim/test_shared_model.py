import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from pocketfleet.device_sim.plain_bytes import dumps, loads
from pocketfleet.device_sim.shared_model import AttachedModels, ModelHandle, SharedModel
from pocketfleet.training.weights import Weights


def model(value: float) -> tuple[Weights, dict[str, torch.Tensor]]:
    trainable = {"w": torch.full((3, 5), value), "scalar": torch.tensor(value)}
    return Weights(trainable=trainable, buffers={"count": torch.tensor(7)}, frozen={}), {"c": torch.arange(4)}


@contextmanager
def shared(value: float) -> Iterator[SharedModel]:
    memory = SharedModel(model(value))
    try:
        yield memory
    finally:
        memory.close()


def in_another_process(handle: ModelHandle) -> tuple[float, int]:
    attached = AttachedModels()
    weights, broadcast = attached.model(handle)
    found = float(weights.trainable["w"].sum()), int(broadcast["c"][-1])
    del weights, broadcast
    attached.close()
    return found


def test_another_process_reads_what_is_shared() -> None:
    with shared(2.0) as memory, multiprocessing.get_context("spawn").Pool(1) as pool:
        # Fifteen twos.
        assert pool.apply(in_another_process, (memory.handle,)) == (30.0, 3)


def test_a_model_is_mapped_once_and_its_tensors_lie_in_the_memory() -> None:
    attached = AttachedModels()
    with shared(1.5) as memory:
        weights = attached.model(memory.handle)[0]
        assert attached.model(memory.handle)[0] is weights
        # Written by the owner, seen by the reader: nothing was copied.
        start, stop = memory.handle.places[0]
        memory._memory.buf[start:stop] = bytes(stop - start)
        assert weights.trainable["w"].sum() == 0.0
        assert weights.trainable["scalar"].item() == 1.5
        assert all(place % 64 == 0 for place, _ in memory.handle.places)
        attached.close()
        # Somebody still looks at it.
        assert len(attached._closing) == 1
        del weights
        # The oldest of three goes.
        with shared(2.5) as second, shared(3.5) as third:
            assert attached.model(second.handle)[0].trainable["scalar"].item() == 2.5
            assert attached.model(third.handle)[0].trainable["scalar"].item() == 3.5
            assert sorted(attached._attached) == sorted([second.handle.name, third.handle.name])
            attached.close()
            assert attached._closing == []


def test_a_model_that_is_gone_cannot_be_read() -> None:
    with shared(1.0) as memory:
        handle = memory.handle
    with pytest.raises(FileNotFoundError):
        AttachedModels().model(handle)


def test_tensors_are_plain_bytes_whatever_lies_in_memory() -> None:
    value = {"images": torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)}
    value["grown"] = torch.ones(2, requires_grad=True)
    found = loads(dumps(value))
    assert torch.equal(found["images"], value["images"])
    assert not found["grown"].requires_grad

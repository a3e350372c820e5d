import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.errors import PocketfleetError
from pocketfleet.training.train_step import TrainState
from pocketfleet.training.update import Update, UpdateError, tensors_from_bytes, tensors_to_bytes, update_of
from pocketfleet.training.weights import Weights


def framed(header: bytes, data: bytes = b"") -> bytes:
    """A header and values as safetensors frames them."""
    return struct.pack("<Q", len(header)) + header + data


def one_tensor(dtype: str, shape: list[int], data: bytes) -> bytes:
    header = {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}
    return framed(json.dumps(header).encode(), data)


def test_delta_is_device_minus_server_and_buffers_are_as_they_are() -> None:
    start = Weights(
        trainable={"w": torch.tensor([1.0, 2.0])}, buffers={"n": torch.tensor(3)}, frozen={"f": torch.ones(1)}
    )
    end = TrainState(trainable={"w": torch.tensor([1.5, 0.0])}, buffers={"n": torch.tensor(7)}, frozen=start.frozen)
    update = update_of(start, end)
    # 1.5 - 1 and 0 - 2.
    assert {name: value.tolist() for name, value in update.delta.items()} == {"w": [0.5, -2.0]}
    assert {name: value.item() for name, value in update.buffers.items()} == {"n": 7}
    assert start.trainable["w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_update_is_finite_when_deltas_and_buffers_are(bad: float) -> None:
    fine, broken = torch.zeros(2), torch.tensor([0.0, bad])
    assert Update({"w": fine}, {"s": fine, "n": torch.tensor(1)}).finite
    assert not Update({"w": broken}, {"s": fine}).finite
    assert not Update({"w": fine}, {"s": broken}).finite


def test_golden_bytes() -> None:
    update = {"w": torch.tensor([1.0, -2.0]), "n": torch.tensor(3)}
    # By type (int64 before float32), then name; offsets count from the end of the header; no "__metadata__".
    header = (
        b'{"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
    )
    padded = header + b" " * (-len(header) % 8)
    assert tensors_to_bytes(update) == framed(padded, struct.pack("<q", 3) + struct.pack("<2f", 1.0, -2.0))


def test_bytes_depend_neither_on_the_order_of_names_nor_on_memory_order() -> None:
    w, v = torch.arange(6.0).reshape(2, 3), torch.ones(2)
    data = tensors_to_bytes({"v": v, "w": w})
    assert tensors_to_bytes({"w": w.T.contiguous().T, "v": v}) == data


def test_no_tensors_are_bytes_too() -> None:
    assert tensors_to_bytes({}) == framed(b"{}      ")
    assert tensors_from_bytes(tensors_to_bytes({})) == {}


VALID = tensors_to_bytes({"w": torch.tensor([1.0, -2.0]), "n": torch.tensor(3)})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"\xff" * 16,
        b"PK\x03\x04" + bytes(60),
        VALID[:-1],
        VALID[:20],
        VALID + b"\0",
        framed(b"[]"),
        framed(b'{"w":1}'),
        one_tensor("F32", [3], bytes(8)),
        one_tensor("X32", [1], bytes(4)),
        one_tensor("F8_E8M0", [1], bytes(1)),  # a type of safetensors without a torch counterpart
        one_tensor("F32", [0, 2**63], b""),  # a size that torch cannot hold
    ],
)
def test_bytes_that_are_no_safetensors(data: bytes) -> None:
    with pytest.raises(UpdateError, match=rf"^{len(data)} bytes that are no safetensors: ") as info:
        tensors_from_bytes(data)
    assert info.value.__cause__ is not None


def test_an_update_error_is_pocketfleets() -> None:
    assert issubclass(UpdateError, PocketfleetError)


def test_every_truncation_is_noticed() -> None:
    for length in range(len(VALID)):
        with pytest.raises(UpdateError, match=rf"^{length} bytes that are no safetensors: "):
            tensors_from_bytes(VALID[:length])
    assert list(tensors_from_bytes(VALID)) == ["n", "w"]


@given(junk=st.binary(max_size=64))
def test_junk_is_an_update_error_whatever_the_library_raises(junk: bytes) -> None:
    with pytest.raises(UpdateError, match=r"bytes that are no safetensors: "):
        tensors_from_bytes(junk)
    # The same within a frame that promises a header.
    with pytest.raises(UpdateError, match=r"bytes that are no safetensors: "):
        tensors_from_bytes(framed(b'{"w":' + junk))

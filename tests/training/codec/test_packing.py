import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.training.codec.packing import packed, packed_bytes, unpacked
from pocketfleet.training.update import UpdateError


@given(st.data(), st.sampled_from([8, 4, 2]))
def test_what_is_packed_is_unpacked(data: st.DataObject, bits: int) -> None:
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40)), dtype=np.uint8)
    found = packed(codes, bits=bits)
    assert len(found) == packed_bytes(len(codes), bits=bits)
    assert unpacked(found, bits=bits, count=len(codes)).tolist() == codes.tolist()


def test_the_first_code_is_in_the_lowest_bits() -> None:
    # 1 + 2 * 16, then 3; 1 + 2 * 4 + 3 * 16 + 0 * 64, then 2.
    assert packed(np.array([1, 2, 3], dtype=np.uint8), bits=4).tolist() == [33, 3]
    assert packed(np.array([1, 2, 3, 0, 2], dtype=np.uint8), bits=2).tolist() == [57, 2]


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        ([33], 3, "3 codes of 4 bits take 2 bytes, got 1"),
        ([33, 3, 0], 3, "3 codes of 4 bits take 2 bytes, got 3"),
        ([33, 0x13], 3, "the bits after 3 codes of 4 bits must be 0"),
    ],
)
def test_other_bytes_are_refused(data: list[int], count: int, message: str) -> None:
    with pytest.raises(UpdateError, match=re.escape(message)):
        unpacked(np.array(data, dtype=np.uint8), bits=4, count=count)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure_group import SecureGroup, complete, ring_vectors

from pocketfleet.training.privacy.secure_aggregation.messages import (
    KEYS_BYTES,
    STAGES,
    MessageKind,
    SecureAggregationError,
    masked_bytes,
    packed,
    roster_bytes,
    share_bytes,
    shares_for_bytes,
    stage_bytes,
    survivors_bytes,
    unmask_bytes,
    unpacked,
)
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood
from pocketfleet.training.privacy.secure_aggregation.settings import SecureSettings


@pytest.mark.parametrize("ring_bytes", range(1, 9))
@pytest.mark.parametrize("degree", [4, 6, 8])
def test_sizes_follow_from_degree_and_vector_whoever_leaves(ring_bytes: int, degree: int) -> None:
    form = SecureSettings(vector_length=11, ring_bytes=ring_bytes)
    neighbourhood = Neighbourhood.drawn(9, degree=degree, threshold=degree // 2 + 1, seed=0)
    group = SecureGroup(neighbourhood, form, [0, 0, 0, 1, 0, 0, 2, 0, 0])
    group.share()
    group.mask()
    group.unmask()
    sizes: dict[MessageKind, int] = {
        "keys": KEYS_BYTES,
        "roster": roster_bytes(degree),
        "shares": share_bytes(degree),
        "shares_for": shares_for_bytes(degree),
        "masked": masked_bytes(form),
        "survivors": survivors_bytes(degree),
        "unmask": unmask_bytes(degree),
    }
    found = {(one.kind, len(one.data)) for one in group.transcript.messages}
    assert found == set(sizes.items())
    stages = [stage_bytes(stage, settings=form, degree=degree) for stage in STAGES]
    assert [(one.down, one.up) for one in stages] == [
        (sizes["roster"], sizes["shares"]),
        (sizes["shares_for"], sizes["masked"]),
        (sizes["survivors"], sizes["unmask"]),
    ]


def test_sizes_are_those_of_the_layout() -> None:
    """Of two neighbours: 16 + 2 * (4 + 64); 2 * (12 + 66 + 16); one more a neighbour; 4 + 3 * 5; 3 * 34."""
    sizes = [size(2) for size in (roster_bytes, share_bytes, shares_for_bytes, survivors_bytes, unmask_bytes)]
    assert sizes == [152, 188, 190, 19, 102]
    assert masked_bytes(SecureSettings(vector_length=100, ring_bytes=3)) == 300


@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 99))
def test_packed_numbers_come_back(ring_bytes: int, length: int, seed: int) -> None:
    form = SecureSettings(vector_length=length, ring_bytes=ring_bytes)
    vector = ring_vectors(1, form, seed)[0]
    data = packed(vector, form)
    assert data == b"".join(int(number).to_bytes(ring_bytes, "little") for number in vector)
    assert unpacked(data, form).tolist() == vector.tolist()
    assert unpacked(data, form).dtype == form.dtype
    with pytest.raises(SecureAggregationError, match=f"has {length * ring_bytes} bytes, got {len(data) + 1}"):
        unpacked(data + b"\0", form)


def test_upper_bytes_are_left_out() -> None:
    form = SecureSettings(vector_length=1, ring_bytes=3)
    assert packed(np.array([0xFF010203], np.uint32), form) == b"\3\2\1"


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"vector_length": 0}, "vector_length of a secure sum must be 1.."),
        ({"ring_bytes": 9}, "ring_bytes of a secure sum must be 1..8, got 9"),
        ({"minimum": 1}, "minimum of a secure sum must be 2.."),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SecureSettings(**({"vector_length": 1, "ring_bytes": 1} | wrong))


def test_a_complete_graph_of_two_has_one_neighbour_each() -> None:
    assert complete(2).neighbours.tolist() == [[1], [0]]

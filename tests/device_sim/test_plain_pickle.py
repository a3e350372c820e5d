import collections
import datetime
import functools
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pocketfleet.device_sim.plain_pickle import load_plain
from pocketfleet.errors import InputError

PROTOCOLS = st.integers(0, 5)
# Beyond 64 bits too: LONG, LONG1; beyond 255 bytes: LONG4. No lone surrogates apart: pickle writes these as well.
NUMBERS = st.integers() | st.integers(-(2**2100), 2**2100) | st.floats(allow_nan=False)
KEYS = st.none() | st.booleans() | NUMBERS | st.text()
PLAIN = st.recursive(
    KEYS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple) | st.dictionaries(KEYS, inner, max_size=5)
    ),
    max_leaves=20,
)


def same(first: object, second: object) -> bool:
    """Equal, and of the same types all through."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return same(list(first.items()), list(second.items()))
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@settings(max_examples=300, deadline=None)
@given(PLAIN, PROTOCOLS)
@example({1: {"active": [0, 300], "inactive": [256, 70_000], "model": "x" * 300}}, 4)
def test_plain_data_come_back_as_they_were(value: object, protocol: int) -> None:
    assert same(load_plain(pickle.dumps(value, protocol), name="data"), value)


@settings(max_examples=100, deadline=None)
@given(PLAIN, PROTOCOLS)
def test_what_was_shared_is_shared(value: object, protocol: int) -> None:
    part = [value]
    first, second = load_plain(pickle.dumps((part, part), protocol), name="data")
    assert first is second


def test_a_list_may_hold_itself() -> None:
    loop: list[object] = []
    loop.append(loop)
    found = load_plain(pickle.dumps(loop), name="data")
    assert isinstance(found, list)
    assert found[0] is found


def test_strings_of_python_2_are_read() -> None:
    # As Python 2 writes {'cafe': 'x'} by protocol 0 (STRING) and {'caf\xe9': 'x'} by 2 (SHORT_BINSTRING).
    assert load_plain(b"(dp0\nS'cafe'\np1\nS'x'\np2\ns.", name="data") == {"cafe": "x"}
    assert load_plain(b"\x80\x02}U\x04caf\xe9U\x01xs.", name="data") == {"café": "x"}


class Evil:
    """Unpickled it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@settings(max_examples=60, deadline=None)
@given(inside=PLAIN, before=st.booleans(), protocol=PROTOCOLS)
def test_what_would_run_code_is_refused_and_does_not_run(
    inside: object, before: bool, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("evil") / "ran"
    whole = [inside, Evil(target)] if before else {"a": Evil(target), "b": inside}
    data = pickle.dumps(whole, protocol)
    with pytest.raises(InputError, match=r"data: byte \d+: the pickle's instruction (STACK_)?GLOBAL.* is not carried"):
        load_plain(data, name="data")
    assert not target.exists()
    # It would have run.
    pickle.loads(data)
    assert target.exists()


@pytest.mark.parametrize(
    ("data", "instruction"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "GLOBAL 'os system'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
        (b"(S'true'\nios\nsystem\n.", "INST 'os system'"),
        (b"(dS'true'\n(o.", "OBJ"),
        (b"Pnumber\n.", "PERSID 'number'"),
        (b"I1\nQ.", "BINPERSID"),
        (b"}}b.", "BUILD"),
        (b"N)R.", "REDUCE"),
        (b"\x80\x02N)\x81.", "NEWOBJ"),
        (b"\x80\x04N)}\x92.", "NEWOBJ_EX"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02\x83\x01\x00.", "EXT2"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (pickle.dumps(b"bytes", 3), "SHORT_BINBYTES"),
        (pickle.dumps({1}, 4), "EMPTY_SET"),
        (pickle.dumps(bytearray(b"x"), 5), "BYTEARRAY8"),
    ],
)
def test_each_instruction_that_is_not_plain_is_refused_by_name(data: bytes, instruction: str) -> None:
    with pytest.raises(InputError, match=rf"the pickle's instruction {instruction} .*is not carried out") as caught:
        load_plain(data, name="data")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [np.int64(3), np.arange(3), datetime.date(2020, 1, 2), collections.OrderedDict(a=1), functools.partial(len)],
)
@pytest.mark.parametrize("protocol", range(6))
def test_objects_are_refused(value: object, protocol: int) -> None:
    with pytest.raises(InputError, match="is not carried out"):
        load_plain(pickle.dumps({"a": value}, protocol), name="data")


@settings(max_examples=100, deadline=None)
@given(PLAIN, PROTOCOLS, st.data())
def test_a_part_of_a_pickle_is_refused(value: object, protocol: int, data: st.DataObject) -> None:
    whole = pickle.dumps(value, protocol)
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InputError, match="data: is no whole pickle of plain data"):
        load_plain(whole[:length], name="data")


def test_what_follows_the_end_is_refused() -> None:
    with pytest.raises(InputError, match="ended and 3 bytes follow"):
        load_plain(pickle.dumps(1) + b"abc", name="data")


@pytest.mark.parametrize("data", [b"N(\x851.", b"]N(a1.", b"](Na1.", b"}(NNs1.", b"(N.", b"NN.", b"(NN.", b"h\x00."])
def test_what_is_not_there_or_below_a_mark_is_not_taken(data: bytes) -> None:
    with pytest.raises(InputError, match="data: is no whole pickle of plain data"):
        load_plain(data, name="data")


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=60).map(lambda data: data + b".") | st.binary(max_size=60))
# Takes from below a mark; a key that is a list; an odd number of items; appends to a number; a memo never put.
@example(b"N(\x85.")
@example(b"}]Ns.")
@example(b"(Nd.")
@example(b"I1\nNa.")
@example(b"h\x05.")
@example(b"0.")
@example(b"(.")
@example(b"")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        load_plain(data, name="data")
    except InputError as error:
        assert str(error).startswith("data: ")  # noqa: PT017 - both ends are right, no other error is


@settings(max_examples=500, deadline=None)
@given(PLAIN, PROTOCOLS, st.data())
def test_a_damaged_pickle_is_read_or_refused(value: object, protocol: int, data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(value, protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        load_plain(bytes(whole), name="data")
    except InputError as error:
        assert str(error).startswith("data: ")  # noqa: PT017 - both ends are right, no other error is


def test_depth_is_no_danger() -> None:
    # Nested 200,000 deep: a reader that recursed, or hashed tuples, would fall over.
    deep = b"]" * 200_000 + b"a" * 199_999 + b"."
    assert isinstance(load_plain(deep, name="data"), list)
    key = b"}" + b")" + b"\x85" * 200_000 + b"Ns."
    with pytest.raises(InputError, match="key is a tuple"):
        load_plain(key, name="data")

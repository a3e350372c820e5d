"""A bundle whose bytes are not those of the export (``attacked``)."""

from collections.abc import Callable

import pytest
from attacked import EXAMPLES, FILES, Place, outcome, repeat
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("little_memory")


def test_untouched_it_works(place: Place) -> None:
    assert outcome(place) == "works"


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, Callable[[bytes], bytes]]:
    """A file, and what happens to its bytes."""
    name = draw(st.sampled_from(FILES))
    kind = draw(st.sampled_from(["flip", "cut", "extend", "insert", "drop", "empty"]))
    share, extra = draw(st.floats(0, 1, exclude_max=True)), draw(st.binary(min_size=1, max_size=40))

    def damage(content: bytes) -> bytes:
        at = int(share * len(content))
        return {
            "flip": content[:at] + bytes([content[at] ^ (extra[0] or 1)]) + content[at + 1 :],
            "cut": content[:at],
            "extend": content + extra,
            "insert": content[:at] + extra + content[at:],
            "drop": content[:at] + content[at + len(extra) :],
            "empty": b"",
        }[kind]

    return name, damage


@pytest.mark.parametrize("examples", EXAMPLES)
def test_damaged_bytes(examples: int, place: Place) -> None:
    refused: set[str] = set()

    def check(example: tuple[str, Callable[[bytes], bytes]]) -> None:
        name, damage = example
        changed = damage(place.contents[name])
        (place.bundle / name).write_bytes(changed)
        message = outcome(place)
        if name != "manifest.json" and changed != place.contents[name]:
            assert name in message
            refused.add(name)
        (place.bundle / name).write_bytes(place.contents[name])

    repeat(examples, damages(), check)
    assert len(refused) > 2

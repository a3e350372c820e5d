import re
from typing import Any

import pytest

from pocketfleet.errors import InputError
from pocketfleet.training.codec import DEVICE_PARTS, load_codec


def test_a_codec_says_what_it_needs() -> None:
    assert load_codec("lossless").parts == ("lossless",)
    assert load_codec("lossless", {"bits": 0, "ratio": 0.0, "error_feedback": False}).lossless
    codec = load_codec("rotation+top_k+quantised", {"bits": 4, "ratio": 0.1, "error_feedback": True})
    assert codec.parts == ("rotation", "top_k", "quantised", "error_feedback")
    assert codec.options == {"bits": 4, "ratio": 0.1, "error_feedback": True}
    assert (codec.name, codec.lossless, codec.error_feedback) == ("rotation+top_k+quantised", False, True)
    assert set(codec.parts) < set(DEVICE_PARTS)
    # What was not given does not travel.
    assert load_codec("quantised", {"bits": 8, "ratio": 0.0}).options == {"bits": 8}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("zip", {}, 'must be "lossless", or quantised, random_k, rotation, top_k joined by +'),
        ("", {}, 'got ""'),
        ("quantised+", {"bits": 8}, 'got "quantised+"'),
        ("lossless+quantised", {"bits": 8}, "lossless keeps every bit: leave it or the rest out"),
        ("lossless", {"bits": 8}, 'codec.bits says nothing where codec.name is "lossless"'),
        ("lossless", {"error_feedback": True}, "codec.error_feedback says nothing"),
        ("rotation+rotation+quantised", {"bits": 8}, "holds rotation twice"),
        ("top_k+random_k", {"ratio": 0.1}, "each would throw away most of what the other keeps"),
        ("random_k+top_k", {"ratio": 0.1}, "each would throw away most of what the other keeps"),
        ("quantised+random_k", {"bits": 8, "ratio": 0.1}, "quantised must come last"),
        ("rotation", {}, "saves no bytes by itself: put top_k, random_k or quantised behind it"),
        ("random_k+rotation", {"ratio": 0.1}, "ends in rotation"),
        ("quantised", {}, "needs codec.bits: set it, such as to 8"),
        ("random_k", {}, "needs codec.ratio: set it, such as to 0.1"),
        ("quantised", {"bits": 8, "ratio": 0.1}, 'codec.ratio says nothing where codec.name is "quantised"'),
        ("top_k", {"bits": 8, "ratio": 0.1}, 'codec.bits says nothing where codec.name is "top_k"'),
        ("quantised", {"bits": 3}, "codec.bits must be 8, 4 or 2, got 3"),
        ("quantised", {"bits": 8.0}, "codec.bits must be 8, 4 or 2, got 8.0"),
        ("quantised", {"bits": "8"}, "codec.bits must be 8, 4 or 2, got '8'"),
        ("top_k", {"ratio": 1.5}, "codec.ratio must be above 0 and at most 1, got 1.5"),
        ("top_k", {"ratio": -0.5}, "got -0.5"),
        ("top_k", {"ratio": float("nan")}, "got nan"),
        ("top_k", {"ratio": "a"}, "got 'a'"),
        ("top_k", {"ratio": True}, "got True"),
        ("top_k", {"ratio": 0.1, "error_feedback": 1}, "codec.error_feedback must be true or false, got 1"),
        ("top_k", {"ratio": 0.1, "seed": 1}, "codec options are bits, ratio and error_feedback, got seed"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_codec(name, options)

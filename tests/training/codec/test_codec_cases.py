import json

import pytest
from codec_cases import CHAINS, FILE, text

from pocketfleet.training.codec import load_codec
from pocketfleet.training.update import UpdateError, tensors_from_bytes


def test_the_cases_are_those_of_this_code() -> None:
    # Written by codec_cases.py; if a format changes on purpose, write it anew, and the other languages' codecs too.
    assert FILE.read_text() == text()


def test_they_hold_something() -> None:
    found = json.loads(FILE.read_text())
    assert len(found["encodings"]) == 2 * len(CHAINS)
    assert {part for one in found["encodings"] for part in one["codec"].split("+")} == {
        "quantised",
        "rotation",
        "top_k",
        "random_k",
    }
    for one in found["encodings"]:
        if one["update"] == "small":
            assert len(bytes.fromhex(one["body"])) == one["bytes"]


def test_what_is_refused_is_refused_here() -> None:
    from codec_cases import _updates

    found = json.loads(FILE.read_text())["refused"]
    assert len(found) == 6
    for one in found:
        codec, body = load_codec(one["codec"], one["codec_options"]), bytes.fromhex(one["body"])
        tensors_from_bytes(body)
        with pytest.raises(UpdateError):
            codec.decode(body, _updates()["small"], one["codec_seed"])

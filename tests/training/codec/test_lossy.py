import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from updates import lenet_update, small_update, squared

from pocketfleet.errors import InputError
from pocketfleet.training.codec import Seeds, load_codec
from pocketfleet.training.draws import draw_key, uniform
from pocketfleet.training.update import Update, UpdateError, tensors_from_bytes, tensors_to_bytes

SEEDS = Seeds(shared=5, own=6)
CHAINS: list[tuple[str, dict[str, Any]]] = [
    ("quantised", {"bits": 8}),
    ("quantised", {"bits": 2, "error_feedback": True}),
    ("rotation+quantised", {"bits": 4}),
    ("top_k", {"ratio": 0.1}),
    ("top_k+quantised", {"ratio": 0.05, "bits": 4, "error_feedback": True}),
    ("rotation+top_k+quantised", {"ratio": 0.05, "bits": 4}),
    ("top_k+rotation+quantised", {"ratio": 0.3, "bits": 2}),
    ("random_k", {"ratio": 1.0}),
    ("random_k", {"ratio": 0.1, "error_feedback": True}),
    ("random_k+quantised", {"ratio": 0.1, "bits": 8}),
    ("rotation+random_k+quantised", {"ratio": 0.1, "bits": 4, "error_feedback": True}),
    ("random_k+rotation+quantised", {"ratio": 0.1, "bits": 4}),
]


@pytest.mark.parametrize(("name", "options"), CHAINS)
@pytest.mark.parametrize("make", [lenet_update, small_update])
def test_size_is_known_from_shapes_and_the_rest_is_kept_to_the_bit(
    name: str, options: dict[str, Any], make: Callable[[], Update]
) -> None:
    codec, update = load_codec(name, options), make()
    data = codec.encode(update, SEEDS)
    assert len(data) == codec.encoded_bytes(update)
    # Canonical: written again they are the same.
    assert tensors_to_bytes(tensors_from_bytes(data)) == data
    found = codec.decode(data, update, SEEDS.shared)
    assert {name: (value.shape, value.dtype) for name, value in found.delta.items()} == {
        name: (value.shape, value.dtype) for name, value in update.delta.items()
    }
    for group in ("buffers", "extra"):
        kept, sent = getattr(found, group), getattr(update, group)
        assert {name: value.numpy().tobytes() for name, value in kept.items()} == {
            name: value.numpy().tobytes() for name, value in sent.items()
        }
    # The same again, from the same seeds.
    assert codec.encode(update, SEEDS) == data


def test_an_update_of_mnist_takes_1_02_bytes_a_parameter_at_8_bits() -> None:
    update = lenet_update()
    parameters = sum(value.numel() for value in update.delta.values())
    assert parameters == 61_706
    for name in ("quantised", "rotation+quantised"):
        assert load_codec(name, {"bits": 8}).encoded_bytes(update) <= 1.02 * parameters
    # 61,706 codes, 4 bytes for each of 67 blocks (47 of them fc1's), and a header of 8 + 144.
    assert load_codec("quantised", {"bits": 8}).encoded_bytes(update) == 62_126


@pytest.mark.parametrize("name", ["random_k+quantised", "rotation+random_k+quantised", "random_k", "quantised"])
def test_without_error_feedback_the_mean_over_the_seeds_is_the_update(name: str) -> None:
    options = {"bits": 4} if "quantised" in name else {}
    codec, update = load_codec(name, options | ({"ratio": 0.25} if "random_k" in name else {})), small_update()
    draws, total = 600, {name: torch.zeros_like(value, dtype=torch.float64) for name, value in update.delta.items()}
    spread = 0.0
    for draw in range(draws):
        found = codec.decode(codec.encode(update, Seeds(shared=draw, own=draw)), update, draw).delta
        spread += squared(found, update.delta) / draws
        for key, value in found.items():
            total[key] += value.to(torch.float64) / draws
    # The mean's squared distance is a chi-squared sum whose expectation is the spread of one, divided by the draws.
    assert squared(total, {key: value.to(torch.float64) for key, value in update.delta.items()}) < 2 * spread / draws


def test_top_k_is_the_best_of_its_size_and_is_not_unbiased() -> None:
    update = lenet_update()
    largest, drawn = (load_codec(name, {"ratio": 0.05, "error_feedback": True}) for name in ("top_k", "random_k"))
    found = [codec.decode(codec.encode(update, SEEDS), update, 5).delta for codec in (largest, drawn)]
    assert squared(found[0], update.delta) < 0.8 * squared(found[1], update.delta)


def test_rotation_helps_where_one_value_sticks_out() -> None:
    # One value a hundred times the others: with 4 bits, 14 levels, all others are nothing beside it.
    update = Update({"w": torch.ones(4_096)}, {})
    update.delta["w"][7] = 100.0
    alone, rotated = (
        squared(codec.decode(codec.encode(update, SEEDS), update, 5).delta, update.delta)
        for codec in (load_codec(name, {"bits": 4}) for name in ("quantised", "rotation+quantised"))
    )
    # Alone, each of the 1,023 ones in its block is 0 or 14.3: a variance of 13.3.
    assert alone > 1_023 * 10
    assert rotated < alone / 10


def test_another_shared_seed_decodes_something_else() -> None:
    codec, update = load_codec("rotation+quantised", {"bits": 8}), lenet_update()
    found = codec.decode(codec.encode(update, SEEDS), update, SEEDS.shared + 1)
    assert squared(found.delta, update.delta) > squared(update.delta)


def _with(data: bytes, **changed: torch.Tensor) -> bytes:
    return tensors_to_bytes(tensors_from_bytes(data) | {f"delta/{name}": value for name, value in changed.items()})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"codes": torch.full((63,), 255, dtype=torch.uint8)}, "codes of 4 bits must be 0..14, got 15"),
        ({"codes": torch.zeros(62, dtype=torch.uint8)}, "shape (63,)"),
        ({"codes": torch.zeros(63, dtype=torch.int8)}, "torch.uint8 of shape"),
        ({"steps": torch.full((1,), float("nan"))}, "steps of quantisation must be finite"),
        ({"steps": torch.full((1,), -1.0)}, "0 or more"),
        ({"places": torch.zeros(126, dtype=torch.uint8)}, "must rise and be under 256"),
        ({"more": torch.zeros(1)}, "has an unknown tensor 'delta/more'"),
    ],
)
def test_bad_bytes_are_refused(changed: dict[str, torch.Tensor], message: str) -> None:
    codec, update = load_codec("rotation+top_k+quantised", {"ratio": 0.49, "bits": 4}), small_update()
    # 219 values are padded to 256, of which 126 are kept: a code is half a byte, a place one.
    data = codec.encode(update, SEEDS)
    with pytest.raises(UpdateError, match=re.escape(message)):
        codec.decode(_with(data, **changed), update, SEEDS.shared)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(CHAINS))
def test_bytes_changed_anywhere_are_refused_or_another_update(
    data: st.DataObject, chain: tuple[str, dict[str, Any]]
) -> None:
    codec, update = load_codec(*chain), small_update()
    body = bytearray(codec.encode(update, SEEDS))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.sampled_from([len(body), len(body) - 1, place]))
    try:
        found = codec.decode(bytes(body[:cut]), update, SEEDS.shared)
    except UpdateError:
        return
    assert cut == len(body)
    assert found.delta.keys() == update.delta.keys()


def test_only_float32_weights_are_encoded() -> None:
    codec = load_codec("quantised", {"bits": 8})
    codec.check(small_update())
    with pytest.raises(InputError, match=re.escape("weight 'w' is float64, and only float32 is encoded")):
        codec.check(Update({"w": torch.zeros(2, dtype=torch.float64)}, {}))


@given(st.integers(1, 3_000), st.sampled_from([c for c in CHAINS if not c[1].get("error_feedback")]))
@settings(max_examples=40, deadline=None)
def test_any_length_comes_back(length: int, chain: tuple[str, dict[str, Any]]) -> None:
    values = uniform(draw_key(length, "test_values"), length).astype(np.float32)
    update = Update({"w": torch.from_numpy(values)}, {})
    codec = load_codec(*chain)
    found = codec.decode(codec.encode(update, SEEDS), update, SEEDS.shared)
    assert len(codec.encode(update, SEEDS)) == codec.encoded_bytes(update)
    assert found.delta["w"].shape == (length,)
    assert found.finite

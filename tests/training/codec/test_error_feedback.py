from typing import Any

import pytest
import torch
from updates import lenet_update, small_update, squared

from pocketfleet.training.codec import Seeds, load_codec
from pocketfleet.training.codec.error_feedback import (
    compensated,
    first_residual,
    parted_state,
    residual_after,
    state_with,
)


def test_without_it_there_is_no_residual() -> None:
    update = small_update()
    assert first_residual(load_codec("quantised", {"bits": 8}), update) == {}
    assert compensated(update, {}) is update


def test_it_is_kept_apart_from_the_algorithms_state() -> None:
    state, residual = {"w": torch.ones(1)}, {"w": torch.zeros(1)}
    assert parted_state(state_with(state, residual)) == (state, residual)
    assert parted_state({}) == ({}, {})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("quantised", {"bits": 2}),
        ("top_k", {"ratio": 0.05}),
        ("random_k", {"ratio": 0.05}),
        ("rotation+random_k+quantised", {"ratio": 0.1, "bits": 2}),
        ("top_k+rotation+quantised", {"ratio": 0.1, "bits": 2}),
    ],
)
def test_what_is_left_out_is_sent_in_the_end(name: str, options: dict[str, Any]) -> None:
    codec, update = load_codec(name, options | {"error_feedback": True}), lenet_update()
    residual, told = (
        first_residual(codec, update),
        {key: torch.zeros_like(value) for key, value in update.delta.items()},
    )
    rounds, left = 200, []
    for number in range(rounds):
        wanted = compensated(update, residual)
        sent = codec.decode(codec.encode(wanted, Seeds(shared=number, own=0)), update, number)
        residual = residual_after(wanted, sent)
        told = {key: value + sent.delta[key] for key, value in told.items()}
        left.append(squared(residual) / squared(update.delta))
    # All that was learnt was told, but for the residual; float32 sums of 200.
    whole = {key: rounds * value for key, value in update.delta.items()}
    assert squared({key: told[key] + residual[key] for key in told}, whole) < 1e-9 * squared(whole)
    # Which does not grow without end: by Karimireddy et al. 2019, lemma 3, it is 4 (1 - d) / d ** 2 at most with a
    # contraction of d, some 0.05 for one value in twenty: 1,520 squared deltas. It has settled long before.
    assert left[-1] < 1_520
    assert left[-1] < 1.2 * max(left[: rounds // 2])

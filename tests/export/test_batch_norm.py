"""Batch norm by planes against PyTorch's own, in float64, and how many digits it keeps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import drawn

from pocketfleet.export.batch_norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_functional,
    batch_norm_without_statistics,
)

aten = torch.ops.aten
RATE, EPS = 0.1, 1e-5

shapes = st.sampled_from([(4, 3), (2, 3, 1), (4, 3, 5), (1, 3, 4, 6), (3, 2, 5, 4), (2, 3, 2, 3, 2)])


@given(shape=shapes, training=st.booleans(), affine=st.booleans(), wanted=st.tuples(*[st.booleans()] * 3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_output_statistics_and_gradients(
    shape: tuple[int, ...], training: bool, affine: bool, wanted: tuple[bool, bool, bool]
) -> None:
    x, grad, channels = drawn(*shape).double(), drawn(*shape, seed=1).double(), shape[1]
    weight, bias = (drawn(channels, seed=seed).double() if affine else None for seed in (2, 3))
    running = (drawn(channels, seed=4).double(), drawn(channels, seed=5).double().square() + 0.5)
    rest = (training, RATE, EPS)
    expected = aten._native_batch_norm_legit_functional(x, weight, bias, *running, *rest)
    for found, true in zip(batch_norm_functional(x, weight, bias, *running, *rest), expected, strict=True):
        torch.testing.assert_close(found, true)

    changed = tuple(value.clone() for value in running)
    torch.testing.assert_close(batch_norm(x, weight, bias, *changed, *rest)[0], expected[0])
    torch.testing.assert_close(changed, expected[3:] if training else running)

    arguments = (grad, x, weight, *running, *expected[1:3], training, EPS)
    found = batch_norm_backward(*arguments, list(wanted))
    for one, true, is_wanted in zip(
        found, aten.native_batch_norm_backward(*arguments, [True] * 3), wanted, strict=True
    ):
        if is_wanted:
            torch.testing.assert_close(one, true)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5)])
def test_no_statistics_to_keep(shape: tuple[int, ...]) -> None:
    x = drawn(*shape).double()
    expected = aten._native_batch_norm_legit.no_stats(x, None, None, True, RATE, EPS)
    for found in (
        batch_norm_without_statistics(x, None, None, True, RATE, EPS),
        batch_norm(x, None, None, None, None, True, RATE, EPS),
    ):
        for one, true in zip(found, expected, strict=True):
            torch.testing.assert_close(one, true)

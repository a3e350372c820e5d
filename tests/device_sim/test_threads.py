import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.phone import Phone, find_phone, load_phones
from pocketfleet.device_sim.threads import compute_watts, core_count, peak_flops
from pocketfleet.errors import InputError

phones = st.sampled_from(load_phones())


@given(phones)
def test_the_ends_are_the_tables_figures(phone: Phone) -> None:
    cores = core_count(phone)
    assert float(peak_flops(phone, 1)) == phone.peak_flops_one_thread
    assert float(peak_flops(phone, cores)) == pytest.approx(phone.peak_flops_all_cores)
    assert float(compute_watts(phone, 1)) == phone.compute_watts
    assert float(compute_watts(phone, cores)) == pytest.approx(phone.compute_watts_all_cores)


@given(phones)
def test_each_further_thread_adds_less_or_as_much(phone: Phone) -> None:
    cores = core_count(phone)
    for curve in (peak_flops(phone, np.arange(1, cores + 1)), compute_watts(phone, np.arange(1, cores + 1))):
        added = np.diff(curve)
        assert np.all(added > 0)
        # Fastest cores first.
        assert np.all(np.diff(added) <= 1e-9 * curve[-1])


@given(phones, st.integers(1, 64))
def test_threads_beyond_the_cores_add_nothing(phone: Phone, threads: int) -> None:
    assert float(peak_flops(phone, threads)) <= phone.peak_flops_all_cores * (1 + 1e-12)
    assert float(peak_flops(phone, core_count(phone) + threads)) == float(peak_flops(phone, core_count(phone)))


@given(phones)
def test_all_cores_are_at_most_as_many_times_one(phone: Phone) -> None:
    cores = core_count(phone)
    # A measured all-core peak may exceed its thread's by what the measurement scatters.
    assert float(peak_flops(phone, cores)) <= 1.01 * cores * phone.peak_flops_one_thread


def test_eight_threads_of_a_pixel_8_are_not_eight_times_one() -> None:
    pixel = find_phone("Pixel 8")
    # Three of the eight are on cores of 15.3 GFLOP/s, beside one of 69.8 and four of 37.7.
    assert float(peak_flops(pixel, 8)) < 0.5 * 8 * float(peak_flops(pixel, 1))


def test_two_threads_of_a_pixel_8_by_hand() -> None:
    pixel = find_phone("Pixel 8")
    # Cores' peaks: 24 x 2.914 = 69.936; 16 x 2.367 = 37.872, four times; 9 x 1.704 = 15.336, four times: 282.768 in
    # all. The second thread runs at 37.872 of the 212.832 beside the first, of which the table has 281.873 - 69.775.
    expected = 69.775 + (281.873 - 69.775) * 37.872 / 212.832
    assert float(peak_flops(pixel, 2)) / 1e9 == pytest.approx(expected, rel=1e-9)


def test_any_shape_of_threads() -> None:
    pixel = find_phone("Pixel 8")
    threads = np.array([[1, 2, 9], [4, 9, 100]])
    many = peak_flops(pixel, threads)
    assert many.shape == threads.shape
    one_by_one = [[float(peak_flops(pixel, int(each))) for each in row] for row in threads]
    np.testing.assert_array_equal(many, one_by_one)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_thread_computes_nothing(threads: int) -> None:
    with pytest.raises(InputError, match=f"threads must be 1 or more, got {threads}"):
        peak_flops(find_phone("Pixel 8"), threads)

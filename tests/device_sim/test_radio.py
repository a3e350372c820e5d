import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.radio import WIFI, load_radios, radio_names, tail_joules, transfer_joules

LTE = radio_names().index("lte")


def one(value: float) -> np.ndarray:
    return np.array([value])


def test_wifi_is_the_first_radio_and_all_others_are_cellular() -> None:
    assert radio_names() == ("wifi", "3g", "lte", "5g-low", "5g-mmwave")
    assert WIFI == 0


def test_an_upload_over_lte_by_hand() -> None:
    # 10 MB in 5 s, 0.27 s of them to wake up: 0.27 s x 1.2 W, then 4.73 s x 0.6 W of the phone's modem, and 76.68 mW a
    # Mbit/s, which are 0.61344e-6 J a byte (0.6134e-6 in the table): 0.324 + 2.838 + 6.134 = 9.296 J.
    joules = transfer_joules(
        radio=np.array([LTE], dtype=np.int8),
        spent_s=one(5.0),
        wake_s=one(0.27),
        on_watts=one(0.6),
        moved_bytes=one(10e6),
        joules_per_byte=load_radios().transmit_joules_per_byte[[LTE]],
    )
    assert joules[0] == pytest.approx(9.296, abs=0.001)
    # 10 s of tail at 178 mW, or until 4 s later the next transfer begins.
    tail = tail_joules(np.array([LTE, LTE], dtype=np.int8), np.array([np.inf, 4.0]))
    assert tail == pytest.approx([1.78, 0.712])


def test_the_slopes_are_those_of_power_over_rate() -> None:
    # mW per Mbit/s of MN-Transfer_combined.csv, over 125,000 bytes a second.
    radios, milliwatts = load_radios(), {"lte": (11.54, 76.68), "5g-low": (11.54, 32.17), "5g-mmwave": (1.73, 8.88)}
    for name, slopes in milliwatts.items():
        row = radio_names().index(name)
        found = radios.receive_joules_per_byte[row], radios.transmit_joules_per_byte[row]
        assert found == pytest.approx([slope * 1e-3 / 125_000 for slope in slopes], rel=0.005), name


def test_the_tail_of_3g_is_that_of_its_two_states() -> None:
    # 5 s at 260 mA and 30 s at 150 mA, both above 60 mA, at 3.7 V: 5 x 0.74 + 30 x 0.333 = 13.69 J.
    tail = tail_joules(np.array([radio_names().index("3g")], dtype=np.int8), one(np.inf))
    assert tail[0] == pytest.approx(5 * 0.2 * 3.7 + 30 * 0.09 * 3.7, rel=0.001)


@given(radio=st.integers(0, 4), spent_s=st.floats(0.0, 100.0), moved_bytes=st.floats(0.0, 1e9))
def test_a_transfer_cut_short_while_waking_up_costs_waking_up_alone(
    radio: int, spent_s: float, moved_bytes: float
) -> None:
    radios = load_radios()
    wake_s = radios.wake_s[[radio]]
    joules = transfer_joules(
        radio=np.array([radio], dtype=np.int8),
        spent_s=one(spent_s),
        wake_s=wake_s,
        on_watts=one(0.5),
        moved_bytes=one(moved_bytes),
        joules_per_byte=one(1e-7),
    )[0]
    waking = radios.wake_watts[radio] * min(spent_s, wake_s[0])
    assert joules == pytest.approx(waking + 0.5 * max(spent_s - wake_s[0], 0.0) + 1e-7 * moved_bytes)

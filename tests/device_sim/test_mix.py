from pathlib import Path

import pytest

from pocketfleet.device_sim.mix import load_mix
from pocketfleet.device_sim.phone import find_phone
from pocketfleet.errors import InputError


def test_the_packaged_mix_spreads_like_measured_phones() -> None:
    weights = load_mix("global-2024")
    by_speed = sorted(weights, key=lambda name: find_phone(name).peak_flops_one_thread)
    total = sum(weights.values())

    def quantile(share: float) -> float:
        reached = 0.0
        for name in by_speed:
            reached += weights[name] / total
            if reached >= share:
                return find_phone(name).peak_flops_one_thread
        raise AssertionError(share)

    # AI Benchmark's CPU speeds of 333 phones have p95/p5 = 8.2 with 2 GB or more (unweighted); half to once of it.
    assert 4.1 <= quantile(0.95) / quantile(0.05) <= 8.2


def test_a_user_mix_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "mix.csv"
    path.write_text("phone,weight\nPixel 8,3\nPixel 3,1\n")
    assert load_mix(path) == {"Pixel 8": 3.0, "Pixel 3": 1.0}
    assert load_mix(str(path)) == {"Pixel 8": 3.0, "Pixel 3": 1.0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("Pixel 88,1", "row 2, column phone: there is no phone 'Pixel 88'"),
        ("Pixel 8,-1", "row 2, column weight: must be a number more than 0, got '-1'"),
        ("Pixel 8,1\nPixel 8,1", "row 3, column phone: 'Pixel 8' is there twice"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "mix.csv"
    path.write_text(f"phone,weight\n{rows}\n")
    with pytest.raises(InputError, match=message):
        load_mix(path)


def test_an_unknown_mix_is_told_the_names() -> None:
    with pytest.raises(
        InputError, match=r"fleet\.mix must be one of global-2024 or the path of a CSV file, got 'mars'"
    ):
        load_mix("mars")

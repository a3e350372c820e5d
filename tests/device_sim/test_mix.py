import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.catalog import packaged_rows
from pocketfleet.device_sim.mix import load_mix, mix_names, weighted_quantile
from pocketfleet.device_sim.phone import find_phone
from pocketfleet.errors import InputError


def peaks(mix: str) -> tuple[list[float], list[float]]:
    weights = load_mix(mix)
    return [find_phone(name).peak_flops_one_thread for name in weights], list(weights.values())


def test_the_packaged_mix_spreads_like_measured_phones() -> None:
    values, weights = peaks("global-2024")
    ratio = weighted_quantile(values, weights, 0.95) / weighted_quantile(values, weights, 0.05)
    # AI Benchmark's CPU speeds of 333 phones have p95/p5 = 8.2 with 2 GB or more (unweighted); half to once of it.
    assert 4.1 <= ratio <= 8.2


@pytest.mark.parametrize("mix", mix_names())
def test_a_mix_spreads_and_its_spread_rests_on_no_estimate(mix: str) -> None:
    values, weights = peaks(mix)
    low, high = (weighted_quantile(values, weights, probability) for probability in (0.05, 0.95))
    assert high / low > 3.0
    confidence = {
        row.text("name"): row.text("peak_gflops_one_thread_confidence") for row in packaged_rows("phones.csv")
    }
    ends = [name for name in load_mix(mix) if find_phone(name).peak_flops_one_thread in (low, high)]
    assert len(ends) >= 2
    assert "estimated" not in {confidence[name] for name in ends}


def test_at_least_three_markets_or_years() -> None:
    assert mix_names() == ("global-2024", "europe-2020", "india-2024")


def test_phones_of_a_mix_are_not_newer_than_it() -> None:
    for mix in mix_names():
        assert max(find_phone(name).year for name in load_mix(mix)) <= int(mix[-4:]), mix


def test_a_brands_phones_share_its_published_weight() -> None:
    shares: dict[tuple[str, str], float] = {}
    for row in packaged_rows("mixes.csv"):
        source = row.text("source")
        if source.startswith("assumed: "):
            continue
        published = re.match(r"[\w-]+: (?P<brand>.+) (?P<percent>[\d.]+) %, ", source)
        assert published, source
        key = (row.text("mix"), f"{published['brand']} {published['percent']}")
        shares[key] = shares.get(key, 0.0) + row.number("weight")
    # Samsung, Apple, Xiaomi, Huawei and the others; Xiaomi, Samsung, three more of India's, Apple and the others.
    assert len(shares) == 10
    for (mix, brand), weight in shares.items():
        assert weight == pytest.approx(float(brand.split()[-1])), (mix, brand)


@given(
    st.lists(st.tuples(st.floats(1, 100), st.floats(0.1, 10)), min_size=1, max_size=20),
    st.floats(0, 1),
)
def test_a_weighted_quantile_has_its_weight_below(pairs: list[tuple[float, float]], probability: float) -> None:
    values, weights = [value for value, _ in pairs], [weight for _, weight in pairs]
    quantile = weighted_quantile(values, weights, probability)
    assert quantile in values
    below = sum(weight for value, weight in pairs if value < quantile)
    up_to = sum(weight for value, weight in pairs if value <= quantile)
    assert below <= probability * sum(weights) * (1 + 1e-9) + 1e-9
    assert up_to >= probability * sum(weights) * (1 - 1e-9)


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
        InputError,
        match=r"fleet\.mix must be one of global-2024, europe-2020, india-2024 or the path of a CSV file, got 'mars'",
    ):
        load_mix("mars")

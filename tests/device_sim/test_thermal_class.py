import pytest

from pocketfleet.device_sim.catalog import packaged_rows
from pocketfleet.device_sim.phone import load_phones
from pocketfleet.device_sim.thermal_class import load_thermal_classes


def test_a_larger_case_sheds_more() -> None:
    small, mid, large = load_thermal_classes()
    assert (small.name, mid.name, large.name) == ("small", "mid", "large")
    assert small.sustained_watts < mid.sustained_watts < large.sustained_watts


def test_sustained_watts_hold_the_skin_at_its_limit() -> None:
    for each in load_thermal_classes():
        # 43 degrees of skin in a room of 25.
        assert 25 + each.sustained_watts * each.skin_kelvin_per_watt == pytest.approx(43)
        # A first-order skin consistent with a Pixel 8's thermal policy: 5 to 8 K/W, minutes.
        assert 5 <= each.skin_kelvin_per_watt <= 8
        assert 120 <= each.time_constant_s <= 1800


def test_a_phones_class_is_that_of_its_surface() -> None:
    bounds = {"small": (0, 240), "mid": (240, 270), "large": (270, 400)}
    for row in packaged_rows("phones.csv"):
        surface_cm2 = float(row.text("thermal_class_source").split("a surface of ")[1].split(" cm2")[0])
        lowest, highest = bounds[row.text("thermal_class")]
        # The source tells whole square centimetres.
        assert lowest - 0.5 <= surface_cm2 <= highest + 0.5, row.text("name")
    assert {phone.thermal_class for phone in load_phones()} == set(bounds)

import csv
import importlib.resources
from pathlib import Path

import pytest

from pocketfleet.device_sim.phone import FIGURES, find_phone, load_phones
from pocketfleet.errors import InputError


def table(tmp_path: Path, **changes: str) -> Path:
    """The packaged catalogue's first row, alone in a user's file, with some cells changed."""
    text = (importlib.resources.files("pocketfleet.device_sim.catalog") / "phones.csv").read_text()
    first = next(csv.DictReader(text.splitlines()))
    path = tmp_path / "phones.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(first))
        writer.writeheader()
        writer.writerow({**first, **changes})
    return path


def test_the_catalogue_spans_years_makers_and_speeds() -> None:
    phones = load_phones()
    assert len(phones) >= 14
    assert min(phone.year for phone in phones) == 2016
    assert max(phone.year for phone in phones) == 2024
    for maker in ("Snapdragon", "Tensor", "Exynos", "Helio", "Apple"):
        assert any(phone.soc.startswith(maker) for phone in phones), maker


def test_figures_are_in_base_units() -> None:
    phone = find_phone("Pixel 8")
    # 69.775 GFLOP/s of one thread and 281.873 of all cores: hiroog/vfpbench, Tensor G3 in a Pixel 8.
    assert phone.peak_flops_one_thread == pytest.approx(69.775e9)
    assert phone.peak_flops_all_cores == pytest.approx(281.873e9)
    # 8 GiB.
    assert phone.ram_bytes == 8 * 2**30
    # 4575 mAh x 3.85 V = 17.614 Wh = 63,410 J; the table rounds to 0.01 Wh.
    assert phone.battery_joules == pytest.approx(4.575 * 3.85 * 3600, rel=1e-3)
    # Transmitting 550 mA x 3.85 V = 2.1175 W, rounded to 0.01 W.
    assert phone.transmit_watts == pytest.approx(2.1175, abs=0.005)


def test_one_thread_never_draws_more_than_all_cores() -> None:
    for phone in load_phones():
        assert phone.compute_watts < phone.compute_watts_all_cores, phone.name


def test_an_estimated_figure_names_its_rule() -> None:
    text = (importlib.resources.files("pocketfleet.device_sim.catalog") / "phones.csv").read_text()
    estimated = [
        row[f"{figure}_source"]
        for row in csv.DictReader(text.splitlines())
        for figure in FIGURES
        if row[f"{figure}_confidence"] == "estimated"
    ]
    assert estimated
    assert all(source.startswith("rule: ") for source in estimated)


def test_close_names_are_suggested() -> None:
    with pytest.raises(InputError, match="no phone 'pixel8' in the catalogue; close names: Pixel 8"):
        find_phone("pixel8")
    with pytest.raises(InputError, match="its names: ZenFone 3 Max"):
        find_phone("Nokia 3310")


def test_a_user_table_is_read_like_the_packaged_one(tmp_path: Path) -> None:
    (phone,) = load_phones(table(tmp_path, name="Mine", cpu_watts="1.5"))
    assert phone.name == "Mine"
    assert phone.compute_watts == 1.5
    assert find_phone("Mine", (phone,)) is phone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu_watts": "hot"}, "row 2, column cpu_watts: must be a number more than 0, got 'hot'"),
        ({"battery_wh_source": ""}, "row 2, column battery_wh_source: is empty"),
        ({"ram_gb_confidence": "certain"}, "row 2, column ram_gb_confidence: must be one of measured, read"),
        ({"peak_gflops_all_cores": "1"}, "row 2, column peak_gflops_all_cores: must not be under"),
        ({"free_ram_gb": "900"}, "row 2, column free_ram_gb: must not be over ram_gb"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_phones(table(tmp_path, **changes))


def test_a_name_is_unique(tmp_path: Path) -> None:
    path = table(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(InputError, match="row 3, column name: 'ZenFone 3 Max' is there twice"):
        load_phones(path)

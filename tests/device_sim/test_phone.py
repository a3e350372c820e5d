import csv
import importlib.resources
from pathlib import Path

import pytest

from pocketfleet.device_sim.fleet import build_fleet
from pocketfleet.device_sim.phone import find_phone, load_catalogue, load_phones
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
    assert len(phones) >= 40
    assert {phone.year for phone in phones} == set(range(2016, 2026))
    for maker in ("Snapdragon", "Tensor", "Exynos", "Helio", "Kirin", "Apple"):
        assert any(phone.soc.startswith(maker) for phone in phones), maker
    peaks = [phone.peak_flops_one_thread for phone in phones]
    # From a Cortex-A53 at 1.4 GHz (7.8 operations a cycle) to a Cortex-X4 at 3.8 GHz (24).
    assert min(peaks) == pytest.approx(1.4e9 * 7.8, rel=0.01)
    assert max(peaks) == pytest.approx(3.782e9 * 24, rel=0.01)


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
    # The modem at 3.7 V: 145 mA receiving; sending, the mean of 153, 212, 292, 359 and 471 mA is 297.4 mA.
    assert phone.modem_receive_watts == pytest.approx(0.145 * 3.7, abs=0.005)
    assert phone.modem_transmit_watts == pytest.approx(0.2974 * 3.7, abs=0.005)
    # 128 GB; storage is sold in 10**9 bytes.
    assert phone.storage_bytes == 128e9
    # Attained: half of 8533 Mbit/s x 64 bit = 68.3 GB/s; of a charger of 27 W 0.6 as a mean.
    assert phone.memory_bytes_per_s == pytest.approx(0.5 * 68.3e9)
    assert phone.charger_watts == pytest.approx(0.6 * 27)
    # 150.5 x 70.8 x 8.9 mm have a surface of 2 (150.5 x 70.8 + 150.5 x 8.9 + 70.8 x 8.9) mm2 = 252 cm2.
    assert phone.thermal_class == "mid"


def test_one_thread_never_draws_more_than_all_cores() -> None:
    for phone in load_phones():
        assert phone.compute_watts < phone.compute_watts_all_cores, phone.name


def test_clusters_add_up_to_the_peak_of_all_cores() -> None:
    # Clusters' peaks are clocks times operations a cycle; the phone's are measured where somebody did.
    for phone in load_phones():
        total = sum(cluster.cores * cluster.peak_flops_one_thread for cluster in phone.clusters)
        assert 0.7 <= total / phone.peak_flops_all_cores <= 1.3, phone.name


def test_one_thread_is_not_faster_than_the_fastest_core() -> None:
    for phone in load_phones():
        # A kind's operations a cycle differ by some percent between chips: 22 of a Cortex-X4 here, 24 there.
        assert phone.peak_flops_one_thread <= 1.1 * phone.clusters[-1].peak_flops_one_thread, phone.name


def test_free_memory_leaves_something_to_the_system() -> None:
    for phone in load_phones():
        assert 0.2 * phone.ram_bytes <= phone.free_memory_bytes <= 0.6 * phone.ram_bytes, phone.name


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


def test_own_phones_replace_and_extend_the_catalogue(tmp_path: Path) -> None:
    packaged = load_phones()
    replaced = load_catalogue(table(tmp_path, name="Pixel 8", cpu_watts="0.5"))
    assert [phone.name for phone in replaced] == [phone.name for phone in packaged]
    assert find_phone("Pixel 8", replaced).compute_watts == 0.5
    extended = load_catalogue(table(tmp_path, name="Mine"))
    assert extended[:-1] == packaged
    assert extended[-1].name == "Mine"
    assert load_catalogue() == packaged


def test_a_fleet_may_have_phones_of_its_own(tmp_path: Path) -> None:
    own = table(tmp_path, name="Mine", peak_gflops_one_thread="20", modem_tx_watts="3", thermal_class="large")
    fleet = build_fleet(devices=2, seed=1, catalogue=own, phones=("Mine", "Pixel 8"), network="lte-2021")
    assert fleet.phone_name == ("Mine", "Pixel 8")
    assert load_catalogue(own)[fleet.phone[0]].name == "Mine"
    assert fleet.transmit_watts[0] == 3.0
    # small, mid, large: the classes' order.
    assert fleet.thermal_class.tolist() == [2, 1]
    mix = tmp_path / "mix.csv"
    mix.write_text("phone,weight\nMine,1\n")
    drawn = build_fleet(devices=3, seed=1, catalogue=own, mix=mix)
    assert set(drawn.phone_name) == {"Mine"}
    with pytest.raises(InputError, match="there is no phone 'Mine' in the catalogue"):
        build_fleet(devices=1, seed=1, mix=mix)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu_watts": "hot"}, "row 2, column cpu_watts: must be a number more than 0, got 'hot'"),
        ({"battery_wh_source": ""}, "row 2, column battery_wh_source: is empty"),
        ({"ram_gb_confidence": "certain"}, "row 2, column ram_gb_confidence: must be one of measured, read"),
        ({"clusters": "4x?@1"}, "row 2, column clusters: must be cores x kind @ GHz"),
        ({"thermal_class": "huge"}, "row 2, column thermal_class: must be one of small, mid, large, got 'huge'"),
        ({"cpu_watts": "99"}, r"row 2, column cpu_watts: must not be over cpu_watts_all_cores \(.*\), got 99"),
        (
            {"peak_gflops_all_cores": "1"},
            "row 2, column peak_gflops_one_thread: must not be over peak_gflops_all_cores",
        ),
        ({"free_ram_gb": "900"}, r"row 2, column free_ram_gb: must not be over ram_gb \(3\), got 900"),
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

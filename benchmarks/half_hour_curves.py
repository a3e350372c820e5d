"""Half an hour of training on three classes of phones: skin, CPU, speed and battery, drawn with the published limits.

Each phone is on its charger, at 60 % of its battery, and cool; once it trains on one thread and once on all cores. The
curves come from what simulates a fleet (``device_sim.exertion``), read off at 181 times. It fails unless the skins stay
between the room and the limit at which training stops, and unless all cores are held back somewhere.

Usage: python benchmarks/half_hour_curves.py [--room 25] [--plot docs/heat.png]
"""

import argparse
from pathlib import Path

import numpy as np

from pocketfleet.device_sim.availability import AlwaysAvailable
from pocketfleet.device_sim.battery import Battery
from pocketfleet.device_sim.exertion import Exertion
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.device_sim.flight import no_flights
from pocketfleet.device_sim.phone import find_phone
from pocketfleet.device_sim.thermal_policy import CHARGE_CELSIUS, CPU_CELSIUS, STOP_CELSIUS
from pocketfleet.device_sim.threads import compute_watts, core_count

HALF_HOUR_S = 1800.0
TIMES = 181
# One of each class of cases.
PHONES = {"Pixel 5": "small", "Pixel 8": "mid", "OnePlus 11": "large"}
COLOURS = ("#0072b2", "#d55e00", "#009e73")
# The budgets' ranges in the policy that thermal_policy.py cites: at 43 degrees 1.2 to 2.4 W, at 45 0.2 to 1.6 W.
BUDGET_WATTS = {"43 °C: 1.2 to 2.4 W": (1.2, 2.4), "45 °C: 0.2 to 1.6 W": (0.2, 1.6)}
# Zhang et al., "A smartphone thermal temperature analysis for virtual and augmented reality": after 20 minutes of a
# streamed 360 degree video the surface of a phone is "near 39 C".
PUBLISHED_MINUTES, PUBLISHED_CELSIUS = 20.0, 39.0
Curves = dict[str, np.ndarray]


def half_hour(threads: str, *, room_celsius: float) -> Curves:
    """Columns ``[times, phones]`` of one load."""
    count = len(PHONES)
    ready = DeviceOverride(devices="all", battery_ratio=0.6)
    fleet = build_fleet(devices=count, seed=1, phones=list(PHONES), overrides=[ready])
    for number, name in enumerate(PHONES):
        phone = find_phone(name)
        fleet.compute_watts[number] = compute_watts(phone, core_count(phone) if threads == "all cores" else 1)
    battery = Battery.of_fleet(fleet, room_celsius=room_celsius)
    device, zero = np.arange(count), np.zeros(count)
    day = AlwaysAvailable().changes(device, zero, HALF_HOUR_S)
    exertion = Exertion(
        fleet=fleet,
        battery=battery,
        charging=np.ones(count, dtype=np.bool_),
        device=device,
        level_joules=battery.level_joules,
        skin_celsius=battery.skin_celsius,
        receive_watts=fleet.receive_watts,
    )
    half_hour_s = np.full(count, HALF_HOUR_S)
    course = exertion.course(download_s=zero, work_s=half_hour_s, until_s=half_hour_s)
    assert course is not None
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("celsius", "watts", "speed", "battery")}
    for time_s in np.linspace(0.0, HALF_HOUR_S, TIMES):
        now_s, soon_s = np.full(count, time_s), np.full(count, time_s + 1.0)
        flights = no_flights(count, end_s=now_s, train_s=now_s, train_joules=course.joules(now_s))
        rows["celsius"].append(course.celsius(now_s))
        rows["watts"].append(course.joules(soon_s) - course.joules(now_s))
        rows["speed"].append(course.work_s(soon_s) - course.work_s(now_s))
        rows["battery"].append(
            exertion.after(flights, course, day, transmit_watts=fleet.transmit_watts)[0] / fleet.battery_capacity_joules
        )
    return {name: np.stack(values) for name, values in rows.items()}


def plot(loads: dict[str, Curves], file: Path) -> None:
    """Four panels; all cores drawn through, one thread dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = dict(zip(("celsius", "watts", "speed", "battery"), figure.subplots(2, 2).flat, strict=True))
    minutes = np.linspace(0.0, HALF_HOUR_S / 60.0, TIMES)
    for load, style in (("all cores", "-"), ("one thread", "--")):
        for number, (name, size) in enumerate(PHONES.items()):
            for key, axis in axes.items():
                label = f"{name} ({size}), {load}" if key == "celsius" else None
                axis.plot(minutes, loads[load][key][:, number], style, color=COLOURS[number], label=label)
    for celsius, word in ((CHARGE_CELSIUS, "charger held"), *((each, "CPU budget") for each in CPU_CELSIUS)):
        axes["celsius"].axhline(celsius, color="grey", linewidth=0.8, linestyle=":")
        axes["celsius"].text(0.3, celsius + 0.1, f"{celsius:g} °C: {word}", fontsize=7, color="grey")
    axes["celsius"].axhline(STOP_CELSIUS, color="black", linewidth=0.8, linestyle=":")
    axes["celsius"].text(0.3, STOP_CELSIUS + 0.1, f"{STOP_CELSIUS:g} °C: training stops", fontsize=7)
    axes["celsius"].plot(
        PUBLISHED_MINUTES, PUBLISHED_CELSIUS, "k*", label="published: 20 min of streamed VR video", markersize=9
    )
    for (label, (low, high)), shade in zip(BUDGET_WATTS.items(), ("#cccccc", "#eeeeee"), strict=True):
        axes["watts"].axhspan(low, high, color=shade, label=f"published budget at {label}", zorder=0)
    for key, title in {
        "celsius": "skin, °C",
        "watts": "CPU, W",
        "speed": "speed over full speed",
        "battery": "battery, share",
    }.items():
        axes[key].set_ylabel(title)
        axes[key].set_xlabel("minutes of training")
        axes[key].grid(alpha=0.3)
    axes["celsius"].legend(fontsize=6.5, loc="lower right")
    axes["watts"].legend(fontsize=6.5, loc="upper right")
    axes["speed"].set_ylim(0.0, 1.05)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Print a row a phone and load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", type=float, default=25.0, help="degrees")
    parser.add_argument("--plot", type=Path, help="draw the curves into this PNG")
    arguments = parser.parse_args()
    loads = {load: half_hour(load, room_celsius=arguments.room) for load in ("one thread", "all cores")}
    for load, curves in loads.items():
        if not (arguments.room <= curves["celsius"].min() and curves["celsius"].max() <= STOP_CELSIUS):
            raise AssertionError(f"{load}: a skin of {curves['celsius'].max():.1f} degrees")
        for number, (name, size) in enumerate(PHONES.items()):
            celsius, battery = curves["celsius"][:, number], curves["battery"][:, number]
            print(
                f"{name} ({size}), {load}: {curves['watts'][0, number]:.2f} W at first, skin at most "
                f"{celsius.max():.1f}, speed {curves['speed'][:, number].mean():.2f} in the mean, battery "
                f"{battery[0]:.2f} to {battery[-1]:.2f}"
            )
    if loads["all cores"]["speed"].min() >= 1.0:
        raise AssertionError("no phone was held back")
    if arguments.plot is not None:
        plot(loads, arguments.plot)


if __name__ == "__main__":
    main()

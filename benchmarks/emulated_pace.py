"""Whether emulated devices take the time that the simulator says: at real speed, and as seen from outside.

Two phones train five rounds of LeNet on digits once in a simulation and once as processes, whose requests pass a proxy
that writes down when how many bytes came. Their steps take 100 ms, more than ten times the host's, and their links are
slow, so that the host's own milliseconds are few. Told are, by device, each stage's seconds over the simulator's, steps
a second over the phone's, resident memory, and the rates of its bytes over the phone's. It fails only where the two did
not make the same model.

Usage: python benchmarks/emulated_pace.py [--devices 2] [--rounds 5]
"""

import argparse
import itertools
import json
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from metering_proxy import Meter, metering_proxy

from pocketfleet import Experiment, emulation, simulate
from pocketfleet.device_sim.device_folder import DeviceFolder

STEP_S = 0.1
DOWN_BITS_PER_S, UP_BITS_PER_S = 1_000_000.0, 500_000.0
# Wanted: every ratio within so much of 1.
WITHIN = 0.2
# The weights of LeNet are 247 KB; what is said besides in a round has a hundredth of that.
WEIGHTS_BYTES = 245_000
# Down, client and kernel take so much at once; from there on the pieces come in bursts, as the buffers empty.
FILL_BYTES = {"down": 90_000, "up": 10_000}
BURST_PAUSE_S, TRANSFER_PAUSE_S = 0.05, 2.0
# A link of which every transfer has the same rate and none is lost; which rate, the phones say.
NETWORK = """parameter,value
wifi.share.steady,1
cellular.share.lte-2021,1
network.steady.down_bits_per_s.p10,1e6
network.steady.down_bits_per_s.p90,2e6
network.steady.up_bits_per_s.p10,1e6
network.steady.up_bits_per_s.p90,2e6
network.steady.latency_s.p10,0.05
network.steady.latency_s.p90,0.1
network.steady.rate_correlation,0
network.steady.down_variation_ratio,0
network.steady.up_variation_ratio,0
network.steady.link_losses_per_hour,0
network.steady.metered,0
network.steady.radio,wifi
"""
STAGES = ("download", "train", "upload")


def slow_phones(devices: int, rounds: int, network: Path) -> Experiment:
    """Phones whose every stage takes a second or more."""
    phone = {
        "devices": "all",
        "step_s": STEP_S,
        "down_bits_per_s": DOWN_BITS_PER_S,
        "up_bits_per_s": UP_BITS_PER_S,
        "latency_s": 0.05,
        "battery_ratio": 1.0,
    }
    return Experiment.from_table(
        {
            "seed": 3,
            "task": {"name": "mnist"},
            "partition": {"examples_per_device": 60},
            "fleet": {
                "devices": devices,
                "program": "onnx",
                "heat": False,
                "network": str(network),
                "overrides": [phone],
            },
            "training": {"batch_size": 16, "learning_rate": 0.05},
            "rounds": {"count": rounds, "cohort": devices, "over_selection": 1.0, "deadline_s": 3600.0},
            "engine": {"runtime": "onnx"},
        }
    )


def rate(pieces: list[tuple[float, int]], fill_bytes: int) -> float | None:
    """Bits a second, over all rounds but the first, of one direction of a device's connection; None without any.

    The first round's files come in several requests. Of the others counts what came between the end of the burst that
    fills the buffers and the weights' last byte.
    """
    transfers: list[list[tuple[float, int]]] = [[]]
    for at_s, count in pieces:
        if transfers[-1] and at_s - transfers[-1][-1][0] > TRANSFER_PAUSE_S:
            transfers.append([])
        transfers[-1].append((at_s, count))
    moved_bytes, seconds = 0, 0.0
    weighty = [one for one in transfers if sum(count for _, count in one) >= WEIGHTS_BYTES]
    for transfer in weighty[1:]:
        moved = list(itertools.accumulate(count for _, count in transfer))
        times = [at_s for at_s, _ in transfer]
        first = next(
            place
            for place, (before, after) in enumerate(itertools.pairwise(times))
            if moved[place] >= fill_bytes and after - before > BURST_PAUSE_S
        )
        last = next(place for place, count in enumerate(moved) if count >= WEIGHTS_BYTES)
        moved_bytes += moved[last] - moved[first]
        seconds += times[last] - times[first]
    return 8.0 * moved_bytes / seconds if seconds else None


def accepted(out: Path, devices: int) -> list[list[dict[str, Any]]]:
    """The attempts of each device whose reports counted, as it wrote them down."""
    folders = [out / "devices" / str(device) for device in range(devices)]
    return [[line for line in DeviceFolder(one).rounds() if line["outcome"] == "accepted"] for one in folders]


def emulated(experiment: Experiment, out: Path) -> tuple[dict[str, Any], Meter]:
    """The emulation's summary, and what passed between its service and its devices."""
    meters: list[Meter] = []
    real_url = emulation._url
    with ExitStack() as stack:

        def by_the_proxy(service: "subprocess.Popen[bytes]", state: Path) -> str:
            meters.append(stack.enter_context(metering_proxy(real_url(service, state))))
            return meters[0].url

        emulation._url = by_the_proxy
        try:
            found = emulation.emulate(experiment, emulation.EmulationPlan(out=out), tell=lambda _: None)
        finally:
            emulation._url = real_url
    return found, meters[0]


def main() -> None:
    """Simulate, emulate, and tell the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, choices=range(1, 10), default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        network = Path(place) / "steady.csv"
        network.write_text(NETWORK)
        experiment = slow_phones(arguments.devices, arguments.rounds, network)
        run = simulate(experiment, Path(place) / "run")
        # Exported once.
        experiment = experiment.with_settings(f"task.bundle='{run.path / 'bundle'}'")
        found, meter = emulated(experiment, Path(place) / "emulation")
        if found["model_sha256"] != run.summary["model_sha256"]:
            raise SystemExit("the emulation made another model than the simulation")
        events = run.events[run.events["kind"].isin(STAGES)]
        expected = events.groupby(["device", "kind"], observed=True)["seconds"].sum()
        rows = [
            {
                "device": device,
                **{
                    f"{kind}_ratio": sum(line[f"{kind}_s"] for line in lines) / float(expected[device, kind])
                    for kind in STAGES
                },
                "step_rate_ratio": STEP_S
                * sum(line["steps"] for line in lines)
                / sum(line["train_s"] for line in lines),
                "late_steps": sum(line["late_steps"] for line in lines),
                "peak_rss_bytes": max(line["peak_rss_bytes"] for line in lines),
            }
            for device, lines in enumerate(accepted(Path(place) / "emulation", arguments.devices))
        ]
    seen = [(rate(one.down, FILL_BYTES["down"]), rate(one.up, FILL_BYTES["up"])) for one in meter.connections]
    down = [found / DOWN_BITS_PER_S for found, _ in seen if found]
    up = [found / UP_BITS_PER_S for _, found in seen if found]
    for row in rows:
        print(json.dumps(row))
    print(json.dumps({"down_rate_ratios": down, "up_rate_ratios": up}))
    ratios = {
        "seconds": [row[f"{kind}_ratio"] for row in rows for kind in STAGES],
        "step_rate": [row["step_rate_ratio"] for row in rows],
        "down_rate": down,
        "up_rate": up,
    }
    met = {name: bool(found) and all(abs(one - 1.0) <= WITHIN for one in found) for name, found in ratios.items()}
    print(json.dumps({"met": met}))


if __name__ == "__main__":
    main()

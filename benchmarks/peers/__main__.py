"""Runs the same federated training in pocketfleet and its peers, one after another, and compares them.

Every run is a process of its own. Peers run in an environment of their own, see ``make bench-peers``. The systems take
turns, ``--repeats`` times; Flower once, since it takes longest. See docs/peers.md.

Usage: python benchmarks/peers [--python .peers/venv/bin/python] [--out benchmarks/results] [--workloads mlp lenet]
"""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comparison import rows_of
from ours import ENGINES
from population import WORKLOADS, make_workload, small
from report import write_report
from result import Result

HERE = Path(__file__).resolve().parent
# No telemetry, and sockets of this machine alone: Ray's switch for systems with a firewall that asks makes it use
# loopback, gloo is told its interface.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": "lo",
}
# A run that hangs is ended after so long; the longest takes about a minute on two cores.
LIMIT_S = 900.0
# Convolutions are not mapped, so there is nothing to compile.
COMPILED = ("mlp", "logistic")

Command = Callable[[Path, Path, int], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Something that trains a workload.

    Attributes:
        command: of a folder, the result's path and the rounds.
        rounds: by workload, where fewer are played than the workload has.
        repeats: at most.
        models: of the workloads that it trains; ``None``: all.
    """

    command: Command
    rounds: Mapping[str, int] = field(default_factory=dict)
    repeats: int = 1_000
    models: tuple[str, ...] | None = None


def systems(python: str) -> list[System]:
    """All that are compared, in the order in which they take turns; ``python`` is the peers' own."""

    def script(interpreter: list[str], name: str, *options: str) -> Command:
        return lambda folder, out, rounds: [
            *interpreter,
            str(HERE / name),
            str(folder),
            str(out),
            str(rounds),
            *options,
        ]

    together = ["-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    some = {"mlp": 4}
    return [
        System(command=script([python], "plain_loop.py", "1"), rounds=some),
        *(
            System(
                command=script([sys.executable], "ours.py", engine), models=COMPILED if "compiled" in engine else None
            )
            for engine in ENGINES
        ),
        System(command=script([python], "private_federated.py"), rounds=some),
        System(command=script([python], "plain_loop.py", "2"), rounds=some),
        System(command=script([python, *together, "--master-port", "29511"], "private_federated.py"), rounds=some),
        System(command=script([python], "flower.py"), rounds={"mlp": 2, "logistic": 50}, repeats=1),
    ]


def run(system: System, folder: Path, rounds: int, scratch: Path) -> Result:
    """One measurement, in a process of its own.

    Raises:
        RuntimeError: it failed; the end of what it printed is in the message.
    """
    out = scratch / "result.json"
    out.unlink(missing_ok=True)
    command = system.command(folder, out, min(rounds, system.rounds.get(folder.name, rounds)))
    done = subprocess.run(
        command, env={**os.environ, **QUIET}, check=False, capture_output=True, text=True, timeout=LIMIT_S
    )
    if done.returncode != 0 or not out.exists():
        raise RuntimeError(
            f"{shlex.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        )
    return Result.load(out)


def circumstances() -> dict[str, str]:
    """Command and machine."""
    model = next(
        (line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "command": f"python benchmarks/peers {shlex.join(sys.argv[1:])}".strip(),
        "machine": f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "load of the minute before": f"{os.getloadavg()[0]:.2f}",
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Make the populations, let the systems take turns, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=".peers/venv/bin/python", help="of the environment with the peers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="tiny populations: does all run and agree?")
    arguments = parser.parse_args()
    about, rows, results = circumstances(), [], []
    if arguments.small:
        about["size"] = "tiny populations, to see that all runs and agrees: no figure below means anything"
    with tempfile.TemporaryDirectory() as place:
        for name in arguments.workloads:
            folder = Path(place) / name
            plan = WORKLOADS[name]
            workload = make_workload(small(plan) if arguments.small else plan, folder)
            own = []
            for repeat in range(arguments.repeats):
                for system in systems(arguments.python):
                    if repeat < system.repeats and workload.model in (system.models or (workload.model,)):
                        own.append(run(system, folder, workload.rounds, Path(place)))
                        print(f"{name}: {own[-1].system}: {own[-1].steps_per_s:,.0f} device-steps a second", flush=True)
            rows += rows_of(own, all_rounds=workload.rounds)
            results += own
    titles = {name: plan.title for name, plan in WORKLOADS.items()}
    write_report(arguments.out, titles=titles, rows=rows, results=results, circumstances=about)
    print((arguments.out / "peers.md").read_text())


if __name__ == "__main__":
    main()

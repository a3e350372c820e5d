"""Rounds of secure aggregation of ever larger cohorts, every message computed: seconds, bytes, and the sum itself.

A cohort's members live in two worker processes, the server in this one. Each has a delta of so many parameters, which
it makes whole numbers of (16 bits, weights up to 64, room for the cohort) and masks. One in twenty leaves, a third of
them before each stage. The unmasked sum must equal the plain ring sum of those in it bit for bit, and its mean be
within a grid step of their exact weighted mean; else ``AssertionError``. Seconds are from the first key to the
sum; beside them stand those of a core, which others on the machine stretch less.

The last line says which of the limits below hold; missed seconds are told, not raised: the machine may be shared.

Usage: python benchmarks/secure_aggregation.py [--members 50 100 200 500 1000] [--results FILE] [--plot FILE]
"""

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cryptography
import numpy as np
import numpy.typing as npt

from pocketfleet.training.draws import draw_key, permutation, uniform
from pocketfleet.training.privacy.secure_aggregation.client import SecureClient
from pocketfleet.training.privacy.secure_aggregation.fixed_point import HEAD, FixedPoint
from pocketfleet.training.privacy.secure_aggregation.messages import KEYS_BYTES, STAGES, masked_bytes, stage_bytes
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood, chosen_degree
from pocketfleet.training.privacy.secure_aggregation.ring import from_ring, to_ring
from pocketfleet.training.privacy.secure_aggregation.server import SecureServer
from pocketfleet.training.privacy.secure_aggregation.settings import RingVector, SecureSettings

SIZES = (50, 100, 200, 500, 1000)
PARAMETERS, DROPOUT_RATIO, WORKERS = 100_000, 0.05, 2
# What the graph is made to stand: members that collude, and that leave.
CORRUPT_RATIO, TOLERATED_RATIO = 0.2, 0.1
# Of the largest cohort: seconds of a round at most; what a member sends against the same vector in clear.
LARGEST, MOST_S, MOST_UPLOAD_RATIO = 1000, 120.0, 1.5
# What a worker is asked to do with messages for some of its members, and what those answer.
Request = tuple[str, list[tuple[int, bytes]]]


def grid(members: int) -> FixedPoint:
    """Of deltas in -1..1: 16 bits, 6 of weights and 10 of a thousand members are a ring of 4 bytes."""
    return FixedPoint(value_range=1.0, bits=16, max_weight=64, cohort=members)


def delta(member: int, parameters: int) -> npt.NDArray[np.float64]:
    """A member's own, ``[parameters]``."""
    return 2.0 * uniform(draw_key(1, "benchmark delta", member), parameters) - 1.0


def weight(member: int) -> int:
    """A member's examples."""
    return 1 + member % 64


def ring_vector(member: int, members: int, settings: SecureSettings) -> RingVector:
    """What a member masks."""
    values = delta(member, settings.vector_length - HEAD)
    return to_ring(grid(members).encode(values, weight=weight(member)), settings)


def worker(pipe: Connection, members: int, settings: SecureSettings) -> None:
    """Members that are asked for their keys first: answers requests until one is None."""
    clients: dict[int, SecureClient] = {}
    answers: dict[str, Callable[[int, bytes], bytes]] = {
        "keys": lambda place, _: clients.setdefault(place, SecureClient(settings)).keys(),
        "shares": lambda place, data: clients[place].shares(data),
        "masked": lambda place, data: clients[place].masked(data, ring_vector(place, members, settings)),
        "unmask": lambda place, data: clients[place].unmask(data),
    }
    pipe.send("ready")
    started_s = time.process_time()
    while (request := pipe.recv()) is not None:
        what, messages = request
        for place, data in messages:
            pipe.send((place, answers[what](place, data)))
    pipe.send(time.process_time() - started_s)


class Workers:
    """Processes that hold the members, every so many-th each."""

    def __init__(self, members: int, settings: SecureSettings) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(WORKERS):
            here, there = context.Pipe()
            process = context.Process(target=worker, args=(there, members, settings), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        # They have imported what they need, which is none of the round's seconds.
        for pipe in self._pipes:
            pipe.recv()

    def answers(self, what: str, messages: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """What members answer, as it comes."""
        shards: list[list[tuple[int, bytes]]] = [[] for _ in self._pipes]
        for place, data in messages:
            shards[place % len(shards)].append((place, data))
        left = {pipe: len(shard) for pipe, shard in zip(self._pipes, shards, strict=True)}
        for pipe, shard in zip(self._pipes, shards, strict=True):
            pipe.send((what, shard))
        while any(left.values()):
            for pipe in multiprocessing.connection.wait([pipe for pipe, count in left.items() if count]):
                left[pipe] -= 1  # type: ignore[index] # only pipes were waited for
                yield pipe.recv()  # type: ignore[union-attr]

    def close(self) -> float:
        """End the processes; seconds of a core that they worked for the members."""
        cpu_s = 0.0
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            cpu_s += pipe.recv()
            process.join()
        return cpu_s


def leaves_before(members: int, dropout_ratio: float) -> npt.NDArray[np.int64]:
    """The number of the stage before which each member leaves, 1 to 3; 0: none. ``[members]``."""
    stage = np.zeros(members, np.int64)
    gone = permutation(draw_key(1, "benchmark leaving"), members)[: round(dropout_ratio * members)]
    stage[gone] = 1 + np.arange(len(gone)) % len(STAGES)
    return stage


def one_round(members: int, *, parameters: int = PARAMETERS, dropout_ratio: float = DROPOUT_RATIO) -> dict[str, Any]:
    """Run a round and check its sum; a row of figures."""
    settings = SecureSettings(vector_length=HEAD + parameters, ring_bytes=grid(members).ring_bytes)
    degree, threshold = chosen_degree(members, corrupt_ratio=CORRUPT_RATIO, dropout_ratio=TOLERATED_RATIO)
    leaves = leaves_before(members, dropout_ratio)
    workers = Workers(members, settings)
    seconds: dict[str, float] = {}
    started = last = time.perf_counter()
    server_started_s = time.process_time()

    def lap(name: str) -> None:
        nonlocal last
        seconds[name], last = time.perf_counter() - last, time.perf_counter()

    def staying(stage: int) -> list[int]:
        return np.flatnonzero((leaves == 0) | (leaves > stage)).tolist()

    keys = dict(workers.answers("keys", ((place, b"") for place in range(members))))
    lap("keys")
    neighbourhood = Neighbourhood.drawn(members, degree=degree, threshold=threshold, seed=1)
    server = SecureServer(settings, neighbourhood, [keys[place] for place in range(members)])
    for place, data in workers.answers("shares", ((place, server.roster(place)) for place in staying(1))):
        server.take_shares(place, data)
    server.close_shares()
    lap("shares")
    for place, data in workers.answers("masked", ((place, server.shares_for(place)) for place in staying(2))):
        server.take_masked(place, data)
    server.close_masked()
    lap("masked")
    for place, data in workers.answers("unmask", ((place, server.survivors_for(place)) for place in staying(3))):
        server.take_unmask(place, data)
    lap("unmask")
    total, places = server.sum()
    lap("sum")
    wall_s, server_s = time.perf_counter() - started, time.process_time() - server_started_s
    members_s = workers.close()
    check_sum(total, places.tolist(), members, settings)
    if places.tolist() != staying(2) or len(places) > members - round(2 / 3 * dropout_ratio * members) + 1:
        raise AssertionError(f"{len(places)} of {members} members are in the sum")
    stages = [stage_bytes(stage, settings=settings, degree=degree) for stage in STAGES]
    up = KEYS_BYTES + sum(one.up for one in stages)
    return {
        "members": members,
        "in_sum": len(places),
        "degree": degree,
        "threshold": threshold,
        "parameters": parameters,
        "ring_bytes": settings.ring_bytes,
        "wall_s": wall_s,
        "members_core_s": members_s,
        "server_core_s": server_s,
        "stage_s": seconds,
        "member_up_bytes": up,
        "member_down_bytes": sum(one.down for one in stages),
        "clear_bytes": masked_bytes(settings),
        "upload_ratio": up / masked_bytes(settings),
    }


def check_sum(total: RingVector, places: Sequence[int], members: int, settings: SecureSettings) -> None:
    """Raise ``AssertionError`` unless it is the plain ring sum, and its mean within a step of the exact one."""
    plain = np.zeros_like(total)
    exact = np.zeros(settings.vector_length - HEAD)
    for place in places:
        plain += ring_vector(place, members, settings)
        exact += weight(place) * delta(place, len(exact))
    plain &= settings.dtype.type(settings.ring - 1)
    if not np.array_equal(plain, total):
        raise AssertionError(f"the unmasked sum of {members} members is not the plain one")
    weights = sum(map(weight, places))
    mean = grid(members).decode(from_ring(total, settings))
    off = float(np.abs(mean.values - exact / weights).max())
    if mean.weight != weights or mean.clipped or off > grid(members).step:
        raise AssertionError(f"the mean of {members} members is {off} off, a step is {grid(members).step}")


def met(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Which limits hold, of those that the sizes that ran have anything to say to."""
    found = {"upload": all(row["upload_ratio"] <= MOST_UPLOAD_RATIO for row in rows)}
    for row in rows:
        if row["members"] == LARGEST and row["parameters"] >= PARAMETERS:
            found["seconds"] = row["wall_s"] < MOST_S
    return found


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Seconds of a round, and what a member sends and receives beside its vector, against the members."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    members = [row["members"] for row in rows]
    for key, label, colour in (
        ("wall_s", "a round, on two cores", "#0072b2"),
        ("members_core_s", "all members, of one core", "#e69f00"),
        ("server_core_s", "the server, of one core", "#009e73"),
    ):
        left.plot(members, [row[key] for row in rows], marker="o", color=colour, label=label)
    left.set_ylabel("seconds")
    extra = [(row["member_up_bytes"] - row["clear_bytes"]) / 1e3 for row in rows]
    right.plot(members, extra, marker="o", color="#d55e00", label="sent, beside the vector")
    right.plot(members, [row["member_down_bytes"] / 1e3 for row in rows], marker="o", color="#56b4e9", label="received")
    right.set_ylabel(f"kB a member (its vector: {rows[-1]['clear_bytes'] / 1e3:.0f} kB)")
    for axes in (left, right):
        axes.set_xlabel("members")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Print a row a size as JSON, then what is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    parser.add_argument("--results", type=Path, help="write the rows into this JSON file")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG")
    arguments = parser.parse_args()
    rows = []
    for members in arguments.members:
        rows.append(one_round(members, parameters=arguments.parameters))
        print(json.dumps(rows[-1]), flush=True)
    holds = met(rows)
    print(json.dumps({"met": holds}))
    if arguments.results is not None:
        machine = {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "cryptography": cryptography.__version__,
            "cores": os.cpu_count(),
            "worker_processes": WORKERS,
        }
        command = "python benchmarks/secure_aggregation.py"
        arguments.results.write_text(
            json.dumps({"command": command, "machine": machine, "rows": rows}, indent=1) + "\n"
        )
    if arguments.plot is not None:
        plot(rows, arguments.plot)
    if not holds["upload"]:
        raise AssertionError(f"a member sends more than {MOST_UPLOAD_RATIO} times its vector in clear")


if __name__ == "__main__":
    main()

"""A secure sum told step by step: who sent what to whom, and what the server could read of it at each step."""

import json
from collections.abc import Iterator, Mapping

from pocketfleet.device_sim.run import Run
from pocketfleet.device_sim.run_directory import TRANSCRIPT
from pocketfleet.errors import InputError
from pocketfleet.training.privacy.secure_aggregation.messages import MessageKind
from pocketfleet.training.privacy.secure_aggregation.transcript import Message, Transcript, recomputed_sum

__all__ = ["explained_sum"]

_STEPS: Mapping[MessageKind, str] = {
    "keys": "with its report, before the round closes",
    "roster": "stage shares",
    "shares": "stage shares",
    "shares_for": "stage masked",
    "masked": "stage masked",
    "survivors": "stage unmask",
    "unmask": "stage unmask",
}


def explained_sum(run: Run) -> Iterator[str]:
    """Lines about the last round of a run that had a sum and a group of few devices.

    Raises:
        InputError: the run wrote none down.
    """
    file = run.path / TRANSCRIPT
    if not file.is_file():
        raise InputError(
            f"the run in {run.path} has no messages to explain: they are written down with "
            "secure_aggregation.enabled and secure_aggregation.masks, of rounds of up to 8 reports, such as those of "
            "boston-two-phones-private"
        )
    head, _, rest = file.read_bytes().partition(b"\n")
    group, transcript = json.loads(head), Transcript.from_bytes(rest)
    known = run.devices["name"]
    names = [str(known[device]) or f"device {device}" for device in group["devices"]]
    yield f"round {group['round']}: the messages of {', '.join(names)} and the server"
    step = ""
    for message in transcript.messages:
        if _STEPS[message.kind] != step:
            step = _STEPS[message.kind]
            yield f"\n{step}"
        yield from _told(message, names[message.member])
    _, members = recomputed_sum(transcript)
    in_sum = ", ".join(names[member] for member in members.tolist())
    yield f"\nwhat the server reads in the end: the sum of the vectors of {in_sum}, and no other"
    if len(members) == 2:
        yield "of two, each can subtract its own from the sum: nothing is hidden from the other"


def _told(message: Message, name: str) -> Iterator[str]:
    sender, receiver = (name, "the server") if message.up else ("the server", name)
    yield f"  {sender} -> {receiver}: {message.kind}, {len(message.data)} bytes"
    yield f"      the server can read: {message.readable}"

"""What an emulated device keeps on disk: enough to go on from wherever it died.

======================  ================================================================================================
``credential.json``     who it is to the service; readable by its owner alone
``phone.json``          its clock, how often it was started, the rule that it was told last
``phone.npz``           the battery and the past of its phone
``files/``              downloads by their SHA-256
``bundles/``            a folder for each bundle, by its manifest's SHA-256
``assignment.json``     the work under way
``report/``             finished work that was not acknowledged: the update as it is sent, what is said of it, and
                        what the device keeps if it counts
``model.safetensors``   its own model; ``state.safetensors``: what its algorithm keeps, and what its last update
                        did not say
``rounds.jsonl``        a line for each attempt that is over
======================  ================================================================================================

Files are there whole or not at all, those that must not be lost are forced to the disk. A report is written down before
it is sent, so that what is sent again has the same bytes. What a device keeps takes effect with the acknowledgement.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from pocketfleet.errors import InputError
from pocketfleet.training.server.protocol import Assignment, ReportFacts, Rule
from pocketfleet.training.update import tensors_from_bytes, tensors_to_bytes
from pocketfleet.training.weights import Tensors
from pocketfleet.whole_file import sync_path, write_whole
from pocketfleet.whole_folder import whole_folder

__all__ = ["Credential", "DeviceFolder", "FinishedReport", "PhoneFacts", "WorkUnderWay"]

_STATE, _MODEL, _UPDATE, _FACTS = "state.safetensors", "model.safetensors", "update.bin", "facts.json"
_ROUNDS = "rounds.jsonl"

Kept = TypeVar("Kept", bound=BaseModel)


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Credential(_Kept):
    """Who the device is to the service at ``url``."""

    url: str
    device_id: str
    credential: str


class PhoneFacts(_Kept):
    """What the phone's clock showed at a time of the wall, and what else outlives the process."""

    first_s: float
    first_wall_s: float
    lives: int = 0
    rule: Rule | None = None


class WorkUnderWay(_Kept):
    """An assignment, and the time of the wall at which its report is too late."""

    assignment: Assignment
    deadline_wall_s: float


class FinishedReport(_Kept):
    """What is sent beside an update's bytes, and the line that its attempt leaves."""

    assignment_id: int
    deadline_wall_s: float
    facts: ReportFacts
    line: dict[str, Any]


class DeviceFolder:
    """One device's; one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files.mkdir(parents=True, exist_ok=True)

    @property
    def files(self) -> Path:
        """Downloads."""
        return self.path / "files"

    def credential(self) -> Credential | None:
        """As ``keep_credential`` left it."""
        return _read(self.path / "credential.json", Credential)

    def keep_credential(self, credential: Credential) -> None:
        """Before anything else that a token was given for."""
        # Made empty first: no moment at which others could read it.
        file = self.path / ".credential.json.partial"
        file.touch(mode=0o600)
        file.chmod(0o600)
        write_whole(self.path / "credential.json", credential.model_dump_json(), durable=True)

    def phone(self) -> PhoneFacts | None:
        """As ``keep_phone`` left it."""
        return _read(self.path / "phone.json", PhoneFacts)

    def keep_phone(self, facts: PhoneFacts) -> None:
        """For the next start."""
        write_whole(self.path / "phone.json", facts.model_dump_json())

    def phone_state(self) -> dict[str, npt.NDArray[Any]]:
        """Columns as ``keep_phone_state`` left them; empty before."""
        file = self.path / "phone.npz"
        if not file.is_file():
            return {}
        with np.load(file, allow_pickle=False) as columns:
            return dict(columns)

    def keep_phone_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """For the next start."""
        buffer = io.BytesIO()
        np.savez(buffer, **state)  # type: ignore[arg-type]
        write_whole(self.path / "phone.npz", buffer.getvalue())

    def work(self) -> WorkUnderWay | None:
        """The assignment under way."""
        return _read(self.path / "assignment.json", WorkUnderWay)

    def begin(self, work: WorkUnderWay) -> None:
        """An assignment is taken on."""
        write_whole(self.path / "assignment.json", work.model_dump_json(), durable=True)

    def bundle_folder(self, manifest_sha256: str) -> Path:
        """Where the bundle of that manifest is, or will be."""
        return self.path / "bundles" / manifest_sha256

    def state(self) -> Tensors:
        """What the algorithm keeps, and what the last update did not say; empty before the first report."""
        return _tensors(self.path / _STATE)

    def finish(self, report: FinishedReport, update: bytes, *, state: Tensors, model: Tensors) -> None:
        """Training is done: from now on this is what is sent."""
        with whole_folder(self.path / "report") as partial:
            for name, tensors in ((_STATE, state), (_MODEL, model)):
                if tensors:
                    write_whole(partial / name, tensors_to_bytes(tensors), durable=True)
            write_whole(partial / _UPDATE, update, durable=True)
            write_whole(partial / _FACTS, report.model_dump_json(), durable=True)
        sync_path(self.path)

    def report(self) -> FinishedReport | None:
        """Finished work that was not acknowledged."""
        return _read(self.path / "report" / _FACTS, FinishedReport)

    def update(self) -> bytes:
        """The finished work's update."""
        return (self.path / "report" / _UPDATE).read_bytes()

    def acknowledge(self, report: FinishedReport) -> None:
        """The report counts: what the device keeps takes effect; a crash in between is made good by the next call."""
        for name in (_STATE, _MODEL):
            file = self.path / "report" / name
            if file.is_file():
                write_whole(self.path / name, file.read_bytes(), durable=True)
        self.note(report.line)
        self.give_up()

    def give_up(self) -> None:
        """Work under way and finished is nothing any more."""
        (self.path / "assignment.json").unlink(missing_ok=True)
        report, gone = self.path / "report", self.path / ".report.gone"
        shutil.rmtree(gone, ignore_errors=True)
        if report.exists():
            report.rename(gone)
            shutil.rmtree(gone)

    def note(self, line: Mapping[str, Any]) -> None:
        """Write down how an attempt went; the same attempt only once."""
        before = self.rounds()
        if any(row["assignment_id"] == line["assignment_id"] for row in before[-1:]):
            return
        file = self.path / _ROUNDS
        # What a crash left of a line ends here.
        torn = file.is_file() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
        with file.open("a", encoding="utf-8") as lines:
            lines.write(("\n" if torn else "") + json.dumps(line) + "\n")
            lines.flush()
            os.fsync(lines.fileno())

    def rounds(self) -> list[dict[str, Any]]:
        """The attempts that are over."""
        file = self.path / _ROUNDS
        if not file.is_file():
            return []
        rows = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # torn by a crash
        return rows

    def keep_only(self, wanted: Iterable[str], bundle: str) -> None:
        """Remove downloads and bundles but these, by SHA-256: versions come and go, a phone's storage does not grow."""
        kept = {*wanted, *(f".{sha256}.partial" for sha256 in wanted)}
        for file in self.files.iterdir():
            if file.name not in kept:
                file.unlink()
        for folder in (self.path / "bundles").glob("*"):
            if folder.name != bundle:
                shutil.rmtree(folder)


def _read(file: Path, kind: type[Kept]) -> Kept | None:
    if not file.is_file():
        return None
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as exc:
        raise InputError(
            f"{file} is damaged or of another version ({exc.errors(include_url=False)[0]['msg']}): name another "
            "--state folder, and enrol it with a new token"
        ) from exc


def _tensors(file: Path) -> Tensors:
    return tensors_from_bytes(file.read_bytes()) if file.is_file() else {}

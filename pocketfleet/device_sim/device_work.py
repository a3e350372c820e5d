"""What a device makes of an assignment's files: a bundle to run, weights to start from, and then a finished report."""

import math
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pocketfleet.device_sim.client import Assignment as ClientWork
from pocketfleet.device_sim.client import Client, ClientResult
from pocketfleet.device_sim.device_data import HeldExamples
from pocketfleet.device_sim.secure_participation import SecureParticipation
from pocketfleet.errors import InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.manifest import FROZEN_FILE, MANIFEST_FILE, WEIGHTS_FILE, program_files
from pocketfleet.export.session import Runtime, Session
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithm_by_name import load_algorithm
from pocketfleet.training.codec import Codec, DownloadCodec, Seeds, load_codec
from pocketfleet.training.codec.error_feedback import (
    compensated,
    first_residual,
    parted_state,
    residual_after,
    state_with,
)
from pocketfleet.training.privacy.random_bits import secret_bits
from pocketfleet.training.privacy.secure_aggregation.secure_plan import vector_of_terms
from pocketfleet.training.server.protocol import Assignment, FileEntry, ReportFacts
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.traffic import Traffic
from pocketfleet.training.update import Update, UpdateError, tensors_from_bytes
from pocketfleet.training.weights import Tensors, Weights
from pocketfleet.whole_folder import whole_folder

__all__ = ["DeviceWork", "assembled_bundle", "needed_files"]


def needed_files(bundle: Mapping[str, FileEntry], runtime: Runtime) -> dict[str, FileEntry]:
    """The bundle's files that a device with ``runtime`` needs, by name; any others are not asked for.

    Raises:
        InputError: the service names no manifest or not all programs.
    """
    known = {MANIFEST_FILE, WEIGHTS_FILE, FROZEN_FILE, *program_files(runtime)}
    missing = {MANIFEST_FILE, *program_files(runtime)} - set(bundle)
    if missing:
        raise InputError(f"the service's bundle for {runtime} lacks {', '.join(sorted(missing))}: export it anew there")
    return {name: entry for name, entry in bundle.items() if name in known}


def assembled_bundle(files: Mapping[str, Path], folder: Path, *, runtime: Runtime) -> Bundle:
    """The bundle of these files, by name, in ``folder``, checked as any bundle is; made there if it is not yet."""
    if not folder.is_dir():
        with whole_folder(folder) as partial:
            for name, file in files.items():
                _put(file, partial / name)
    return Bundle.load(folder, runtime=runtime)


def _put(file: Path, target: Path) -> None:
    # The same bytes under a second name, where the file system can; downloads never change.
    with suppress(OSError):
        os.link(file, target)
        return
    shutil.copyfile(file, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceWork:
    """One assignment, ready to train.

    Attributes:
        assignment: as the service gave it.
        bundle: its programs.
        algorithm: what is added to the steps.
        weights: downloaded.
        broadcast: what the algorithm sent beside them.
        device_state: what it keeps on this device.
        codec: of the report.
        residual: what the last report did not say; empty without error feedback, and before the first.
        models: that a step trains, 1 or 2.
    """

    assignment: Assignment
    bundle: Bundle
    algorithm: Algorithm
    weights: Weights
    broadcast: Tensors
    device_state: Tensors
    codec: Codec
    residual: Tensors
    models: int

    @classmethod
    def of(
        cls,
        assignment: Assignment,
        bundle: Bundle,
        *,
        weights: Path,
        broadcast: Path | None,
        device_state: Tensors,
        own_code: bool,
    ) -> "DeviceWork":
        """Put the parts together.

        Args:
            assignment: as the service gave it.
            bundle: its programs.
            weights: the version's file.
            broadcast: the algorithm's, if there is one.
            device_state: what the device kept; empty before its first report.
            own_code: whether an algorithm may be a module that is on this machine. A service that is not one's own
                names packaged ones only.

        Raises:
            InputError: the service asks for something that this device does not have or do.
        """
        if ":" in assignment.algorithm and not own_code:
            raise InputError(
                f"the service asks for the algorithm {assignment.algorithm!r}, code of its own: devices run packaged "
                "algorithms"
            )
        try:
            codec = load_codec(assignment.codec, assignment.codec_options)
        except InputError as exc:
            raise InputError(f"the service asks for the codec {assignment.codec!r}: {exc}") from exc
        if assignment.batch_size > bundle.max_batch or assignment.batch_size < 1:
            raise InputError(
                f"the service asks for batches of {assignment.batch_size}, its programs take 1 to {bundle.max_batch}"
            )
        algorithm = load_algorithm(
            assignment.algorithm,
            # JSON has no tuples, which FedPer's patterns are held in.
            assignment.algorithm_options,
            # The server's own; a device never asks it.
            server_optimizer=ServerSgd(),
        )
        downloaded = _downloaded(assignment, bundle, algorithm, weights)
        first = bundle.weights() if bundle.has_weights else downloaded
        own_state, residual = parted_state(device_state)
        state = own_state or algorithm.device_init(first)
        sent = tensors_from_bytes(broadcast.read_bytes()) if broadcast is not None else {}
        terms = algorithm.client_start(downloaded, sent, state)
        return cls(
            assignment=assignment,
            bundle=bundle,
            algorithm=algorithm,
            weights=downloaded,
            broadcast=sent,
            device_state=state,
            codec=codec,
            residual=residual,
            models=2 if terms.personal else 1,
        )

    def train(
        self, session: Session, data: HeldExamples, *, device: int, steps: int, present: range | None
    ) -> ClientResult:
        """Train as the simulator's client does: the same steps, bit for bit."""
        client = Client(
            session=session,
            data=data,
            algorithm=self.algorithm,
            settings=self.bundle.settings,
            hyper=self.assignment.hyper,
            batch_size=self.assignment.batch_size,
        )
        work = ClientWork(
            device=device,
            steps=steps,
            batch_seed=self.assignment.batch_seed,
            device_state=self.device_state,
            present=present,
        )
        return client.train(work, self.weights, self.broadcast)

    @property
    def headline(self) -> str:
        """The metric that is reported: the first; empty without any."""
        return next(iter(self.bundle.signature.evaluate.output_names("metric")), "")

    def facts(self, result: ClientResult, *, steps: int, num_examples: int, examples_held: int) -> ReportFacts:
        """What is said beside the update; of finite results alone."""
        return ReportFacts(
            num_examples=num_examples,
            steps=steps,
            examples_held=examples_held,
            train_loss=result.train_loss,
            metric_global=_finite(result.metrics_before.get(self.headline)),
            metric_personalised=_finite(result.metrics_after.get(self.headline)),
        )

    def participation(self, result: ClientResult, *, num_examples: int) -> SecureParticipation | None:
        """The device's part in a secure sum, its update and weight in it; ``None``: the report is the update."""
        terms = self.assignment.secure
        if terms is None:
            return None
        weight = num_examples if self.algorithm.weighting == "examples" else 1
        # What hides this device is known to nobody, nor can it be drawn again.
        bits = secret_bits()("secure_noise", self.assignment.model_version)
        vector = vector_of_terms(terms.model_dump(), result.update)
        encoded = vector.encode(result.update, weight=weight, shared_seed=self.assignment.codec_seed, bits=bits)
        return SecureParticipation(vector.settings(minimum=terms.minimum), terms, encoded)

    def report(self, result: ClientResult) -> tuple[bytes, Tensors] | None:
        """The report's body, and what the device keeps if it counts; of finite results alone.

        ``None``: with what the last report did not say, the update is not finite.

        Raises:
            InputError: it has not the length that the service wants.
        """
        update = result.update
        wanted = compensated(update, self._residual(update))
        if not wanted.finite:
            return None
        assignment = self.assignment
        data = self.codec.encode(wanted, Seeds(shared=assignment.codec_seed, own=assignment.batch_seed))
        if len(data) != assignment.update_bytes:
            raise InputError(
                f"the update holds {len(data)} bytes, the service wants {assignment.update_bytes}: its bundle and "
                "its model are not of one experiment"
            )
        if not self.codec.error_feedback:
            return data, result.device_state
        sent = self.codec.decode(data, update, assignment.codec_seed)
        return (data, state_with(result.device_state, residual_after(wanted, sent))) if sent.finite else None

    def _residual(self, update: Update) -> Tensors:
        """What the last report did not say; of another codec or model it is nothing to this one."""
        first = first_residual(self.codec, update)
        shapes = {name: value.shape for name, value in self.residual.items()}
        return self.residual if shapes == {name: value.shape for name, value in first.items()} else first


def _downloaded(assignment: Assignment, bundle: Bundle, algorithm: Algorithm, file: Path) -> Weights:
    """The version in a file."""
    if not assignment.download_bits:
        return bundle.weights(version=file)
    if not bundle.has_weights:
        raise InputError("the service rounds the weights of its versions, and its bundle holds none: export it anew")
    first = bundle.weights()
    names = frozenset(Traffic.of(algorithm, first, assignment.hyper).weights)
    try:
        return DownloadCodec(names, bits=assignment.download_bits).decode(file.read_bytes(), first)
    except UpdateError as exc:
        raise InputError(f"the service's version {assignment.model_version} is none of this model: {exc}") from exc


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

"""The wire, version 1: what devices and the service say to each other, field by field.

Rules:

1. Control is JSON over HTTP/1.1, tensors are safetensors, files are named by the SHA-256 of their bytes.
2. Unknown fields are ignored, so that a newer app can talk to an older service; missing or wrong ones are named in the
   answer.
3. Times on the wire are seconds from now: phones' clocks are not trusted, and theirs need not trust ours.
4. A device tells its conditions; it judges them by itself, by the rule in the assignment. The service records them.
5. Every refusal is an ``ErrorAnswer`` with a code for programs and a message for people.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "MASKED",
    "PROTOCOL_VERSION",
    "Assignment",
    "BenchmarkResult",
    "CheckIn",
    "CheckInAnswer",
    "Conditions",
    "Enrolled",
    "Enrolment",
    "ErrorAnswer",
    "ErrorBody",
    "EvaluationAnswer",
    "EvaluationReport",
    "EvaluationWork",
    "FileEntry",
    "PartialWork",
    "Phone",
    "ReleasedModel",
    "ReportAnswer",
    "ReportFacts",
    "Rule",
    "SecureTerms",
    "StageWait",
    "Status",
    "TurnedAway",
    "TurnedAwayReason",
]

PROTOCOL_VERSION = 1
# The codec of populations whose sums hide their parts: a report is public keys, vectors come in the stages after it.
MASKED = "masked"

# Room for any phone's or app's name; what is longer is refused before it is stored.
ShortText = Annotated[str, Field(max_length=200)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# What SQLite and PostgreSQL hold as a whole number, and a double holds exactly.
Counted = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


TurnedAwayReason = Literal[
    "upgrade",
    "round_full",
    "already_reported",
    "not_yet",
    "held",
    "population_full",
    "privacy_spent",
    "preparing",
    "paused",
    "no_program",
    "no_codec",
    "finished",
]

# What a device does with steps that it made before it had to stop: send them as its report, or throw them away.
PartialWork = Literal["report", "discard"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Phone(_Message):
    """What the device is, in its own words; all of it may be left out."""

    model: ShortText = ""
    manufacturer: ShortText = ""
    os_version: ShortText = ""
    memory_bytes: Counted = 0


class Enrolment(_Message):
    """``POST enrol``: a one-time token becomes a device's own credential."""

    token: Annotated[str, Field(min_length=1, max_length=200)]
    phone: Phone = Phone()
    app_version: ShortText = ""


class Enrolled(_Message):
    """The answer: the credential is shown this once and kept here as a hash only."""

    device_id: str
    credential: str


class Conditions(_Message):
    """How the device is at the moment; recorded, never judged here. What it holds is its own: nobody asks."""

    idle: bool | None = None
    charging: bool | None = None
    unmetered: bool | None = None
    battery_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    free_memory_bytes: Counted | None = None
    skin_celsius: Annotated[float, Field(ge=-100, le=200)] | None = None


class CheckIn(_Message):
    """``POST check-in``: the device is free to work, and says what it can do."""

    protocol: Annotated[int, Field(ge=1, le=1_000_000)]
    # Programs that it can run, with the versions of their runtimes, such as {"onnx": "1.31.0"}.
    programs: Annotated[dict[ShortText, ShortText], Field(min_length=1, max_length=16)]
    # Parts of codecs that it can do (docs/codecs.md), such as ["lossless", "quantised", "rotation"].
    codecs: Annotated[list[ShortText], Field(min_length=1, max_length=16)]
    app_version: ShortText = ""
    conditions: Conditions = Conditions()
    # Whether it can evaluate a model, and holds examples out to do so; who does not say so is never asked.
    evaluates: bool = False


class FileEntry(_Message):
    """A file to get: ``GET files/{sha256}``."""

    sha256: Sha256
    bytes: Counted


class Rule(_Message):
    """When a device may train; see docs/concepts.md. It applies the rule itself."""

    idle: bool
    charging: bool
    unmetered: bool
    min_battery_ratio: float
    min_examples: int


class ReleasedModel(_Message):
    """The model that this device is to use: the released one, or the one in trial if the device is in its share."""

    version: Counted
    weights: FileEntry


class SecureTerms(_Message):
    """How the round's sum hides its parts; docs/secure_aggregation.md has the formats.

    The report's body is the device's public keys, and says nothing of its work; its vector comes in the stages after.
    """

    value_range: Finite
    bits: Counted
    max_weight: Counted
    cohort: Counted
    # Of members in a sum: a device gives no share for fewer.
    minimum: Counted
    rotation: bool
    ratio: Finite
    # Where the noise is above 0, the device clips its vector to the norm and adds its share.
    max_norm: Finite
    noise_stddev: Finite
    # How long the service waits in each stage.
    stage_deadline_s: Seconds


class Assignment(_Message):
    """Work: train from ``weights`` and report.

    Steps are ``steps`` where that is above 0, or else ``epochs`` passes over the device's training examples, in batches
    of ``batch_size`` drawn from ``batch_seed`` (docs/protocol.md says how).
    """

    assignment_id: Counted
    work: Literal["train"]
    round: Counted
    model_version: Counted
    # Reports that come later are not counted.
    deadline_in_s: Seconds
    program: str
    # By the names that they have in a bundle.
    bundle: dict[str, FileEntry]
    weights: FileEntry
    # What the algorithm sends along with the weights; null: nothing.
    broadcast: FileEntry | None
    algorithm: str
    algorithm_options: dict[str, Any]
    hyper: dict[str, float]
    epochs: Counted
    steps: Counted
    batch_size: Counted
    # 0 to 2**63 - 1: a whole number, not to be read as a double.
    batch_seed: Annotated[int, Field(ge=0, lt=2**63)]
    # How the report is written: docs/codecs.md.
    codec: str
    codec_options: dict[str, int | float | bool]
    # What all devices of this version draw from, 0 to 2**63 - 1 as well.
    codec_seed: Annotated[int, Field(ge=0, lt=2**63)]
    # Of a weight in ``weights``; 0: all, each tensor under its name.
    download_bits: Counted
    # Exactly so long is the report's body.
    update_bytes: Counted
    partial_work: PartialWork
    rule: Rule
    # null: the report is the update.
    secure: SecureTerms | None = None


class EvaluationWork(_Message):
    """Work: measure ``tried`` and ``released`` on the examples that the device holds out, and report.

    The device runs the bundle's ``evaluate`` on both models, in batches of at most ``batch_size``, and takes means over
    its examples.
    """

    evaluation_id: Counted
    work: Literal["evaluate"]
    # A candidate is nobody's yet; a canary is what this device uses.
    stage: Literal["candidate", "canary"]
    # Reports that come later are not counted.
    deadline_in_s: Seconds
    program: str
    bundle: dict[str, FileEntry]
    tried: ReleasedModel
    released: ReleasedModel
    # The one of the program's values that is to be reported.
    metric: str
    batch_size: Counted
    rule: Rule


class TurnedAway(_Message):
    """No work now: why, and when to come again; null: never."""

    reason: TurnedAwayReason
    message: str
    retry_after_s: Seconds | None


class CheckInAnswer(_Message):
    """Exactly one of ``assignment``, ``evaluation`` and ``turned_away`` is there."""

    assignment: Assignment | None = None
    evaluation: EvaluationWork | None = None
    turned_away: TurnedAway | None = None
    released: ReleasedModel


class ReportFacts(_Message):
    """What a report says beside its tensors: the query of ``PUT reports/{assignment_id}``."""

    # Examples processed, repeats counted: the update's weight.
    num_examples: Annotated[int, Field(ge=1, le=2**53)]
    steps: Annotated[int, Field(ge=1, le=2**53)]
    # Examples on the device, those that it holds out among them.
    examples_held: Annotated[int, Field(ge=1, le=2**53)]
    train_loss: Finite
    # Of the downloaded model and of the trained one, on examples held out; left out: none are held out.
    metric_global: Finite | None = None
    metric_personalised: Finite | None = None

    @classmethod
    def of_nothing(cls) -> Self:
        """What is said under secure aggregation, where what a device did is in the sum alone: as little as there is."""
        return cls(num_examples=1, steps=1, examples_held=1, train_loss=0.0)


class ReportAnswer(_Message):
    """The report is durable and counts: ``accepted`` now, or ``repeated``: it was before."""

    code: Literal["accepted", "repeated"]
    round: Counted


class StageWait(_Message):
    """``GET reports/{assignment_id}/stages/{stage}`` with 202: the stage has not come; ask again after so long."""

    retry_after_s: Seconds


class EvaluationReport(_Message):
    """``PUT evaluations/{evaluation_id}``: means of the metric over ``num_held_out`` examples.

    ``None``: the mean is no finite number.
    """

    num_held_out: Annotated[int, Field(ge=1, le=2**53)]
    tried: Finite | None
    released: Finite | None


class EvaluationAnswer(_Message):
    """The evaluation is durable and counts: ``counted`` now, or ``repeated``: it was before."""

    code: Literal["counted", "repeated"]


class BenchmarkResult(_Message):
    """``POST benchmarks``: what a step took on this device."""

    program: ShortText
    runtime_version: ShortText = ""
    method: ShortText = "train_step"
    batch_size: Annotated[int, Field(ge=1, le=2**31)]
    median_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    repeats: Annotated[int, Field(ge=1, le=2**31)]
    peak_memory_bytes: Counted | None = None


class Status(_Message):
    """``GET status``: what the service knows of this device, and where its population is."""

    device_id: str
    population: str
    round: Counted
    model_version: Counted
    paused: bool
    reports_accepted: Counted
    # Assignments that it holds: a report on one of them counts as yet.
    open_assignments: list[Counted]
    released: ReleasedModel


class ErrorBody(_Message):
    """Why a request was refused."""

    code: str
    message: str


class ErrorAnswer(_Message):
    """The body of every answer of 400 and above."""

    error: ErrorBody

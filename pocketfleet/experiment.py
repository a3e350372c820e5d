"""Everything a run depends on, in one TOML file: how it is read and checked, and how a user is told what is wrong."""

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

import tomli_w
from pydantic import BaseModel, Field, ValidationError, model_validator

from pocketfleet.errors import InputError
from pocketfleet.privacy_checks import check_privacy, check_secure_aggregation
from pocketfleet.sections import (
    AlgorithmSection,
    AttackSection,
    DataSection,
    EligibilitySection,
    EngineSection,
    FleetSection,
    OverrideSection,
    PartitionSection,
    ReleaseSection,
    RoundsSection,
    Section,
    ServerSection,
    ServiceSection,
    TaskSection,
    TrainingSection,
)
from pocketfleet.training.robust_rules import least_cohort, most_liars, trimmed_each_side
from pocketfleet.update_sections import AggregationSection, CodecSection, PrivacySection, SecureAggregationSection

__all__ = ["Experiment", "packaged_experiments", "parsed_settings", "parsed_toml", "validated"]

Model = TypeVar("Model", bound=BaseModel)


class Experiment(Section):
    """One run, wholly described.

    Load one with ``Experiment.load`` or build one with ``Experiment.from_table``, change it with ``with_settings``,
    run it with ``pocketfleet.simulate``.
    """

    seed: int = Field(default=1, ge=0, lt=2**63)  # as torch takes it
    task: TaskSection
    partition: PartitionSection = PartitionSection()
    data: DataSection = DataSection()
    fleet: FleetSection = FleetSection()
    eligibility: EligibilitySection = EligibilitySection()
    training: TrainingSection
    rounds: RoundsSection = RoundsSection()
    algorithm: AlgorithmSection = AlgorithmSection()
    aggregation: AggregationSection = AggregationSection()
    secure_aggregation: SecureAggregationSection = SecureAggregationSection()
    codec: CodecSection = CodecSection()
    privacy: PrivacySection = PrivacySection()
    server: ServerSection = ServerSection()
    release: ReleaseSection = ReleaseSection()
    engine: EngineSection = EngineSection()
    service: ServiceSection = ServiceSection()

    @model_validator(mode="after")
    def _cohort_within_fleet(self) -> Self:
        if self.rounds.cohort > self.fleet.devices:
            raise ValueError(
                f"rounds.cohort must be 1..{self.fleet.devices} (the fleet's size), got {self.rounds.cohort}: lower it "
                "or raise fleet.devices"
            )
        return self

    @model_validator(mode="after")
    def _evaluators_within_fleet(self) -> Self:
        release, devices = self.release, self.fleet.devices
        if release.gate == "none":
            return self
        if self.engine.timing_only:
            raise ValueError(
                'release.gate "evaluation" needs models to evaluate, and engine.timing_only trains none: leave one '
                "out, such as by --set release={}"
            )
        if self.algorithm.name == "fedper":
            raise ValueError(
                'release.gate "evaluation" compares whole models, and under algorithm.name "fedper" a part of each '
                "stays on its device: leave one out"
            )
        if self.codec.download_bits:
            raise ValueError(
                f"codec.download_bits {self.codec.download_bits} rounds the weights that devices train from, and "
                'release.gate "evaluation" compares versions as they are released, in all their bits: leave one out'
            )
        if release.evaluation_reports > devices:
            raise ValueError(
                f"release.evaluation_reports must be 1..{devices} (the fleet's size), got {release.evaluation_reports}:"
                " lower it or raise fleet.devices"
            )
        share = release.canary_ratio * devices
        if release.canary_ratio > 0.0 and release.canary_reports > share:
            raise ValueError(
                f"release.canary_reports {release.canary_reports} are more than the share has devices: "
                f"release.canary_ratio {release.canary_ratio} of {devices} are {share:g}; lower the reports, raise the "
                "ratio, or set it to 0 to have no share"
            )
        return self

    @model_validator(mode="after")
    def _protected(self) -> Self:
        check_secure_aggregation(self)
        check_privacy(self)
        return self

    @model_validator(mode="after")
    def _servers_step(self) -> Self:
        if self.algorithm.name == "feddyn" and self.server != ServerSection():
            raise ValueError(
                'algorithm.name "feddyn" makes the next model by a rule of its own: leave server.optimizer at "sgd" '
                f'and server.learning_rate at 1.0, got "{self.server.optimizer}" and {self.server.learning_rate}'
            )
        return self

    @model_validator(mode="after")
    def _enough_reports_for_the_rule(self) -> Self:
        cohort, ratio, byzantine = self.rounds.cohort, self.aggregation.trim_ratio, self.aggregation.byzantine
        if ratio and trimmed_each_side(cohort, ratio) == 0:
            raise ValueError(
                f"aggregation.trim_ratio {ratio} leaves no report out of a rounds.cohort of {cohort}: raise the ratio, "
                f"or the cohort to {math.ceil(1 / ratio)} or more"
            )
        if byzantine and cohort < least_cohort(byzantine):
            raise ValueError(
                f"aggregation.byzantine {byzantine} needs a rounds.cohort of {least_cohort(byzantine)} or more, got "
                f"{cohort}, which has room for {most_liars(cohort, byzantine)}: raise the cohort, or lower byzantine"
            )
        return self

    @model_validator(mode="after")
    def _one_gradient(self) -> Self:
        if self.algorithm.name != "fedsgd":
            return self
        for key in ("epochs", "steps", "batch_size"):
            default = TrainingSection.model_fields[key].default
            if getattr(self.training, key) != default:
                raise ValueError(
                    'algorithm.name "fedsgd" is one step over all of a device\'s examples: leave '
                    f"training.{key} at {default}, got {getattr(self.training, key)}"
                )
        return self

    @model_validator(mode="after")
    def _used_phones(self) -> Self:
        if self.data.arrival == "use" and self.fleet.availability == "always":
            raise ValueError(
                'data.arrival "use" needs phones that are used, and those of fleet.availability "always" never are: '
                'set it to "flash-2020" or a recorded trace'
            )
        return self

    @classmethod
    def load(cls, source: str | Path, settings: Iterable[str] = ()) -> "Experiment":
        """An experiment by packaged name or path.

        Args:
            source: such as ``"mnist-fleet"`` or ``"my.toml"``.
            settings: changes such as ``"rounds.count=50"``; the right side is a TOML value, or a word.

        Raises:
            InputError: no such experiment, no TOML, or a value that the schema refuses.
        """
        return cls.from_toml(_text_of(source), settings, name=str(source))

    @classmethod
    def from_toml(cls, text: str, settings: Iterable[str] = (), *, name: str = "the experiment") -> "Experiment":
        """An experiment from the text of a TOML file; see ``load``."""
        return cls.from_table(parsed_toml(text, settings, name=name), name=name)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, name: str = "the experiment") -> "Experiment":
        """An experiment from sections as a TOML file would give them; keys left out have their defaults.

        Raises:
            InputError: a key is unknown or a value is refused; the message says what is allowed.
        """
        return validated(cls, table, name=name)

    def with_settings(self, *settings: str) -> "Experiment":
        """The same experiment with keys changed, each such as ``"fleet.devices=500"``."""
        return self.from_table(_changed(self.model_dump(exclude_none=True), settings))

    def to_toml(self) -> str:
        """Every key with its value."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def parsed_toml(text: str, settings: Iterable[str], *, name: str) -> dict[str, Any]:
    """The table of a TOML file with dotted keys changed; see ``Experiment.load``.

    Raises:
        InputError: ``text`` is no TOML, or a setting is none.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise InputError(f"{name} is no TOML file: {exc}") from exc
    return _changed(table, settings)


def validated(model: type[Model], table: Mapping[str, Any], *, name: str) -> Model:
    """A table by its schema.

    Raises:
        InputError: a key is unknown or a value is refused; the message says what is allowed.
    """
    try:
        return model.model_validate(table)
    except ValidationError as exc:
        problems = "; ".join(_problem(error, model) for error in exc.errors())
        raise InputError(f"{name}: {problems}") from exc


def packaged_experiments() -> dict[str, str]:
    """Names of the packaged experiments and their one-line descriptions."""
    folder = resources.files("pocketfleet").joinpath("experiments")
    texts = {
        item.name.removesuffix(".toml"): item.read_text() for item in folder.iterdir() if item.name.endswith(".toml")
    }
    return {name: text.splitlines()[0].removeprefix("#").strip() for name, text in sorted(texts.items())}


def _text_of(source: str | Path) -> str:
    if str(source) in packaged_experiments():
        return resources.files("pocketfleet").joinpath("experiments", f"{source}.toml").read_text()
    path = Path(source)
    try:
        return path.read_text()
    except FileNotFoundError as exc:
        close = difflib.get_close_matches(str(source), packaged_experiments(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"no experiment {str(source)!r}: neither a file nor one of {', '.join(packaged_experiments())}{hint}"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"cannot read the experiment {str(source)!r}: {exc}") from exc


def _changed(table: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """``table`` with dotted keys set."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set takes key=value, such as rounds.count=50, got {setting!r}")
        *sections, last = key.strip().split(".")
        inner = result
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise InputError(f"--set {setting}: {section} is no section")
        inner[last] = _value(value.strip())
    return result


def parsed_settings(settings: Iterable[str]) -> dict[str, Any]:
    """``["a.b=1", "c=word"]`` as the table that a TOML file would give."""
    return _changed({}, settings)


def _value(text: str) -> Any:  # noqa: ANN401 - any TOML value
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _problem(error: Any, schema: type[BaseModel]) -> str:  # noqa: ANN401 - pydantic's error dictionary
    # Without pydantic's own words for the branches of a union.
    key = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("int", "str", "list[", "literal[")))
    if error["type"] == "extra_forbidden":
        allowed = _keys_at(schema, error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {key}: {hint}allowed here: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{key} {error['msg'].removeprefix('Input ')}, got {error['input']!r}"


def _keys_at(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    model: Any = schema
    for part in location:
        if isinstance(part, int):
            continue
        kind = model.model_fields[part].annotation
        model = {"overrides": OverrideSection, "attacks": AttackSection}.get(part, kind)
    return list(model.model_fields)

"""What a runtime makes of a core: efficiencies and overheads, and the tables (*profiles*) that they are kept in.

Rules:

1. A profile is a CSV file with a row a parameter: ``runtime``, ``phone``, ``parameter``, ``value``, ``confidence``,
   ``source``. The packaged one is ``catalog/efficiency.csv``; ``pocketfleet calibrate`` writes others.
2. ``phone`` is ``any``, or a phone's name: its own rows beat those for any.
3. Parameters of a class of operators are ``<class>.efficiency``, ``<class>.byte_s`` and, if it has one of its own,
   ``<class>.dispatch_s``. Those of the runtime are ``dispatch_s``, ``fixed_s``, ``parallel_ratio`` and
   ``core_peak_flops``. ``compute`` says what they mean.
4. Seconds are those of the measured core, whose peak is ``core_peak_flops``.
"""

import csv
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketfleet.device_sim.catalog import Row, file_rows, packaged_rows
from pocketfleet.errors import InputError

__all__ = [
    "ANY_PHONE",
    "ClassCost",
    "Efficiency",
    "Profile",
    "load_profile",
    "profile_of_rows",
    "write_profile",
]

ANY_PHONE = "any"
_PACKAGED = "efficiency.csv"
_COLUMNS = ("runtime", "phone", "parameter", "value")
_RUNTIME_PARAMETERS = ("dispatch_s", "fixed_s", "parallel_ratio", "core_peak_flops")
_CLASS_PARAMETERS = ("efficiency", "byte_s", "dispatch_s")
_RATIOS = ("efficiency", "parallel_ratio")
# Confidence and source of a fit's parameter that no measurement tells.
_UNTOLD = ("assumed", "start value, told by no row")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCost:
    """What one class of operators costs.

    Attributes:
        efficiency: the ratio of the core's peak that its arithmetic reaches, in (0, 1].
        byte_s: seconds that a byte read or written keeps the core busy, wherever it lies.
        dispatch_s: seconds that an operator costs whatever its size; ``None``: the runtime's.
    """

    efficiency: float
    byte_s: float
    dispatch_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """What one runtime makes of a core.

    Attributes:
        runtime: such as "executorch" or "onnx".
        classes: by name, what each class of operators costs.
        dispatch_s: seconds an operator costs whatever its size, on the measured core.
        fixed_s: seconds a call of the program costs whatever its operators, on the measured core.
        parallel_ratio: share of further cores' peak that products and convolutions reach.
        core_peak_flops: the one-thread peak of the measured core.
        untold: of a fit, the parameters (rule 3) that no measurement tells: they are where the fit began.
    """

    runtime: str
    classes: Mapping[str, ClassCost]
    dispatch_s: float
    fixed_s: float
    parallel_ratio: float
    core_peak_flops: float
    untold: frozenset[str] = frozenset()

    def cost(self, operator_class: str) -> ClassCost:
        """What a class costs.

        Raises:
            ValueError: there is no such class.
        """
        if operator_class not in self.classes:
            raise ValueError(f"an operator's class is one of {', '.join(self.classes)}, got {operator_class!r}")
        return self.classes[operator_class]

    def ratio(self, operator_class: str) -> float:
        """The ratio of peak that a class reaches; ``cost`` has the rest."""
        return self.cost(operator_class).efficiency


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Efficiencies by runtime and phone; ``where`` names the table in errors."""

    where: str
    efficiencies: Mapping[tuple[str, str], Efficiency] = field(default_factory=dict)

    def efficiency(self, runtime: str, phone: str = ANY_PHONE) -> Efficiency:
        """That of a phone, or else of any.

        Raises:
            InputError: the profile has neither; the message lists what it has.
        """
        for key in ((runtime, phone), (runtime, ANY_PHONE)):
            if key in self.efficiencies:
                return self.efficiencies[key]
        known = ", ".join(f"{name} on {where}" for name, where in self.efficiencies)
        raise InputError(
            f"fleet.program must be one that {self.where} has a profile of ({known}), got {runtime!r} on {phone}"
        )

    def has_own(self, runtime: str, phone: str) -> bool:
        """Whether the phone has rows of its own."""
        return (runtime, phone) in self.efficiencies


def load_profile(path: str | Path = "", *, program: str = "") -> Profile:
    """The packaged profile, or that of a file; a phone that the file lacks has the packaged figures.

    Args:
        path: of the file; empty: the packaged one.
        program: what the phones of a fleet run; a file that has no row of it would change nothing, and is refused.

    Raises:
        InputError: the file cannot be read, a cell is wrong, or no row is of ``program``.
    """
    if not str(path):
        return _packaged()
    own = profile_of_rows(str(path), file_rows(Path(path), columns=_COLUMNS))
    found = sorted({runtime for runtime, _ in own.efficiencies})
    if program and program not in found:
        raise InputError(
            f"fleet.profile {path} has rows of {', '.join(found)}, none of fleet.program {program!r}: set "
            "fleet.program to one that it has, calibrate for this one, or leave fleet.profile out"
        )
    return Profile(where=str(path), efficiencies={**_packaged().efficiencies, **own.efficiencies})


def write_profile(profile: Profile, path: Path, *, confidence: str, source: str) -> None:
    """Write a table that ``load_profile`` reads.

    Args:
        profile: what is written.
        path: of the file.
        confidence: of the parameters that measurements tell; the others are *assumed*, and their source says why.
        source: likewise.

    Raises:
        InputError: ``path`` cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow((*_COLUMNS, "confidence", "source"))
            for (runtime, phone), efficiency in profile.efficiencies.items():
                for parameter, value in _parameters(efficiency):
                    known = _UNTOLD if parameter in efficiency.untold else (confidence, source)
                    writer.writerow((runtime, phone, parameter, f"{value:.4g}", *known))
    except OSError as exc:
        raise InputError(f"{path} cannot be written: {exc.strerror}; name a file in a folder that is there") from exc


def _parameters(efficiency: Efficiency) -> Iterable[tuple[str, float]]:
    for name, cost in efficiency.classes.items():
        for parameter in _CLASS_PARAMETERS:
            value = getattr(cost, parameter)
            if value is not None:
                yield f"{name}.{parameter}", value
    for parameter in _RUNTIME_PARAMETERS:
        yield parameter, getattr(efficiency, parameter)


@functools.cache
def _packaged() -> Profile:
    return profile_of_rows(_PACKAGED, packaged_rows(_PACKAGED))


def profile_of_rows(where: str, rows: Iterable[Row]) -> Profile:
    """The profile that a table's rows hold.

    Raises:
        InputError: a cell is wrong, or a parameter is missing.
    """
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        own = values.setdefault((row.text("runtime"), row.text("phone")), {})
        parameter = row.text("parameter")
        if parameter in own:
            raise InputError(f"{row.where}, column parameter: {parameter} is there twice for one runtime and phone")
        own[parameter] = _value(row, parameter)
    efficiencies = {key: _efficiency(where, key, own) for key, own in values.items()}
    return Profile(where=where, efficiencies=efficiencies)


def _value(row: Row, parameter: str) -> float:
    last = parameter.rpartition(".")[2]
    if last not in (_CLASS_PARAMETERS if "." in parameter else _RUNTIME_PARAMETERS):
        raise InputError(
            f"{row.where}, column parameter: must be {', '.join(_RUNTIME_PARAMETERS)}, or a class of operators with "
            f"{', '.join(f'.{name}' for name in _CLASS_PARAMETERS)} behind it, got {parameter!r}"
        )
    value = row.number("value", positive=last in {"efficiency", "core_peak_flops"})
    if last in _RATIOS and value > 1.0:
        raise InputError(f"{row.where}, column value: {parameter} is a ratio of a peak, at most 1, got {value:g}")
    return value


def _efficiency(where: str, key: tuple[str, str], values: Mapping[str, float]) -> Efficiency:
    runtime, phone = key
    names = list(dict.fromkeys(parameter.rpartition(".")[0] for parameter in values if "." in parameter))
    needed = (*_RUNTIME_PARAMETERS, *(f"{name}.{part}" for name in names for part in _CLASS_PARAMETERS[:2]))
    missing = [parameter for parameter in needed if parameter not in values]
    if missing:
        raise InputError(f"{where}: {runtime} on {phone} lacks the parameter {', '.join(missing)}")
    classes = {
        name: ClassCost(
            efficiency=values[f"{name}.efficiency"],
            byte_s=values[f"{name}.byte_s"],
            dispatch_s=values.get(f"{name}.dispatch_s"),
        )
        for name in names
    }
    return Efficiency(
        runtime=runtime,
        classes=classes,
        dispatch_s=values["dispatch_s"],
        fixed_s=values["fixed_s"],
        parallel_ratio=values["parallel_ratio"],
        core_peak_flops=values["core_peak_flops"],
    )

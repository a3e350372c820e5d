"""What a training loop must know of one bundle: labels by role, examples, hyper-parameters, dice, types."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.signature import Role, TensorSpec

__all__ = ["SAFETENSORS", "StepInputs"]

# What safetensors calls torch's types.
SAFETENSORS: Mapping[str, str] = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
# What a step returns anew, and what it only reads, in the order of ``signature.py``.
_STATE: tuple[Role, ...] = ("trainable", "buffer", "slot")
_READ_ONLY: tuple[Role, ...] = ("frozen", "anchor", "correction")
_POWERS = ("beta1_power", "beta2_power")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """The inputs of a bundle's ``train_step``.

    Attributes:
        task: the task's own name.
        max_batch: the largest batch.
        specs: in the order in which the step takes them.
        hyper: defaults by name.
    """

    task: str
    max_batch: int
    specs: tuple[TensorSpec, ...]
    hyper: Mapping[str, float]

    @classmethod
    def of(cls, bundle: Bundle) -> "StepInputs":
        """Those of one bundle."""
        specs = bundle.signature.train_step.inputs
        return cls(task=bundle.task.name, max_batch=bundle.max_batch, specs=specs, hyper=bundle.hyper)

    def of_role(self, role: Role) -> tuple[TensorSpec, ...]:
        """The inputs of one role, in order."""
        return tuple(spec for spec in self.specs if spec.role == role)

    def labels(self, role: Role) -> list[str]:
        """Their labels."""
        return [spec.label for spec in self.of_role(role)]

    def _present(self, roles: Iterable[Role]) -> list[Role]:
        return [role for role in roles if self.of_role(role)]

    @property
    def state(self) -> list[Role]:
        """Roles that a step returns anew."""
        return self._present(_STATE)

    @property
    def read_only(self) -> list[Role]:
        """Roles that stay as they are while training."""
        return self._present(_READ_ONLY)

    @property
    def model(self) -> list[Role]:
        """Roles that ``predict`` takes before ``x``."""
        return self._present(("trainable", "buffer", "frozen"))

    @property
    def trained(self) -> list[Role]:
        """Roles that ``weights.safetensors`` holds."""
        return self._present(("trainable", "buffer"))

    @property
    def x(self) -> TensorSpec:
        """The examples."""
        return self.of_role("x")[0]

    @property
    def y(self) -> TensorSpec:
        """Their targets."""
        return self.of_role("y")[0]

    @property
    def hyper_values(self) -> list[tuple[str, float]]:
        """Labels and defaults of the hyper-parameters, in order."""
        return [(spec.label, self.hyper[spec.name]) for spec in self.of_role("hyper")]

    @property
    def dtypes(self) -> set[str]:
        """Every type of an input."""
        return {spec.dtype for spec in self.specs}

    def dtypes_of(self, roles: Iterable[Role]) -> list[str]:
        """The types of the inputs of some roles, ``float32`` first."""
        wanted = set(roles)
        return sorted({spec.dtype for spec in self.specs if spec.role in wanted}, key=lambda dtype: dtype != "float32")

    @property
    def features(self) -> set[str]:
        """What lines of a template are kept for: roles, and ``powers``, ``moments`` and ``zeros``."""
        slots = {spec.name for spec in self.of_role("slot")}
        found: set[str] = {spec.role for spec in self.specs}
        if slots & set(_POWERS):
            found.add("powers")
        if slots - set(_POWERS):
            found.add("moments")
        if found & {"moments", "correction"}:
            found.add("zeros")
        return found

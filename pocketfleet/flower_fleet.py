"""The phones that a Flower app runs on, in one TOML file: sections of an experiment, and what such an app needs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import tomli_w
from pydantic import Field, model_validator

from pocketfleet.errors import InputError
from pocketfleet.experiment import parsed_toml, validated
from pocketfleet.sections import EligibilitySection, FleetSection, NotNegative, Positive, Section

__all__ = ["FlowerFleet"]


class MessagesSection(Section):
    """When a message expires, and when the app is stopped."""

    # Of one message, download and upload included, as of an experiment's round.
    deadline_s: Positive = 600.0
    horizon_s: Positive = 2_592_000.0  # 30 days


class FlowerSection(Section):
    """How long a phone works on a message; see device_sim.phone_work."""

    train_flops_per_example: NotNegative = 0.0  # all epochs together; 0: measured here
    evaluate_flops_per_example: NotNegative = 0.0
    # Assumed: between what ExecuTorch reaches in products, 0.17, and elsewhere, 0.05 (catalog/efficiency.csv).
    efficiency_ratio: float = Field(default=0.1, gt=0, le=1)
    host_gflops: NotNegative = 0.0  # one-thread FP32 peak of this machine, for measured work; 0: measured at the start
    training_memory_bytes: int = Field(default=0, ge=0)  # of the app on a phone; 0: not known, nobody is too small

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        flops = (self.train_flops_per_example, self.evaluate_flops_per_example)
        if (flops[0] > 0.0) != (flops[1] > 0.0):
            raise ValueError(
                "flower.train_flops_per_example and flower.evaluate_flops_per_example go together, got "
                f"{flops[0]:g} and {flops[1]:g}: set both, or neither to have the work measured"
            )
        if flops[0] > 0.0 and self.host_gflops > 0.0:
            raise ValueError(
                "flower.host_gflops is for measured work, and flower.train_flops_per_example gives it: leave one out"
            )
        if flops[0] == 0.0 and self.efficiency_ratio != type(self).model_fields["efficiency_ratio"].default:
            raise ValueError(
                "flower.efficiency_ratio is for flower.train_flops_per_example, which is not set: leave it out"
            )
        return self


class FlowerFleet(Section):
    """The phones of a Flower app; ``rounds`` and ``algorithm`` are the app's own."""

    seed: int = Field(default=1, ge=0, lt=2**63)
    fleet: FleetSection = FleetSection()
    eligibility: EligibilitySection = EligibilitySection()
    messages: MessagesSection = MessagesSection()
    flower: FlowerSection = FlowerSection()

    @model_validator(mode="after")
    def _of_exported_programs(self) -> Self:
        for key in ("program", "profile"):
            if getattr(self.fleet, key) != FleetSection.model_fields[key].default:
                raise ValueError(f"fleet.{key} is for exported programs, which a Flower app does not run: leave it out")
        if self.fleet.attacks:
            raise ValueError("fleet.attacks are on a task's training, which a Flower app does itself: leave them out")
        if self.eligibility.min_examples != 1:
            raise ValueError(
                "eligibility.min_examples is for tasks; what a Flower client holds is the app's own: leave it out"
            )
        for number, override in enumerate(self.fleet.overrides):
            if override.step_s is not None:
                raise ValueError(
                    f"fleet.overrides[{number}].step_s is of training steps, which a Flower app does not tell: leave "
                    "it out; peak_flops_ratio makes a phone faster or slower"
                )
        return self

    @classmethod
    def load(cls, path: Path, settings: Iterable[str] = ()) -> "FlowerFleet":
        """The phones of a TOML file, with changes such as ``"fleet.devices=50"``.

        Raises:
            InputError: there is no such file, it is no TOML, or a value is refused.
        """
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise InputError(f"cannot read the fleet {str(path)!r}: {exc}") from exc
        return validated(cls, parsed_toml(text, settings, name=str(path)), name=str(path))

    def to_toml(self) -> str:
        """Every key with its value."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

"""The sections of an experiment file: their keys, defaults and what each refuses.

What is not built is not in them: an unknown key or value is refused, never accepted and ignored.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = [
    "AlgorithmSection",
    "AttackSection",
    "DataSection",
    "EligibilitySection",
    "EngineSection",
    "FleetSection",
    "NotNegative",
    "OverrideSection",
    "PartitionSection",
    "ReleaseSection",
    "RoundsSection",
    "Section",
    "ServerSection",
    "ServiceSection",
    "TaskSection",
    "TrainingSection",
]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of a TOML file: no unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TaskSection(Section):
    """What is learnt."""

    name: str  # a packaged task, or "my_module:make_task"
    options: dict[str, Any] = {}  # keyword arguments of the task's factory
    bundle: str = ""  # take the programs from this bundle instead of exporting anew

    @field_validator("options")
    @classmethod
    def _toml(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            tomli_w.dumps(options)
        except TypeError as exc:
            raise ValueError(f"task.options must hold TOML values: {exc}") from exc
        return options


class PartitionSection(Section):
    """How the examples are spread over devices."""

    kind: Literal["iid", "dirichlet", "quantity", "natural"] = "iid"
    # Hsu et al. 2019 (arXiv:1909.06335) sweep concentrations from 0 to 100; 0.3 is a common strong skew.
    alpha: Positive = 0.3
    examples_per_device: int = Field(default=0, ge=0)  # 0: split what there is; n: draw n with replacement


class DataSection(Section):
    """When a device's examples arrive, and for how long it keeps them."""

    # at_start: all are there; use: so many an hour of use; task: as the task's method arrivals says.
    arrival: Literal["at_start", "use", "task"] = "at_start"
    examples_per_hour: NotNegative = 0.0  # of use, for arrival "use"
    retention_days: NotNegative = 0.0  # the age at which an example is dropped; 0: kept

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.arrival == "use" and self.examples_per_hour == 0.0:
            raise ValueError('data.arrival "use" needs data.examples_per_hour above 0, got 0: set it')
        if self.arrival != "use" and self.examples_per_hour > 0.0:
            raise ValueError(
                f'data.examples_per_hour is for data.arrival "use", which is "{self.arrival}": leave one out'
            )
        if self.arrival == "at_start" and self.retention_days > 0.0:
            raise ValueError(
                'data.retention_days is for data that arrives, and data.arrival is "at_start": nothing would be left '
                'after that time; set data.arrival to "use" or "task", or leave it out'
            )
        return self


class OverrideSection(Section):
    """What differs for some devices from what the fleet drew; unset keys stay as drawn."""

    devices: list[Annotated[int, Field(ge=0)]] | Literal["all"]
    peak_flops_ratio: Positive | None = None
    step_s: Positive | None = None  # seconds of a training step, measured: beats the model
    free_memory_bytes: NotNegative | None = None
    down_bits_per_s: Positive | None = None
    up_bits_per_s: Positive | None = None
    latency_s: NotNegative | None = None
    link_losses_per_hour: NotNegative | None = None
    metered: bool | None = None
    has_charger: bool | None = None
    battery_ratio: Ratio | None = None


class AttackSection(Section):
    """Devices that harm the training; see ``device_sim.attack``."""

    kind: Literal["sign_flip", "scaled", "label_flip", "nan"]
    ratio: Ratio = 0.0  # of all devices, drawn for each
    devices: list[Annotated[int, Field(ge=0)]] = []  # by number, instead of a ratio
    scale: Positive = 1.0  # the reported delta is so many times what was learnt

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.ratio > 0.0) == bool(self.devices):
            raise ValueError(
                f"fleet.attacks: {self.kind} needs either a ratio of all devices, such as 0.2, or devices, such as "
                f"[0, 3], got ratio {self.ratio} and devices {self.devices}"
            )
        if self.kind == "nan" and self.scale != 1.0:
            raise ValueError(f"fleet.attacks: nan reports no number, got scale {self.scale}: leave it out")
        if self.kind == "scaled" and self.scale == 1.0:
            raise ValueError("fleet.attacks: scaled needs a scale other than 1, such as 10: nothing is attacked by 1")
        return self


class FleetSection(Section):
    """The phones."""

    devices: Count = 100
    mix: str = "global-2024"  # a packaged mix, or a CSV of phone and weight
    catalogue: str = ""  # a CSV of your own phones, which replace or extend the packaged ones
    phones: list[str] = []  # one phone a device, instead of a mix
    names: list[str] = []  # one name a device
    program: Literal["executorch", "onnx"] = "executorch"  # what the phone runs: drives bytes, memory, seconds
    # Threads that a phone trains on, a core each, fastest first; no phone of the catalogue has as many as 16 cores.
    threads: int = Field(default=1, ge=1, le=16)
    profile: str = ""  # the packaged efficiencies, or a table that pocketfleet calibrate wrote
    network: str = "home-wifi"  # a packaged network or network plan, or a CSV of your own plan
    outage_mean_s: Positive = 20.0  # a lost link is away for so long, see device_sim.transfer.Outage
    outage_limit_s: NotNegative = 60.0  # the longest outage that a transfer survives; 0: none
    heat: bool = True  # skins warm, CPUs and chargers are held back; see device_sim.thermal_policy
    # Assumed, as device_sim.thermal_class.ROOM_CELSIUS is. Beyond these bounds no phone is used.
    room_celsius: float = Field(default=25.0, ge=-30, le=50)
    availability: str = "always"  # flash-2020 | always | a recorded trace: a .csv or .parquet file
    trace_repeat: Literal["days", "recording", "never"] = "days"  # what follows a recorded trace's end
    # By how much later all that a trace says happens; its own times reach to 1e11 s.
    trace_shift_s: float = Field(default=0.0, allow_inf_nan=False, ge=-1e11, le=1e11)
    always: list[Literal["idle", "charging", "wifi"]] = []  # conditions that hold whatever the day says
    time_zones: dict[str, float] = {}  # weights by hours ahead of UTC; empty: all live by one clock
    memory_moments: bool = True  # other apps take memory, now more, now less; false: free memory is a constant
    overrides: list[OverrideSection] = []
    attacks: list[AttackSection] = []

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        for key in ("phones", "names"):
            given = len(getattr(self, key))
            if given not in {0, self.devices}:
                raise ValueError(f"fleet.{key} must name one a device ({self.devices}) or none, got {given}")
        if self.phones and self.mix != type(self).model_fields["mix"].default:
            raise ValueError("fleet.phones names every phone and fleet.mix draws them: leave one out")
        if not self.heat and self.room_celsius != type(self).model_fields["room_celsius"].default:
            raise ValueError(
                "fleet.room_celsius matters only where phones warm: set fleet.heat to true, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_attack_each(self) -> Self:
        named = [device for attack in self.attacks for device in attack.devices]
        for device in named:
            if device >= self.devices:
                raise ValueError(f"fleet.attacks.devices must be 0..{self.devices - 1} (the fleet's), got {device}")
            if named.count(device) > 1:
                raise ValueError(f"fleet.attacks: device {device} is named twice: a device has one attack")
        ratios = [attack.ratio for attack in self.attacks]
        # As shares of a whole are summed: 0.7 + 0.2 + 0.1 may be a last bit above 1.
        if sum(ratios) > 1.0 + 1e-9:
            raise ValueError(f"fleet.attacks: the ratios must sum to 1 at most, got {ratios}")
        return self


class EligibilitySection(Section):
    """When a phone may train."""

    idle: bool = True
    charging: bool = True
    unmetered: bool = True
    min_battery_ratio: Ratio = 0.3  # see device_sim.eligibility.Rule
    min_examples: Count = 1  # that it holds at that moment


class TrainingSection(Section):
    """One device's work in a round."""

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    trainable: list[str] = []  # patterns of parameter names; empty: as the model says
    lora_rank: int = Field(default=0, ge=0)  # 0: no low-rank matrices beside linear layers
    epochs: Count = 1
    steps: int = Field(default=0, ge=0)  # 0: epochs; n: so many steps whatever the examples
    batch_size: Count = 16
    learning_rate: Positive
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: NotNegative = 0.0
    max_norm: NotNegative = 0.0  # 0: no clipping
    personalised: bool = True  # devices keep the model that they trained, and measure it on what they hold out

    @model_validator(mode="after")
    def _nesterov(self) -> Self:
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("training.nesterov needs a training.momentum above 0, got momentum 0")
        if self.momentum > 0.0 and self.optimizer != "sgd":
            raise ValueError(f"training.momentum is SGD's; {self.optimizer} has its own moments: set it to 0")
        return self


class RoundsSection(Section):
    """When a round opens, closes, counts; and when the run ends."""

    policy: Literal["synchronous", "buffered"] = "synchronous"
    count: Count = 100  # model versions to publish
    horizon_s: Positive = 2_592_000.0  # 30 days: a fleet that fills no round ends
    cohort: Count = 10  # reports that make a version; buffered: the buffer, of FedBuff's usual size
    # Bonawitz et al. 2019 (arXiv:1902.01046), section 9: 130 % of the devices wanted are asked.
    over_selection: float = Field(default=1.3, ge=1, allow_inf_nan=False)
    minimum_ratio: Ratio = 0.6
    concurrency: int = Field(default=0, ge=0)  # buffered: devices at work; 0: cohort * over_selection, rounded up
    # Assumed: beyond it an update counts less than a fifth by FedBuff's discount.
    max_staleness: int = Field(default=20, ge=0)  # buffered: versions
    # Nguyen et al. 2022 (arXiv:2106.06639) discount an update by (1 + staleness) ** -0.5.
    staleness_exponent: NotNegative = 0.5
    deadline_s: Positive = 600.0
    interval_s: NotNegative = 0.0  # from one round's first assignment to the next one's, at least
    pace_s: NotNegative = 0.0  # a round's devices come spread over so long; 0: all when it opens
    selection_window_s: NotNegative = 0.0  # a round's phones wait so long to be chosen from; 0: first come
    selection: str = "uniform"  # uniform | oort | "my_module:make_selection"
    selection_options: dict[str, Any] = {}  # keyword arguments of the selection, such as Oort's penalty
    population_cap: int = Field(default=0, ge=0)  # distinct phones ever admitted; 0: all
    partial_work: Literal["report", "discard"] = "report"
    evaluate_every: Count = 1
    recording: str = ""  # what admin export wrote of a service, to be replayed; empty: the fleet's phones come

    @model_validator(mode="after")
    def _cap(self) -> Self:
        if 0 < self.population_cap < self.cohort:
            raise ValueError(
                f"rounds.population_cap must be 0 (none), or the cohort ({self.cohort}) or more, got "
                f"{self.population_cap}: no round could fill"
            )
        return self

    @model_validator(mode="after")
    def _of_the_policy(self) -> Self:
        of_policy = {
            "synchronous": (
                *("interval_s", "pace_s"),
                *("selection_window_s", "selection", "selection_options", "population_cap"),
            ),
            "buffered": ("concurrency", "max_staleness", "staleness_exponent"),
        }
        other = "buffered" if self.policy == "synchronous" else "synchronous"
        for key in of_policy[other]:
            default = type(self).model_fields[key].default
            if getattr(self, key) != default:
                raise ValueError(
                    f'rounds.{key} is for rounds.policy "{other}", which is "{self.policy}": leave it at {default}'
                )
        return self


class AlgorithmSection(Section):
    """What devices and server do with updates."""

    name: str = "fedavg"  # of training.algorithm_by_name, or "my_module:make_algorithm"
    # fedprox: Li et al. 2020 (arXiv:1812.06127) tune mu over 0.001 to 1.
    proximal_mu: NotNegative = 0.01
    # feddyn: Acar et al. 2021 (arXiv:2111.04263) tune alpha over 0.001 to 0.1.
    alpha: Positive = 0.01
    # ditto: Li et al. 2021 (arXiv:2012.04221) take a lambda of 1 where they do not tune it and nobody attacks.
    personal_mu: NotNegative = 1.0
    private: list[str] = []  # fedper: patterns of the weights that stay on devices, such as "head.*"
    options: dict[str, Any] = {}  # keyword arguments of your own

    @model_validator(mode="after")
    def _of_the_algorithm(self) -> Self:
        own = ("options",) if ":" in self.name else _ALGORITHM_KEYS.get(self.name, ())
        for algorithm, keys in {**_ALGORITHM_KEYS, "my_module:make_algorithm": ("options",)}.items():
            for key in keys:
                default = type(self).model_fields[key].default
                if key not in own and getattr(self, key) != default:
                    raise ValueError(
                        f'algorithm.{key} is for algorithm.name "{algorithm}", which is "{self.name}": leave it at '
                        f"{default}"
                    )
        if self.name == "fedper" and not self.private:
            raise ValueError(
                'algorithm.name "fedper" needs algorithm.private, patterns of the weights that stay on devices, such '
                'as ["head.*"]: set it'
            )
        return self

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the algorithm: its own keys, or a user's own ``options``."""
        if ":" in self.name:
            return dict(self.options)
        return {key: getattr(self, key) for key in _ALGORITHM_KEYS.get(self.name, ())}


class ServerSection(Section):
    """The server's optimizer."""

    # sgd at rate 1 is FedAvg, momentum is FedAvgM, the others are FedAdam, FedYogi and FedAdagrad
    optimizer: Literal["sgd", "momentum", "adam", "yogi", "adagrad"] = "sgd"
    learning_rate: Positive = 1.0
    momentum: float = Field(default=0.9, ge=0, lt=1)  # Hsu et al. 2019, section 4.3
    # Reddi et al. 2021 (arXiv:2003.00295), section 5; tau is of adagrad too.
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    tau: Positive = 1e-3

    @model_validator(mode="after")
    def _of_the_optimizer(self) -> Self:
        for key in ("momentum", "beta1", "beta2", "tau"):
            default = type(self).model_fields[key].default
            if key not in self.arguments() and getattr(self, key) != default:
                takers = " or ".join(f'"{name}"' for name, keys in _SERVER_KEYS.items() if key in keys)
                raise ValueError(
                    f'server.{key} is for server.optimizer {takers}, which is "{self.optimizer}": leave it at {default}'
                )
        return self

    def arguments(self) -> dict[str, float]:
        """Keyword arguments of the optimizer."""
        return {key: getattr(self, key) for key in ("learning_rate", *_SERVER_KEYS[self.optimizer])}


# Keys that no other packaged algorithm, or server optimizer, takes.
_ALGORITHM_KEYS: Mapping[str, tuple[str, ...]] = {
    "fedprox": ("proximal_mu",),
    "feddyn": ("alpha",),
    "ditto": ("personal_mu",),
    "fedper": ("private",),
}
_SERVER_KEYS: Mapping[str, tuple[str, ...]] = {
    "sgd": (),
    "momentum": ("momentum",),
    "adam": ("beta1", "beta2", "tau"),
    "yogi": ("beta1", "beta2", "tau"),
    "adagrad": ("tau",),
}


class ReleaseSection(Section):
    """Which version of the model devices use; see ``training.release_gate``."""

    gate: Literal["none", "evaluation"] = "none"  # none: the newest; evaluation: what devices find no worse
    metric: str = "loss"  # or one of the task's
    better: Literal["lower", "higher"] = "lower"
    # Both versions are measured by the same devices on the same examples: what differs is no noise of the sample.
    tolerance_ratio: NotNegative = 0.0
    bound: float = math.inf  # the worst value of the metric that may be released; inf: any
    # Our choices, these three: devices with five held-out examples each give a hundred; a bad canary meets a tenth.
    evaluation_reports: Count = 20
    canary_ratio: Ratio = 0.1  # of the devices; 0: no share tries a version before the others
    canary_reports: Count = 10
    # As of rounds: Bonawitz et al. 2019 (arXiv:1902.01046), section 9.
    over_selection: float = Field(default=1.3, ge=1, allow_inf_nan=False)
    minimum_ratio: Ratio = 0.6
    report_within_s: Positive = 600.0  # as rounds.deadline_s
    deadline_s: Positive = 86_400.0  # of a stage: a night of every device
    max_held_out: int = Field(default=0, ge=0)  # examples that a device's evaluation counts for at most; 0: any

    @model_validator(mode="after")
    def _of_the_gate(self) -> Self:
        changed = [key for key, field in type(self).model_fields.items() if getattr(self, key) != field.default]
        if self.gate == "none" and changed:
            raise ValueError(
                f'release.{changed[0]} is for release.gate "evaluation", which is "none": set the gate, or leave it out'
            )
        if math.isnan(self.bound) or self.bound == -math.inf:
            raise ValueError(f"release.bound must be a number, or inf for none, got {self.bound}")
        if self.metric == "loss" and self.better == "higher":
            raise ValueError(
                'release.better "higher" is of metrics such as an accuracy, and release.metric is "loss", which is '
                'better lower: set release.metric, or leave release.better at "lower"'
            )
        if self.canary_ratio == 0.0 and self.canary_reports != type(self).model_fields["canary_reports"].default:
            raise ValueError("release.canary_reports is for a release.canary_ratio above 0, got 0: leave one out")
        return self


class EngineSection(Section):
    """How the host computes; never in the events."""

    runtime: Literal["torch", "executorch", "onnx"] = "torch"
    # Which way: chosen by a short probe, which writes its choice here and its measurements into plan_reason.
    plan: Literal["auto", "each", "each_channels_last", "each_onnx", "batched", "batched_unfolded"] = "auto"
    plan_reason: str = ""
    # Devices that are mapped at once: from some hundred on, the cost of calling torch is small beside the arithmetic's,
    # and 256 states of a small model still fit a core's cache (measured on the multilayer perceptron 13-64-32-1: 128
    # and 1,024 are slower).
    chunk: Count = 256
    compile: bool = False  # hand mapped steps to torch's compiler
    device: Literal["cpu", "cuda"] = "cpu"  # where mapped steps are computed
    backend: Literal["processes", "ray"] = "processes"  # this machine, or a cluster: docs/cluster.md
    address: str = ""  # of the Ray cluster; empty: a Ray of this machine alone
    # "auto": all cores where the probe finds that much to train, or else one; of a cluster, all of its cores.
    processes: Count | Literal["auto"] = "auto"
    checkpoint_share: Ratio = 0.05  # of the wall time at most that checkpoints take; 1: one after every round
    timing_only: bool = False  # everything but the arithmetic: same events, no model

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.runtime != "torch" and self.plan not in {"auto", "each"}:
            raise ValueError(
                f'engine.plan "{self.plan}" is of engine.runtime "torch", which is "{self.runtime}": its programs '
                'train device by device; leave engine.plan at "auto"'
            )
        if self.compile and (self.runtime != "torch" or self.plan.startswith("each")):
            raise ValueError(
                'engine.compile is of mapped devices: leave engine.plan at "auto" or set it to "batched", with '
                'engine.runtime "torch"; or leave engine.compile out'
            )
        if self.device != "cpu" and (self.runtime != "torch" or self.plan.startswith("each")):
            raise ValueError(
                f'engine.device "{self.device}" needs mapped devices: set engine.plan to "auto" or "batched", and '
                'engine.runtime to "torch"'
            )
        return self

    @model_validator(mode="after")
    def _cluster(self) -> Self:
        if self.address and self.backend != "ray":
            raise ValueError(f'engine.address is for engine.backend "ray", which is "{self.backend}": leave it out')
        if self.address.startswith("ray://"):
            raise ValueError(
                f'engine.address must be "auto" or host:port, got "{self.address}": Ray\'s client is not supported, '
                "start the simulation on one of the cluster's machines"
            )
        if self.backend == "ray" and self.device != "cpu":
            raise ValueError(f'engine.backend "ray" computes on CPUs, engine.device is "{self.device}": leave one out')
        return self


class ServiceSection(Section):
    """What a service for real devices bears; see ``training.server.service_plan.Limits``. No simulation uses it."""

    population: str = Field(default="main", pattern="^[A-Za-z0-9_-]{1,64}$")  # its name in addresses
    max_devices: int = Field(default=100_000, ge=1, le=10_000_000)  # that can ever enrol
    longest_retry_s: Positive = 60.0
    device_requests_per_s: NotNegative = 20.0  # 0: no limit
    device_burst: Count = 100
    address_failures_per_s: NotNegative = 1.0
    address_burst: Count = 30
    body_least_bytes_per_s: Positive = 1_000.0
    body_grace_s: Positive = 20.0
    header_timeout_s: Positive = 20.0
    max_update_norm: NotNegative = 0.0
    max_num_examples: int = Field(default=0, ge=0)
    keep_updates: bool = False
    keep_models: int = Field(default=0, ge=0)

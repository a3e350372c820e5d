"""An emulated device of the Boston task, put together for a test around a service of its own."""

from collections.abc import Callable
from pathlib import Path

from small_service import SmallService

from pocketfleet import Bundle
from pocketfleet.device_sim.availability import AlwaysAvailable, Availability
from pocketfleet.device_sim.client import Assignment as ClientWork
from pocketfleet.device_sim.client import Client, ClientResult
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.device_sim.device_folder import Credential, DeviceFolder
from pocketfleet.device_sim.device_parts import DeviceParts
from pocketfleet.device_sim.device_start import StartSettings, started_parts
from pocketfleet.device_sim.efficiency import load_profile
from pocketfleet.device_sim.emulated_device import EmulatedDevice
from pocketfleet.device_sim.emulated_phone import PhoneUnit
from pocketfleet.device_sim.fleet import DeviceOverride, build_fleet
from pocketfleet.export.session import open_session
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.server.protocol import Assignment
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.task import load_task
from pocketfleet.training.weights import Tensors

__all__ = ["DEVICE", "Kit", "boston_data", "boston_unit", "trained_alone"]

DEVICE, DEVICES = 1, 8
FEDAVG = FedAvg(server_optimizer=ServerSgd())


def boston_data() -> DeviceData:
    return DeviceData(load_task("boston"), kind="iid", devices=DEVICES, seed=0, alpha=1.0, examples_per_device=0)


def boston_unit(data: DeviceData, *, day: Availability | None = None, **override: float) -> PhoneUnit:
    full = DeviceOverride(devices="all", **{"battery_ratio": 1.0, **override})
    return PhoneUnit(
        fleet=build_fleet(devices=DEVICES, seed=0, overrides=[full]),
        device=DEVICE,
        availability=day or AlwaysAvailable(),
        seed=0,
        profile=load_profile(""),
        num_training=int(data.num_training[DEVICE]),
        num_held_out=int(data.num_held_out[DEVICE]),
        memory_moments=False,
    )


def trained_alone(
    bundle: Bundle,
    work: Assignment,
    data: DeviceData,
    *,
    steps: int,
    algorithm: Algorithm = FEDAVG,
    broadcast: Tensors | None = None,
    state: Tensors | None = None,
) -> ClientResult:
    """What the simulator's client makes of the work."""
    client = Client(
        session=open_session(bundle, "onnx"),
        data=data,
        algorithm=algorithm,
        settings=bundle.settings,
        hyper=work.hyper,
        batch_size=work.batch_size,
    )
    own = ClientWork(device=DEVICE, steps=steps, batch_seed=work.batch_seed, device_state=state or {})
    return client.train(own, bundle.weights(), broadcast or {})


class Kit:
    """A device's folder, and what it is started with again and again."""

    def __init__(
        self,
        folder: Path,
        service: SmallService,
        *,
        speed: float = 20.0,
        day: Availability | None = None,
        load: Callable[[], object] = lambda: None,
        **override: float,
    ) -> None:
        self.folder = DeviceFolder(folder)
        self.data = boston_data()
        self.unit = boston_unit(self.data, day=day, **override)
        self.credential = Credential(url=service.url, device_id="device-one", credential="secret")
        self.settings = StartSettings(runtime="onnx", speed=speed)
        self.told: list[str] = []
        self.load = load

    def parts(self) -> DeviceParts:
        def data(signature: object) -> DeviceData:
            self.load()
            return self.data

        return started_parts(self.folder, self.unit, self.credential, self.settings, data=data, tell=self.told.append)

    def run(self, parts: DeviceParts | None = None, *, reports: int = 0) -> EmulatedDevice:
        parts = parts or self.parts()
        with parts.service:
            device = EmulatedDevice(parts)
            device.run(reports=reports)
        return device

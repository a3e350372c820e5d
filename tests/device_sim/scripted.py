"""A day written by hand: conditions that switch at given times, behind the real interface."""

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.day_changes import DayChanges, DayState, walked_changes
from pocketfleet.device_sim.place import always_home

__all__ = ["ScriptedDay"]


class ScriptedDay:
    """Each condition is true but inside ``[from_s, until_s)`` of a listed ``(device, condition, from_s, until_s)``."""

    def __init__(self, *gaps: tuple[int, str, float, float]) -> None:
        self._gaps = gaps

    def state(self, devices: npt.NDArray[np.int64], now_s: float | npt.NDArray[np.float64]) -> DayState:
        times = np.broadcast_to(now_s, devices.shape)
        columns = {name: np.ones(len(devices), dtype=np.bool_) for name in ("idle", "charging", "wifi")}
        for device, condition, from_s, until_s in self._gaps:
            columns[condition] &= ~((devices == device) & (times >= from_s) & (times < until_s))
        return DayState(**columns)

    def next_change_s(
        self, devices: npt.NDArray[np.int64], now_s: float | npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        times = np.broadcast_to(now_s, devices.shape)
        following = np.full(len(devices), np.inf)
        for device, _, *edges in self._gaps:
            for edge_s in edges:
                hit = (devices == device) & (times < edge_s)
                following = np.where(hit, np.minimum(following, edge_s), following)
        return following

    def changes(
        self,
        devices: npt.NDArray[np.int64],
        from_s: float | npt.NDArray[np.float64],
        until_s: float | npt.NDArray[np.float64],
    ) -> DayChanges:
        start_s, end_s = (np.broadcast_to(np.asarray(at_s, np.float64), devices.shape) for at_s in (from_s, until_s))
        return walked_changes(self, devices, start_s, end_s)

    def place(self, devices: npt.NDArray[np.int64], now_s: float | npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
        del now_s
        return always_home(devices)

    def local_s(
        self, devices: npt.NDArray[np.int64], now_s: float | npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        return np.broadcast_to(np.asarray(now_s, np.float64), devices.shape)

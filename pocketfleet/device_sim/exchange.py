"""What an attempt moves over the air: its download and upload, over which links, in what time and for what joules.

Rules:

1. Each transfer uses the link, the place and the hour of its beginning. It stays with that link, also where the device
   leaves Wi-Fi in the middle of it and the rule lets it go on.
2. The radio sleeps before the download. At the upload it is still awake if training was over within the radio's tail.
3. The download's tail ends with the upload's beginning; the last transfer's is paid in full. Tails are charged to the
   transfer before them, and end after it: the report does not wait for them.
"""

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Attempts, Stage
from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.connection import connect
from pocketfleet.device_sim.day_changes import WIFI, DayChanges
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.network import PoweredLinks
from pocketfleet.device_sim.radio import load_radios, tail_joules, transfer_joules
from pocketfleet.device_sim.transfer import Transfers, carry_transfers, transfer_rate_factor

__all__ = ["Exchange"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class Exchange:
    """The transfers of attempts, drawn as each begins; columns are ``[n]``.

    Args:
        fleet: whose links.
        availability: the devices' days.
        day: their changes from the starts to the deadlines.
        device: dense index.
        number: a running number of the device's attempts: each draws anew.
        seed: the experiment's.
        start_s: virtual time of the attempt's start.
        deadline_s: virtual time of the deadline; what begins later uses the link of then.
        download_bytes: to move down.
        upload_bytes: to move up.

    Attributes:
        down_link: the links of the downloads.
        download: what these take.
        up_link: the links of the uploads; those of the downloads until ``begin_upload``.
        upload: what these take, likewise.
    """

    def __init__(
        self,
        fleet: Fleet,
        availability: Availability,
        day: DayChanges,
        device: Int64s,
        number: Int64s,
        *,
        seed: int,
        start_s: Floats,
        deadline_s: Floats,
        download_bytes: Floats,
        upload_bytes: Floats,
    ) -> None:
        self._fleet, self._availability, self._day = fleet, availability, day
        self._device, self._number = device, number
        self._seed, self._start_s, self._deadline_s = seed, start_s, deadline_s
        self._upload_bytes = upload_bytes
        self.down_link = self._link_at(start_s)
        link, asleep = self.down_link, np.ones(len(device), dtype=np.bool_)
        self.download = self._drawn(
            "download", link, link.down_bits_per_s, link.down_variation_ratio, download_bytes, asleep
        )
        self.up_link, self.upload = self.down_link, self.download

    def begin_upload(self, from_s: Floats) -> tuple[Floats, Floats]:
        """Draw the uploads that begin at virtual times ``from_s``; as ``attempt.Journey.upload`` wants it."""
        link = self.up_link = self._link_at(np.minimum(from_s, self._deadline_s))
        quiet_s = from_s - (self._start_s + self.download.seconds)
        asleep = (quiet_s > load_radios().tail_s[link.radio]) | (link.radio != self.down_link.radio)
        self.upload = self._drawn(
            "upload", link, link.up_bits_per_s, link.up_variation_ratio, self._upload_bytes, asleep
        )
        return self.upload.seconds, self.upload.lost_after_s

    def _link_at(self, at_s: Floats) -> PoweredLinks:
        wifi = (self._day.code_at(at_s) & WIFI) > 0
        return connect(self._fleet, self._availability, self._device, at_s, wifi=wifi)

    def _drawn(
        self,
        purpose: str,
        link: PoweredLinks,
        bits_per_s: Floats,
        variation_ratio: Floats,
        payload_bytes: Floats,
        wakes: Bools,
    ) -> Transfers:
        factor = transfer_rate_factor(self._seed, purpose, self._number, self._device, variation_ratio)
        return carry_transfers(
            self._seed,
            purpose,
            self._number,
            self._device,
            payload_bytes=payload_bytes,
            bits_per_s=bits_per_s * factor,
            latency_s=link.latency_s,
            losses_per_s=link.link_losses_per_s,
            wake_s=load_radios().wake_s[link.radio],
            wakes=wakes,
            outage=self._fleet.outage,
        )

    def joules(self, attempts: Attempts, *, downlink_bytes: Int64s, uplink_bytes: Int64s) -> tuple[Floats, Floats]:
        """Joules of the radio for the download and the upload of the attempts, tails included; ``[n]`` each."""
        radios, down, up = load_radios(), self.down_link, self.up_link
        uploads = attempts.stage >= Stage.UPLOAD
        download_joules = transfer_joules(
            radio=down.radio,
            spent_s=attempts.download_s,
            wake_s=self.download.wake_s,
            on_watts=down.receive_watts,
            moved_bytes=downlink_bytes.astype(np.float64),
            joules_per_byte=radios.receive_joules_per_byte[down.radio],
        ) + tail_joules(down.radio, np.where(uploads, attempts.train_s, np.inf))
        upload_joules = transfer_joules(
            radio=up.radio,
            spent_s=attempts.upload_s,
            wake_s=self.upload.wake_s,
            on_watts=up.transmit_watts,
            moved_bytes=uplink_bytes.astype(np.float64),
            joules_per_byte=radios.transmit_joules_per_byte[up.radio],
        ) + np.where(uploads, tail_joules(up.radio, np.full(len(uploads), np.inf)), 0.0)
        return download_joules, upload_joules

"""What an attempt moves over the air: its download and upload, over which links, in what time and for what joules.

Rules:

1. The download uses the link of the attempt's start. The upload uses that of the time at which training would end
   undisturbed, of the deadline at the latest; place and hour likewise. A transfer stays with the link it began on,
   also where the device leaves Wi-Fi in the middle of it and the rule lets it go on.
2. The radio sleeps before the download. It still is awake at the upload if training, undisturbed, is over within the
   radio's tail.
3. The download's tail ends with the upload's beginning; the last transfer's is paid in full. Tails are charged to the
   transfer before them, and end after it: the report does not wait for them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketfleet.device_sim.attempt import Attempts, Stage
from pocketfleet.device_sim.availability import Availability
from pocketfleet.device_sim.connection import Connections, connect
from pocketfleet.device_sim.fleet import Fleet
from pocketfleet.device_sim.radio import load_radios, tail_joules, transfer_joules
from pocketfleet.device_sim.transfer import Transfers, carry_transfers, transfer_rate_factor

__all__ = ["Exchange", "draw_exchange", "exchange_joules"]

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exchange:
    """The two transfers of attempts, and the links that they use."""

    download: Transfers
    upload: Transfers
    down_link: Connections
    up_link: Connections


def draw_exchange(
    fleet: Fleet,
    day: Availability,
    device: Int64s,
    number: Int64s,
    *,
    seed: int,
    start_s: Floats,
    training_s: Floats,
    deadline_s: float,
    download_bytes: Floats,
    upload_bytes: Floats,
) -> Exchange:
    """Draw the transfers of attempts; columns are ``[n]``.

    Args:
        fleet: whose links.
        day: the devices' days.
        device: dense index.
        number: a running number of the device's attempts: each draws anew.
        seed: the experiment's.
        start_s: virtual time of the attempt's start.
        training_s: seconds of undisturbed training.
        deadline_s: virtual time of the round's deadline.
        download_bytes: to move down.
        upload_bytes: to move up.
    """
    down_link = connect(fleet, day, device, start_s)
    rate = transfer_rate_factor(seed, "download", number, device, down_link.down_variation_ratio)
    asleep = np.ones(len(device), dtype=np.bool_)
    download = _transfers(
        fleet, "download", device, number, down_link, down_link.down_bits_per_s * rate, download_bytes, asleep, seed
    )
    up_link = connect(fleet, day, device, np.minimum(start_s + download.seconds + training_s, deadline_s))
    rate = transfer_rate_factor(seed, "upload", number, device, up_link.up_variation_ratio)
    asleep = (training_s > load_radios().tail_s[up_link.radio]) | (up_link.radio != down_link.radio)
    upload = _transfers(
        fleet, "upload", device, number, up_link, up_link.up_bits_per_s * rate, upload_bytes, asleep, seed
    )
    return Exchange(download=download, upload=upload, down_link=down_link, up_link=up_link)


def _transfers(
    fleet: Fleet,
    purpose: str,
    device: Int64s,
    number: Int64s,
    link: Connections,
    bits_per_s: Floats,
    payload_bytes: Floats,
    wakes: npt.NDArray[np.bool_],
    seed: int,
) -> Transfers:
    return carry_transfers(
        seed,
        purpose,
        number,
        device,
        payload_bytes=payload_bytes,
        bits_per_s=bits_per_s,
        latency_s=link.latency_s,
        losses_per_s=link.link_losses_per_s,
        wake_s=load_radios().wake_s[link.radio],
        wakes=wakes,
        outage=fleet.outage,
    )


def exchange_joules(
    exchange: Exchange, attempts: Attempts, *, downlink_bytes: Int64s, uplink_bytes: Int64s
) -> tuple[Floats, Floats]:
    """Joules of the radio for the download and the upload of attempts, tails included; ``[n]`` each."""
    radios, down, up = load_radios(), exchange.down_link, exchange.up_link
    uploads = attempts.stage >= Stage.UPLOAD
    download_joules = transfer_joules(
        radio=down.radio,
        spent_s=attempts.download_s,
        wake_s=exchange.download.wake_s,
        on_watts=down.receive_watts,
        moved_bytes=downlink_bytes.astype(np.float64),
        joules_per_byte=radios.receive_joules_per_byte[down.radio],
    ) + tail_joules(down.radio, np.where(uploads, attempts.train_s, np.inf))
    upload_joules = transfer_joules(
        radio=up.radio,
        spent_s=attempts.upload_s,
        wake_s=exchange.upload.wake_s,
        on_watts=up.transmit_watts,
        moved_bytes=uplink_bytes.astype(np.float64),
        joules_per_byte=radios.transmit_joules_per_byte[up.radio],
    ) + np.where(uploads, tail_joules(up.radio, np.full(len(uploads), np.inf)), 0.0)
    return download_joules, upload_joules

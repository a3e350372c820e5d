"""What the catalogue's phones are predicted to make of a bundle; nothing here was measured on a phone.

The same physics as a simulation's: ``compute`` for seconds, ``memory`` for the fit, and the phone's watts above idle
while one thread trains times these seconds for joules. ``docs/limits.md`` says how far off that may be.
"""

from collections.abc import Sequence

import numpy as np

from pocketfleet.device_sim.bench_report import PhonePrediction
from pocketfleet.device_sim.compute import program_seconds
from pocketfleet.device_sim.efficiency import Profile, load_profile
from pocketfleet.device_sim.memory import fits
from pocketfleet.device_sim.phone import Phone, find_phone, load_phones
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.session import Runtime

__all__ = ["chosen_phones", "predict_phones"]


def chosen_phones(names: str) -> tuple[Phone, ...]:
    """The phones that ``--phones`` names.

    Args:
        names: ``"all"``, ``"none"``, or names of the catalogue with commas between them.

    Raises:
        InputError: a name is unknown; the message lists close ones.
    """
    if names == "all":
        return load_phones()
    if names == "none":
        return ()
    return tuple(find_phone(name.strip()) for name in names.split(","))


def predict_phones(
    bundle: Bundle, phones: Sequence[Phone], *, runtimes: Sequence[Runtime], batch: int, profile: Profile | None = None
) -> tuple[PhonePrediction, ...]:
    """One prediction a phone and runtime, in the order given; ``profile`` is the packaged one if left out."""
    if not phones:
        return ()
    peak_flops, bytes_per_s, free_bytes, watts = (
        np.array([getattr(phone, figure) for phone in phones], dtype=np.float64)
        for figure in ("peak_flops_one_thread", "memory_bytes_per_s", "free_memory_bytes", "compute_watts")
    )
    rows = []
    for runtime in runtimes:
        footprint = bundle.footprint(runtime)
        seconds = program_seconds(
            footprint.at("train_step", batch=batch),
            profile=profile or load_profile(),
            runtime=runtime,
            phones=[phone.name for phone in phones],
            peak_flops=peak_flops,
            memory_bytes_per_s=bytes_per_s,
        )
        fitting = fits(footprint.training_memory_bytes, free_bytes)
        rows += [
            PhonePrediction(
                phone=phone.name,
                runtime=runtime,
                batch=batch,
                step_s=float(step_s),
                joules=float(step_s * power),
                fits_memory=bool(fit),
            )
            for phone, step_s, power, fit in zip(phones, seconds, watts, fitting, strict=True)
        ]
    return tuple(rows)

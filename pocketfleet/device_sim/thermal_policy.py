"""What a phone does about a hot skin: the thresholds of a published policy, and what a CPU loses by them.

Rules:

1. The policy is a Pixel 8's, the one that we have read whole (``_POLICY`` below): skin temperatures, the CPU's power
   budgets, what a charger may give. It stands for all phones; budgets are scaled to what a case sheds.
2. At ``CPU_CELSIUS`` the CPU falls to the budget of that threshold; it is let go ``HYSTERESIS_KELVIN`` below it.
3. Within a budget a CPU clocks down. Its speed goes with its watts as ``watts ** (1 / WATTS_EXPONENT)``.
4. At ``CHARGE_CELSIUS`` charging is held to what keeps the skin there, but not under ``LEAST_CHARGE_WATTS``.
5. A phone starts no training at ``START_CELSIUS``, and stops at ``STOP_CELSIUS``. What Android says of itself counts as
   much as a skin's degrees: its thermal status is the same limits counted, ``START_STATUS`` and ``STOP_STATUS``.
"""

import numpy as np
import numpy.typing as npt

__all__ = [
    "CHARGE_CELSIUS",
    "CPU_CELSIUS",
    "HYSTERESIS_KELVIN",
    "LEAST_CHARGE_WATTS",
    "SEVERITY_CELSIUS",
    "START_CELSIUS",
    "START_STATUS",
    "STOP_CELSIUS",
    "STOP_STATUS",
    "WATTS_EXPONENT",
    "budget_watts",
    "speed_ratio",
    "too_hot",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# _POLICY: LineageOS/android_device_google_shusky@0325752 thermal_info_config_shiba.json. The skin's six severities:
# light 39, moderate 43, severe 45, critical 46.5, emergency 52, shutdown 55 degrees; hysteresis 1.9 K at each.
# Android's PowerManager counts them from 0, none: THERMAL_STATUS_LIGHT is 1, THERMAL_STATUS_SHUTDOWN is 6.
SEVERITY_CELSIUS = (-np.inf, 39.0, 43.0, 45.0, 46.5, 52.0, 55.0)
HYSTERESIS_KELVIN = 1.9
# VIRTUAL-SKIN-CPU, moderate and severe: the CPU's budgets in watts that the policy calls sustainable.
CPU_CELSIUS = (43.0, 45.0)
_CPU_BUDGET_WATTS = (1.2, 0.8)
# Kelvin a watt of the case that these budgets are for: a Pixel 8's, mid (thermal_classes.csv).
_BUDGET_KELVIN_PER_WATT = 6.5
# VIRTUAL-SKIN-CHARGE, light: 3.6 W sustained, 6 W at most while above. A phone that cools is let go again, so that in
# the mean it gets what holds it at the threshold: that mean is taken (assumed), and 3.6 W always.
CHARGE_CELSIUS = 39.0
LEAST_CHARGE_WATTS = 3.6
# From "moderate" on Android's JobScheduler starts no job of usual priority: HIGHER_PRIORITY_THRESHOLD in AOSP's
# ThermalStatusRestriction. Android 11 and 12 stop all jobs from "critical" on (UPPER_THRESHOLD there); later ones stop
# them at "severe", unless the user sees the app or asked for the job: the platform's own doing, not this rule's.
START_STATUS, STOP_STATUS = 2, 4
START_CELSIUS = SEVERITY_CELSIUS[START_STATUS]
STOP_CELSIUS = SEVERITY_CELSIUS[STOP_STATUS]
# Power of one core under CoreMark less the idle phone, against its score, over the upper half of its clocks: slopes on
# logarithmic axes of the fastest core of 37 SoCs have the median 1.8 and the quartiles 1.6 and 2.1 (our fit to
# kdrag0n/freqbench@9eb16ad results/*/main/results.csv). All cores together are taken to behave as one.
WATTS_EXPONENT = 1.8


def budget_watts(severity: npt.NDArray[np.int8], kelvin_per_watt: Floats) -> Floats:
    """What the CPU may draw.

    Args:
        severity: how many of ``CPU_CELSIUS`` are exceeded, ``[n]``.
        kelvin_per_watt: of the case, ``[n]``; a case that sheds half as much has half the budget.

    Returns:
        Watts ``[n]``; infinite where nothing is exceeded.
    """
    budgets = np.array([np.inf, *_CPU_BUDGET_WATTS])[severity]
    scaled: Floats = budgets * (_BUDGET_KELVIN_PER_WATT / kelvin_per_watt)
    return scaled


def speed_ratio(watts: Floats, full_watts: Floats) -> Floats:
    """Speed of a CPU that draws ``watts`` instead of ``full_watts``, over its full speed; ``[n]``, in (0, 1]."""
    ratio = np.divide(watts, full_watts, out=np.ones_like(full_watts), where=full_watts > 0.0)
    speed: Floats = ratio ** (1.0 / WATTS_EXPONENT)
    return speed


def too_hot(celsius: Floats, *, status: npt.ArrayLike = 0, training: bool = False) -> Bools:
    """Whether a phone is too hot to start a training, or to go on with one; rule 5.

    Args:
        celsius: of the skin, ``[n]``; NaN where nobody knows, which is not hot.
        status: Android's thermal status, 0 to 6, ``[n]``; 0 where nobody knows.
        training: whether it trains already.
    """
    limit_celsius, limit_status = (STOP_CELSIUS, STOP_STATUS) if training else (START_CELSIUS, START_STATUS)
    hot: Bools = (celsius >= limit_celsius) | (np.asarray(status) >= limit_status)
    return hot

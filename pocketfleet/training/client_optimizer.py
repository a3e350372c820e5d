"""What an optimizer on the device makes of a gradient: new weights, and slots that it keeps for its next step.

1. *SGD* as ``torch.optim.SGD`` does it, without dampening; slot ``momentum/<weight>``.
2. *Adam* (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; weight decay added to the gradient) and *AdamW*
   (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2; the decay scaled by the learning rate, as in
   ``torch.optim.AdamW``); slots ``first_moment/<weight>``, ``second_moment/<weight>``, and ``beta1_power`` and
   ``beta2_power``. The last two hold ``beta ** t``: products round alike on every runtime, powers do not, and early in
   training ``1 - beta2 ** t`` would magnify the difference a thousandfold.
"""

import torch

from pocketfleet.training.step_settings import Hyper, StepSettings
from pocketfleet.training.weights import Tensors

__all__ = ["FIRST_MOMENT", "descend", "empty_slots"]

FIRST_MOMENT = "first_moment"


def empty_slots(trainable: Tensors, settings: StepSettings) -> Tensors:
    """The slots before the first step, on the device of the weights, of which there is one at least."""

    def zeros(slot: str) -> Tensors:
        return {f"{slot}/{name}": torch.zeros_like(value) for name, value in trainable.items()}

    if settings.adaptive:
        device = next(iter(trainable.values())).device
        powers = {name: torch.ones((), device=device) for name in ("beta1_power", "beta2_power")}
        return zeros(FIRST_MOMENT) | zeros("second_moment") | powers
    return zeros("momentum") if settings.momentum else {}


def descend(
    trainable: Tensors, gradient: Tensors, slots: Tensors, hyper: Hyper, settings: StepSettings
) -> tuple[Tensors, Tensors]:
    """One update.

    Args:
        trainable: weights by name.
        gradient: by the same names.
        slots: as ``empty_slots`` or the step before gave them.
        hyper: scalars for ``settings.hyper_names``.
        settings: which optimizer, with which terms.

    Returns:
        New weights and new slots.
    """
    if settings.weight_decay and settings.optimizer != "adamw":
        gradient = {name: g + hyper["weight_decay"] * trainable[name] for name, g in gradient.items()}
    if settings.adaptive:
        return _adam(trainable, gradient, slots, hyper, settings)
    return _sgd(trainable, gradient, slots, hyper, settings)


def _sgd(
    trainable: Tensors, gradient: Tensors, slots: Tensors, hyper: Hyper, settings: StepSettings
) -> tuple[Tensors, Tensors]:
    after, kept = {}, {}
    for name, weight in trainable.items():
        g = gradient[name]
        if settings.momentum:
            velocity = hyper["momentum"] * slots[f"momentum/{name}"] + g
            g = g + hyper["momentum"] * velocity if settings.nesterov else velocity
            kept[f"momentum/{name}"] = velocity
        after[name] = weight - hyper["learning_rate"] * g
    return after, kept


def _adam(
    trainable: Tensors, gradient: Tensors, slots: Tensors, hyper: Hyper, settings: StepSettings
) -> tuple[Tensors, Tensors]:
    beta1, beta2, rate = hyper["beta1"], hyper["beta2"], hyper["learning_rate"]
    power1, power2 = slots["beta1_power"] * beta1, slots["beta2_power"] * beta2
    after, kept = {}, {"beta1_power": power1, "beta2_power": power2}
    step_size, spread = rate / (1 - power1), (1 - power2).sqrt()
    for name, weight in trainable.items():
        g = gradient[name]
        first = beta1 * slots[f"{FIRST_MOMENT}/{name}"] + (1 - beta1) * g
        second = beta2 * slots[f"second_moment/{name}"] + (1 - beta2) * (g * g)
        kept[f"{FIRST_MOMENT}/{name}"], kept[f"second_moment/{name}"] = first, second
        if settings.optimizer == "adamw" and settings.weight_decay:
            weight = weight - rate * hyper["weight_decay"] * weight
        after[name] = weight - step_size * first / (second.sqrt() / spread + hyper["epsilon"])
    return after, kept

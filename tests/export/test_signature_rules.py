"""What a training step's settings ask of a signature."""

import dataclasses

import pytest

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.signature import MethodSignature, Signature, TensorSpec
from pocketfleet.export.signature_rules import check_signature_rules


def with_inputs(signature: Signature, method: str, inputs: tuple[TensorSpec, ...]) -> Signature:
    changed: MethodSignature = dataclasses.replace(signature.method(method), inputs=inputs)
    return dataclasses.replace(signature, **{method: changed})


def test_a_signature_of_every_term_is_right(normalised_bundle: Bundle) -> None:
    check_signature_rules(normalised_bundle.signature, normalised_bundle.settings)


@pytest.mark.parametrize("term", ["momentum", "proximal", "correction", "clipping", "weight_decay"])
def test_each_term_of_the_settings_has_its_inputs(term: str, normalised_bundle: Bundle) -> None:
    without = dataclasses.replace(normalised_bundle.settings, nesterov=False, **{term: False})
    with pytest.raises(ValueError, match=r"signature\.train_step\.inputs\.\d+ must be"):
        check_signature_rules(normalised_bundle.signature, without)


@pytest.mark.parametrize("method", ["train_step", "predict", "evaluate"])
def test_no_input_is_missing_and_none_is_twice(method: str, normalised_bundle: Bundle) -> None:
    signature, settings = normalised_bundle.signature, normalised_bundle.settings
    inputs = signature.method(method).inputs
    for place in range(len(inputs)):
        for changed in (
            inputs[:place] + inputs[place + 1 :],
            inputs[:place] + inputs[place : place + 1] + inputs[place:],
        ):
            with pytest.raises(ValueError, match="signature"):
                check_signature_rules(with_inputs(signature, method, changed), settings)

from typing import Any

import pytest

from pocketfleet.errors import InputError
from pocketfleet.training.step_settings import Optimizer, StepSettings, chosen_terms


def test_nothing_chosen_is_plain_sgd() -> None:
    assert chosen_terms() == (StepSettings(), {"learning_rate": 0.01})


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.01), ("adam", 0.001), ("adamw", 0.001)])
def test_the_default_rate_is_the_optimizers(optimizer: Optimizer, rate: float) -> None:
    assert chosen_terms(optimizer=optimizer)[1]["learning_rate"] == rate
    assert chosen_terms(optimizer=optimizer, learning_rate=0.5)[1]["learning_rate"] == 0.5
    # A rate of 0 is a rate: only None is left out.
    assert chosen_terms(optimizer=optimizer, learning_rate=0.0)[1]["learning_rate"] == 0.0


@pytest.mark.parametrize(
    ("strength", "term"),
    [("momentum", "momentum"), ("weight_decay", "weight_decay"), ("proximal_mu", "proximal"), ("max_norm", "clipping")],
)
def test_a_strength_of_0_leaves_its_term_out(strength: str, term: str) -> None:
    without: dict[str, Any] = {strength: 0.0}
    assert chosen_terms(**without) == (StepSettings(), {"learning_rate": 0.01})
    chosen: dict[str, Any] = {strength: 0.25}
    settings, hyper = chosen_terms(**chosen)
    wanted: dict[str, Any] = {term: True}
    assert settings == StepSettings(**wanted)
    assert hyper == {"learning_rate": 0.01, strength: 0.25}


def test_every_term_at_once() -> None:
    settings, hyper = chosen_terms(momentum=0.9, nesterov=True, weight_decay=0.1, proximal_mu=0.2, max_norm=0.3)
    assert settings == StepSettings(momentum=True, nesterov=True, weight_decay=True, proximal=True, clipping=True)
    assert list(hyper.items()) == [
        *(("learning_rate", 0.01), ("momentum", 0.9), ("weight_decay", 0.1), ("proximal_mu", 0.2), ("max_norm", 0.3))
    ]


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_what_adam_takes_in_order(optimizer: Optimizer) -> None:
    # The constants are those of Kingma and Ba 2015, algorithm 1.
    settings, hyper = chosen_terms(optimizer=optimizer, weight_decay=0.1, proximal_mu=0.2, max_norm=0.3)
    assert list(hyper.items()) == [
        *(("learning_rate", 0.001), ("beta1", 0.9), ("beta2", 0.999), ("epsilon", 1e-8)),
        *(("weight_decay", 0.1), ("proximal_mu", 0.2), ("max_norm", 0.3)),
    ]
    assert settings.hyper_names == tuple(hyper)
    assert settings.adaptive
    assert not StepSettings().adaptive


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nesterov": True}, r"^nesterov needs momentum$"),
        (
            {"optimizer": "adam", "momentum": 0.9},
            r"^momentum and nesterov are SGD's; adam has its own moments$",
        ),
        ({"optimizer": "adamw", "nesterov": True}, r"^momentum and nesterov are SGD's; adamw has its own moments$"),
        ({"optimizer": "lion"}, r"^optimizer must be one of sgd, adam, adamw, got 'lion'$"),
    ],
)
def test_terms_that_do_not_go_together(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen_terms(**arguments)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (StepSettings(), "plain sgd"),
        (StepSettings(optimizer="adamw"), "plain adamw"),
        (StepSettings(optimizer="adam", weight_decay=True), "adam with weight decay"),
        (
            StepSettings(
                momentum=True, nesterov=True, weight_decay=True, proximal=True, clipping=True, correction=True
            ),
            "sgd with momentum, nesterov, weight decay, proximal, clipping, correction",
        ),
    ],
)
def test_in_words(settings: StepSettings, text: str) -> None:
    assert str(settings) == text

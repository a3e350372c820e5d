import re

import numpy as np
import pytest
from plain_federation import (
    BODY,
    COHORTS,
    EVERYBODY,
    EXAMPLES,
    STEPS,
    A,
    B,
    Federation,
    assert_mapped_as_looped,
    descend,
    flat,
    start_weights,
)

from pocketfleet.errors import InputError
from pocketfleet.training.algorithm import Algorithm
from pocketfleet.training.algorithms.fedper import FedPer
from pocketfleet.training.server_optimizer import ServerMomentum, ServerSgd
from pocketfleet.training.train_step import StepSettings

FEDPER = FedPer(server_optimizer=ServerSgd(), private=("he*",))


def test_rounds_are_those_of_the_papers_algorithm() -> None:
    # Arivazhagan et al. 2019, algorithm 1: body by the mean over examples, each head where its device left it.
    w = flat(start_weights().trainable)
    body, heads = w[:BODY], dict.fromkeys(EVERYBODY, w[BODY:])
    federation = Federation(algorithm=FEDPER)
    for cohort in COHORTS:
        share = np.array([EXAMPLES[k] for k in cohort]) / sum(EXAMPLES[k] for k in cohort)
        ends = {k: descend(k, np.concatenate([body, heads[k]]), steps=STEPS[k]) for k in cohort}
        body = share @ np.array([end[:BODY] for end in ends.values()])
        heads |= {k: end[BODY:] for k, end in ends.items()}
        mean = federation.round(cohort)
        assert list(mean.delta) == ["body"]
        np.testing.assert_allclose(federation.weights.trainable["body"].numpy(), body, rtol=1e-12)
    # The server's head is the first one; a device keeps the difference.
    assert federation.weights.trainable["head"].tolist() == w[BODY:].tolist()
    for device in EVERYBODY:
        kept = federation.device_states[device]["head"].numpy()
        np.testing.assert_allclose(w[BODY:] + kept, heads[device], rtol=1e-12)


def test_it_finds_the_minimum_over_the_body_and_every_head() -> None:
    federation = Federation(algorithm=FEDPER)
    for _ in range(300):
        federation.round(EVERYBODY, steps=(1, 1, 1, 1))
    # One step a round is gradient descent on sum_k n_k F_k(body, head_k): at its minimum every head's gradient is 0,
    # head_k = C^-1 (b_head - A_head,body body), and so is the body's, of what is left.
    total, wanted = np.zeros((BODY, BODY)), np.zeros(BODY)
    for n, a, b in zip(EXAMPLES, A, B, strict=True):
        through = a[:BODY, BODY:] @ np.linalg.inv(a[BODY:, BODY:])
        total += n * (a[:BODY, :BODY] - through @ a[BODY:, :BODY])
        wanted += n * (b[:BODY] - through @ b[BODY:])
    np.testing.assert_allclose(federation.weights.trainable["body"].numpy(), np.linalg.solve(total, wanted), rtol=1e-6)


def test_the_servers_optimizer_keeps_nothing_of_the_head() -> None:
    heavy = FedPer(server_optimizer=ServerMomentum(), private=("head",))
    assert list(heavy.init(start_weights())) == ["body"]
    assert list(heavy.device_init(start_weights())) == ["head"]


def test_mapped_over_devices_it_is_what_it_is_in_a_loop() -> None:
    assert_mapped_as_looped(FEDPER)


@pytest.mark.parametrize(
    ("private", "message"),
    [
        (("tail.*",), "; 'tail.*' names none"),
        (("head", "tail"), "; 'tail' names none"),
        (("*",), "; ['*'] leaves 0 of 2 to share"),
        ((), "; [] leaves 2 of 2 to share"),
    ],
)
def test_patterns_name_some_of_the_weights(private: tuple[str, ...], message: str) -> None:
    which = "algorithm.private must name some of the model's trainable weights, which are body, head"
    with pytest.raises(InputError, match=f"^{re.escape(which + message)}$"):
        FedPer(server_optimizer=ServerSgd(), private=private).init(start_weights())


def test_what_it_adds_to_a_step() -> None:
    assert FEDPER.step_settings(StepSettings(momentum=True)) == StepSettings(momentum=True)
    assert isinstance(FEDPER, Algorithm)
    assert (FEDPER.name, FEDPER.weighting) == ("fedper", "examples")

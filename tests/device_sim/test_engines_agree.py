"""Twenty rounds in float64: whoever computes them, the models agree. On a cluster: ``test_cluster.py``."""

from functools import partial

import pytest
from both_clients import distances
from twenty_rounds import FLEETS, start, trainer, twenty_rounds

from pocketfleet.device_sim.workers import Workers


@pytest.mark.parametrize("task", FLEETS)
def test_models_agree_within_a_billionth_after_twenty_rounds(task: str) -> None:
    with Workers(partial(trainer, task, batched=False), processes=1) as workers:
        plain = twenty_rounds(task, workers, size=1)
    assert distances(plain, start(task)).max() > 0.01
    for batched, processes, size in ((True, 1, 4), (True, 2, 3), (False, 2, 2)):
        with Workers(partial(trainer, task, batched=batched), processes=processes) as workers:
            assert distances(twenty_rounds(task, workers, size=size), plain).max() < 1e-9

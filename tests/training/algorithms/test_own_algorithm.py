"""The algorithm that docs/algorithms.md writes: short, and right."""

import re
from pathlib import Path

import numpy as np
from plain_federation import COHORTS, EXAMPLES, STEPS, Federation, assert_mapped_as_looped, descend, flat, start_weights

from pocketfleet.training.algorithm_by_name import load_algorithm
from pocketfleet.training.server_optimizer import ServerSgd

PAGE = Path(__file__).parents[3] / "docs" / "algorithms.md"


def test_the_one_in_the_docs_is_the_papers_in_under_forty_lines(tmp_path, monkeypatch) -> None:
    (program,) = re.findall(r"^```python\n(# my_fednova\.py\n.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(program.splitlines()) < 40
    (tmp_path / "my_fednova.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    algorithm = load_algorithm("my_fednova:make_algorithm", {}, server_optimizer=ServerSgd())
    # Wang et al. 2020: w + tau * sum_i p_i * delta_i / tau_i with tau = sum_i p_i * tau_i.
    w = flat(start_weights().trainable)
    federation = Federation(algorithm=algorithm)
    for cohort in COHORTS:
        share = np.array([EXAMPLES[k] for k in cohort]) / sum(EXAMPLES[k] for k in cohort)
        steps = np.array([STEPS[k] for k in cohort])
        mean_steps = np.array([(descend(k, w, steps=STEPS[k]) - w) / STEPS[k] for k in cohort])
        w = w + (share @ steps) * (share @ mean_steps)
        federation.round(cohort)
        np.testing.assert_allclose(flat(federation.weights.trainable), w, rtol=1e-12)
    assert_mapped_as_looped(algorithm)

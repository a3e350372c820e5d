import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketfleet.training.aggregation_by_rule import make_aggregator
from pocketfleet.training.update import Update

NONE: dict[str, Any] = {"trim_ratio": 0.0, "max_norm": 0.0, "byzantine": 0}


@pytest.mark.parametrize(
    ("settings", "combined"),
    [
        # Of 1, 2, 3, 4 and 90, whose shares in the mean are 1, 1, 1, 1 and 4: 370 / 8.
        ({"rule": "mean"}, 46.25),
        ({"rule": "median"}, 3.0),
        # 2, 3 and 4 are left.
        ({"rule": "trimmed_mean", "trim_ratio": 0.2}, 3.0),
        # 1, 2, 2, 2 and 2: 15 / 8.
        ({"rule": "norm_bounded", "max_norm": 2.0}, 1.875),
        # One may lie: the two nearest of each, 90 has the worst score; 1, 2, 3 and 4 are left.
        ({"rule": "multi_krum", "byzantine": 1}, 2.5),
    ],
    ids=lambda value: value["rule"] if isinstance(value, dict) else "",
)
def test_each_rule_by_its_word(settings: dict[str, Any], combined: float, tmp_path: Path) -> None:
    updates = Update({"w": torch.tensor([[1.0], [2.0], [3.0], [4.0], [90.0]])}, {})
    make = functools.partial(make_aggregator, **(NONE | settings))
    part = pickle.loads(pickle.dumps(make))()
    part.add_many(updates, weight=np.array([1.0, 1.0, 1.0, 1.0, 4.0]), scale=np.ones(5))
    whole = make(folder=tmp_path)
    whole.merge(pickle.loads(pickle.dumps(part)))
    assert whole.result().delta["w"].tolist() == [pytest.approx(combined, rel=1e-12)]

import json
from pathlib import Path

import pytest

from pocketfleet.device_sim.run import Run
from pocketfleet.errors import InputError


def test_there_is_no_report_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        Run(tmp_path)


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text("")
    with pytest.raises(InputError, match=r"has not ended.*--resume"):
        Run(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"task": "boston"}))
    assert Run(tmp_path).summary == {"task": "boston"}

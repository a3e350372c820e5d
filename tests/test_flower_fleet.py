from pathlib import Path

import pytest

from pocketfleet.errors import InputError
from pocketfleet.flower_fleet import FlowerFleet


def loaded(folder: Path, text: str, *settings: str) -> FlowerFleet:
    path = folder / "fleet.toml"
    path.write_text(text)
    return FlowerFleet.load(path, settings)


def test_sections_are_those_of_an_experiment(tmp_path: Path) -> None:
    phones = loaded(
        tmp_path,
        'seed = 7\n[fleet]\ndevices = 5\navailability = "flash-2020"\n[eligibility]\ncharging = false\n',
        "messages.deadline_s=60",
        "fleet.devices=6",
    )
    assert (phones.seed, phones.fleet.devices, phones.eligibility.charging) == (7, 6, False)
    assert phones.messages.deadline_s == 60.0
    assert loaded(tmp_path, phones.to_toml()) == phones


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[flet]\n", r"unknown key flet: did you mean 'fleet'\? allowed here: seed, fleet, eligibility, messages"),
        ("[messages]\ndeadline = 5\n", r"unknown key messages\.deadline: .*allowed here: deadline_s, horizon_s"),
        ("[fleet]\ndevices = 0\n", r"fleet\.devices should be greater than or equal to 1, got 0"),
        ('[fleet]\nprogram = "onnx"\n', r"fleet\.program is for exported programs, which a Flower app does not run"),
        ('[fleet]\nprofile = "my.csv"\n', r"fleet\.profile is for exported programs"),
        ('[[fleet.attacks]]\nkind = "nan"\nratio = 0.1\n', r"fleet\.attacks are on a task's training"),
        ("[eligibility]\nmin_examples = 3\n", r"what a Flower client holds is the app's own: leave it out"),
        (
            '[[fleet.overrides]]\ndevices = "all"\nstep_s = 1.0\n',
            r"fleet\.overrides\[0\]\.step_s is of training steps, which a Flower app does not tell",
        ),
        ("[flower]\ntrain_flops_per_example = 1e6\n", r"go together, got 1e\+06 and 0: set both, or neither"),
        (
            "[flower]\ntrain_flops_per_example = 1e6\nevaluate_flops_per_example = 1e6\nhost_gflops = 9.0\n",
            r"flower\.host_gflops is for measured work",
        ),
        (
            "[flower]\nefficiency_ratio = 0.5\n",
            r"efficiency_ratio is for flower\.train_flops_per_example, which is not",
        ),
        ("seed = \n", r"fleet\.toml is no TOML file"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loaded(tmp_path, text)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the fleet '.*none\.toml'"):
        FlowerFleet.load(tmp_path / "none.toml")

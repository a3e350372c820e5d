"""Which of seven shoulder exercises does a smartwatch see: ten people's wrists, one person a device.

Source of the recordings: Burns et al. 2018, "Shoulder physiotherapy exercise recognition: machine learning the inertial
signals from a smartwatch", arXiv:1802.01489; 140 recordings (10 people, 7 exercises, 2 sides) of acceleration (ax, ay,
az) and rotation (wx, wy, wz) at 50 Hz, as shipped by seglearn 1.2.5. Its wheel is fetched by hash and not
installed: nothing but its file of data is needed.

1. The last fifth of each recording is the test part; no window reaches over that border.
2. A window is ``window`` samples; the next one starts ``stride`` samples later. What is left over is dropped.
"""

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pocketfleet.errors import InputError
from pocketfleet.training.examples import Examples
from pocketfleet.training.feature_scaling import FeatureScaling
from pocketfleet.training.objective import CLASSES
from pocketfleet.training.package_archive import PackageArchive
from pocketfleet.training.user_examples import joined
from pocketfleet.training.users_task import UsersTask

__all__ = ["make_task"]

# The newest release, of 2022; the hash is of the file that the index serves.
_ARCHIVE = PackageArchive(
    package="seglearn",
    file="seglearn-1.2.5-py3-none-any.whl",
    sha256="ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
)
_MEMBER = "seglearn/data/watch_dataset.npy"
_AXES, _EXERCISES = 6, 7
# The last fifth of each recording, the usual share.
_TEST_RATIO = 0.2


class _Channels(nn.Module):
    """``[batch, samples, axes]`` to ``[batch, axes, samples]``, as convolutions take it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


def _model(window: int) -> nn.Module:
    return nn.Sequential(
        FeatureScaling(_AXES),
        _Channels(),
        nn.Conv1d(_AXES, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.Conv1d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(window // 4),
        nn.Flatten(),
        nn.Linear(32, _EXERCISES),
    )


def make_task(*, window: int = 100, stride: int = 50, path: str = "") -> UsersTask:
    """The task; raw samples go in, standardised by a layer of the model, ``x`` is ``[window, 6]``.

    Args:
        window: samples of a window, at 50 Hz; seglearn's own default is 100, two seconds.
        stride: samples from one window's start to the next one's; seglearn's default overlap is a half.
        path: a copy of seglearn's wheel, where there is no network.
    """
    # The second convolution and its pooling need a few places each; the shortest test part has 189 samples.
    if not 8 <= window <= 180 or window % 4:
        raise InputError(f"watch's window must be 8..180 samples and a multiple of 4, got {window}")
    if stride < 1:
        raise InputError(f"watch's stride must be 1 sample or more, got {stride}")
    recorded = _recorded(path)
    parts: dict[str, list[Examples]] = {"train": [], "test": []}
    for person in np.unique(recorded["subject"]):
        own: dict[str, list[Any]] = {"train": [], "test": []}
        for place in np.flatnonzero(recorded["subject"] == person):
            samples = np.asarray(recorded["X"][place], dtype=np.float32)
            border = len(samples) - int(len(samples) * _TEST_RATIO)
            for part, stretch in (("train", samples[:border]), ("test", samples[border:])):
                own[part] += [(window_, recorded["y"][place]) for window_ in _windows(stretch, window, stride)]
        for part, pairs in own.items():
            x, y = np.stack([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], dtype=np.int64)
            parts[part].append(Examples(torch.from_numpy(x), torch.from_numpy(y)))
    return UsersTask(
        "watch",
        users=joined(parts["train"], what="person"),
        test=joined(parts["test"], what="person").examples,
        make_model=lambda: _model(window),
        objective=CLASSES,
    )


def _recorded(path: str) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(_ARCHIVE.content(path))) as wheel:
        # Pickled inside: it is read only because its bytes are known by their hash.
        table: dict[str, Any] = np.load(io.BytesIO(wheel.read(_MEMBER)), allow_pickle=True).item()
    return table


def _windows(samples: npt.NDArray[np.float32], window: int, stride: int) -> list[npt.NDArray[np.float32]]:
    return [samples[start : start + window] for start in range(0, len(samples) - window + 1, stride)]

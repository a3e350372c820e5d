"""Made-up users in any number, whose labels, quantities and features are as unlike as is wished.

Kinds:

1. ``clusters``: each class is a cloud of points around its centre, ``x = centre[y] + shift[user] + noise``. Labels are
   skewed by ``label_alpha`` (each user's shares of the classes are a symmetric Dirichlet draw of that concentration a
   class; 0: all alike), features by ``feature_shift`` (standard deviation of each entry of a user's own shift). One
   model fits all users.
2. ``own_models``: synthetic(alpha, beta) of Li et al. 2020, "Federated optimization in heterogeneous networks",
   arXiv:1812.06127, section 5.1 (after Shamir et al. 2014, arXiv:1312.7853): user ``k`` labels by
   ``argmax(W_k x + b_k)`` with entries of ``W_k`` and ``b_k`` from N(u_k, 1), ``u_k`` from N(0, alpha); its ``x`` come
   from N(v_k, S), ``S`` diagonal with ``j ** -1.2``, entries of ``v_k`` from N(B_k, 1), ``B_k`` from N(0, beta). The
   second argument of N is the standard deviation where it is alpha or beta, as in the authors' program. As printed,
   ``u_k`` adds the same to every class's score, so that ``alpha`` changes no label: users differ because each has its
   own ``W_k``.
3. ``numbers``: ``y = a . x + (b . x) ** 2 / 2 + noise``, one number, for regression; ``feature_shift`` as in 1.

A user has ``examples`` examples, or with ``quantity_sigma`` above 0 a log-normal number of that mean, one at least (Li
et al. draw theirs with sigma 2). Everything is drawn by (seed, user, place): more users change nobody's examples. Test
examples are further ones of users drawn evenly. Populations above 64 MiB are written to the cache once, and mapped.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, normal, uniform
from pocketfleet.training.objective import CLASSES, NUMBERS, perceptron
from pocketfleet.training.package_archive import cache_folder
from pocketfleet.training.partition import dirichlet
from pocketfleet.training.user_examples import UserExamples
from pocketfleet.training.users_task import UsersTask
from pocketfleet.whole_folder import whole_folder

__all__ = ["Population", "make_task"]

Kind = Literal["clusters", "own_models", "numbers"]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_OPTIONS_OF_KINDS: dict[str, set[str]] = {
    "clusters": {"label_alpha", "feature_shift"},
    "own_models": {"alpha", "beta"},
    "numbers": {"feature_shift"},
}
# Squared distance of a centre from the origin, 8: two centres are about 4 standard deviations of noise apart, so that a
# straight border between two classes errs in about 2 % (the normal distribution's tail beyond 2).
_CENTRE_SQUARE = 8.0
# Standard deviation of the noise on a number; assumed, small beside the number's own spread of about 1.
_NUMBER_NOISE = 0.1
# Numbers in a block of rows while they are drawn: 8 MB an array of float64.
_BLOCK = 1 << 20
_IN_MEMORY_BYTES = 64 * 2**20
# Part of the name in the cache: raise it when another population comes of the same options.
_VERSION = 1
# A test example is the user's example of this number and above.
_FIRST_TEST = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """What the users are drawn from; see the module's rules and ``make_task``."""

    kind: Kind
    users: int
    features: int
    classes: int
    examples: int
    label_alpha: float
    feature_shift: float
    quantity_sigma: float
    alpha: float
    beta: float
    tests: int
    draw_seed: int

    def __post_init__(self) -> None:
        for name, least in (
            ("users", 1),
            ("features", 1),
            ("examples", 1),
            ("tests", 1),
            ("classes", 2),
            ("draw_seed", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"synthetic's {name} must be {least} or more, got {getattr(self, name)}")
        for name in ("label_alpha", "feature_shift", "quantity_sigma", "alpha", "beta"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise InputError(f"synthetic's {name} must be 0 or more, got {getattr(self, name)}")
        if self.kind not in _OPTIONS_OF_KINDS:
            raise InputError(f"synthetic's kind must be one of {sorted(_OPTIONS_OF_KINDS)}, got {self.kind!r}")
        for name in ("label_alpha", "feature_shift", "alpha", "beta"):
            if getattr(self, name) and name not in _OPTIONS_OF_KINDS[self.kind]:
                kinds = " or ".join(repr(kind) for kind, names in _OPTIONS_OF_KINDS.items() if name in names)
                raise InputError(f"synthetic's {name} is for the kind {kinds}, which is {self.kind!r}: leave it out")

    def sizes(self) -> Int64s:
        """How many examples each user has, ``int64 [users]``."""
        if not self.quantity_sigma:
            return np.full(self.users, self.examples, dtype=np.int64)
        z = normal(self._key("quantity", np.arange(self.users)), 1)[:, 0]
        # The mean of exp(sigma * z) is exp(sigma ** 2 / 2).
        size = self.examples * np.exp(self.quantity_sigma * z - self.quantity_sigma**2 / 2)
        return np.maximum(np.round(size), 1).astype(np.int64)

    def rows(self, user: Int64s, place: Int64s) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.generic]]:
        """``x`` ``[n, features]`` and ``y`` of examples, each by its user and its place; ``int64 [n]`` both."""
        noise = normal(self._key("noise", user, place), self.features)
        if self.kind == "own_models":
            return self._own_models(user, noise)
        shift = self.feature_shift * self._of_users("shift", user, self.features) if self.feature_shift else 0.0
        if self.kind == "numbers":
            x = noise + shift
            straight, bent = normal(self._key("teacher", np.arange(2)), self.features) / np.sqrt(self.features)
            error = normal(self._key("error", user, place), 1)[:, 0]
            y = x @ straight + (x @ bent) ** 2 / 2 + _NUMBER_NOISE * error
            return x.astype(np.float32), y.astype(np.float32)[:, np.newaxis]
        label = self._labels(user, place)
        centre = normal(self._key("centre", np.arange(self.classes)), self.features)
        centre *= np.sqrt(_CENTRE_SQUARE / self.features)
        return (centre[label] + shift + noise).astype(np.float32), label

    def _labels(self, user: Int64s, place: Int64s) -> Int64s:
        u = uniform(self._key("label", user, place), 1)[:, 0]
        if not self.label_alpha:
            return (u * self.classes).astype(np.int64)
        own, which = np.unique(user, return_inverse=True)
        share = dirichlet(self.draw_seed, "synthetic_labels", own, parts=self.classes, alpha=self.label_alpha)
        label: Int64s = (u[:, np.newaxis] >= np.cumsum(share, axis=1)[which, :-1]).sum(axis=1)
        return label

    def _own_models(self, user: Int64s, noise: Floats) -> tuple[npt.NDArray[np.float32], Int64s]:
        spread = np.arange(1, self.features + 1) ** -0.6
        centre = self._of_users("centre", user, self.features) + self.beta * self._of_users("mean_centre", user, 1)
        x = (centre + spread * noise).astype(np.float32)
        label = np.empty(len(user), dtype=np.int64)
        own, first, count = np.unique(user, return_index=True, return_counts=True)
        # Of one user after the other: its model is 610 numbers at 60 features and 10 classes.
        for number, start, rows in zip(own, first, count, strict=True):
            model = normal(self._key("model", number), (self.features + 1) * self.classes)
            model += self.alpha * normal(self._key("mean_model", number), 1)
            weight = model.reshape(self.features + 1, self.classes)
            own_rows = slice(start, start + rows)
            label[own_rows] = (x[own_rows] @ weight[:-1] + weight[-1]).argmax(axis=1)
        return x, label

    def _of_users(self, purpose: str, user: Int64s, count: int) -> Floats:
        """``count`` normal numbers of the user of each row, ``[n, count]``."""
        own, which = np.unique(user, return_inverse=True)
        return normal(self._key(purpose, own), count)[which]

    def _key(self, purpose: str, *indices: npt.ArrayLike) -> npt.NDArray[np.uint64]:
        return draw_key(self.draw_seed, f"synthetic_{purpose}", *indices)

    def test_rows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.generic]]:
        """``tests`` rows that no user holds."""
        place = np.arange(self.tests)
        user = np.sort((uniform(self._key("test", place), 1)[:, 0] * self.users).astype(np.int64))
        return self.rows(user, _FIRST_TEST + place)


class _Block(NamedTuple):
    rows: slice
    user: Int64s
    place: Int64s


def _blocks(offsets: Int64s, features: int) -> Iterator[_Block]:
    """Whole users' rows, about ``_BLOCK`` numbers at a time."""
    per_block = max(1, _BLOCK // features)
    start = 0
    while start < len(offsets) - 1:
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + per_block, side="right")) - 1)
        size = np.diff(offsets[start : stop + 1])
        rows = np.arange(offsets[start], offsets[stop])
        yield _Block(
            rows=slice(int(offsets[start]), int(offsets[stop])),
            user=np.repeat(np.arange(start, stop), size),
            place=rows - np.repeat(offsets[start:stop], size),
        )
        start = stop


def _drawn(population: Population, offsets: Int64s, x: npt.NDArray[np.float32], y: npt.NDArray[np.generic]) -> None:
    for block in _blocks(offsets, population.features):
        x[block.rows], y[block.rows] = population.rows(block.user, block.place)


def _users(population: Population) -> UserExamples:
    offsets = np.concatenate([[0], np.cumsum(population.sizes())])
    rows = int(offsets[-1])
    x_shape = (rows, population.features)
    y_shape, y_type = ((rows, 1), np.float32) if population.kind == "numbers" else ((rows,), np.int64)
    if 4 * rows * population.features <= _IN_MEMORY_BYTES:
        x, y = np.empty(x_shape, np.float32), np.empty(y_shape, y_type)
        _drawn(population, offsets, x, y)
        return UserExamples(torch.from_numpy(x), torch.from_numpy(y), offsets)
    folder = _kept(population)
    if not folder.exists():
        with whole_folder(folder) as partial:
            x = np.lib.format.open_memmap(partial / "x.npy", mode="w+", dtype=np.float32, shape=x_shape)
            y = np.lib.format.open_memmap(partial / "y.npy", mode="w+", dtype=y_type, shape=y_shape)
            _drawn(population, offsets, x, y)
            np.save(partial / "offsets.npy", offsets)
            del x, y
    return UserExamples.open(folder)


def _kept(population: Population) -> Path:
    settings = json.dumps([_VERSION, asdict(population)], sort_keys=True)
    return cache_folder() / f"synthetic-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"


def make_task(
    *,
    kind: Kind = "clusters",
    users: int = 1000,
    features: int = 60,
    classes: int = 10,
    examples: int = 60,
    hidden: list[int] | None = None,
    label_alpha: float = 0.0,
    feature_shift: float = 0.0,
    quantity_sigma: float = 0.0,
    alpha: float = 0.0,
    beta: float = 0.0,
    tests: int = 1000,
    draw_seed: int = 0,
) -> UsersTask:
    """The task.

    Args:
        kind: ``clusters``, ``own_models`` or ``numbers``.
        users: how many there are.
        features: of an example; Li et al. have 60.
        classes: Li et al. have 10; ``numbers`` has none.
        examples: a user's, in the mean.
        hidden: widths of the model's hidden layers; none: logistic or linear regression.
        label_alpha: for ``clusters``: concentration of a user's labels; 0: all users alike.
        feature_shift: for ``clusters`` and ``numbers``: how far users' features lie apart.
        quantity_sigma: how unequal users' numbers of examples are; 0: equal.
        alpha: of ``own_models``.
        beta: of ``own_models``.
        tests: test examples.
        draw_seed: draws the whole population.
    """
    population = Population(
        kind=kind,
        users=users,
        features=features,
        classes=classes,
        examples=examples,
        label_alpha=label_alpha,
        feature_shift=feature_shift,
        quantity_sigma=quantity_sigma,
        alpha=alpha,
        beta=beta,
        tests=tests,
        draw_seed=draw_seed,
    )
    widths = [features, *(hidden or []), 1 if kind == "numbers" else classes]
    if min(widths) < 1:
        raise InputError(f"synthetic's hidden layers must be 1 or more wide each, got {hidden}")
    x, y = population.test_rows()
    return UsersTask(
        "synthetic",
        users=_users(population),
        test=UserExamples(torch.from_numpy(x), torch.from_numpy(y), np.array([0, tests])).examples,
        make_model=lambda: perceptron(widths),
        objective=NUMBERS if kind == "numbers" else CLASSES,
    )

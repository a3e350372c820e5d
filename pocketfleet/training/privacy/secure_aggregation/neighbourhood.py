"""Who masks with whom: a group's graph, and how many neighbours and holders it takes.

A member's neighbours are the ``degree / 2`` before it and after it on a ring in a drawn order (the Harary graph of
Bell et al. 2020, eprint 2020/704, section 3.2); of a complete graph, all others. A member holds a share of its own
secrets too: of two members both hold one, and both are needed.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import hypergeom

from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, permutation

__all__ = ["Neighbourhood", "chosen_degree", "share_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhood:
    """The graph of one group.

    Attributes:
        threshold: holders without whom a secret stays one.
        neighbours: ``[members, degree]``, each row ascending.
    """

    threshold: int
    neighbours: npt.NDArray[np.int64]

    @classmethod
    def drawn(cls, members: int, *, degree: int, threshold: int, seed: int) -> "Neighbourhood":
        """A graph over a drawn order of the members.

        Args:
            members: 2 or more.
            degree: even, or ``members - 1``, which is the complete graph.
            threshold: over half of ``degree + 1``, at most that.
            seed: of the order.

        Raises:
            ValueError: one of them is out of its range.
        """
        if members < 2:
            raise ValueError(f"a secure sum needs 2 members or more, got {members}")
        if not (degree == members - 1 or (0 < degree < members and degree % 2 == 0)):
            raise ValueError(f"degree must be even and 2..{members - 1}, or {members - 1} for all others, got {degree}")
        if not (degree + 1) // 2 < threshold <= degree + 1:
            raise ValueError(
                f"threshold must be over half of the {degree + 1} holders of a member's secrets and at most all of "
                f"them, got {threshold}"
            )
        order = permutation(draw_key(seed, "secure neighbourhood"), members)
        if degree == members - 1:
            steps = np.arange(1, members)
        else:
            steps = np.concatenate([np.arange(-degree // 2, 0), np.arange(1, degree // 2 + 1)])
        neighbours = np.empty((members, degree), np.int64)
        neighbours[order] = order[(np.arange(members)[:, np.newaxis] + steps) % members]
        neighbours.sort(axis=1)
        return cls(threshold, neighbours)

    @property
    def members(self) -> int:
        """Of the group."""
        return len(self.neighbours)

    @property
    def degree(self) -> int:
        """Neighbours of each member."""
        return int(self.neighbours.shape[1])

    def holders(self, member: int) -> list[int]:
        """Who holds shares of a member's secrets: its neighbours and itself, ascending."""
        return sorted([*self.neighbours[member].tolist(), member])

    def holders_among(self, present: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """How many holders of each member are present, ``[members]``."""
        count: npt.NDArray[np.int64] = present[self.neighbours].sum(axis=1) + present
        return count

    def connected(self, present: npt.NDArray[np.bool_]) -> bool:
        """Whether the present are joined by neighbours that are present; else each part has a sum of its own."""
        rows = np.repeat(np.arange(self.members), self.degree)
        columns = self.neighbours.reshape(-1)
        both = present[rows] & present[columns]
        graph = coo_array((np.ones(both.sum(), np.int8), (rows[both], columns[both])), (self.members, self.members))
        _, part = connected_components(graph, directed=False)
        return len(np.unique(part[present])) == 1


def share_of(members: int, ratio: float) -> int:
    """So large a part of the members, rounded up; 0.3 of 10 are 3, though the product is a little more."""
    return math.ceil(round(ratio * members, 9))


@functools.lru_cache(maxsize=256)
def chosen_degree(
    members: int,
    *,
    corrupt_ratio: float,
    dropout_ratio: float,
    security_bits: int = 40,
    correctness_bits: int = 30,
) -> tuple[int, int]:
    """The least degree, and its least threshold, that keep sums secret and get them, as Bell et al. 2020 choose them.

    The corrupt and those that drop out are any so many members, fixed before the order is drawn, so of a member's
    neighbours their number is hypergeometric. Two things must be rare, each at most ``2 ** -(security_bits + 1)``:
    that some member has ``threshold`` corrupt neighbours, and that ``degree / 2`` members in a row are corrupt or gone
    (without that the graph of the others is connected). One more must be at most ``2 ** -correctness_bits``: that of
    some member's neighbours fewer than ``threshold`` stay. Each is the tail of one member times their number; the
    paper's section 3 bounds the tails, here they are exact.

    Where that would take half of the others as neighbours or more, all of them are: the graph is complete, nothing is
    left to chance, and the threshold is the least above half and above the corrupt. So of few members, more may drop
    out than ``dropout_ratio`` says, and of two none.

    Args:
        members: of the group.
        corrupt_ratio: of the members that share what they know with the server, 0 up to below 1.
        dropout_ratio: of the members that leave between their keys and the last stage, 0 up to below a half.
        security_bits: as above.
        correctness_bits: as above.

    Returns:
        Degree and threshold.

    Raises:
        InputError: a ratio is out of its range, or both together are not below 1.
    """
    if members < 2:
        raise InputError(f"a secure sum needs 2 members or more, got {members}")
    if not 0.0 <= dropout_ratio < 0.5:
        raise InputError(
            f"dropout_ratio must be 0 or more and below 0.5 (over half of the holders of a secret must stay), got "
            f"{dropout_ratio}"
        )
    if not 0.0 <= corrupt_ratio < 1.0 - dropout_ratio:
        raise InputError(
            f"corrupt_ratio must be 0 or more and below {1.0 - dropout_ratio:g} (1 - dropout_ratio), got "
            f"{corrupt_ratio}"
        )
    corrupt, gone = (share_of(members, ratio) for ratio in (corrupt_ratio, dropout_ratio))
    rare, missed = 2.0 ** -(security_bits + 1) / members, 2.0**-correctness_bits / members
    others = members - 1
    for degree in range(2, others // 2 + 1, 2):
        if hypergeom.pmf(degree // 2, members, min(corrupt + gone, members), degree // 2) > rare:
            continue
        # [t]: P[corrupt neighbours >= t], for t of 0 to degree.
        corrupted = _counts(others, min(corrupt, others), degree)[::-1].cumsum()[::-1]
        safe = np.flatnonzero(corrupted <= rare)
        threshold = max((degree + 1) // 2 + 1, int(safe[0]) if safe.size else degree + 1)
        if threshold <= degree and _counts(others, others - min(gone, others), degree)[:threshold].sum() <= missed:
            return degree, threshold
    return others, min(max(members // 2 + 1, corrupt + 1), members)


def _counts(total: int, marked: int, drawn: int) -> npt.NDArray[np.float64]:
    """How likely 0 to ``drawn`` of those drawn are marked: tails of it are exact where ``hypergeom.isf`` is not."""
    likely: npt.NDArray[np.float64] = hypergeom.pmf(np.arange(drawn + 1), total, marked, drawn)
    return likely

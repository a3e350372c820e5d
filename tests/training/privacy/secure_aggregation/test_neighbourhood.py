import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketfleet.errors import InputError
from pocketfleet.training.privacy.secure_aggregation.neighbourhood import Neighbourhood, chosen_degree


@st.composite
def graphs(draw: st.DrawFn) -> Neighbourhood:
    members = draw(st.integers(2, 40))
    degree = draw(st.sampled_from([*range(2, members - 1, 2), members - 1]))
    return Neighbourhood.drawn(members, degree=degree, threshold=degree + 1, seed=draw(st.integers(0, 9)))


@given(graphs())
def test_neighbours_are_mutual_and_so_many(graph: Neighbourhood) -> None:
    rows = [set(row) for row in graph.neighbours.tolist()]
    assert all(len(row) == graph.degree and place not in row for place, row in enumerate(rows))
    assert all(place in rows[other] for place, row in enumerate(rows) for other in row)
    assert all(list(row) == sorted(row) for row in graph.neighbours.tolist())
    assert all(graph.holders(place) == sorted(row | {place}) for place, row in enumerate(rows))


@given(graphs(), st.data())
@settings(deadline=None)
def test_holders_present_and_connection_are_those_of_sets(graph: Neighbourhood, data: st.DataObject) -> None:
    present = np.array(data.draw(st.lists(st.booleans(), min_size=graph.members, max_size=graph.members)))
    present[data.draw(st.integers(0, graph.members - 1))] = True
    inside = set(np.flatnonzero(present).tolist())
    found = [len(inside & set(graph.holders(place))) for place in range(graph.members)]
    assert graph.holders_among(present).tolist() == found
    reached = {min(inside)}
    for _ in inside:
        reached |= {other for place in reached for other in graph.holders(place) if other in inside}
    assert graph.connected(present) == (reached == inside)


def test_a_ring_of_more_neighbours_survives_runs_shorter_than_half_its_degree() -> None:
    """Any members may go, as long as no three in a row do, of six neighbours: those left stay connected."""
    graph = Neighbourhood.drawn(9, degree=6, threshold=4, seed=2)
    order = [0]
    while len(order) < 9:
        # On the ring the next is the neighbour that has most of the neighbours before it in common.
        rest = [place for place in range(9) if place not in order]
        order.append(max(rest, key=lambda place: len(set(graph.holders(place)) & set(graph.holders(order[-1])))))
    for gone in itertools.combinations(range(9), 2):
        present = np.ones(9, bool)
        present[list(gone)] = False
        assert graph.connected(present)


def test_seeds_draw_other_orders() -> None:
    one, two, again = (Neighbourhood.drawn(20, degree=4, threshold=3, seed=seed).neighbours for seed in (1, 2, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    ("members", "degree", "threshold", "match"),
    [
        (1, 0, 1, "2 members or more, got 1"),
        (6, 3, 3, "even and 2..5, or 5 for all others, got 3"),
        (6, 6, 4, "got 6"),
        (6, 0, 1, "got 0"),
        (6, 4, 2, "over half of the 5 holders .* got 2"),
        (6, 4, 6, "at most all of them, got 6"),
    ],
)
def test_graphs_that_cannot_be_are_refused(members: int, degree: int, threshold: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Neighbourhood.drawn(members, degree=degree, threshold=threshold, seed=0)


def at_least(least: int, *, total: int, marked: int, drawn: int) -> Fraction:
    """P[at least so many of those drawn are marked], exactly."""
    ways = sum(math.comb(marked, k) * math.comb(total - marked, drawn - k) for k in range(least, drawn + 1))
    return Fraction(ways, math.comb(total, drawn))


def holds(members: int, corrupt: int, gone: int, degree: int, threshold: int) -> bool:
    """The three tails, with fractions."""
    rare, missed = Fraction(1, 2**41 * members), Fraction(1, 2**30 * members)
    others, bad = members - 1, corrupt + gone
    run = Fraction(math.comb(bad, degree // 2), math.comb(members, degree // 2))
    stay = at_least(degree - threshold + 1, total=others, marked=gone, drawn=degree)
    return (
        run <= rare
        and at_least(threshold, total=others, marked=corrupt, drawn=degree) <= rare
        and stay <= missed
        and 2 * threshold > degree + 1
    )


@pytest.mark.parametrize(
    ("members", "corrupt_ratio", "dropout_ratio"),
    [(100, 0.1, 0.2), (200, 0.05, 0.1), (200, 0.33, 0.1), (1000, 0.1, 0.2), (1000, 0.05, 0.05), (3000, 0.4, 0.05)],
)
def test_degree_and_threshold_are_the_least_whose_tails_are_rare(
    members: int, corrupt_ratio: float, dropout_ratio: float
) -> None:
    degree, threshold = chosen_degree(members, corrupt_ratio=corrupt_ratio, dropout_ratio=dropout_ratio)
    corrupt, gone = math.ceil(members * corrupt_ratio - 1e-9), math.ceil(members * dropout_ratio - 1e-9)
    assert degree <= (members - 1) // 2
    assert holds(members, corrupt, gone, degree, threshold)
    assert not holds(members, corrupt, gone, degree, threshold - 1)
    assert not any(holds(members, corrupt, gone, degree - 2, lower) for lower in range(degree // 2, degree - 1))


@pytest.mark.parametrize(
    ("members", "corrupt_ratio", "expected"),
    [(2, 0.1, (1, 2)), (3, 0.1, (2, 2)), (4, 0.1, (3, 3)), (10, 0.1, (9, 6)), (10, 0.6, (9, 7)), (60, 0.1, (59, 31))],
)
def test_few_members_are_all_neighbours(members: int, corrupt_ratio: float, expected: tuple[int, int]) -> None:
    """More than half, and more than the corrupt: of ten 6, of ten with six corrupt 7."""
    assert chosen_degree(members, corrupt_ratio=corrupt_ratio, dropout_ratio=0.2) == expected


def test_the_degree_grows_slowly() -> None:
    """Bell et al.: with the logarithm of the members."""
    degrees = [chosen_degree(members, corrupt_ratio=0.2, dropout_ratio=0.1)[0] for members in (1_000, 10_000)]
    assert degrees[0] < degrees[1] < 1.5 * degrees[0]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"dropout_ratio": 0.5}, "dropout_ratio must be 0 or more and below 0.5"),
        ({"dropout_ratio": -0.1}, "got -0.1"),
        ({"corrupt_ratio": 0.8, "dropout_ratio": 0.2}, r"below 0.8 \(1 - dropout_ratio\), got 0.8"),
        ({"corrupt_ratio": -0.1}, "got -0.1"),
    ],
)
def test_ratios_that_cannot_be_are_refused(wrong: dict[str, float], match: str) -> None:
    with pytest.raises(InputError, match=match):
        chosen_degree(100, **({"corrupt_ratio": 0.1, "dropout_ratio": 0.1} | wrong))
    with pytest.raises(InputError, match="2 members or more, got 1"):
        chosen_degree(1, corrupt_ratio=0.1, dropout_ratio=0.1)

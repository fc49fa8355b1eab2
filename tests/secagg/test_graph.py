from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from scipy import stats

from partbook.secagg.graph import COMPLETE, _parameters, graph_of

SEED = bytes(range(32))


def cohort(n: int) -> tuple[str, ...]:
    return tuple(f"label-{number:05}" for number in range(n))


def active(n: int) -> int:
    return 2 * n // 3 + 1


def connected(graph, members: set[str]) -> bool:
    start = min(members)
    seen, frontier = {start}, [start]
    while frontier:
        for other in graph.neighbours(frontier.pop()):
            if other in members and other not in seen:
                seen.add(other)
                frontier.append(other)
    return seen == members


@pytest.mark.parametrize("n", [2, 3, 10, COMPLETE])
def test_up_to_a_hundred_everybody_is_everybodys_neighbour(n):
    members = cohort(n)
    graph = graph_of(members, active(n), SEED)
    assert (graph.degree, graph.share_threshold) == (n - 1, active(n))
    for member in members:
        assert graph.neighbours(member) == tuple(other for other in members if other != member)
        assert graph.holders(member) == members
    assert graph == graph_of(members[::-1], active(n), SEED)


@pytest.mark.parametrize("n", [101, 102, 150])
def test_above_a_hundred_neighbours_are_mutual_sorted_and_equally_many(n):
    graph = graph_of(cohort(n), active(n), SEED)
    assert graph.degree < n - 1
    assert graph.degree % 2 == 0
    for member in graph.cohort:
        neighbours = graph.neighbours(member)
        assert len(neighbours) == graph.degree
        assert list(neighbours) == sorted(set(neighbours) - {member})
        assert graph.holders(member) == tuple(sorted((*neighbours, member)))
        assert all(member in graph.neighbours(other) for other in neighbours)


def test_the_seed_alone_decides_the_order_and_every_party_finds_the_same():
    members = cohort(150)
    graph = graph_of(members, 101, SEED)
    assert graph == graph_of(tuple(reversed(members)), 101, SEED)
    other = graph_of(members, 101, bytes(32))
    assert graph != other
    overlap = [len(set(graph.neighbours(m)) & set(other.neighbours(m))) for m in members]
    chance = graph.degree**2 / (len(members) - 1)
    assert abs(np.mean(overlap) - chance) < 3


def test_the_order_is_one_fixed_by_the_protocol():
    members = cohort(300)
    first = graph_of(members, 201, SEED)._circle[:3]
    assert first == ("label-00260", "label-00073", "label-00053")


def failures(n: int, corrupt: int, dropped: int, degree: int, threshold: int) -> tuple[float, float]:
    """Both union bounds by SciPy: somebody's secrets fall to the corrupt; somebody's are lost."""
    reach = n * stats.hypergeom.sf(threshold - 1, n - 1, corrupt, degree)
    loss = n * stats.hypergeom.cdf(threshold - 1, n - 1, n - 1 - dropped, degree)
    return reach, loss


@pytest.mark.parametrize(("n", "threshold"), [(101, 68), (150, 101), (300, 201), (300, 151), (1000, 667)])
def test_degree_and_threshold_are_the_least_and_largest_by_scipys_tails(n, threshold):
    degree, share_threshold = _parameters(n, threshold)
    corrupt, dropped = n // 3, max(n // 3, n - threshold)
    assert max(failures(n, corrupt, dropped, degree, share_threshold)) < 2**-40
    assert failures(n, corrupt, dropped, degree, share_threshold + 1)[1] >= 2**-40
    for smaller in range(2, degree, 2):
        reach, loss = failures(n, corrupt, dropped, smaller, np.arange(1, smaller + 1))
        assert not ((reach < 2**-40) & (loss < 2**-40)).any()


def test_known_degrees():
    assert _parameters(101, 68) == (68, 35)
    assert _parameters(1000, 667) == (346, 174)
    assert _parameters(10_000, 6667) == (548, 275)


@pytest.mark.parametrize(("n", "threshold"), [(101, 68), (101, 51), (200, 134), (1000, 501), (1000, 667)])
def test_cutting_the_circle_in_two_is_as_unlikely(n, threshold):
    degree, _ = _parameters(n, threshold)
    gone = n // 3 + max(n // 3, n - threshold)
    ways = math.comb(n - degree, gone - degree) if gone >= degree else 0
    assert math.comb(n, 2) * ways * 2**40 < math.comb(n, gone)


def test_the_honest_who_stay_are_connected_and_can_restore_everybody():
    n = 200
    graph = graph_of(cohort(n), active(n), SEED)
    generator = random.Random(1)  # noqa: S311
    for _ in range(5):
        shuffled = generator.sample(graph.cohort, n)
        corrupt, dropped = set(shuffled[: n // 3]), set(shuffled[n // 3 : 2 * (n // 3)])
        assert connected(graph, set(graph.cohort) - corrupt - dropped)
        for member in graph.cohort:
            assert len(set(graph.neighbours(member)) & corrupt) < graph.share_threshold
            assert len(set(graph.holders(member)) - dropped) >= graph.share_threshold


def test_all_but_two_runs_of_half_the_degree_leave_the_circle_whole():
    graph = graph_of(cohort(150), 101, SEED)
    half = graph.degree // 2
    rest = set(graph._circle)
    assert connected(graph, rest - set(graph._circle[:half]) - set(graph._circle[75 : 75 + half - 1]))
    assert not connected(graph, rest - set(graph._circle[:half]) - set(graph._circle[75 : 75 + half]))


def test_parameters_are_found_quickly():
    _parameters.cache_clear()
    began = time.process_time()
    _parameters(1000, 667)
    assert time.process_time() - began < 0.25


@pytest.mark.parametrize(
    ("members", "threshold"),
    [((), 1), (("a",), 1), (("a", "b", "a"), 2), (cohort(10), 5), (cohort(10), 11), (cohort(300), 150)],
)
def test_a_graph_that_protects_nobody_is_a_mistake_of_the_caller(members, threshold):
    with pytest.raises(ValueError, match="cohort"):
        graph_of(members, threshold, SEED)


def test_a_stranger_has_no_neighbours():
    graph = graph_of(cohort(5), 4, SEED)
    for ask in (graph.neighbours, graph.holders):
        with pytest.raises(ValueError, match="'stranger' is not in this cohort"):
            ask("stranger")

"""The opened sum is the integer sum, whoever drops out and wherever, while as many are left as the plan needs."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_play import EXCHANGES, Round

from partbook.errors import CohortTooSmall
from partbook.secagg import messages as m
from partbook.secagg.rings import RESIDUES, WORDS

RINGS = pytest.mark.parametrize("ring", [WORDS, RESIDUES], ids=["words", "residues"])


def dropouts(n: int, threshold: int, rng: random.Random) -> tuple[dict[str, set[str]], set[str]]:
    """Who leaves at which exchange, and who leaves amid its contribution; the threshold always stays."""
    leaving = rng.sample(range(n), rng.randint(0, n - threshold))
    drops: dict[str, set[str]] = {kind: set() for kind in EXCHANGES}
    half = set()
    for index in leaving:
        name = f"label-{index:03d}"
        place = rng.randrange(len(EXCHANGES) + 1)
        if place == len(EXCHANGES):
            half.add(name)
        else:
            drops[EXCHANGES[place]].add(name)
    return drops, half


def lost(drops: dict[str, set[str]], half: set[str]) -> set[str]:
    """Whose contribution cannot be in the sum. Who leaves after it was complete is in."""
    return drops[m.ADVERTISE] | drops[m.SHARES] | drops[m.CONTRIBUTION] | half


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_opened_sum_is_the_integer_sum_for_any_cohort_ring_length_and_dropouts(data):
    n = data.draw(st.integers(2, 9), "members")
    threshold = data.draw(st.integers(n // 2 + 1, n), "threshold")
    length = data.draw(st.integers(1, 3000), "length")
    chunk = data.draw(st.integers(max(1, length // 4), length + 3), "chunk")
    ring = data.draw(st.sampled_from([WORDS, RESIDUES]), "ring")
    drops, half = dropouts(n, threshold, data.draw(st.randoms(use_true_random=False), "dropouts"))
    played = Round(n, threshold, ring, length=length, chunk=chunk)
    played.play(drops, half=half, restart=data.draw(st.booleans(), "restart"))
    survivors = set(played.session.cohort) - lost(drops, half)
    assert set(played.coordinator.survivors) == survivors
    assert np.array_equal(played.opened(), played.expected(survivors))


@settings(max_examples=6, deadline=None)
@given(n=st.integers(10, 64), ring=st.sampled_from([WORDS, RESIDUES]), rng=st.randoms(use_true_random=False))
def test_larger_cohorts_sum_exactly(n, ring, rng):
    drops, half = dropouts(n, 2 * n // 3 + 1, rng)
    played = Round(n, ring=ring, length=500, chunk=200).play(drops, half=half)
    assert np.array_equal(played.opened(), played.expected(set(played.session.cohort) - lost(drops, half)))


def test_a_cohort_of_64_sums_exactly_when_members_drop_out_at_every_exchange():
    played = Round(64, ring=RESIDUES, length=300, chunk=100)
    left = iter(played.session.cohort[::3])
    drops = {kind: {next(left) for _ in range(3)} for kind in EXCHANGES}
    half = {next(left)}
    played.play(drops, half=half)
    assert np.array_equal(played.opened(), played.expected(set(played.session.cohort) - lost(drops, half)))
    where = {name: kind for kind, leaving in drops.items() for name in leaving}
    assert played.coordinator.dropped == where | dict.fromkeys(half, m.CONTRIBUTION)


def test_a_cohort_on_a_graph_of_neighbours_sums_exactly_when_members_drop_out_at_every_exchange():
    played = Round(101, length=200)
    assert played.session.graph.degree < 100
    left = iter(played.session.cohort[::5])
    drops = {kind: {next(left), next(left)} for kind in EXCHANGES}
    played.play(drops)
    assert np.array_equal(played.opened(), played.expected(set(played.session.cohort) - lost(drops, set())))


@pytest.mark.parametrize(("length", "drop"), [(10**6, m.CONTRIBUTION), (10**7, m.CONFIRMED)], ids=["1M", "10M"])
def test_long_vectors_sum_exactly(length, drop):
    rng = np.random.default_rng(5)
    vectors = {f"label-{i:03d}": rng.integers(0, 2**32, length, np.uint32) for i in range(3)}
    played = Round(3, 2, vectors=vectors).play({drop: {"label-001"}})
    expected = sum((vectors[name] for name in played.coordinator.survivors), np.zeros(length, np.uint32))
    assert len(played.coordinator.survivors) == (2 if drop == m.CONTRIBUTION else 3)
    assert np.array_equal(played.opened(), expected)


def test_a_million_residues_sum_exactly():
    rng = np.random.default_rng(6)
    vectors = {f"label-{i:03d}": rng.integers(0, RESIDUES.modulus, 10**6, np.uint64) for i in range(3)}
    played = Round(3, 2, RESIDUES, vectors=vectors).play({m.CONTRIBUTION: {"label-002"}})
    expected = (vectors["label-000"] + vectors["label-001"]) % np.uint64(RESIDUES.modulus)
    assert np.array_equal(played.opened(), expected)


@RINGS
@pytest.mark.parametrize("kind", EXCHANGES)
def test_below_the_threshold_the_round_ends_and_nothing_was_revealed(kind, ring):
    played = Round(7, 5, ring)
    with pytest.raises(CohortTooSmall, match="4 of 7"):
        played.play({kind: set(played.session.cohort[2:5])}).coordinator.reconstruct()
    said = [data for data in played.said if f'"kind":"{m.REVEALED}"'.encode() in data]
    # Where the last exchange itself fails, four have answered; their shares are one too few for any secret.
    assert len(said) == (4 if kind == m.REVEALED else 0)


def test_one_share_less_than_the_threshold_restores_nothing_even_when_asked_of_the_shares_directly():
    played = Round(5, 4).play({m.REVEALED: {"label-000", "label-001"}})
    with pytest.raises(CohortTooSmall):
        played.coordinator.reconstruct()
    with pytest.raises(CohortTooSmall):
        played.coordinator.reconstruct()


@RINGS
def test_a_round_that_is_killed_and_resumed_at_every_exchange_gives_the_same_sum(ring):
    drops = {m.SHARES: {"label-001"}, m.CONTRIBUTION: {"label-002"}, m.REVEALED: {"label-003"}}
    whole = Round(8, 5, ring, length=90, chunk=40).play(drops)
    killed = Round(8, 5, ring, length=90, chunk=40).play(drops, restart=True)
    assert np.array_equal(whole.opened(), killed.opened())
    assert whole.coordinator.dropped == killed.coordinator.dropped


def test_a_chunk_masked_again_after_a_restart_is_the_same_chunk():
    played = Round(4, 3, length=60, chunk=25).play(before=m.CONTRIBUTION)
    for name, ask in played.asks.items():
        played.nodes[name].accept_inbox(ask)
        first = [played.contribute(name, index)[1] for index in range(3)]
        played.restart()
        assert [played.contribute(name, index)[1] for index in range(3)] == first

"""The coordinator's side: it leaves out who does not answer well, names them, and survives a restart anywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from round_play import EXCHANGES, Round, bodies

from partbook.errors import AlteredCiphertext, BadSignature, CohortTooSmall, CorruptMessage, SwappedKey
from partbook.secagg import messages as m
from partbook.secagg.coordinator import CoordinatorRound

A, B, C, D, E = (f"label-{index:03d}" for index in range(5))


def test_the_dropped_are_named_by_the_first_exchange_they_missed():
    drops = {m.ADVERTISE: {A}, m.SHARES: {B}, m.CONTRIBUTION: {C}, m.CONFIRMED: {D}, m.REVEALED: {E}}
    played = Round(11, 6).play(drops)
    played.coordinator.reconstruct()
    assert played.coordinator.dropped == {next(iter(who)): kind for kind, who in drops.items()}
    assert played.coordinator.survivors == played.session.cohort[3:]


def test_whoever_sends_all_chunks_but_one_is_no_survivor():
    played = Round(5, 3, length=30, chunk=10).play(half={B})
    assert B not in played.coordinator.survivors
    assert np.array_equal(played.opened(), played.expected({A, C, D, E}))


def test_a_chunk_that_comes_twice_is_taken_once():
    played = Round(3, 2, length=20, chunk=10).play(before=m.CONTRIBUTION)
    played.nodes[A].accept_inbox(played.asks[A])
    message, blob = played.contribute(A, 0)
    assert played.coordinator.accept_contribution(A, message, blob) is not None
    assert played.coordinator.accept_contribution(A, message, blob) is None
    assert played.coordinator.members(m.CONTRIBUTION) == ()


def test_a_chunk_that_is_not_in_the_plan_is_refused():
    played = Round(3, 2, length=20, chunk=10).play(before=m.CONTRIBUTION)
    node = played.nodes[A]
    node.accept_inbox(played.asks[A])
    for chunk, chunks in ((0, 1), (2, 3)):
        message, blob = node.contribute(played.vectors[A][:10].copy(), chunk, chunks)
        with pytest.raises(CorruptMessage, match="there are 2"):
            played.coordinator.accept_contribution(A, message, blob)


def test_answers_repeated_after_their_exchange_is_over_change_nothing():
    played = Round(4, 3)
    again = []
    for kind in EXCHANGES:
        played.play(after=None if kind == m.ADVERTISE else EXCHANGES[EXCHANGES.index(kind) - 1], before=kind)
        node, c = played.nodes[A], played.coordinator
        if kind == m.ADVERTISE:
            again.append((c.accept_keys, node.advertise()))
        elif kind == m.SHARES:
            again.append((c.accept_shares, node.share(played.asks[A])))
        elif kind == m.CONFIRMED:
            again.append((c.accept_confirmation, node.confirm(played.asks[A])))
        elif kind == m.REVEALED:
            again.append((c.accept_reveal, node.reveal(played.asks[A])))
        for name in sorted(played.asks):
            played._answer(kind, name, ())
        before = c.dump()
        for accept, data in again:
            accept(A, data)
        assert c.dump() == before
    assert np.array_equal(played.opened(), played.expected(played.session.cohort))


def test_a_restart_anywhere_loses_nothing():
    for kind in (*EXCHANGES[1:], None):
        played = Round(5, 3).play({m.CONTRIBUTION: {E}}, before=kind)
        state = played.coordinator.dump()
        assert CoordinatorRound.load(played.session, played.key, state).dump() == state


def test_a_restart_after_the_masks_were_put_together_can_still_take_them_off():
    played = Round(5, 3).play({m.CONTRIBUTION: {E}})
    played.coordinator.reconstruct()
    played.restart()
    total = np.zeros(played.length, np.uint32)
    for name in played.coordinator.survivors:
        played.ring.add(total, played.ring.from_bytes(played.blobs[name][0], played.length))
    played.coordinator.unmask(total, 0)
    assert np.array_equal(total, played.expected({A, B, C, D}))


@pytest.mark.parametrize("broken", [b"", b"null", b"{}", b"[1]"])
def test_a_broken_state_is_refused(broken):
    played = Round(3, 2)
    with pytest.raises(CorruptMessage):
        CoordinatorRound.load(played.session, played.key, broken)
    state = json.loads(Round(3, 2).play().coordinator.dump())
    for name in ("chunks_of", "closed", "received"):
        with pytest.raises(CorruptMessage):
            CoordinatorRound.load(played.session, played.key, json.dumps({**state, name: 5}).encode())


def test_one_member_that_answers_badly_is_left_out_and_the_round_goes_on():
    played = Round(5, 3).play(before=m.CONTRIBUTION)
    for name, ask in played.asks.items():
        played.nodes[name].accept_inbox(ask)
        message, blob = played.contribute(name)
        if name == B:
            with pytest.raises(AlteredCiphertext):
                played.coordinator.accept_contribution(name, message, blob[::-1])
        else:
            played.coordinator.accept_contribution(name, message, blob)
    played.play(after=m.CONTRIBUTION)
    assert np.array_equal(played.opened(), played.expected({A, C, D, E}))


def test_a_message_that_its_sender_did_not_sign_is_refused_in_every_exchange():
    played = Round(4, 3)
    forged = played.say(B, m.ADVERTISE, bodies(played.nodes[B].advertise(), m.Advertise))
    with pytest.raises(SwappedKey):
        played.coordinator.accept_keys(A, forged.replace(b'"sender":"label-001"', b'"sender":"label-000"'))
    played.play(before=m.SHARES)
    honest = played.nodes[B].share(played.asks[B])
    with pytest.raises(BadSignature):
        played.coordinator.accept_shares(A, honest.replace(b'"sender":"label-001"', b'"sender":"label-000"'))
    assert played.coordinator.members(m.SHARES) == ()


def test_everybody_is_asked_for_shares_in_the_same_words_with_no_more_signatures_than_needed():
    played = Round(7, 5).play({m.CONTRIBUTION: {E}}, before=m.REVEALED)
    assert len(set(played.asks.values())) == 1
    assert len(bodies(played.asks[A], m.Reveal).confirmations) == 5
    assert len(played.coordinator.confirmations()) == 6


def test_a_sum_is_not_opened_with_a_share_too_few_and_the_error_names_whose():
    played = Round(5, 4).play(before=m.REVEALED)
    for name in (A, B, C):
        played._answer(m.REVEALED, name, ())
    with pytest.raises(CohortTooSmall, match="3 of 5"):
        played.coordinator.reconstruct()
    # The fourth is late, not too late.
    played._answer(m.REVEALED, D, ())
    assert np.array_equal(played.opened(), played.expected(played.session.cohort))

"""A member's side: one answer to one question, whatever is repeated or killed in between, and nothing to pickle."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_play import EXCHANGES, Round, assert_hidden, bodies

from partbook.errors import CorruptMessage
from partbook.secagg import messages as m
from partbook.secagg.node import NodeRound

A = "label-000"


def answer(played: Round, kind: str) -> bytes:
    """A's answer in an exchange, to the coordinator's question in it."""
    node = played.nodes[A]
    if kind == m.ADVERTISE:
        return node.advertise()
    if kind == m.CONTRIBUTION:
        node.accept_inbox(played.asks[A])
        return played.contribute(A)[1]
    ask = {m.SHARES: node.share, m.CONFIRMED: node.confirm, m.REVEALED: node.reveal}[kind]
    return ask(played.asks[A])


@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_question_asked_again_gets_the_same_bytes_even_after_a_restart(kind):
    played = Round(5, 4).play(before=kind)
    first = answer(played, kind)
    assert answer(played, kind) == first
    played.restart()
    assert answer(played, kind) == first


@pytest.mark.parametrize("kind", [m.SHARES, m.CONTRIBUTION, m.CONFIRMED, m.REVEALED])
def test_the_same_words_signed_again_are_the_same_question(kind):
    played = Round(5, 4).play(before=kind)
    first = answer(played, kind)
    body = {m.SHARES: m.Keys, m.CONTRIBUTION: m.Inbox, m.CONFIRMED: m.Survivors, m.REVEALED: m.Reveal}[kind]
    asked = {m.SHARES: m.KEYS, m.CONTRIBUTION: m.INBOX, m.CONFIRMED: m.SURVIVORS, m.REVEALED: m.REVEAL}[kind]
    again = played.lie(asked, bodies(played.asks[A], body))
    assert again != played.asks[A]
    played.asks[A] = again
    assert answer(played, kind) == first


def test_every_attempt_has_keys_and_a_self_mask_of_its_own():
    one, other = (json.loads(Round(3, 2).nodes[A].dump()) for _ in range(2))
    assert all(one[name] != other[name] for name in ("mask_key", "share_key", "self_secret"))
    assert len({one["mask_key"], one["share_key"], one["self_secret"]}) == 3


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_neither_side_of_a_round_is_pickled_or_copied(act):
    played = Round(4, 3).play()
    for machine in (played.nodes[A], played.coordinator):
        with pytest.raises(TypeError, match="not pickled"):
            act(machine)


def test_dump_and_load_lose_nothing():
    for kind in EXCHANGES:
        played = Round(4, 3).play({m.CONTRIBUTION: {"label-003"}}, before=kind)
        node = played.nodes[A]
        state = node.dump()
        again = NodeRound.load(played.session, played.keys[A], state)
        assert again.dump() == state
        assert again.confirmed == node.confirmed


STATE = Round(4, 3).play({m.CONTRIBUTION: {"label-003"}})


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_broken_state_is_refused_without_a_word_of_what_is_in_it(data):
    state = json.loads(STATE.nodes[A].dump())
    name = data.draw(st.sampled_from(sorted(set(state) - {"plan", "member", "survivors"})))
    state[name] = data.draw(st.sampled_from([None, 5, "x", state["mask_key"][:-1], [state["self_secret"]], {"x": "y"}]))
    if name == "own_shares" and state[name] is None:
        return  # as it is before the shares are drawn
    with pytest.raises(CorruptMessage) as caught:
        NodeRound.load(STATE.session, STATE.keys[A], json.dumps(state).encode())
    assert_hidden("".join(traceback.format_exception(caught.value)), STATE.secrets())


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_state_cut_short_is_refused(cut):
    with pytest.raises(CorruptMessage):
        NodeRound.load(STATE.session, STATE.keys[A], STATE.nodes[A].dump()[:cut])


def test_contributing_a_chunk_that_is_not_there_is_a_mistake_of_the_caller():
    played = Round(3, 2).play(before=m.CONTRIBUTION)
    played.nodes[A].accept_inbox(played.asks[A])
    for chunk, chunks in ((1, 1), (-1, 1), (0, 0)):
        with pytest.raises(ValueError, match="no chunk"):
            played.nodes[A].contribute(played.vectors[A].copy(), chunk, chunks)


def test_a_sealed_contribution_is_signed_as_it_travels_and_masked_as_ever():
    played = Round(3, 2).play(before=m.CONTRIBUTION)
    node = played.nodes[A]
    node.accept_inbox(played.asks[A])
    plain = played.contribute(A)[1]
    message, blob = node.contribute(
        played.vectors[A].copy(), 0, 1, lambda values: b"sealed:" + values.tobytes(), seal_key="f" * 64
    )
    assert blob == b"sealed:" + plain
    assert bodies(message, m.Contribution).seal_key == "f" * 64

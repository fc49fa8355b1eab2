"""What the coordinator and all but enough labels can work out about one honest contribution: nothing.

The adversary here is given every secret of the labels that collude, every message of the round and every share that
was revealed, and takes every mask off a contribution that these let it compute. The same procedure with one label
more takes all of them off, so the tests would notice an adversary too weak to be worth resisting.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from round_play import OTHER_PLAN, Round, assert_hidden, bodies, names
from scipy.stats import chisquare

from partbook.identity.message import Message
from partbook.secagg import messages as m
from partbook.secagg.rings import RESIDUES, WORDS, Ring, add_masks
from partbook.secagg.session import agree
from partbook.secagg.shares import combine

LENGTH = 2**16
CONSTANT = 12345
RINGS = pytest.mark.parametrize("ring", [WORDS, RESIDUES], ids=["words", "residues"])
BODIES = {
    m.ADVERTISE: m.Advertise,
    m.KEYS: m.Keys,
    m.SHARES: m.Shares,
    m.INBOX: m.Inbox,
    m.CONTRIBUTION: m.Contribution,
    m.SURVIVORS: m.Survivors,
    m.CONFIRMED: m.Confirmed,
    m.REVEAL: m.Reveal,
    m.REVEALED: m.Revealed,
}

# Under this p-value a test fails. Keys are fresh in every run, and there are fewer than fifty such values: a false
# alarm among them is rarer than one run in ten thousand million.
ALARM = 1e-12


def constant_round(n: int, threshold: int, ring: Ring, drops: dict[str, set[str]] | None = None) -> Round:
    """Everybody contributes the same constant vector, the easiest to recognise."""
    vectors = {name: np.full(LENGTH, CONSTANT, ring.dtype) for name in names(n)}
    return Round(n, threshold, ring, vectors=vectors).play(drops)


def p_uniform(values: np.ndarray, ring: Ring) -> float:
    """How likely bytes as uneven as these are if the elements are uniform.

    The residues are uniform below t = 2^48 - 16383, so each of their six low bytes is within 2^-34 of uniform, which
    65,536 elements cannot show; the other two are zero.
    """
    octets = values.astype(ring.dtype).view(np.uint8).reshape(len(values), -1)[:, : 4 if ring is WORDS else 6]
    return float(chisquare(np.bincount(octets.ravel(), minlength=256)).pvalue)


def residual(played: Round, victim: str, colluders: set[str]) -> np.ndarray:
    """The victim's contribution without every mask that the coordinator and the colluders can compute."""
    session = played.session
    point, needed = session.points, session.graph.share_threshold
    states = {name: json.loads(played.nodes[name].dump()) for name in colluders}
    advertised = {}
    secrets: dict[str, dict[int, bytes]] = defaultdict(dict)
    keys: dict[str, dict[int, bytes]] = defaultdict(dict)
    for data in played.said:
        if not data.startswith(b'{"body"'):
            continue
        message = Message.decode(data)
        if message.kind == m.ADVERTISE:
            advertised[message.sender] = m.Advertise.of(message)
        if message.kind == m.REVEALED:
            body = m.Revealed.of(message)
            for owner, share in body.self_secrets.items():
                secrets[owner][point[message.sender]] = share
            for owner, share in body.mask_keys.items():
                keys[owner][point[message.sender]] = share
    for holder, state in states.items():
        for owner, (of_key, of_secret) in {**state["shares"], holder: state["own_shares"]}.items():
            keys[owner][point[holder]] = bytes.fromhex(of_key)
            secrets[owner][point[holder]] = bytes.fromhex(of_secret)

    private = {owner: combine(shares, needed) for owner, shares in keys.items() if len(shares) >= needed}
    private |= {name: bytes.fromhex(state["mask_key"]) for name, state in states.items()}
    masks = []
    if len(secrets[victim]) >= needed:
        masks.append((session.self_seed(combine(secrets[victim], needed), victim), -1))
    for peer in session.graph.neighbours(victim):
        if peer not in played.coordinator.members(m.SHARES):
            continue
        known, other = (victim, peer) if victim in private else (peer, victim)
        if known in private:
            key = X25519PrivateKey.from_private_bytes(private[known])
            agreed = agree(key, advertised[other].mask_key, other)
            masks.append((session.pair_seed(agreed, victim, peer), -1 if victim < peer else 1))
    values = played.ring.from_bytes(played.blobs[victim][0], LENGTH)
    add_masks(values, masks, played.ring, 0)
    return values


@RINGS
@pytest.mark.parametrize("seed", range(4))
def test_one_contribution_is_uniform_to_the_coordinator_and_threshold_minus_one_labels(ring, seed):
    a, _, c, *colluders = names(6)
    drops = {m.CONTRIBUTION: {c}} if seed % 2 else {}
    played = constant_round(6, 4, ring, drops)
    assert len(colluders) == played.session.threshold - 1
    found = residual(played, a, set(colluders))
    assert p_uniform(found, ring) > ALARM
    # Nothing else is left to take off: what still hides it is the mask that the honest members share among them.
    total = found.copy()
    for honest in played.coordinator.survivors:
        if honest not in (a, *colluders):
            ring.add(total, residual(played, honest, set(colluders)))
    honest_survivors = 2 if drops else 3
    assert (total == CONSTANT * honest_survivors).all()


@RINGS
def test_threshold_labels_and_the_coordinator_would_recover_it_so_the_test_above_can_fail(ring):
    a, _, *colluders = names(6)
    played = constant_round(6, 4, ring)
    assert len(colluders) == played.session.threshold
    found = residual(played, a, set(colluders))
    assert (found == CONSTANT).all()
    assert p_uniform(found, ring) < 1e-300


@RINGS
def test_before_the_reveal_a_contribution_is_uniform_even_to_all_its_peers_but_one_too_few(ring):
    a, *colluders = names(4)
    vectors = {name: np.full(LENGTH, CONSTANT, ring.dtype) for name in names(4)}
    played = Round(4, 4, ring, vectors=vectors).play(before=m.REVEALED)
    assert p_uniform(residual(played, a, set(colluders)), ring) > ALARM


@RINGS
def test_a_member_that_dropped_after_contributing_is_hidden_though_its_contribution_is_in_the_sum(ring):
    a, _, _, *colluders = names(6)
    played = constant_round(6, 4, ring, {m.CONFIRMED: {a}})
    assert a in played.coordinator.survivors
    assert p_uniform(residual(played, a, set(colluders)), ring) > ALARM


@RINGS
def test_a_contribution_that_came_too_late_stays_hidden_when_its_mask_key_is_known(ring):
    # The coordinator calls A dropped, so everybody reveals its mask key, and then it has A's contribution all the same:
    # the self mask still hides it.
    a, *_ = names(6)
    vectors = {name: np.full(LENGTH, CONSTANT, ring.dtype) for name in names(6)}
    played = Round(6, 4, ring, vectors=vectors).play(before=m.CONTRIBUTION)
    inbox = played.asks[a]
    played.play({m.CONTRIBUTION: {a}}, after=m.SHARES)
    played.nodes[a].accept_inbox(inbox)
    played.contribute(a)
    found = residual(played, a, set())
    assert p_uniform(found, ring) > ALARM
    add_masks(found, [(played.nodes[a]._masks()[0][0], -1)], ring, 0)
    assert (found == CONSTANT).all()


def seeds(played: Round) -> set[bytes]:
    return {seed for node in played.nodes.values() for seed, _ in node._masks()}


def test_two_rounds_share_no_mask():
    first = Round(5, 4).play()
    second = Round(5, 4, plan=OTHER_PLAN, identities=first.keys).play()
    assert len(seeds(first)) == 5 + 10
    assert not seeds(first) & seeds(second)


@RINGS
def test_two_rounds_share_no_mask_even_where_all_their_keys_are_the_same(ring):
    vectors = {name: np.full(LENGTH, CONSTANT, ring.dtype) for name in names(4)}
    first = Round(4, 3, ring, vectors=vectors)
    second = Round(4, 3, ring, vectors=vectors, plan=OTHER_PLAN, identities=first.keys)
    for name, node in second.nodes.items():
        same = first.nodes[name]
        node._mask_key, node._share_key, node._self_secret = same._mask_key, same._share_key, same._self_secret
    first.play()
    second.play()
    assert not seeds(first) & seeds(second)
    for name in names(4):
        one, two = (ring.from_bytes(played.blobs[name][0], LENGTH) for played in (first, second))
        difference = (one.astype(object) - two.astype(object)) % ring.modulus
        assert p_uniform(difference.astype(ring.dtype), ring) > ALARM


def test_two_chunks_of_one_contribution_share_no_mask():
    vectors = {name: np.zeros(2 * LENGTH, np.uint32) for name in names(3)}
    played = Round(3, 2, vectors=vectors, chunk=LENGTH).play()
    one, two = (np.frombuffer(played.blobs["label-000"][index], np.uint32) for index in (0, 1))
    assert p_uniform(one - two, WORDS) > ALARM


@pytest.mark.parametrize("restart", [False, True])
def test_no_secret_appears_in_a_log_or_a_repr(caplog, capsys, restart):
    caplog.set_level(logging.DEBUG)
    played = Round(5, 4).play({m.SHARES: set(), m.CONTRIBUTION: {"label-004"}}, restart=restart)
    played.opened()
    shown: list[object] = [played.session, played.session.graph, played.coordinator, *played.nodes.values()]
    shown += [vars(played.session), played.keys, played.key]
    for data in played.said:
        if data.startswith(b'{"body"'):
            message = Message.decode(data)
            shown += [message, bodies(data, BODIES[message.kind])]
    text = "\n".join(f"{thing!r} {thing!s}" for thing in shown)
    text += "\n".join(f"{record!r} {record.getMessage()} {record.args!r}" for record in caplog.records)
    text += "".join(capsys.readouterr())
    assert_hidden(text, [*played.secrets(), *seeds(played)])

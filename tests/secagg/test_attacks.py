"""Every attack of PROTOCOL §4 that a round of secure aggregation can meet, on an honest party that must refuse it.

The coordinator lies under its own good signature, and members under theirs. Each attack ends in its own error;
the party's state is as before, its error shows no secret (`Round.refused`), and the honest question is still answered.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from round_play import OTHER_PLAN, Round, bodies, names

from partbook.errors import (
    AlteredCiphertext,
    AlteredShare,
    BadSignature,
    CohortChanged,
    CohortTooSmall,
    CorruptMessage,
    DuplicateMember,
    ForeignSealKey,
    ForgedMember,
    OutOfTurn,
    PartbookError,
    ReplayedMessage,
    SecondReveal,
    SurvivorAlsoDropped,
    SwappedKey,
    TwoSurvivorLists,
    ValueOutOfRange,
)
from partbook.identity.keys import IdentityKey
from partbook.identity.message import Context, Message
from partbook.secagg import messages as m
from partbook.secagg.coordinator import CoordinatorRound
from partbook.secagg.node import NodeRound
from partbook.secagg.rings import RESIDUES
from partbook.secagg.session import agree

A, B, C, D, E = names(5)

# Points of low order (RFC 7748, section 6.1; Bernstein, "Curve25519", 2006): the outcome is zero whoever computes it.
LOW_ORDER = (
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 19 - 1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
)


@pytest.fixture
def shares() -> Round:
    """Five labels that have advertised keys; four must stay."""
    return Round(5, 4).play(before=m.SHARES)


@pytest.fixture
def contributions() -> Round:
    """The same, with shares given and the inboxes not yet handed out."""
    return Round(5, 4).play(before=m.CONTRIBUTION)


@pytest.fixture
def confirmations() -> Round:
    """The same, with all but the last label's contributions in: it dropped out."""
    return Round(5, 4).play({m.CONTRIBUTION: {E}}, before=m.CONFIRMED)


@pytest.fixture
def reveals() -> Round:
    """The same, with the survivors confirmed by the four who survived."""
    return Round(5, 4).play({m.CONTRIBUTION: {E}}, before=m.REVEALED)


# Keys


def keys_with(played: Round, *changed: bytes, without: str = "") -> bytes:
    """The signed keys that were advertised, with others in place of, or beside, the honest ones."""
    texts = [t for t in bodies(played.asks[A], m.Keys).messages if not without or f'"sender":"{without}"' not in t]
    return played.lie(m.KEYS, m.Keys(messages=(*texts, *(blob.decode() for blob in changed))))


def fresh_keys() -> m.Advertise:
    mask, share = (X25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(2))
    return m.Advertise(mask_key=mask, share_key=share)


def test_swapped_key(shares):
    # The coordinator puts keys of its own in B's place, which it can only sign itself.
    body = fresh_keys().json_body()
    swapped = Message.write(shares.key, m.ADVERTISE, shares.session.context, B, body).encode()
    shares.refused(A, SwappedKey, lambda node: node.share(keys_with(shares, swapped, without=B)))
    shares.nodes[A].share(shares.asks[A])


def test_swapped_key_within_a_message_that_the_member_signed(shares):
    [honest] = [Message.decode(t.encode()) for t in bodies(shares.asks[A], m.Keys).messages if B in t]
    body = {**honest.body, "mask_key": fresh_keys().json_body()["mask_key"]}
    altered = Message(honest.kind, honest.context, honest.sender, body, honest.signature).encode()
    shares.refused(A, SwappedKey, lambda node: node.share(keys_with(shares, altered, without=B)))


def test_swapped_key_of_the_member_itself(shares):
    own = shares.say(A, m.ADVERTISE, fresh_keys())
    shares.refused(A, SwappedKey, lambda node: node.share(keys_with(shares, own, without=A)))
    shares.refused(A, SwappedKey, lambda node: node.share(keys_with(shares, without=A)))


def test_swapped_key_at_the_coordinator():
    played = Round(5, 4)
    forged = Message.write(played.keys[B], m.ADVERTISE, played.session.context, A, fresh_keys().json_body())
    with pytest.raises(SwappedKey):
        played.coordinator.accept_keys(A, forged.encode())
    assert played.coordinator.members(m.ADVERTISE) == ()


def test_forged_roster_member(shares):
    mallory = IdentityKey.generate()
    forged = Message.write(mallory, m.ADVERTISE, shares.session.context, "mallory", fresh_keys().json_body()).encode()
    shares.refused(A, ForgedMember, lambda node: node.share(keys_with(shares, forged)))
    with pytest.raises(ForgedMember):
        shares.coordinator.accept_keys("mallory", forged)
    shares.nodes[A].share(shares.asks[A])


def test_a_node_that_the_roster_lists_with_another_key_does_not_begin(shares):
    with pytest.raises(ForgedMember):
        NodeRound(shares.session, A, IdentityKey.generate())
    with pytest.raises(ForgedMember):
        NodeRound(shares.session, "mallory", IdentityKey.generate())


def test_duplicate_member(shares):
    twice = bodies(shares.asks[A], m.Keys).messages[1].encode()
    shares.refused(A, DuplicateMember, lambda node: node.share(keys_with(shares, twice)))
    again = shares.say(B, m.ADVERTISE, fresh_keys())
    shares.refused(A, DuplicateMember, lambda node: node.share(keys_with(shares, again)))


@pytest.mark.parametrize("whose", ["own", "peer", "both the same"])
def test_duplicated_public_key(shares, whose):
    of = {sender: Message.decode(t.encode()).body for t, sender in
          zip(bodies(shares.asks[A], m.Keys).messages, shares.session.cohort, strict=True)}  # fmt: skip
    fresh = fresh_keys()
    copied = {
        "own": fresh.model_copy(update={"mask_key": m.Advertise.model_validate(of[A]).mask_key}),
        "peer": fresh.model_copy(update={"share_key": m.Advertise.model_validate(of[C]).share_key}),
        "both the same": fresh.model_copy(update={"share_key": fresh.mask_key}),
    }[whose]
    said = shares.say(B, m.ADVERTISE, copied)
    shares.refused(A, DuplicateMember, lambda node: node.share(keys_with(shares, said, without=B)))


def test_duplicated_public_key_at_the_coordinator_leaves_its_sender_out():
    played = Round(5, 4)
    honest = played.nodes[A].advertise()
    played.coordinator.accept_keys(A, honest)
    copied = fresh_keys().model_copy(update={"mask_key": bodies(honest, m.Advertise).mask_key})
    with pytest.raises(DuplicateMember):
        played.coordinator.accept_keys(B, played.say(B, m.ADVERTISE, copied))
    restarted = CoordinatorRound.load(played.session, played.key, played.coordinator.dump())
    with pytest.raises(DuplicateMember):
        restarted.accept_keys(B, played.say(B, m.ADVERTISE, copied))
    assert restarted.members(m.ADVERTISE) == (A,)


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
@pytest.mark.parametrize("which", ["mask_key", "share_key"])
def test_low_order_key(shares, point, which):
    weak = shares.say(B, m.ADVERTISE, fresh_keys().model_copy(update={which: point}))
    shares.refused(A, CorruptMessage, lambda node: node.share(keys_with(shares, weak, without=B)))
    with pytest.raises(CorruptMessage):
        CoordinatorRound(shares.session, shares.key).accept_keys(B, weak)
    shares.nodes[A].share(shares.asks[A])


def test_too_few_keys(shares):
    few = m.Keys(messages=bodies(shares.asks[A], m.Keys).messages[:3])
    shares.refused(A, CohortTooSmall, lambda node: node.share(shares.lie(m.KEYS, few)))


def test_cohort_changed_between_two_requests_for_shares(shares):
    shares.nodes[A].share(shares.asks[A])
    fewer = keys_with(shares, without=E)
    shares.refused(A, CohortChanged, lambda node: node.share(fewer))
    assert shares.nodes[A].share(shares.asks[A]) == shares.nodes[A].share(shares.asks[A])


# Replays


def other_rounds(played: Round) -> list[Context]:
    of = played.session.context
    return [
        Context("another choir", of.round, of.plan),
        Context(of.federation, of.round - 1, of.plan),
        Context(of.federation, of.round, OTHER_PLAN),
    ]


def test_replayed_message_of_another_round_from_the_coordinator(shares):
    body = bodies(shares.asks[A], m.Keys)
    for context in other_rounds(shares):
        shares.refused(A, ReplayedMessage, lambda node, c=context: node.share(shares.lie(m.KEYS, body, c)))
    shares.refused(A, ReplayedMessage, lambda node: node.share(shares.lie(m.INBOX, body)))


def test_replayed_message_of_another_round_from_a_member(shares):
    for context in other_rounds(shares):
        old = shares.say(B, m.ADVERTISE, fresh_keys(), context)
        shares.refused(A, ReplayedMessage, lambda node, blob=old: node.share(keys_with(shares, blob, without=B)))
        with pytest.raises(ReplayedMessage):
            shares.coordinator.accept_keys(B, old)


def test_replayed_confirmation_of_another_attempt(reveals):
    ask = bodies(reveals.asks[A], m.Reveal)
    confirmed = m.Confirmed(digest=reveals.session.survivors_digest(ask.survivors), count=4)
    old = reveals.say(D, m.CONFIRMED, confirmed, Context("choir", 3, OTHER_PLAN)).decode()
    body = ask.model_copy(update={"confirmations": (*ask.confirmations[:3], old)})
    reveals.refused(A, ReplayedMessage, lambda node: node.reveal(reveals.lie(m.REVEAL, body)))


def test_a_share_of_another_attempt(contributions):
    before = Round(5, 4, plan=OTHER_PLAN, identities=contributions.keys).play(before=m.CONTRIBUTION)
    inbox = bodies(contributions.asks[A], m.Inbox).shares
    old = bodies(before.asks[A], m.Inbox).shares[B]
    lie = contributions.lie(m.INBOX, m.Inbox(shares={**inbox, B: old}))
    contributions.refused(A, AlteredShare, lambda node: node.accept_inbox(lie))


def test_a_saved_state_of_another_attempt_is_not_taken_up(contributions):
    other = Round(5, 4, plan=OTHER_PLAN, identities=contributions.keys)
    with pytest.raises(OutOfTurn):
        NodeRound.load(other.session, other.keys[A], contributions.nodes[A].dump())
    with pytest.raises(OutOfTurn):
        CoordinatorRound.load(other.session, other.key, contributions.coordinator.dump())


def test_somebody_else_speaking_for_the_coordinator(shares):
    body = bodies(shares.asks[A], m.Keys).json_body()
    forged = Message.write(shares.keys[B], m.KEYS, shares.session.context, "coordinator", body).encode()
    shares.refused(A, BadSignature, lambda node: node.share(forged))
    named = Message.write(shares.keys[B], m.KEYS, shares.session.context, B, body).encode()
    shares.refused(A, ForgedMember, lambda node: node.share(named))


# Shares


@pytest.mark.parametrize("place", [0, 12, 60, -1], ids=["nonce", "of the mask key", "of the self mask", "tag"])
def test_altered_share(contributions, place):
    inbox = dict(bodies(contributions.asks[A], m.Inbox).shares)
    flipped = bytearray(inbox[B])
    flipped[place] ^= 1
    lie = contributions.lie(m.INBOX, m.Inbox(shares={**inbox, B: bytes(flipped)}))
    contributions.refused(A, AlteredShare, lambda node: node.accept_inbox(lie))
    contributions.refused(A, OutOfTurn, lambda node: node.contribute(contributions.vectors[A].copy(), 0, 1))
    contributions.nodes[A].accept_inbox(contributions.asks[A])
    contributions.contribute(A)


def test_shares_handed_to_another_member_or_in_anothers_name(contributions):
    inbox = bodies(contributions.asks[A], m.Inbox).shares
    for wrong in (
        {**inbox, B: inbox[C], C: inbox[B]},
        {**inbox, B: bodies(contributions.asks[C], m.Inbox).shares[B]},
        {**inbox, B: bodies(contributions.asks[B], m.Inbox).shares[A]},  # A's own to B, reflected
    ):
        lie = contributions.lie(m.INBOX, m.Inbox(shares=wrong))
        contributions.refused(A, AlteredShare, lambda node, blob=lie: node.accept_inbox(blob))


def test_share_list_for_strangers(contributions):
    inbox = bodies(contributions.asks[A], m.Inbox).shares
    lie = contributions.lie(m.INBOX, m.Inbox(shares={**inbox, "mallory": inbox[B]}))
    contributions.refused(A, CohortChanged, lambda node: node.accept_inbox(lie))
    own = contributions.lie(m.INBOX, m.Inbox(shares={**inbox, A: inbox[B]}))
    contributions.refused(A, CohortChanged, lambda node: node.accept_inbox(own))


def test_a_member_that_gives_shares_to_strangers_is_left_out(shares):
    honest = bodies(shares.nodes[A].share(shares.asks[A]), m.Shares)
    for wrong in (
        {**honest.shares, "mallory": honest.shares[B]},
        {peer: blob for peer, blob in honest.shares.items() if peer != B},
    ):
        with pytest.raises(CohortChanged):
            shares.coordinator.accept_shares(A, shares.say(A, m.SHARES, honest.model_copy(update={"shares": wrong})))
    assert shares.coordinator.members(m.SHARES) == ()


def test_cohort_changed_between_two_inboxes(contributions):
    contributions.nodes[A].accept_inbox(contributions.asks[A])
    inbox = dict(bodies(contributions.asks[A], m.Inbox).shares)
    inbox.pop(E)
    smaller = contributions.lie(m.INBOX, m.Inbox(shares=inbox))
    contributions.refused(A, CohortChanged, lambda node: node.accept_inbox(smaller))
    contributions.contribute(A)


def test_a_member_that_the_inbox_left_out_cannot_come_back_as_a_survivor(contributions):
    # A shares no mask with E then: nobody may ask it for a share that would take E's apart.
    inbox = dict(bodies(contributions.asks[A], m.Inbox).shares)
    inbox.pop(E)
    contributions.nodes[A].accept_inbox(contributions.lie(m.INBOX, m.Inbox(shares=inbox)))
    contributions.contribute(A)
    lie = contributions.lie(m.SURVIVORS, m.Survivors(survivors=(A, B, C, D, E)))
    contributions.refused(A, ForgedMember, lambda node: node.confirm(lie))
    contributions.nodes[A].confirm(contributions.lie(m.SURVIVORS, m.Survivors(survivors=(A, B, C, D))))


def test_an_inbox_too_small_to_be_hidden_in(contributions):
    inbox = bodies(contributions.asks[A], m.Inbox).shares
    few = contributions.lie(m.INBOX, m.Inbox(shares={peer: inbox[peer] for peer in (B, C)}))
    contributions.refused(A, CohortTooSmall, lambda node: node.accept_inbox(few))


# Contributions


def test_contributing_before_the_inbox(contributions):
    contributions.refused(A, OutOfTurn, lambda node: node.contribute(contributions.vectors[A].copy(), 0, 1))


def test_contributing_after_confirming(confirmations):
    confirmations.nodes[A].confirm(confirmations.asks[A])
    confirmations.refused(A, OutOfTurn, lambda node: node.contribute(confirmations.vectors[A].copy(), 0, 1))


def test_mask_reuse(confirmations):
    node, values = confirmations.nodes[A], confirmations.vectors[A] + np.uint32(1)
    before = node.dump()
    with pytest.raises(ValueError, match="masked before"):
        node.contribute(values, 0, 1)
    assert not values.any()
    assert node.dump() == before
    with pytest.raises(ValueError, match="masked before"):
        node.contribute(confirmations.vectors[A][:-1].copy(), 0, 1)
    assert node.contribute(confirmations.vectors[A].copy(), 0, 1)[1] == confirmations.blobs[A][0]


def test_mask_reuse_after_a_restart(confirmations):
    confirmations.restart()
    with pytest.raises(ValueError, match="masked before"):
        confirmations.nodes[A].contribute(confirmations.vectors[A] + np.uint32(1), 0, 1)


@pytest.mark.parametrize("value", [RESIDUES.modulus, 2**48, 2**64 - 1])
def test_value_not_below_the_modulus(value):
    played = Round(3, 2, RESIDUES).play(before=m.CONTRIBUTION)
    played.nodes[A].accept_inbox(played.asks[A])
    values = played.vectors[A].copy()
    values[5] = value
    error = played.refused(A, ValueOutOfRange, lambda node: node.contribute(values, 0, 1))
    assert str(value) not in str(error)
    played.contribute(A)


def test_flipped_bit_in_a_contribution(contributions):
    contributions.nodes[A].accept_inbox(contributions.asks[A])
    message, blob = contributions.contribute(A)
    for place in range(0, 8 * len(blob), 37):
        flipped = bytearray(blob)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(AlteredCiphertext):
            contributions.coordinator.accept_contribution(A, message, bytes(flipped))
    with pytest.raises(AlteredCiphertext):
        contributions.coordinator.accept_contribution(A, message, blob + b"\0")
    assert contributions.coordinator.members(m.CONTRIBUTION) == ()
    assert contributions.coordinator.accept_contribution(A, message, blob) is not None


def test_flipped_bit_in_a_sealed_contribution_is_found_before_it_is_parsed(contributions):
    contributions.coordinator = CoordinatorRound.load(
        contributions.session, contributions.key, contributions.coordinator.dump()
    )
    node = contributions.nodes[A]
    node.accept_inbox(contributions.asks[A])
    message, blob = node.contribute(contributions.vectors[A].copy(), 0, 1, lambda values: b"sealed" + values.tobytes())
    assert blob.startswith(b"sealed")
    with pytest.raises(AlteredCiphertext):
        contributions.coordinator.accept_contribution(A, message, b"Sealed" + blob[6:])


@pytest.mark.parametrize(("named", "due"), [("1" * 64, "2" * 64), ("", "2" * 64), ("1" * 64, "")])
def test_foreign_seal_key(named, due):
    played = Round(3, 2)
    played.coordinator = CoordinatorRound(played.session, played.key, seal_key=due)
    played.play(before=m.CONTRIBUTION)
    played.nodes[A].accept_inbox(played.asks[A])
    message, blob = played.nodes[A].contribute(
        played.vectors[A].copy(), 0, 1, lambda values: values.tobytes(), seal_key=named
    )
    with pytest.raises(ForeignSealKey):
        played.coordinator.accept_contribution(A, message, blob)
    assert played.coordinator.members(m.CONTRIBUTION) == ()


def test_a_contribution_from_a_member_without_shares_or_after_the_sum_was_closed():
    played = Round(5, 4).play({m.CONTRIBUTION: {E}}, before=m.CONFIRMED)
    played.nodes[E].accept_inbox(played.coordinator.ask_contribute()[E])
    message, blob = played.contribute(E)
    with pytest.raises(OutOfTurn):
        played.coordinator.accept_contribution(E, message, blob)
    assert played.coordinator.survivors == (A, B, C, D)


# Survivors


def test_two_survivor_lists_shown_to_one_member(confirmations):
    node = confirmations.nodes[A]
    signed = node.confirm(confirmations.asks[A])
    other = confirmations.lie(m.SURVIVORS, m.Survivors(survivors=(A, B, C, D, E)))
    confirmations.refused(A, TwoSurvivorLists, lambda node: node.confirm(other))
    # The same list under a new signature is the same question, and gets the same answer.
    again = confirmations.lie(m.SURVIVORS, m.Survivors(survivors=(A, B, C, D)))
    assert again != confirmations.asks[A]
    assert node.confirm(again) == signed


def test_two_survivor_lists_shown_to_one_member_around_a_restart(confirmations):
    confirmations.nodes[A].confirm(confirmations.asks[A])
    confirmations.restart()
    other = confirmations.lie(m.SURVIVORS, m.Survivors(survivors=(A, B, C, D, E)))
    confirmations.refused(A, TwoSurvivorLists, lambda node: node.confirm(other))


def test_two_survivor_lists_shown_to_two_members(confirmations):
    # E is a survivor for B, C and D and dropped for A: A's share of its mask key would join theirs of its self mask.
    short, long = (m.Survivors(survivors=list_) for list_ in ((A, B, C, D), (A, B, C, D, E)))
    confirmations.nodes[A].confirm(confirmations.lie(m.SURVIVORS, short))
    said = [confirmations.nodes[n].confirm(confirmations.lie(m.SURVIVORS, long)).decode() for n in (B, C, D)]
    own = confirmations.nodes[A].confirm(confirmations.lie(m.SURVIVORS, short)).decode()
    lie = m.Reveal(survivors=(A, B, C, D), dropped=(E,), confirmations=(own, *said))
    confirmations.refused(A, TwoSurvivorLists, lambda node: node.reveal(confirmations.lie(m.REVEAL, lie)))
    # Nor does it follow the others to the list that it did not sign.
    lie = m.Reveal(survivors=(A, B, C, D, E), dropped=(), confirmations=(*said, own))
    confirmations.refused(A, TwoSurvivorLists, lambda node: node.reveal(confirmations.lie(m.REVEAL, lie)))


def test_two_survivor_lists_at_the_coordinator(confirmations):
    digest = confirmations.session.survivors_digest((A, B, C, D, E))
    said = confirmations.say(A, m.CONFIRMED, m.Confirmed(digest=digest, count=5))
    with pytest.raises(TwoSurvivorLists):
        confirmations.coordinator.accept_confirmation(A, said)
    assert confirmations.coordinator.members(m.CONFIRMED) == ()


@pytest.mark.parametrize(
    ("listed", "error"),
    [
        ((B, C, D, E), ForgedMember),  # it contributed, and is left out
        ((A, B, C, D, "mallory"), ForgedMember),
        ((A, B, C, C, D), DuplicateMember),
        ((A, A, A, A), DuplicateMember),
        ((B, A, C, D), CorruptMessage),
        ((A, B, C), CohortTooSmall),
        ((A,), CohortTooSmall),
    ],
)
def test_a_list_of_survivors_that_is_none(confirmations, listed, error):
    lie = confirmations.lie(m.SURVIVORS, m.Survivors(survivors=listed))
    confirmations.refused(A, error, lambda node: node.confirm(lie))
    assert confirmations.nodes[A].confirmed == ()
    confirmations.nodes[A].confirm(confirmations.asks[A])


def test_confirming_without_having_contributed(confirmations):
    lie = confirmations.lie(m.SURVIVORS, m.Survivors(survivors=(A, B, C, D, E)))
    confirmations.refused(E, OutOfTurn, lambda node: node.confirm(lie))


# Reveals


def revealing(played: Round, **changed: object) -> bytes:
    """The honest request for shares, with this changed."""
    return played.lie(m.REVEAL, bodies(played.asks[A], m.Reveal).model_copy(update=changed))


def test_survivor_also_dropped(reveals):
    for dropped in ((D, E), (A, E), (B,)):
        lie = revealing(reveals, dropped=dropped)
        reveals.refused(A, SurvivorAlsoDropped, lambda node, blob=lie: node.reveal(blob))
    reveals.nodes[A].reveal(reveals.asks[A])


def test_a_survivor_moved_to_the_dropped(reveals):
    lie = revealing(reveals, survivors=(A, B, C), dropped=(D, E))
    reveals.refused(A, TwoSurvivorLists, lambda node: node.reveal(lie))


@pytest.mark.parametrize(
    ("dropped", "error"),
    [((), CohortChanged), ((E, "mallory"), CohortChanged), (("mallory",), CohortChanged), ((E, E), DuplicateMember)],
)
def test_cohort_changed_among_the_dropped(reveals, dropped, error):
    lie = revealing(reveals, dropped=dropped)
    reveals.refused(A, error, lambda node: node.reveal(lie))
    reveals.nodes[A].reveal(reveals.asks[A])


def test_second_reveal(reveals):
    first = reveals.nodes[A].reveal(reveals.asks[A])
    of = bodies(first, m.Revealed)
    assert set(of.self_secrets) == {A, B, C, D}
    assert set(of.mask_keys) == {E}
    for changed in (
        {"survivors": (A, B, C, D, E), "dropped": ()},
        {"survivors": (A, B, C), "dropped": (D, E)},
        {"dropped": ()},
        {"confirmations": bodies(reveals.asks[A], m.Reveal).confirmations[::-1]},
    ):
        lie = revealing(reveals, **changed)
        reveals.refused(A, SecondReveal, lambda node, blob=lie: node.reveal(blob))
    reveals.restart()
    reveals.refused(A, SecondReveal, lambda node: node.reveal(lie))
    assert reveals.nodes[A].reveal(reveals.asks[A]) == first


def test_reveal_before_confirming(confirmations):
    said = [confirmations.nodes[n].confirm(confirmations.asks[n]).decode() for n in (B, C, D)]
    digest = confirmations.session.survivors_digest((A, B, C, D))
    own = confirmations.say(A, m.CONFIRMED, m.Confirmed(digest=digest, count=4)).decode()
    lie = m.Reveal(survivors=(A, B, C, D), dropped=(E,), confirmations=(own, *said))
    confirmations.refused(A, OutOfTurn, lambda node: node.reveal(confirmations.lie(m.REVEAL, lie)))


def test_too_few_confirmations(reveals):
    signed = bodies(reveals.asks[A], m.Reveal).confirmations
    for few in ((), signed[:3], (*signed[:3], signed[0]), (signed[0],) * 4):
        lie = revealing(reveals, confirmations=few)
        reveals.refused(A, CohortTooSmall, lambda node, blob=lie: node.reveal(blob))
    reveals.nodes[A].reveal(reveals.asks[A])


def test_confirmations_of_members_that_did_not_survive(reveals):
    digest = reveals.session.survivors_digest((A, B, C, D))
    stranger = reveals.say(E, m.CONFIRMED, m.Confirmed(digest=digest, count=4))
    signed = bodies(reveals.asks[A], m.Reveal).confirmations
    lie = revealing(reveals, confirmations=(*signed[:3], stranger.decode()))
    reveals.refused(A, ForgedMember, lambda node: node.reveal(lie))
    with pytest.raises(OutOfTurn):
        reveals.coordinator.accept_confirmation(E, stranger)


def test_forged_confirmations(reveals):
    digest = reveals.session.survivors_digest((A, B, C, D))
    body = m.Confirmed(digest=digest, count=4).json_body()
    signed = bodies(reveals.asks[A], m.Reveal).confirmations
    for key, sender in ((reveals.key, D), (reveals.keys[B], D), (IdentityKey.generate(), "mallory")):
        forged = Message.write(key, m.CONFIRMED, reveals.session.context, sender, body).encode().decode()
        lie = revealing(reveals, confirmations=(*signed[:3], forged))
        reveals.refused(A, ForgedMember, lambda node, blob=lie: node.reveal(blob))


def test_a_reveal_never_holds_both_shares_of_one_peer_nor_any_share_of_the_own_mask_key(reveals):
    for name, ask in reveals.asks.items():
        of = bodies(reveals.nodes[name].reveal(ask), m.Revealed)
        assert not set(of.self_secrets) & set(of.mask_keys)
        assert name not in of.mask_keys


def test_a_reveal_that_was_not_asked_for(reveals):
    of = bodies(reveals.nodes[A].reveal(reveals.asks[A]), m.Revealed)
    with pytest.raises(CohortChanged):
        reveals.coordinator.accept_reveal(
            A, reveals.say(A, m.REVEALED, m.Revealed(self_secrets=of.self_secrets, mask_keys={}))
        )
    with pytest.raises(OutOfTurn):
        reveals.coordinator.accept_reveal(E, reveals.say(E, m.REVEALED, of))
    assert reveals.coordinator.members(m.REVEALED) == ()


@pytest.mark.parametrize("of", ["self_secrets", "mask_keys"])
def test_altered_share_in_a_reveal_opens_no_sum(reveals, of):
    for name, ask in reveals.asks.items():
        answer = reveals.nodes[name].reveal(ask)
        if name == B:
            body = bodies(answer, m.Revealed)
            shares_ = dict(getattr(body, of))
            owner = min(shares_)
            shares_[owner] = (int.from_bytes(shares_[owner], "big") ^ 1).to_bytes(33, "big")
            answer = reveals.say(B, m.REVEALED, body.model_copy(update={of: shares_}))
        reveals.coordinator.accept_reveal(name, answer)
    with pytest.raises(CorruptMessage, match=owner):
        reveals.coordinator.reconstruct()
    with pytest.raises(OutOfTurn):
        reveals.coordinator.unmask(np.zeros(8, np.uint32), 0)


# A cohort on a graph of neighbours


def test_confirmations_of_a_neighbourhood_alone_are_too_few():
    """Two lists can find enough signers around two members of a circle; in one cohort they cannot.

    One honest node, and a hundred members that the adversary plays with a coordinator of its own.
    """
    played = Round(101)
    session, (me, *others) = played.session, played.session.cohort
    peers, node = session.graph.neighbours(me), played.nodes[me]
    assert len(peers) < len(others)
    share_keys = {peer: X25519PrivateKey.generate() for peer in peers}
    said = [node.advertise()]
    for peer, key in share_keys.items():
        keys = fresh_keys().model_copy(update={"share_key": key.public_key().public_bytes_raw()})
        said.append(played.say(peer, m.ADVERTISE, keys))
    node.share(played.lie(m.KEYS, m.Keys(messages=tuple(blob.decode() for blob in said))))
    public = bodies(said[0], m.Advertise).share_key
    inbox = {}
    for peer, key in share_keys.items():
        nonce, box = os.urandom(12), AESGCM(session.share_key(agree(key, public, me), peer, me))
        inbox[peer] = nonce + box.encrypt(nonce, os.urandom(66), session.share_binding(peer, me))
    node.accept_inbox(played.lie(m.INBOX, m.Inbox(shares=inbox)))
    played.contribute(me)
    far = next(name for name in others if name not in peers)
    survivors = tuple(name for name in session.cohort if name != peers[0])
    node.confirm(played.lie(m.SURVIVORS, m.Survivors(survivors=survivors)))
    confirmed = m.Confirmed(digest=session.survivors_digest(survivors), count=len(survivors))
    signed = {name: played.say(name, m.CONFIRMED, confirmed).decode() for name in survivors}

    def request(signers: tuple[str, ...], dropped: tuple[str, ...] = (peers[0],)) -> bytes:
        texts = tuple(signed[name] for name in signers)
        return played.lie(m.REVEAL, m.Reveal(survivors=survivors, dropped=dropped, confirmations=texts))

    around = tuple(name for name in (me, *peers) if name in survivors)
    assert session.graph.share_threshold <= len(around)
    played.refused(me, CohortTooSmall, lambda node: node.reveal(request(around[: session.threshold - 1])))
    played.refused(me, CohortChanged, lambda node: node.reveal(request(survivors, ())))
    played.refused(me, SurvivorAlsoDropped, lambda node: node.reveal(request(survivors, (peers[0], far))))
    answer = bodies(node.reveal(request(survivors[: session.threshold])), m.Revealed)
    assert set(answer.mask_keys) == {peers[0]}


def test_keys_of_a_member_that_is_no_neighbour():
    played = Round(101)
    me = played.session.cohort[0]
    peers = played.session.graph.neighbours(me)
    far = next(name for name in played.session.cohort[1:] if name not in peers)
    texts = tuple(played.nodes[name].advertise().decode() for name in (me, *peers, far))
    played.refused(me, ForgedMember, lambda node: node.share(played.lie(m.KEYS, m.Keys(messages=texts))))


# Out of turn


def test_every_exchange_before_its_time_is_out_of_turn():
    played = Round(3, 2)
    keys, inbox = m.Keys(messages=()), m.Inbox(shares={})
    survivors, reveal = m.Survivors(survivors=(A, B)), m.Reveal(survivors=(A, B), dropped=(), confirmations=())
    for act in (
        lambda node: node.share(played.lie(m.KEYS, keys)),
        lambda node: node.accept_inbox(played.lie(m.INBOX, inbox)),
        lambda node: node.contribute(played.vectors[A].copy(), 0, 1),
        lambda node: node.confirm(played.lie(m.SURVIVORS, survivors)),
        lambda node: node.reveal(played.lie(m.REVEAL, reveal)),
    ):
        played.refused(A, OutOfTurn, act)


def test_an_answer_that_nobody_asked_for_is_out_of_turn_at_the_coordinator():
    played = Round(5, 4).play({m.ADVERTISE: {E}}, before=m.SHARES)
    late = [
        lambda c: c.accept_keys(E, played.nodes[E].advertise()),
        lambda c: c.accept_shares(E, played.say(E, m.SHARES, m.Shares(commitment=bytes(32), shares={}))),
        lambda c: c.accept_confirmation(A, played.say(A, m.CONFIRMED, m.Confirmed(digest="0" * 64, count=4))),
        lambda c: c.accept_reveal(A, played.say(A, m.REVEALED, m.Revealed(self_secrets={}, mask_keys={}))),
        lambda c: c.unmask(np.zeros(3, np.uint32), 0),
    ]
    for act in late:
        before = played.coordinator.dump()
        with pytest.raises(PartbookError) as caught:
            act(played.coordinator)
        assert type(caught.value) is OutOfTurn
        assert played.coordinator.dump() == before

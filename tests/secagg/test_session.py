"""What both sides derive, against HKDF and X25519 put together by hand; and sessions that are none."""

from __future__ import annotations

import hashlib
import hmac
import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from round_play import OTHER_PLAN, PLAN

from partbook.errors import CorruptMessage
from partbook.identity.keys import IdentityKey
from partbook.identity.message import Context
from partbook.secagg.rings import WORDS
from partbook.secagg.session import Session, agree

COHORT = ("alto", "bass", "tenor")


def session(plan: str = PLAN, number: int = 1, cohort: tuple[str, ...] = COHORT) -> Session:
    identities = {name: IdentityKey.generate().public for name in cohort}
    return Session(Context("choir", number, plan), cohort, 2, WORDS, identities, IdentityKey.generate().public)


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869, sections 2.2 and 2.3, for one block."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def named(name: str) -> bytes:
    return len(name.encode()).to_bytes(2, "big") + name.encode()


def test_both_sides_of_a_pair_derive_one_seed_which_is_that_of_the_specification():
    one, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    here = agree(one, other.public_key().public_bytes_raw(), "bass")
    there = agree(other, one.public_key().public_bytes_raw(), "alto")
    seed = session().pair_seed(here, "alto", "bass")
    assert seed == session().pair_seed(there, "bass", "alto")
    assert seed == hkdf(here, bytes.fromhex(PLAN), b"partbook/v1/pair" + named("alto") + named("bass"))


def test_the_other_seeds_and_keys_are_those_of_the_specification():
    secret = bytes(range(32))
    of, salt = session(), bytes.fromhex(PLAN)
    assert of.self_seed(secret, "alto") == hkdf(secret, salt, b"partbook/v1/self" + named("alto"))
    expected = hkdf(secret, salt, b"partbook/v1/share" + named("bass") + named("alto"))
    assert of.share_key(secret, "bass", "alto") == expected
    committed = b"partbook/v1/self-commitment" + salt + named("alto") + secret
    assert of.commitment(secret, "alto") == hashlib.sha256(committed).digest()


def test_no_two_purposes_members_directions_or_plans_share_a_key():
    secret = bytes(32)
    found = []
    for of in (session(), session(OTHER_PLAN)):
        for one, other in itertools.permutations(("a", "b", "ab", "c", "bc"), 2):
            found.append(of.share_key(secret, one, other))
            if one < other:
                found.append(of.pair_seed(secret, one, other))
        found += [of.self_seed(secret, name) for name in ("a", "b", "ab")]
    assert len(set(found)) == len(found)


def test_an_encrypted_share_is_bound_to_its_round_sender_and_receiver():
    bound = [
        session().share_binding("alto", "bass"),
        session().share_binding("bass", "alto"),
        session().share_binding("alto", "tenor"),
        session(OTHER_PLAN).share_binding("alto", "bass"),
        session(number=2).share_binding("alto", "bass"),
    ]
    assert len(set(bound)) == len(bound)


def test_a_list_of_survivors_has_one_digest_and_no_other_list_has_it():
    of = session()
    lists = [("alto", "bass"), ("alto", "tenor"), ("alto",), (), ("altobass",), ('alto","bass',), ("bass", "alto")]
    assert len({of.survivors_digest(listed) for listed in lists}) == len(lists)


@pytest.mark.parametrize("point", [bytes(32), (1).to_bytes(32, "little"), bytes(31), b""])
def test_a_key_that_agrees_on_nothing_is_refused_and_its_owner_named(point):
    with pytest.raises(CorruptMessage, match="bass"):
        agree(X25519PrivateKey.generate(), point, "bass")


@pytest.mark.parametrize("cohort", [("bass", "alto"), ("alto", "alto"), ("alto", "coordinator")])
def test_a_cohort_is_sorted_distinct_and_without_the_coordinator(cohort):
    with pytest.raises(ValueError, match="sorted"):
        session(cohort=cohort)


def test_a_session_holds_the_keys_of_its_cohort_and_no_others():
    identities = {name: IdentityKey.generate().public for name in COHORT}
    for held in (identities | {"mallory": identities["alto"]}, {"alto": identities["alto"]}):
        with pytest.raises(ValueError, match="no others"):
            Session(Context("choir", 1, PLAN), COHORT, 2, WORDS, held, identities["alto"])


def test_points_are_places_in_the_cohort_from_one():
    assert session().points == {"alto": 1, "bass": 2, "tenor": 3}

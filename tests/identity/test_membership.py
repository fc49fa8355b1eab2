"""The next version of a roster: what may change, what has to change with it, and what everybody is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partbook.errors import ConfigError, DuplicateMember, ForgedMember, UnsignedRoster
from partbook.identity.keys import IdentityKey
from partbook.identity.membership import changes, duties, entry_digits, next_version
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import COORDINATOR, DOMAIN, Custodian, Member, Roster

NAMES = ("alto", "bass", "descant", "tenor")
OLD, NEW = "5e" * 32, "6f" * 32


def entry(name: str) -> Member:
    return Member(name, IdentityKey.generate().public, ReceivingKey.generate().public)


KEYS = {name: IdentityKey.generate() for name in (*NAMES, COORDINATOR, "notary")}
MEMBERS = tuple(Member(name, KEYS[name].public, ReceivingKey.generate().public) for name in NAMES)
SEALED = Roster("Four", 1, KEYS[COORDINATOR].public, MEMBERS, Custodian("notary", KEYS["notary"].public, OLD))
MASKED = replace(SEALED, custodian=None)
QUINTUS, AGAIN, COPYIST = entry("quintus"), entry("bass"), entry("copyist")


def kinds(before: Roster, after: Roster) -> set[tuple[str, str]]:
    return {(change.kind, change.party) for change in changes(before, after)}


def test_members_come_and_go_and_the_seal_goes_with_them() -> None:
    after = next_version(SEALED, add=[QUINTUS], remove=["alto"], seal_key=NEW)
    after.succeeds(SEALED)
    assert [member.name for member in after.members] == ["bass", "descant", "quintus", "tenor"]
    assert kinds(SEALED, after) == {("removed", "alto"), ("added", "quintus"), ("seal", "notary")}
    with pytest.raises(ConfigError, match="changes whenever the members do"):
        next_version(SEALED, remove=["alto"])
    with pytest.raises(ConfigError, match="changes whenever the members do"):
        next_version(SEALED, add=[QUINTUS])
    assert kinds(MASKED, next_version(MASKED, remove=["alto"])) == {("removed", "alto")}


def test_keys_are_replaced_under_the_same_name_and_nothing_else_is() -> None:
    after = next_version(SEALED, replace=[AGAIN])
    assert after.member("bass") == AGAIN
    assert kinds(SEALED, after) == {("identity", "bass"), ("receiving", "bass")}
    assert replace(after, members=MEMBERS, version=1).hash == SEALED.hash
    with pytest.raises(ConfigError, match="lists already"):
        next_version(SEALED, replace=[MEMBERS[1]])
    only = Member("bass", MEMBERS[1].identity, AGAIN.receiving)
    assert kinds(SEALED, next_version(SEALED, replace=[only])) == {("receiving", "bass")}


def test_coordinator_and_custodian_have_their_keys_replaced_by_name() -> None:
    office, notary = entry(COORDINATOR), entry("notary")
    after = next_version(SEALED, replace=[office, notary])
    assert (after.coordinator, after.custodian) == (office.identity, Custodian("notary", notary.identity, OLD))
    assert kinds(SEALED, after) == {("identity", COORDINATOR), ("identity", "notary")}
    for party, key in ((COORDINATOR, SEALED.coordinator), ("notary", KEYS["notary"].public)):
        with pytest.raises(ConfigError, match="lists already"):
            next_version(SEALED, replace=[Member(party, key, AGAIN.receiving)])


def test_the_seal_alone_is_made_new() -> None:
    assert kinds(SEALED, next_version(SEALED, seal_key=NEW)) == {("seal", "notary")}
    with pytest.raises(ConfigError, match="make a new one"):
        next_version(SEALED, seal_key=OLD)
    with pytest.raises(ConfigError, match="no custodian"):
        next_version(MASKED, seal_key=NEW)


def test_a_custodian_comes_is_another_one_or_goes() -> None:
    assert kinds(MASKED, next_version(MASKED, custodian=COPYIST, seal_key=NEW)) == {("custodian", "copyist")}
    other = next_version(SEALED, custodian=COPYIST, seal_key=NEW)
    assert other.custodian == Custodian("copyist", COPYIST.identity, NEW)
    assert "notary is no longer" in changes(SEALED, other)[0].sentence
    assert kinds(SEALED, next_version(SEALED, remove=["notary"])) == {("custodian", "notary")}
    with pytest.raises(ConfigError, match="a seal of its own"):
        next_version(SEALED, custodian=COPYIST)
    with pytest.raises(ConfigError, match="make a new one"):
        next_version(SEALED, custodian=COPYIST, seal_key=OLD)
    with pytest.raises(DuplicateMember, match="custodian of version 1 already"):
        next_version(SEALED, custodian=entry("notary"), seal_key=NEW)


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="Nothing would differ"):
        next_version(SEALED)
    for name in ("nobody", "Alto"):
        with pytest.raises(ForgedMember, match=f"nobody called '{name}'"):
            next_version(SEALED, remove=[name])
        with pytest.raises(ForgedMember, match=f"nobody called '{name}'"):
            next_version(SEALED, replace=[entry(name)])
    with pytest.raises(DuplicateMember, match="replace it"):
        next_version(SEALED, add=[AGAIN], seal_key=NEW)
    with pytest.raises(DuplicateMember, match="named twice"):
        next_version(SEALED, remove=["bass"], replace=[AGAIN])
    with pytest.raises(DuplicateMember, match="one key"):
        next_version(MASKED, add=[Member("quintus", MEMBERS[0].identity, QUINTUS.receiving)])
    with pytest.raises(ConfigError, match="cannot be removed"):
        next_version(SEALED, remove=[COORDINATOR])
    with pytest.raises(ConfigError, match="at least 3"):
        next_version(SEALED, remove=["alto", "bass"], seal_key=NEW)


def test_signatures_of_the_version_before_do_not_count_for_the_next() -> None:
    signatures = {name: KEYS[name].sign(SEALED.canonical, DOMAIN) for name in SEALED.parties}
    signed = replace(SEALED, signatures=signatures)
    signed.verify()
    after = next_version(signed, seal_key=NEW)
    assert after.signatures == {}
    with pytest.raises(UnsignedRoster):
        replace(after, signatures=signatures).verify()


def test_everybody_is_told_what_to_do_and_who_leaves_signs_nothing() -> None:
    after = next_version(SEALED, add=[QUINTUS], remove=["alto"], replace=[AGAIN], seal_key=NEW)
    told = duties(SEALED, after)
    assert set(told) == {*after.parties, "alto"}
    assert "signs nothing" in told["alto"][0]
    for name in after.parties:
        assert told[name][0].endswith("signs version 2 and installs it")
    assert any("destroys the old keys" in step for step in told["bass"])
    assert any("partbook node take-over" in step for step in told["quintus"])
    assert any("keeps its record" in step for step in told["notary"])
    assert all(any("seal's new public key" in step for step in told[name]) for name in ("tenor", COORDINATOR))
    office = duties(SEALED, next_version(SEALED, replace=[entry(COORDINATOR)]))
    assert all(any("policy.toml" in step for step in office[name]) for name in NAMES)
    assert set(duties(None, SEALED)) == set(SEALED.parties)


def test_an_entrys_digits_cover_name_keys_and_seal() -> None:
    again = Member("bass", AGAIN.identity, MEMBERS[1].receiving)
    others = [
        entry_digits(MEMBERS[1]),
        entry_digits(again),
        entry_digits(AGAIN),
        entry_digits(Member("base", AGAIN.identity, AGAIN.receiving)),
        entry_digits(AGAIN, OLD),
        entry_digits(AGAIN, NEW),
    ]
    assert len(set(others)) == len(others)


@given(st.sets(st.sampled_from(NAMES), max_size=2), st.sets(st.sampled_from("vwxyz"), max_size=3))
@settings(max_examples=25, deadline=None)
def test_what_was_asked_for_is_what_changes(leaving: set[str], coming: set[str]) -> None:
    entries = [entry(name) for name in sorted(coming)]
    if not leaving and not coming:
        return
    if len(MEMBERS) - len(leaving) + len(coming) < 3:
        with pytest.raises(ConfigError):
            next_version(MASKED, add=entries, remove=sorted(leaving))
        return
    after = next_version(MASKED, add=entries, remove=sorted(leaving))
    assert kinds(MASKED, after) == {("removed", n) for n in leaving} | {("added", n) for n in coming}
    if entries:
        back = next_version(after, add=[m for m in MEMBERS if m.name in leaving], remove=sorted(coming))
        assert replace(back, version=1).hash == MASKED.hash

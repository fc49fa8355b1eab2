from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partbook.errors import ConfigError, DuplicateMember, ForgedMember, ReplayedMessage, UnsignedRoster
from partbook.identity.keys import IdentityKey
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import COORDINATOR, DOMAIN, Custodian, Member, Roster

NAMES = ("east", "north", "south")
KEYS = {name: IdentityKey.generate() for name in (*NAMES, COORDINATOR, "notary", "stranger")}
RECEIVING = {name: ReceivingKey.generate().public for name in (*NAMES, "stranger")}
MEMBERS = tuple(Member(name, KEYS[name].public, RECEIVING[name]) for name in NAMES)
STRANGER = Member("stranger", KEYS["stranger"].public, RECEIVING["stranger"])
CUSTODIAN = Custodian("notary", KEYS["notary"].public, "5e" * 32)
BARE = Roster("Four Labels", 3, KEYS[COORDINATOR].public, MEMBERS, CUSTODIAN)


def signed(roster: Roster, *names: str) -> Roster:
    for name in names or roster.parties:
        roster = roster.sign(name, KEYS[name])
    return roster


WHOLE = signed(BARE)


def test_a_roster_that_all_signed_verifies_and_travels_through_a_file(tmp_path):
    path = tmp_path / "roster.toml"
    WHOLE.verify()
    WHOLE.write(path)
    assert Roster.read(path) == WHOLE
    assert Roster.parse(WHOLE.toml).hash == WHOLE.hash
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_custodian_nobody_signs_for_one(tmp_path):
    masked = signed(replace(BARE, custodian=None))
    assert masked.parties == (*NAMES, COORDINATOR)
    masked.write(tmp_path / "roster.toml")
    assert Roster.read(tmp_path / "roster.toml") == masked


@pytest.mark.parametrize("absent", BARE.parties)
def test_each_party_has_to_sign(absent, tmp_path):
    partly = signed(BARE, *(name for name in BARE.parties if name != absent))
    with pytest.raises(UnsignedRoster, match=f"missing: '{absent}'"):
        partly.verify()
    partly.write(tmp_path / "roster.toml")
    with pytest.raises(UnsignedRoster, match=r"roster\.toml"):
        Roster.read(tmp_path / "roster.toml")
    assert Roster.read(tmp_path / "roster.toml", verify=False).sign(absent, KEYS[absent]).unsigned() == {}


def test_a_wrong_signature_is_put_down_to_its_party():
    forged = KEYS["stranger"].sign(BARE.canonical, DOMAIN)
    other_domain = KEYS["north"].sign(BARE.canonical, "partbook/v1/release")
    for wrong in (forged, other_domain, WHOLE.signatures["south"], b""):
        with pytest.raises(UnsignedRoster, match=r"wrong: 'north'\)"):
            replace(WHOLE, signatures={**WHOLE.signatures, "north": wrong}).verify()
    with pytest.raises(UnsignedRoster, match="not a party: 'stranger'"):
        replace(WHOLE, signatures={**WHOLE.signatures, "stranger": forged}).verify()


def test_every_field_is_signed():
    other = KEYS["stranger"].public
    altered = [
        replace(WHOLE, federation="Five Labels"),
        replace(WHOLE, version=4),
        replace(WHOLE, coordinator=other),
        replace(WHOLE, custodian=None),
        replace(WHOLE, custodian=replace(CUSTODIAN, seal_key="5f" * 32)),
        replace(WHOLE, custodian=replace(CUSTODIAN, name="notaries")),
        replace(WHOLE, custodian=replace(CUSTODIAN, identity=other)),
        replace(WHOLE, members=(*MEMBERS, STRANGER)),
        replace(WHOLE, members=(*MEMBERS[:2], replace(MEMBERS[2], name="west"))),
        replace(WHOLE, members=(*MEMBERS[:2], replace(MEMBERS[2], identity=other))),
        replace(WHOLE, members=(*MEMBERS[:2], replace(MEMBERS[2], receiving=RECEIVING["stranger"]))),
    ]
    assert len({roster.hash for roster in (*altered, WHOLE)}) == len(altered) + 1
    for roster in altered:
        with pytest.raises(UnsignedRoster):
            roster.verify()


def test_a_roster_is_signed_with_the_listed_key_under_the_listed_name_only():
    for name, key in (("north", "south"), ("north", "stranger"), (COORDINATOR, "north"), ("notary", "east")):
        with pytest.raises(ForgedMember, match="lists the key"):
            BARE.sign(name, KEYS[key])
    with pytest.raises(ForgedMember, match="'stranger'"):
        BARE.sign("stranger", KEYS["stranger"])


def test_a_name_counts_only_if_it_is_listed():
    assert BARE.member("north") is BARE.members[1]
    assert BARE.identity_of(COORDINATOR) == KEYS[COORDINATOR].public
    assert BARE.identity_of("notary") == KEYS["notary"].public
    for name in ("stranger", "North", "", COORDINATOR, "notary"):
        with pytest.raises(ForgedMember, match="no member"):
            BARE.member(name)
    with pytest.raises(ForgedMember, match="no party"):
        BARE.identity_of("stranger")


@given(st.permutations(MEMBERS))
@settings(max_examples=6, deadline=None)
def test_the_order_of_the_members_is_no_matter(order):
    assert replace(BARE, members=tuple(order)).hash == BARE.hash


def test_signatures_do_not_change_what_is_compared():
    assert (BARE.hash, BARE.fingerprint) == (WHOLE.hash, WHOLE.fingerprint)
    groups = BARE.fingerprint.split(" ")
    assert len(groups) == 12
    assert all(len(group) == 5 and group.isdecimal() for group in groups)


def test_nobody_is_listed_twice():
    twins = [
        replace(STRANGER, name="north"),
        replace(STRANGER, name="NORTH"),
        replace(STRANGER, name="notary"),
        replace(STRANGER, identity=KEYS["north"].public),
        replace(STRANGER, identity=KEYS[COORDINATOR].public),
        replace(STRANGER, identity=KEYS["notary"].public),
        replace(STRANGER, receiving=RECEIVING["north"]),
    ]
    for twin in twins:
        with pytest.raises(DuplicateMember):
            replace(BARE, members=(*MEMBERS, twin))
    with pytest.raises(DuplicateMember):
        replace(BARE, custodian=replace(CUSTODIAN, identity=KEYS[COORDINATOR].public))


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a\n", "é", "a" * 65, "..", "a\x1b[31m"])
def test_a_name_that_could_deceive_a_reader_is_refused(name):
    with pytest.raises(ConfigError, match="name"):
        replace(STRANGER, name=name)
    with pytest.raises(ConfigError, match="name"):
        replace(CUSTODIAN, name=name)


@pytest.mark.parametrize("name", ["coordinator", "Coordinator"])
def test_the_coordinators_name_is_its_own(name):
    with pytest.raises(ConfigError, match="coordinator's own"):
        replace(BARE, members=(*MEMBERS, replace(STRANGER, name=name)))
    with pytest.raises(ConfigError, match="coordinator's own"):
        replace(BARE, custodian=replace(CUSTODIAN, name=name))


@pytest.mark.parametrize(
    ("key", "edit"),
    [
        ("members", {"members": MEMBERS[:2]}),
        ("version", {"version": 0}),
        ("version", {"version": True}),
        ("version", {"version": 2**53}),
        ("federation", {"federation": ""}),
        ("federation", {"federation": "x" * 201}),
        ("federation", {"federation": "Four\x1b[2J"}),
        ("federation", {"federation": "Four Labels "}),
    ],
)
def test_a_field_out_of_form_is_named(key, edit):
    with pytest.raises(ConfigError, match=key):
        replace(BARE, **edit)


@pytest.mark.parametrize("seal_key", ["", "5e" * 31, "5E" * 32, "zz" * 32])
def test_a_seal_key_is_named_by_its_whole_id(seal_key):
    with pytest.raises(ConfigError, match="seal key"):
        replace(CUSTODIAN, seal_key=seal_key)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('protocol = "partbook/v1"', 'protocol = "partbook/v2"', "protocol"),
        ("version = 3", 'version = "3"', "version must be a whole number"),
        ("version = 3", "version = true", "version must be a whole number"),
        ("version = 3\n", "", "version is missing"),
        ("version = 3", "version = 3\nquorum = 2", "quorum is not a key"),
        ('name = "north"', 'name = "no/rth"', r"members\[2\]\.name cannot be used"),
        ('name = "north"', 'nom = "north"', r"members\[2\]\.nom is not a key"),
        (f'receiving = "{RECEIVING["south"].text}"', 'receiving = "AAAA"', r"members\[3\]\.receiving cannot be used"),
        ("BEGIN PUBLIC KEY", "BEGIN PUBLIC KEYS", "coordinator cannot be used"),
        ("[[members]]", "[[member]]", "member is not a key"),
        (f'seal_key = "{"5e" * 32}"', 'seal_key = "5e"', r"custodian\.seal_key cannot be used"),
        ("[custodian]", "[[custodian]]", "custodian must be a table"),
        ('north = "', 'north = "!', r"signatures\.north is not base64"),
        ("[signatures]", "[signatures", "is not TOML"),
    ],
    ids=map(str, range(14)),  # the texts hold keys, which are others in each process
)
def test_a_broken_file_is_named_with_the_key_that_is_wrong(tmp_path, old, new, named):
    path = tmp_path / "roster.toml"
    assert old in WHOLE.toml
    path.write_text(WHOLE.toml.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"roster\.toml.*{named}"):
        Roster.read(path)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path / "bytes", "UTF-8"), (tmp_path, "directory")):
        with pytest.raises(ConfigError, match=reason):
            Roster.read(path)
    with pytest.raises(ConfigError, match="cannot be written"):
        WHOLE.write(tmp_path / "none" / "roster.toml")


def test_line_ends_of_another_system_change_nothing(tmp_path):
    path = tmp_path / "roster.toml"
    path.write_bytes(WHOLE.toml.replace("\n", "\r\n").encode())
    assert Roster.read(path) == WHOLE


def test_a_roster_follows_the_one_before_it_and_no_other():
    replace(BARE, version=4).succeeds(BARE)
    for version in (1, 2, 3):
        with pytest.raises(ReplayedMessage, match="never go back"):
            replace(BARE, version=version).succeeds(BARE)
    with pytest.raises(ReplayedMessage, match="federation"):
        replace(BARE, federation="Five Labels", version=4).succeeds(BARE)
    with pytest.raises(ConfigError, match="take version 4 first"):
        replace(BARE, version=5).succeeds(BARE)


def test_an_entry_is_read_as_it_was_written_and_never_written_over(tmp_path: Path):
    path = tmp_path / "north.public.toml"
    MEMBERS[1].write(path)
    assert Member.read(path) == MEMBERS[1]
    with pytest.raises(ConfigError, match="exists already"):
        MEMBERS[0].write(path)
    path.write_text(path.read_text().replace("receiving", "recieving"))
    with pytest.raises(ConfigError, match="recieving is not a key"):
        Member.read(path)

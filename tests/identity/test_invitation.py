"""An invitation is worth what its signature and its 60 digits say, and nothing once it was altered or is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from partbook.errors import AlteredFile, BadSignature, ConfigError
from partbook.identity.invitation import Invitation
from partbook.identity.keys import IdentityKey
from partbook.identity.spoken import compare, in_two_lines, spoken

KEY = IdentityKey.generate()
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SENT = Invitation.issue(
    KEY, "The Four Partbooks", "federation.example.org:9443", roles=("member", "custodian"), days=14, now=NOW
)


def test_an_invitation_travels_through_a_file_and_verifies(tmp_path: Path) -> None:
    path = tmp_path / "invitation.toml"
    SENT.write(path)
    read = Invitation.read(path, now=NOW + timedelta(days=13))
    assert read == SENT
    assert read.fingerprint == SENT.fingerprint
    assert read.coordinator == KEY.public
    with pytest.raises(ConfigError, match="not overwritten"):
        SENT.write(path)


def test_every_field_is_signed_and_in_the_digits() -> None:
    other = IdentityKey.generate()
    altered = [
        replace(SENT, federation="The Five Partbooks"),
        replace(SENT, coordinator=other.public),
        replace(SENT, address="federation.example.com:9443"),
        replace(SENT, mode="masked", roles=("member",)),
        replace(SENT, roles=("member",)),
        replace(SENT, version="9.9.9"),
        replace(SENT, valid_until=SENT.valid_until + timedelta(days=365)),
    ]
    for invitation in altered:
        with pytest.raises(BadSignature, match="altered on its way"):
            invitation.verify(NOW)
    assert len({invitation.fingerprint for invitation in (*altered, SENT)}) == len(altered) + 1


def test_one_that_another_key_signed_anew_is_told_apart_by_its_digits_alone() -> None:
    forged = Invitation.issue(IdentityKey.generate(), SENT.federation, SENT.address, roles=SENT.roles, now=NOW)
    forged.verify(NOW)
    with pytest.raises(AlteredFile, match="two hold different files"):
        compare(SENT.fingerprint, forged.fingerprint, "the invitation")
    compare(SENT.fingerprint.replace(" ", "-"), SENT.fingerprint, "the invitation")
    with pytest.raises(ConfigError, match="60 digits"):
        compare("12345", SENT.fingerprint, "the invitation")


def test_a_signature_for_another_purpose_is_none() -> None:
    from partbook.identity.canonical import canonical

    wrong = KEY.sign(canonical(SENT._fields()), "partbook/v1/roster")
    with pytest.raises(BadSignature):
        replace(SENT, signature=wrong).verify(NOW)


def test_an_invitation_ends(tmp_path: Path) -> None:
    SENT.verify(NOW + timedelta(days=14))
    SENT.write(tmp_path / "invitation.toml")
    with pytest.raises(ConfigError, match=r"invitation\.toml: valid_until.*2026-12-07T12:00:00Z"):
        Invitation.read(tmp_path / "invitation.toml", now=NOW + timedelta(days=14, seconds=1))


@pytest.mark.parametrize("address", ["example.org:1", "10.0.0.1:9443", "[2001:db8::1]:9443", "a:65535"])
def test_addresses_that_are_some(address: str) -> None:
    assert Invitation.parse(Invitation.issue(KEY, "f", address, now=NOW).toml).address == address


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("address", {"address": "example.org"}),
        ("address", {"address": "example.org:0"}),
        ("address", {"address": "example.org:65536"}),
        ("address", {"address": 'x"\nmember = "y:1'}),
        ("address", {"address": "-x:1"}),
        ("mode", {"mode": "open"}),
        ("roles", {"roles": ()}),
        ("roles", {"roles": ("member", "member")}),
        ("roles", {"roles": ("coordinator",)}),
        ("roles", {"mode": "masked"}),
        ("federation", {"federation": "two\nlines"}),
        ("federation", {"federation": ""}),
        ("version", {"version": "one two"}),
        ("valid_until", {"valid_until": datetime(2026, 1, 1)}),
    ],
)
def test_a_field_out_of_form_is_named(key: str, fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=key):
        replace(SENT, **fields)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('protocol = "partbook/v1"', 'protocol = "partbook/v2"', "protocol"),
        ('mode = "sealed"', 'mode = "sealed"\nhidden = 1', "hidden is not a key"),
        ('mode = "sealed"', "", "mode is missing"),
        ("[\n", '["x",\n', "roles must name"),
        ('valid_until = "2026', 'valid_until = "tomorrow, 2026', "valid_until must be a time"),
        ("BEGIN PUBLIC", "BEGIN PUBLICK", "coordinator cannot be used"),
        ('signature = "', 'signature = "!', "signature is not base64"),
        ("federation = ", "federation = = ", "is not TOML"),
    ],
)
def test_a_broken_file_is_named_with_the_key_that_is_wrong(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = tmp_path / "invitation.toml"
    assert old in SENT.toml
    path.write_text(SENT.toml.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"invitation\.toml.*{named}"):
        Invitation.read(path, now=NOW)


def test_sixty_digits_fit_two_lines_and_depend_on_what_they_are_for() -> None:
    digits = spoken("partbook/v1/entry", {"a": 1})
    assert [len(group) for group in digits.split()] == [5] * 12
    assert in_two_lines(digits, "").replace("\n", " ") == digits
    assert digits != spoken("partbook/v1/roster", {"a": 1})

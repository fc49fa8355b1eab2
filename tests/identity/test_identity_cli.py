"""`partbook keys` and `partbook roster`, as the people of a federation use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from partbook.errors import (
    AlteredFile,
    ConfigError,
    DuplicateMember,
    ForgedMember,
    InsecureKeyFile,
    ReplayedMessage,
    UnsignedRoster,
    UnusableKey,
)
from partbook.identity.cli import keys, roster
from partbook.identity.keys import IdentityKey
from partbook.identity.passphrase import PASSPHRASE_VARIABLE
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Member, Roster

PARTIES = ("north", "south", "east", "coordinator", "notary")
SEAL = "5e" * 32


def run(app, *arguments: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(autouse=True)
def no_passphrase(monkeypatch):
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)


@pytest.fixture
def parties(tmp_path) -> Path:
    for name in PARTIES:
        run(keys, "new", name, "--out", tmp_path / name)
    return tmp_path


def new_roster(folder: Path, *more: object, members=("north", "south", "east"), out="roster.toml") -> Path:
    listed = [item for name in members for item in ("--member", folder / name / f"{name}.public.toml")]
    coordinator = folder / "coordinator" / "coordinator.public.toml"
    run(roster, "new", "--federation", "Three", "--coordinator", coordinator, *listed, "--out", folder / out, *more)
    return folder / out


def sign(folder: Path, path: Path, *names: str) -> str:
    output = ""
    for name in names:
        output = run(roster, "sign", path, "--name", name, "--key", folder / name / f"{name}.pem")
    return output


def test_three_labels_a_coordinator_and_a_custodian_sign_a_roster(parties):
    custodian = parties / "notary" / "notary.public.toml"
    path = new_roster(parties, "--custodian", custodian, "--seal-key", SEAL)
    with pytest.raises(UnsignedRoster, match="missing: 'east', 'north', 'south', 'coordinator', 'notary'"):
        run(roster, "verify", path)
    assert "Still to sign: south, coordinator, notary." in sign(parties, path, "north", "east")
    last = sign(parties, path, "coordinator", "south", "notary")
    assert "All have signed" in last
    assert last.index("Fingerprint") < last.index("Signed for")
    fingerprint = Roster.read(path).fingerprint
    assert fingerprint[:35] in last
    assert "Signed by all" in run(roster, "verify", path, "--fingerprint", fingerprint.replace(" ", ""))


def test_verifying_speaks_json_whether_it_is_whole_or_not(parties):
    path = new_roster(parties)
    sign(parties, path, "north")
    done = CliRunner().invoke(roster, ["verify", str(path), "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["verified"], found["error"]) == (2, False, "UnsignedRoster")
    assert {p["name"]: p["signature"] for p in found["parties"]}["north"] == "good"
    sign(parties, path, "south", "east", "coordinator")
    found = json.loads(run(roster, "verify", path, "--json"))
    assert found["verified"]
    assert found["fingerprint"] == Roster.read(path).fingerprint


def test_a_fingerprint_read_by_another_member_stops_a_signature_on_a_different_roster(parties):
    path = new_roster(parties)
    before = path.read_bytes()
    key = parties / "north" / "north.pem"
    with pytest.raises(AlteredFile, match="different rosters"):
        run(roster, "sign", path, "--name", "north", "--key", key, "--fingerprint", "12345 " * 12)
    with pytest.raises(ConfigError, match="60 digits"):
        run(roster, "sign", path, "--name", "north", "--key", key, "--fingerprint", "12345")
    with pytest.raises(ForgedMember):
        run(roster, "sign", path, "--name", "south", "--key", key)
    assert path.read_bytes() == before


def test_a_roster_is_checked_against_the_one_before(parties):
    first, second = new_roster(parties), new_roster(parties, "--version", 2, out="second.toml")
    for path in (first, second):
        sign(parties, path, "north", "south", "east", "coordinator")
    run(roster, "verify", second, "--previous", first)
    with pytest.raises(ReplayedMessage):
        run(roster, "verify", first, "--previous", second)


def test_a_roster_is_never_written_over_and_half_a_custodian_is_none(parties):
    path = new_roster(parties)
    with pytest.raises(ConfigError, match="never overwritten"):
        new_roster(parties)
    with pytest.raises(ConfigError, match="belong together"):
        new_roster(parties, "--seal-key", SEAL, out="other.toml")
    with pytest.raises(DuplicateMember):
        new_roster(parties, members=("north", "south", "east", "east"), out="other.toml")
    with pytest.raises(ConfigError, match="at least 3"):
        new_roster(parties, members=("north", "south"), out="other.toml")
    assert not (parties / "other.toml").exists()
    assert path.exists()


def test_new_keys_belong_together_and_are_never_overwritten(tmp_path):
    output = run(keys, "new", "north", "--out", tmp_path)
    identity = IdentityKey.load(tmp_path / "north.pem").public
    receiving = ReceivingKey.load(tmp_path / "north.receiving.pem").public
    assert Member.read(tmp_path / "north.public.toml") == Member("north", identity, receiving)
    assert identity.fingerprint[:39] in output
    (tmp_path / "north.pem").rename(tmp_path / "kept.pem")
    with pytest.raises(UnusableKey, match="never overwritten"):
        run(keys, "new", "north", "--out", tmp_path)
    assert not (tmp_path / "north.pem").exists()
    with pytest.raises(ConfigError, match="name"):
        run(keys, "new", "../north", "--out", tmp_path)


def test_a_passphrase_comes_from_a_private_file_or_the_environment(tmp_path, monkeypatch):
    secret = tmp_path / "passphrase"
    secret.write_text("ein Lied\n", encoding="utf-8")
    secret.chmod(0o644)
    with pytest.raises(InsecureKeyFile, match="chmod 600"):
        run(keys, "new", "north", "--out", tmp_path, "--passphrase-file", secret)
    secret.chmod(0o600)
    run(keys, "new", "north", "--out", tmp_path, "--passphrase-file", secret)
    IdentityKey.load(tmp_path / "north.pem", b"ein Lied")
    ReceivingKey.load(tmp_path / "north.receiving.pem", b"ein Lied")
    with pytest.raises(UnusableKey, match="--passphrase-file"):
        run(keys, "show", tmp_path / "north.pem")
    assert "private, encrypted" in run(keys, "show", tmp_path / "north.pem", "--passphrase-file", secret)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "ein Lied")
    assert "private, encrypted" in run(keys, "show", tmp_path / "north.receiving.pem")
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "kein Lied")
    with pytest.raises(UnusableKey, match="does not open"):
        run(keys, "show", tmp_path / "north.pem")
    secret.write_text("\n")
    with pytest.raises(UnusableKey, match="empty"):
        run(keys, "new", "south", "--out", tmp_path, "--passphrase-file", secret)


def test_show_says_what_each_file_is_and_nothing_secret(tmp_path):
    run(keys, "new", "north", "--out", tmp_path)
    identity = IdentityKey.load(tmp_path / "north.pem")
    public = tmp_path / "public.pem"
    public.write_bytes(identity.public.pem)
    files = [tmp_path / "north.pem", tmp_path / "north.receiving.pem", tmp_path / "north.public.toml", public]
    output = run(keys, "show", *files, "--json")
    found = {Path(item["file"]).name: item for item in json.loads(output)["keys"]}
    assert [item["kind"] for item in found.values()] == [
        "identity key, private, not encrypted",
        "receiving key, private, not encrypted",
        "entry of north, public",
        "identity key, public",
    ]
    assert all(
        found[name]["fingerprints"]["identity"] == identity.public.fingerprint
        for name in ("north.pem", "north.public.toml", "public.pem")
    )
    for private in (tmp_path / "north.pem", tmp_path / "north.receiving.pem"):
        secret_lines = private.read_text().splitlines()[1:-1]
        assert not any(line in output + run(keys, "show", *files) for line in secret_lines)
    with pytest.raises(UnusableKey, match="cannot be read"):
        run(keys, "show", tmp_path / "none")
    (tmp_path / "note").write_text("hello")
    with pytest.raises(ConfigError, match="note is not TOML"):
        run(keys, "show", tmp_path / "note")


def test_the_custodians_seal_is_named_in_the_roster_by_its_file_or_its_id(parties):
    folder = parties / "notary"
    output = run(keys, "seal", "notary", "--out", folder)
    public, secret, entry = (folder / f"notary.{ending}" for ending in ("seal.public", "seal.secret", "public.toml"))
    assert secret.stat().st_mode & 0o777 == 0o600
    by_file = Roster.read(new_roster(parties, "--custodian", entry, "--seal-key", public), verify=False)
    assert by_file.custodian is not None
    key_id = by_file.custodian.seal_key
    assert key_id in output
    assert Roster.read(
        new_roster(parties, "--custodian", entry, "--seal-key", key_id, out="by-id.toml"), verify=False
    ).hash == by_file.hash  # fmt: skip
    shown = json.loads(run(keys, "show", public, secret, "--json"))["keys"]
    assert [item["kind"] for item in shown] == ["seal key, public", "seal key, private, not encrypted"]
    assert [item["fingerprints"] for item in shown] == [{"id": key_id}] * 2
    with pytest.raises(UnusableKey, match="never overwritten"):
        run(keys, "seal", "notary", "--out", folder)

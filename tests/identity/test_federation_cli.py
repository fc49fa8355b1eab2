"""`partbook federation`, as an operator, three labels and a notary use it on five machines, a stick between them."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from partbook.custodian.settings import CustodianSettings
from partbook.errors import (
    AlteredFile,
    BadSignature,
    ConfigError,
    ForeignSealKey,
    ForgedMember,
    InsecureKeyFile,
    ReplayedMessage,
    UnsignedRoster,
)
from partbook.identity import joining
from partbook.identity.cli import keys, roster
from partbook.identity.federation_cli import app
from partbook.identity.invitation import Invitation
from partbook.identity.keys import IdentityKey
from partbook.identity.passphrase import PASSPHRASE_VARIABLE
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Member, Roster
from partbook.identity.tls import anchors, issue
from partbook.node.settings import NodeSettings
from partbook.sealing.parameters import SealPublic, SealSecret

LABELS = ("Label A", "Label B", "Label C")
NOTARY = "Notary"
ADDRESS = "federation.example.org:9443"


def run(command, *arguments: object) -> str:
    done = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(autouse=True)
def no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)


class Machines:
    """A folder for each machine, and what is on the stick."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stick = folder, folder / "stick"
        self.stick.mkdir()
        self.home = folder / "coordinator"
        run(keys, "new", "coordinator", "--out", self.home / "keys")
        self.invitation = self.stick / "invitation.toml"
        named = ("--federation", "The Three", "--address", ADDRESS)
        run(app, "invite", "--home", self.home, *named, "--out", self.invitation)

    def join(self, name: str, *more: object, place: str = "") -> dict[str, object]:
        found = json.loads(
            run(app, "join", self.invitation, "--name", name, "--out", self.folder / (place or name), "--json", *more)
        )
        for path in found["send"]:
            shutil.copy(path, self.stick)
        return found

    def entry(self, name: str) -> Path:
        return self.stick / f"{name}.public.toml"

    def key(self, name: str) -> Path:
        place = self.home if name == "coordinator" else self.folder / name
        return place / "keys" / f"{name}.pem"

    def found(self) -> Path:
        """Version 1, unsigned."""
        out = self.stick / "roster.toml"
        added = [item for name in LABELS for item in ("--add", self.entry(name))]
        custodian = ("--custodian", self.entry(NOTARY), "--seal-key", self.stick / f"{NOTARY}.seal.public")
        office = ("--coordinator", self.home / "keys" / "coordinator.public.toml")
        run(app, "propose", "--federation", "The Three", *office, *added, *custodian, "--out", out)
        return out

    def sign(self, path: Path, *names: str) -> None:
        for name in names or Roster.read(path, verify=False).parties:
            run(roster, "sign", path, "--name", name, "--key", self.key(name))


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    machines = Machines(tmp_path_factory.mktemp("machines"))
    for name in LABELS:
        machines.join(name)
    machines.join(NOTARY, "--role", "custodian")
    machines.sign(machines.found())
    return machines.folder


@pytest.fixture
def machines(enrolled: Path, tmp_path: Path) -> Machines:
    made = object.__new__(Machines)
    shutil.copytree(enrolled, tmp_path / "m")
    made.folder, made.stick, made.home = tmp_path / "m", tmp_path / "m" / "stick", tmp_path / "m" / "coordinator"
    made.invitation = made.stick / "invitation.toml"
    return made


def test_what_crosses_on_the_stick_is_public_and_makes_a_roster_that_all_signed(machines: Machines) -> None:
    signed = Roster.read(machines.stick / "roster.toml")
    assert signed.parties == (*LABELS, "coordinator", NOTARY)
    on_the_stick = b"".join(path.read_bytes() for path in machines.stick.iterdir())
    assert b"PRIVATE" not in on_the_stick
    for secret in machines.folder.rglob("keys/*"):
        if secret.suffix in (".pem", ".secret"):
            assert secret.stat().st_mode & 0o777 == 0o600
            # A seal's two halves begin alike; that the public one holds no secret, `SealPublic` sees to.
            assert secret.suffix == ".secret" or secret.read_bytes()[64:96] not in on_the_stick
    assert SealPublic.read(machines.stick / f"{NOTARY}.seal.public", None)
    assert all((machines.folder / name).stat().st_mode & 0o777 == 0o700 for name in (*LABELS, NOTARY))


def test_a_label_has_all_that_its_node_needs(machines: Machines) -> None:
    place = machines.folder / "Label A"
    settings = NodeSettings.read(place / "node.toml")
    assert (settings.member, settings.coordinator) == ("Label A", ADDRESS)
    listed = Roster.read(machines.stick / "roster.toml").member("Label A")
    assert IdentityKey.load(settings.identity).public == listed.identity
    assert settings.receiving is not None
    assert ReceivingKey.load(settings.receiving).public == listed.receiving
    assert {settings.vault.parent, settings.state.parent, settings.tls.parent, settings.roster.parent} == {place}
    assert settings.seal_key == place / joining.SEAL_FILE
    assert Invitation.read(place / "invitation.toml") == Invitation.read(machines.invitation)


def test_a_custodian_has_its_seal_and_its_configuration(machines: Machines) -> None:
    place = machines.folder / NOTARY
    settings = CustodianSettings.read(place / "custodian.toml")
    named = Roster.read(machines.stick / "roster.toml").custodian
    assert named is not None
    assert settings.name == NOTARY == named.name
    assert SealSecret.read(settings.secret, None).key_id == named.seal_key
    assert SealPublic.read(place / f"{NOTARY}.seal.public", named.seal_key)
    assert IdentityKey.load(settings.identity).public == named.identity
    assert settings.record.parent == settings.state


def test_two_people_read_the_same_digits_to_each_other(machines: Machines) -> None:
    heard = Invitation.read(machines.invitation).fingerprint
    shown = machines.join("Label D", "--fingerprint", heard)
    assert shown["compared"]
    assert shown["invitation"] == heard
    seal = SealPublic.read(machines.stick / f"{NOTARY}.seal.public", None).key_id
    out = machines.stick / "roster.v2.toml"
    change = ("--add", machines.entry("Label D"), "--seal-key", "0" * 64)
    proposed = json.loads(
        run(app, "propose", "--roster", machines.stick / "roster.toml", *change, "--out", out, "--json")
    )
    assert proposed["entries"] == {"Label D": shown["fingerprint"]}
    assert seal != "0" * 64
    text = run(app, "join", machines.invitation, "--name", "Label E", "--out", machines.folder / "e")
    assert heard[:35] in text
    assert "read this to them" in text


def test_an_invitation_that_is_not_the_operators_makes_no_keys(machines: Machines) -> None:
    out = machines.folder / "new"
    with pytest.raises(AlteredFile, match="different files"):
        run(app, "join", machines.invitation, "--name", "X", "--out", out, "--fingerprint", "12345 " * 12)
    forged = machines.stick / "forged.toml"
    forged.write_text(machines.invitation.read_text().replace("example.org", "example.com"), encoding="utf-8")
    with pytest.raises(BadSignature):
        run(app, "join", forged, "--name", "X", "--out", out)
    for name, role, reason in (("coordinator", "member", "--name"), ("a/b", "member", "name"), ("X", "boss", "--role")):
        with pytest.raises(ConfigError, match=reason):
            run(app, "join", machines.invitation, "--name", name, "--role", role, "--out", out)
    assert not out.exists()


def test_joining_writes_over_nothing_and_leaves_nothing_half_made(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = machines.key("Label A").read_bytes()
    with pytest.raises(ConfigError, match="never written over"):
        machines.join("Label A")
    assert machines.key("Label A").read_bytes() == before
    there = set(machines.folder.iterdir())

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(joining, "node_toml", full)
    with pytest.raises(ConfigError, match="nothing was left behind"):
        machines.join("Label D")
    assert set(machines.folder.iterdir()) == there
    monkeypatch.setattr(joining, "node_toml", interrupted)
    with pytest.raises(KeyboardInterrupt):
        joining.join(Invitation.read(machines.invitation), "Label D", "member", machines.folder / "Label D")
    assert set(machines.folder.iterdir()) == there


def test_a_process_killed_while_joining_leaves_no_folder_that_looks_whole(machines: Machines) -> None:
    out = machines.folder / "Label D"
    invitation = Invitation.read(machines.invitation)
    child = os.fork()
    if child == 0:  # pragma: no cover (another process)
        joining.node_toml = lambda *_: os._exit(9)  # type: ignore[assignment]
        joining.join(invitation, "Label D", "member", out)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not out.exists()
    (left,) = machines.folder.glob(".Label D.*")
    assert left.stat().st_mode & 0o777 == 0o700
    machines.join("Label D")


def test_keys_are_made_under_a_passphrase_where_one_is_given(machines: Machines) -> None:
    secret = machines.folder / "passphrase"
    secret.write_text("ein Lied\n", encoding="utf-8")
    secret.chmod(0o644)
    with pytest.raises(InsecureKeyFile):
        machines.join("Label D", "--passphrase-file", secret)
    secret.chmod(0o600)
    machines.join("Label D", "--passphrase-file", secret)
    IdentityKey.load(machines.key("Label D"), b"ein Lied")


def test_a_masked_federation_invites_members_only(machines: Machines) -> None:
    out = machines.stick / "masked.toml"
    run(
        app,
        "invite",
        "--home",
        machines.home,
        "--federation",
        "M",
        "--mode",
        "masked",
        "--address",
        ADDRESS,
        "--out",
        out,
    )
    assert Invitation.read(out).roles == ("member",)
    with pytest.raises(ConfigError, match="for member, not"):
        run(app, "join", out, "--name", "N", "--role", "custodian", "--out", machines.folder / "n")
    run(app, "join", out, "--name", "N", "--out", machines.folder / "n")
    assert "seal_key" not in tomllib.loads((machines.folder / "n" / "node.toml").read_text())


def test_an_invitation_takes_name_mode_and_key_from_the_coordinators_folder(machines: Machines) -> None:
    home, out = machines.home, machines.stick / "second.toml"
    with pytest.raises(ConfigError, match="--federation"):
        run(app, "invite", "--home", home, "--address", ADDRESS, "--out", out)
    shutil.copy(machines.stick / "roster.toml", home)
    (home / "federation.toml").write_text('roster = "roster.toml"\nkey = "keys/coordinator.pem"\nmode = "sealed"\n')
    shown = json.loads(run(app, "invite", "--home", home, "--address", ADDRESS, "--days", 2, "--out", out, "--json"))
    read = Invitation.read(out)
    assert (read.federation, read.mode, read.fingerprint) == ("The Three", "sealed", shown["fingerprint"])
    assert read.valid_until - datetime.now(UTC) < timedelta(days=2)


def test_a_lost_machine_is_answered_with_new_keys_under_the_same_name(machines: Machines) -> None:
    current = machines.stick / "roster.toml"
    machines.join("Label B", place="Label B again")
    out = machines.stick / "roster.v2.toml"
    text = run(app, "propose", "--roster", current, "--replace", machines.entry("Label B"), "--out", out)
    assert "Label B signs with a new key." in text
    machines.sign(out, "Label A", "Label C", "coordinator", NOTARY)
    with pytest.raises(ForgedMember, match="lists the key"):  # the stolen key signs nothing any more
        machines.sign(out, "Label B")
    shutil.move(machines.folder / "Label B again" / "keys", machines.folder / "Label B" / "new")
    run(roster, "sign", out, "--name", "Label B", "--key", machines.folder / "Label B" / "new" / "Label B.pem")
    assert "Signed by all" in run(app, "show", out, "--previous", current)
    run(roster, "verify", out, "--previous", current)
    with pytest.raises(ReplayedMessage):
        run(app, "show", current, "--previous", out)


def test_a_member_is_removed_with_a_new_seal(machines: Machines) -> None:
    current, out = machines.stick / "roster.toml", machines.stick / "roster.v2.toml"
    machines.join("Label D")
    change = ("--remove", "Label C", "--add", machines.entry("Label D"))
    with pytest.raises(ConfigError, match="partbook keys seal 'Notary'"):
        run(app, "propose", "--roster", current, *change, "--out", out)
    assert not out.exists()
    run(keys, "seal", NOTARY, "--out", machines.folder / NOTARY / "keys" / "2")
    seal = machines.folder / NOTARY / "keys" / "2" / f"{NOTARY}.seal.public"
    text = run(app, "propose", "--roster", current, *change, "--seal-key", seal, "--out", out)
    for said in ("Label C is no longer a member.", "Label D is a new member.", "Label C: stops; it signs nothing"):
        assert said in text
    assert "Call the owner of each entry" in text
    machines.sign(out)
    shown = json.loads(run(app, "show", out, "--previous", current, "--json"))
    assert shown["signed_by_all"]
    assert {(c["kind"], c["party"]) for c in shown["changes"]} == {
        ("removed", "Label C"),
        ("added", "Label D"),
        ("seal", NOTARY),
    }
    with pytest.raises(ConfigError, match="never overwritten"):
        run(app, "propose", "--roster", current, *change, "--seal-key", seal, "--out", out)


def test_a_roster_that_not_all_signed_is_followed_by_none(machines: Machines) -> None:
    half = machines.stick / "half.toml"
    signed = Roster.read(machines.stick / "roster.toml")
    signatures = {name: blob for name, blob in signed.signatures.items() if name != "Label A"}
    Roster(signed.federation, signed.version, signed.coordinator, signed.members, signed.custodian, signatures).write(
        half
    )
    with pytest.raises(UnsignedRoster, match="missing: 'Label A'"):
        run(app, "propose", "--roster", half, "--remove", "Label C", "--out", machines.stick / "no.toml")
    assert "Still to sign: Label A." in run(app, "show", half)


def test_a_label_finds_a_key_that_was_put_in_place_of_its_own(machines: Machines) -> None:
    path, mine = machines.stick / "roster.toml", machines.entry("Label A")
    seal = machines.stick / f"{NOTARY}.seal.public"
    assert "Listed just as in" in run(app, "show", path, "--entry", mine, "--entry", seal)
    signed = Roster.read(path)
    listed = signed.member("Label A")
    swapped = Member("Label A", listed.identity, ReceivingKey.generate().public)
    others = tuple(member for member in signed.members if member.name != "Label A")
    evil = machines.stick / "evil.toml"
    Roster("The Three", 1, signed.coordinator, (*others, swapped), signed.custodian).write(evil)
    with pytest.raises(ForgedMember, match="another receiving key"):
        run(app, "show", evil, "--entry", mine)
    other = machines.stick / "Other.seal.public"
    run(keys, "seal", "Other", "--out", machines.stick)
    with pytest.raises(ForeignSealKey):
        run(app, "show", path, "--entry", other)
    with pytest.raises(AlteredFile):
        run(app, "show", path, "--fingerprint", "12345 " * 12)


def test_certificates_are_shown_with_whose_they_are_and_when_they_end(machines: Machines) -> None:
    tls, path = machines.folder / "tls", machines.stick / "roster.toml"
    read = Roster.read(path)
    now = datetime.now(UTC)
    mine = IdentityKey.load(machines.key("Label A"))
    tls.mkdir()
    for name, leaf in {
        "front": issue(IdentityKey.load(machines.key("coordinator")), "coordinator", hosts=["localhost"], days=20),
        "old": issue(mine, "Label A", days=30, now=now - timedelta(days=60)),
        "early": issue(mine, "Label A", days=30, now=now + timedelta(days=2)),
        "stranger": issue(IdentityKey.generate(), "Label A"),
    }.items():
        (tls / f"{name}.cert.pem").write_bytes(leaf.certificate)
        (tls / f"{name}.key.pem").write_bytes(leaf.key)
    (tls / "members.pem").write_bytes(anchors(read))
    shown = json.loads(run(app, "show", path, "--tls", tls, "--json"))["certificates"]
    assert {Path(one["file"]).name: (one["party"], one["state"]) for one in shown} == {
        "front.cert.pem": ("coordinator", "good"),
        "old.cert.pem": ("Label A", "expired"),
        "early.cert.pem": ("Label A", "not yet"),
        "stranger.cert.pem": (None, "foreign"),
    }
    text = run(app, "show", path, "--tls", tls)
    for said in ("good until", "expired on", "clock", "issued by no key of this roster"):
        assert said in text
    (tls / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigError, match=r"broken\.pem"):
        run(app, "show", path, "--tls", tls)
    with pytest.raises(ConfigError, match="cannot be read"):
        run(app, "show", path, "--tls", machines.folder / "none")
    (tls / "broken.pem").unlink()
    empty = machines.folder / "empty"
    empty.mkdir()
    assert "There is no certificate" in run(app, "show", path, "--tls", empty)


def test_first_version_and_next_one_are_asked_for_in_different_words(machines: Machines) -> None:
    out, current = machines.stick / "x.toml", machines.stick / "roster.toml"
    office = machines.home / "keys" / "coordinator.public.toml"
    first = ("--federation", "F", "--coordinator", office, "--out", out)
    for wrong, reason in (
        (("--out", out), "Give --roster"),
        (("--roster", current, "--federation", "F", "--out", out), "first version"),
        ((*first, "--remove", "Label A"), "--remove and --replace"),
        ((*first, "--custodian", machines.entry(NOTARY)), "belong together"),
        (first, "at least 3"),
        (("--roster", current, "--out", out), "Nothing would differ"),
    ):
        with pytest.raises(ConfigError, match=reason):
            run(app, "propose", *wrong)
    assert not out.exists()

"""`partbook federation`: how labels, a custodian and a coordinator come together, and how that changes.

    invite    the coordinator's operator: one signed file for everybody who is wanted
    join      a label, a custodian: keys made on site, an entry to send back, a configuration to start with
    propose   whoever keeps the roster: its first version, or the one that follows
    show      everybody: who is in a roster, who signed it, what differs, what is about to end

`partbook roster sign` and `verify` stay the way in which a roster is signed and checked. The whole ceremony:
docs/enrolment.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partbook.errors import ConfigError
from partbook.identity.passphrase import PASSPHRASE_VARIABLE, given_passphrase, passphrase_of
from partbook.identity.showing import as_fields, describe, must_list, seal_id

if TYPE_CHECKING:
    from partbook.identity.certificates import Certificate
    from partbook.identity.keys import PublicIdentity
    from partbook.identity.roster import Roster

app = typer.Typer(
    help="Invite, join, and change who belongs to a federation.", no_args_is_help=True, add_completion=False
)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help=f"File of mode 0600 with the passphrase; else {PASSPHRASE_VARIABLE} is looked at.",
        show_default=False,
    ),
]


@app.command()
def invite(
    address: Annotated[str, typer.Option(help="HOST:PORT at which the coordinator's front can be reached.")],
    out: Annotated[Path, typer.Option(help="File to write; must not exist.")],
    home: Annotated[
        Path, typer.Option(help="The coordinator's folder; its federation.toml names key and mode.")
    ] = Path(),
    key: Annotated[
        Path | None, typer.Option(help="The coordinator's identity key; the one in HOME where not given.")
    ] = None,
    federation: Annotated[
        str | None, typer.Option(help="The federation's name; the one in HOME's roster where not given.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="sealed or masked; as in HOME, else sealed.")] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="What the invited may be: member, custodian; both where not given.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long it is valid.")] = 14,
    passphrase_file: _PassphraseFile = None,
    as_json: _Json = False,
) -> None:
    """Write a signed invitation, one for all whom the federation wants; nothing in it is secret.

    Read its 60 digits to whoever asks for them, on the telephone, and send them with no mail.
    """
    from partbook.identity.invitation import Invitation
    from partbook.identity.keys import IdentityKey
    from partbook.identity.spoken import in_two_lines

    place = _Home.read(home)
    found, named = key or place.key, federation or place.federation
    if named is None:
        raise ConfigError(f"--federation: {home} has no roster yet that names the federation; give its name.")
    kind = mode or place.mode
    roles = tuple(role) if role else (("member", "custodian") if kind == "sealed" else ("member",))
    signer = IdentityKey.load(found, _passphrase_of(found, passphrase_file))
    invitation = Invitation.issue(signer, named, address, mode=kind, roles=roles, days=days)
    invitation.write(out)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "file": str(out),
                    "fingerprint": invitation.fingerprint,
                    "coordinator": invitation.coordinator.fingerprint,
                    "valid_until": invitation.valid_until.isoformat(),
                }
            )
        )
        return
    typer.echo(
        f"{out}  invites to {named!r} as {' or '.join(roles)}, until {invitation.valid_until:%d %B %Y, %H:%M} UTC"
    )
    typer.echo("Send it by any way. Read these digits to those who call you, and to nobody in writing:")
    typer.echo(in_two_lines(invitation.fingerprint))


@app.command("join")
def join_federation(
    file: Annotated[Path, typer.Argument(metavar="INVITATION", help="The file that the coordinator's operator sent.")],
    name: Annotated[str, typer.Option(help="What this party is to be called in the roster.")],
    out: Annotated[Path, typer.Option(help="Folder for keys and configuration; must not exist.")],
    role: Annotated[str, typer.Option(help="member or custodian.")] = "member",
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The 60 digits that the coordinator's operator read to you.", show_default=False),
    ] = None,
    passphrase_file: _PassphraseFile = None,
    as_json: _Json = False,
) -> None:
    """Make this party's keys on this machine, the entry to send back, and a configuration ready to start with.

    Nothing secret leaves the folder. New keys for a party that is in already, as after a theft, are made in the same
    way, in another folder.
    """
    from partbook.identity.invitation import Invitation
    from partbook.identity.joining import join
    from partbook.identity.spoken import compare, in_two_lines

    invitation = Invitation.read(file)
    if fingerprint is not None:
        compare(fingerprint, invitation.fingerprint, "the invitation")
    passphrase = given_passphrase(passphrase_file)
    joined = join(invitation, name, role, out, passphrase)
    if as_json:
        found = {
            "folder": str(out),
            "send": [str(path) for path in joined.to_send],
            "fingerprint": joined.digits,
            "identity": joined.entry.identity.fingerprint,
            "receiving": joined.entry.receiving.fingerprint,
            "seal_key": joined.seal_key,
            "invitation": invitation.fingerprint,
            "coordinator": invitation.coordinator.fingerprint,
            "compared": fingerprint is not None,
        }
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    typer.echo(f"{invitation.federation}: {invitation.mode}, at {invitation.address}")
    if fingerprint is None:
        typer.echo(
            "1  Call the coordinator's operator, on a number that you had before, and have them read this to you:"
        )
        typer.echo(in_two_lines(invitation.fingerprint, "     "))
        typer.echo(f"   If they read other digits, delete {out} and ask who sent the file.")
    else:
        typer.echo("1  The invitation is the one whose digits were read to you.")
    locked = "with the passphrase" if passphrase else "without a passphrase: whoever copies a file has its key"
    typer.echo(f"2  Made {out}, private keys in {out / 'keys'} ({locked}).")
    typer.echo(f"3  Send back: {', '.join(str(path) for path in joined.to_send)}")
    typer.echo(f"   and read this to them, in the same call; it stands for {name} and its keys:")
    typer.echo(in_two_lines(joined.digits, "     "))
    typer.echo("4  When the roster comes: partbook federation show roster.toml, compare, partbook roster sign.")
    _other_version(invitation.version)


@app.command()
def propose(
    out: Annotated[Path, typer.Option(help="File to write; must not exist.")],
    roster: Annotated[
        Path | None, typer.Option(help="The roster in force; where not given, this is the first.", show_default=False)
    ] = None,
    add: Annotated[list[Path] | None, typer.Option(help="Entry of a new member, NAME.public.toml.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Name of a member who leaves.")] = None,
    replace: Annotated[
        list[Path] | None, typer.Option(help="Entry with new keys of a party that is in it; 'coordinator' too.")
    ] = None,
    custodian: Annotated[
        Path | None, typer.Option(help="Entry of a custodian that was none before.", show_default=False)
    ] = None,
    seal_key: Annotated[
        str | None, typer.Option(help="The seal's new public key, NAME.seal.public, or its id.", show_default=False)
    ] = None,
    federation: Annotated[str | None, typer.Option(help="The name, for the first version.", show_default=False)] = None,
    coordinator: Annotated[
        Path | None,
        typer.Option(help="The coordinator's entry (TOML) or public key (PEM), for the first.", show_default=False),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Write the next version of a roster, or the first, for everybody in it to sign.

    The digits it shows for every entry are to be heard from that entry's owner before anybody signs.
    """
    from partbook.identity import membership
    from partbook.identity.parties import Custodian, Member
    from partbook.identity.roster import Roster

    if out.exists():
        raise ConfigError(f"{out} exists already; a roster people may have signed is never overwritten.")
    added, replaced = ([Member.read(path) for path in paths or []] for paths in (add, replace))
    keeper = None if custodian is None else Member.read(custodian)
    seal = None if seal_key is None else seal_id(seal_key)
    current: Roster | None = None
    if roster is not None:
        if federation is not None or coordinator is not None:
            raise ConfigError(
                "--federation and --coordinator are for the first version; the coordinator's new key comes with "
                "--replace, and the name stays."
            )
        current = Roster.read(roster)
        written = membership.next_version(
            current, add=added, remove=remove or (), replace=replaced, custodian=keeper, seal_key=seal
        )
    else:
        if federation is None or coordinator is None:
            raise ConfigError(
                "Give --roster, the one in force; or --federation and --coordinator for the first version."
            )
        if remove or replaced:
            raise ConfigError("--remove and --replace change a roster; give the one in force by --roster.")
        if (keeper is None) != (seal is None):
            raise ConfigError("--custodian and --seal-key belong together; give both or neither.")
        key = _public_identity(coordinator)
        held = Custodian(keeper.name, keeper.identity, seal) if keeper is not None and seal is not None else None
        written = Roster(federation, 1, key, tuple(added), held)
    written.write(out)
    custodian_name = written.custodian.name if written.custodian else None
    entries = [*added, *replaced, *([keeper] if keeper else [])]
    digits = {
        entry.name: membership.entry_digits(entry, seal if entry.name == custodian_name else None) for entry in entries
    }
    if as_json:
        typer.echo(json.dumps({"file": str(out), "entries": digits, **as_fields(written, current)}, ensure_ascii=False))
        return
    describe(written, current)
    _heard(digits)
    typer.echo(f"Wrote {out}. When the digits were heard, each party runs:")
    typer.echo(f"  partbook roster sign {out} --name NAME --key KEY.pem")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="ROSTER", help="The roster's TOML file, signed or not.")],
    previous: Annotated[
        Path | None, typer.Option(help="The version in force, signed by all.", show_default=False)
    ] = None,
    entry: Annotated[
        list[Path] | None,
        typer.Option(
            help="An entry or a seal's public key you hold; the roster must list just that.", show_default=False
        ),
    ] = None,
    tls: Annotated[Path | None, typer.Option(help="Folder of TLS certificates.", show_default=False)] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="The 60 digits another party read to you.", show_default=False)
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show who is in a roster, who signed it, what differs from the version before, and which certificates end when.

    Your own entry belongs into `--entry` before you sign: it is the one thing that nobody else can check.
    """
    from partbook.identity.certificates import certificates
    from partbook.identity.roster import Roster
    from partbook.identity.spoken import compare

    read = Roster.read(file, verify=False)
    before = None if previous is None else Roster.read(previous)
    if fingerprint is not None:
        compare(fingerprint, read.fingerprint, "the roster")
    if before is not None:
        read.succeeds(before)
    for path in entry or []:
        must_list(read, path)
    found = () if tls is None else certificates(tls, read)
    if as_json:
        shown = {**as_fields(read, before), "certificates": [certificate.as_json() for certificate in found]}
        typer.echo(json.dumps(shown, ensure_ascii=False))
        return
    describe(read, before)
    if entry:
        typer.echo(f"Listed just as in {', '.join(str(path) for path in entry)}.")
    if tls is not None:
        _certificates(found, tls)


class _Home:
    """What an invitation takes from the coordinator's folder."""

    def __init__(self, key: Path, mode: str, federation: str | None) -> None:
        self.key, self.mode, self.federation = key, mode, federation

    @classmethod
    def read(cls, home: Path) -> _Home:
        from partbook.identity.roster import Roster
        from partbook.identity.tables import Table

        key, mode, roster = home / "keys" / "coordinator.pem", "sealed", home / "roster.toml"
        if (home / "federation.toml").exists():
            table = Table.read(home / "federation.toml")
            key = home / table.text("key")
            mode = table.text("mode") if "mode" in table.values else mode
            roster = home / table.text("roster") if "roster" in table.values else roster
        # A name is no secret and proves nothing: half-signed rosters have it too.
        return cls(key, mode, Roster.read(roster, verify=False).federation if roster.exists() else None)


def _passphrase_of(path: Path, file: Path | None) -> bytes | None:
    return passphrase_of(path, file, remedy="give --passphrase-file")


def _public_identity(path: Path) -> PublicIdentity:
    from partbook.identity.keys import PublicIdentity
    from partbook.identity.parties import Member

    return PublicIdentity.load(path) if path.suffix == ".pem" else Member.read(path).identity


def _heard(digits: dict[str, str]) -> None:
    from partbook.identity.spoken import in_two_lines

    if digits:
        typer.echo("Call the owner of each entry; they read to you what `federation join` showed them:")
    for name, text in digits.items():
        typer.echo(f"{name}\n{in_two_lines(text)}")


def _certificates(found: tuple[Certificate, ...], folder: Path) -> None:
    if not found:
        typer.echo(f"There is no certificate in {folder}.")
    for one in found:
        typer.echo(f"{one.path}: {one.sentence}")


def _other_version(theirs: str) -> None:
    from importlib.metadata import version

    if (mine := version("partbook")) != theirs:
        typer.echo(
            f"The coordinator runs Partbook {theirs}, this is {mine}; install the same, so that base model and "
            "protocol fit."
        )

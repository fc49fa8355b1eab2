"""`partbook keys` and `partbook roster`: how people who have never met come to hold each other's keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partbook.errors import AlteredFile, ConfigError, PartbookError, UnusableKey
from partbook.identity.passphrase import PASSPHRASE_VARIABLE, given_passphrase, passphrase_of

if TYPE_CHECKING:
    from partbook.identity.keys import PublicIdentity
    from partbook.identity.roster import Roster

keys = typer.Typer(help="Make a party's keys, and show what a key file is.", no_args_is_help=True, add_completion=False)
roster = typer.Typer(
    help="Write, sign and check the list of who belongs to a federation.", no_args_is_help=True, add_completion=False
)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_RosterFile = Annotated[Path, typer.Argument(metavar="ROSTER", help="The roster's TOML file.")]
_PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help=f"File of mode 0600 with the passphrase; else {PASSPHRASE_VARIABLE} is looked at.",
        show_default=False,
    ),
]
_Fingerprint = Annotated[
    str | None,
    typer.Option(help="The 60 digits another member read to you; the roster must have them.", show_default=False),
]


@keys.command("new")
def new_keys(
    name: Annotated[str, typer.Argument(help="The party's name in the roster; 'coordinator' for the coordinator.")],
    out: Annotated[Path, typer.Option(help="Folder to put the keys in; made if it is missing.")],
    passphrase_file: _PassphraseFile = None,
) -> None:
    """Make a party's two private keys, and the entry of public keys to hand out.

    Every party runs this on its own machine: labels, the coordinator and the custodian alike.
    """
    from partbook.identity.keys import IdentityKey
    from partbook.identity.receiving import ReceivingKey
    from partbook.identity.roster import Member

    identity, receiving = IdentityKey.generate(), ReceivingKey.generate()
    entry = Member(name, identity.public, receiving.public)
    passphrase = given_passphrase(passphrase_file)
    paths = [out / f"{name}{ending}" for ending in (".pem", ".receiving.pem", ".public.toml")]
    _write_all(
        out,
        [
            (paths[0], lambda path: identity.save(path, passphrase)),
            (paths[1], lambda path: receiving.save(path, passphrase)),
            (paths[2], entry.write),
        ],
    )
    locked = "with the passphrase" if passphrase else "without a passphrase: whoever copies the file has the key"
    typer.echo(f"{paths[0]}  signs for {name}; private, {locked}")
    typer.echo(f"{paths[1]}  opens what is sent to {name}; private, {locked}")
    typer.echo(f"{paths[2]}  to hand out; its owner reads these to whoever gets it:")
    _echo_fingerprints({"identity": identity.public.fingerprint, "receiving": receiving.public.fingerprint})


@keys.command("seal")
def new_seal(
    name: Annotated[str, typer.Argument(help="The custodian's name.")],
    out: Annotated[Path, typer.Option(help="Folder to put the keys in; made if it is missing.")],
    passphrase_file: _PassphraseFile = None,
) -> None:
    """Make the custodian's seal: what labels encrypt sums with, and what only the custodian opens them with.

    A new one is due whenever the membership changes, with the next version of the roster.
    """
    from partbook.identity.parties import checked_name
    from partbook.sealing.parameters import generate

    checked_name(name)
    passphrase = given_passphrase(passphrase_file)
    secret, public = generate()
    paths = [out / f"{name}{ending}" for ending in (".seal.secret", ".seal.public")]
    _write_all(out, [(paths[0], lambda path: secret.write(path, passphrase)), (paths[1], public.write)])
    locked = "with the passphrase" if passphrase else "without a passphrase: whoever copies the file opens the sums"
    typer.echo(f"{paths[0]}  opens sums; private, {locked}")
    typer.echo(f"{paths[1]}  seals sums; to hand out. Its id, for the roster:")
    typer.echo(f"  {public.key_id}")


@keys.command("show")
def show_keys(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Private keys, public keys, entries, seals.")],
    passphrase_file: _PassphraseFile = None,
    as_json: _Json = False,
) -> None:
    """Say of each file what kind of key it is and the fingerprint of its public half. Nothing secret is shown."""
    found = [(path, *_kind_and_fingerprints(path, passphrase_file)) for path in files]
    if as_json:
        shown = [{"file": str(path), "kind": kind, "fingerprints": prints} for path, kind, prints in found]
        typer.echo(json.dumps({"keys": shown}, ensure_ascii=False))
        return
    for path, kind, prints in found:
        typer.echo(f"{path}  {kind}")
        _echo_fingerprints(prints)


@roster.command("new")
def new_roster(
    federation: Annotated[str, typer.Option(help="The federation's name.")],
    coordinator: Annotated[Path, typer.Option(help="The coordinator's entry (TOML) or public identity key (PEM).")],
    member: Annotated[list[Path], typer.Option(help="A member's entry, NAME.public.toml; once for each member.")],
    out: Annotated[Path, typer.Option(help="File to write; must not exist.")],
    custodian: Annotated[
        Path | None, typer.Option(help="The custodian's entry, for the sealed mode.", show_default=False)
    ] = None,
    seal_key: Annotated[
        str | None, typer.Option(help="The custodian's NAME.seal.public, or its id.", show_default=False)
    ] = None,
    version: Annotated[int, typer.Option(min=1, help="One more than the version it follows.")] = 1,
) -> None:
    """Put the entries that the parties handed out into a roster, which nobody has signed yet."""
    from partbook.identity.roster import Custodian, Member, Roster

    if out.exists():
        raise ConfigError(f"{out} exists already; a roster people may have signed is never overwritten.")
    keeper = None
    if custodian is not None and seal_key is not None:
        entry = Member.read(custodian)
        keeper = Custodian(entry.name, entry.identity, _key_id(seal_key))
    elif custodian is not None or seal_key is not None:
        raise ConfigError("--custodian and --seal-key belong together; give both or neither.")
    members = tuple(Member.read(path) for path in member)
    written = Roster(federation, version, _identity(coordinator), members, keeper)
    written.write(out)
    _describe(written)
    typer.echo(f"Wrote {out}. Now each of them runs: partbook roster sign {out} --name NAME --key KEY.pem")


@roster.command("sign")
def sign_roster(
    path: _RosterFile,
    name: Annotated[str, typer.Option(help="Who signs: a member, 'coordinator' or the custodian.")],
    key: Annotated[Path, typer.Option(help="The signer's identity key (PEM).")],
    fingerprint: _Fingerprint = None,
    passphrase_file: _PassphraseFile = None,
) -> None:
    """Show what the roster says, and add a party's signature to the file.

    Sign once another member has read the same fingerprint to you, from its own copy.
    """
    from partbook.identity.keys import IdentityKey
    from partbook.identity.roster import Roster

    read = Roster.read(path, verify=False)
    _compare(read, fingerprint)
    _describe(read)
    signed = read.sign(name, IdentityKey.load(key, _passphrase_of(key, passphrase_file)))
    signed.write(path)
    left = [party for party, reason in signed.unsigned().items() if reason != "not a party"]
    typer.echo(f"Signed for {name}. " + (f"Still to sign: {', '.join(left)}." if left else "All have signed."))


@roster.command("verify")
def verify_roster(
    path: _RosterFile,
    previous: Annotated[
        Path | None, typer.Option(help="The roster this one must follow, signed by all.", show_default=False)
    ] = None,
    fingerprint: _Fingerprint = None,
    as_json: _Json = False,
) -> None:
    """Say who is in the roster and who signed it; exit 0 if everybody did, else 2."""
    from partbook.identity.roster import Roster

    read = Roster.read(path, verify=False)
    refusal: PartbookError | None = None
    try:
        _compare(read, fingerprint)
        if previous is not None:
            read.succeeds(Roster.read(previous))
        read.verify()
    except PartbookError as error:
        refusal = error
    if as_json:
        typer.echo(json.dumps(_as_json(read, refusal), ensure_ascii=False))
        if refusal:
            raise typer.Exit(2)
        return
    _describe(read)
    if refusal:
        raise refusal
    typer.echo("Signed by all. Compare the fingerprint with the other members, by voice, before you pin it.")


def _write_all(folder: Path, files: list[tuple[Path, Callable[[Path], None]]]) -> None:
    """All of them or none: half a set of keys would block its name."""
    for path, _ in files:
        if path.exists():
            raise UnusableKey(f"{path} exists already and a key is never overwritten; choose another name or folder.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    written: list[Path] = []
    try:
        for path, write in files:
            write(path)
            written.append(path)
    except PartbookError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _passphrase_of(path: Path, file: Path | None) -> bytes | None:
    return passphrase_of(path, file, remedy=f"give --passphrase-file or set {PASSPHRASE_VARIABLE}")


def _kind_and_fingerprints(path: Path, passphrase_file: Path | None) -> tuple[str, dict[str, str]]:
    """What a key file is, and the fingerprints of the public keys it holds or belongs to."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from partbook.identity.keyfiles import read_private
    from partbook.identity.keys import IdentityKey, PublicIdentity
    from partbook.identity.receiving import ReceivingKey
    from partbook.identity.roster import Member

    try:
        with path.open("rb") as file:
            beginning = file.read(64)
    except OSError as error:
        raise UnusableKey(f"{path} cannot be read: {error.strerror}.") from error
    if beginning.startswith(b"-----BEGIN PUBLIC KEY-----"):
        return "identity key, public", {"identity": PublicIdentity.load(path).fingerprint}
    if beginning.startswith(b"-----BEGIN"):
        passphrase = _passphrase_of(path, passphrase_file)
        locked = "encrypted" if passphrase else "not encrypted"
        if isinstance(read_private(path, passphrase, "private key"), X25519PrivateKey):
            receiving = ReceivingKey.load(path, passphrase).public
            return f"receiving key, private, {locked}", {"receiving": receiving.fingerprint}
        return f"identity key, private, {locked}", {"identity": IdentityKey.load(path, passphrase).public.fingerprint}
    if path.suffixes[-2:] == [".seal", ".public"]:
        return "seal key, public", {"id": _key_id(str(path))}
    if path.suffixes[-2:] == [".seal", ".secret"]:
        from partbook.sealing.parameters import SealSecret

        passphrase = given_passphrase(passphrase_file)
        locked = "encrypted" if passphrase else "not encrypted"
        return f"seal key, private, {locked}", {"id": SealSecret.read(path, passphrase).key_id}
    entry = Member.read(path)
    prints = {"identity": entry.identity.fingerprint, "receiving": entry.receiving.fingerprint}
    return f"entry of {entry.name}, public", prints


def _identity(path: Path) -> PublicIdentity:
    from partbook.identity.keys import PublicIdentity
    from partbook.identity.roster import Member

    return PublicIdentity.load(path) if path.suffix == ".pem" else Member.read(path).identity


def _key_id(text: str) -> str:
    """The id itself, or that of the public seal key in a file."""
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text
    from partbook.sealing.parameters import SealPublic

    return SealPublic.read(Path(text), None).key_id


def _compare(read: Roster, spoken: str | None) -> None:
    from partbook.identity.roster import FINGERPRINT_DIGITS

    if spoken is None:
        return
    digits = re.sub(r"[\s-]", "", spoken)
    if not re.fullmatch(rf"[0-9]{{{FINGERPRINT_DIGITS}}}", digits):
        raise ConfigError(f"--fingerprint has to be {FINGERPRINT_DIGITS} digits; spaces and dashes do not count.")
    if digits != read.fingerprint.replace(" ", ""):
        raise AlteredFile(
            "This roster has another fingerprint than the one read to you: you two hold different rosters. "
            "Sign nothing and find out who sent which."
        )


def _describe(read: Roster) -> None:
    """The parties, whether each has signed, and the fingerprint of it all."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    unsigned, roles = read.unsigned(), _roles(read)
    table = Table(title=Text(f"{read.federation}, roster version {read.version}"), title_justify="left")
    table.add_column("Party", overflow="fold")
    table.add_column("Role")
    table.add_column("Identity", width=39)
    table.add_column("Signed", no_wrap=True)
    for name in read.parties:
        state = unsigned.get(name, "yes")
        style = {"yes": "green", "wrong": "bold red"}.get(state, "yellow")
        print_of = read.identity_of(name).fingerprint
        table.add_row(Text(name), roles[name], print_of, Text("no" if state == "missing" else state, style))
    console = Console(highlight=False, soft_wrap=False)
    console.print(table)
    for name, reason in unsigned.items():
        if reason == "not a party":
            console.print(Text(f"There is a signature of {name!r}, who is not in this roster.", "bold red"))
    if read.custodian:
        typer.echo(f"Seal key     {read.custodian.seal_key}")
    first, second = read.fingerprint[:36].rstrip(), read.fingerprint[36:]
    typer.echo(f"Fingerprint  {first}\n             {second}")


def _roles(read: Roster) -> dict[str, str]:
    roles = dict.fromkeys(read.parties, "member") | {"coordinator": "coordinator"}
    return roles | ({read.custodian.name: "custodian"} if read.custodian else {})


def _as_json(read: Roster, refusal: PartbookError | None) -> dict[str, object]:
    unsigned, roles = read.unsigned(), _roles(read)
    return {
        "verified": refusal is None,
        "error": type(refusal).__name__ if refusal else None,
        "reason": str(refusal) if refusal else None,
        "federation": read.federation,
        "version": read.version,
        "hash": read.hash,
        "fingerprint": read.fingerprint,
        "seal_key": read.custodian.seal_key if read.custodian else None,
        "parties": [
            {
                "name": name,
                "role": roles[name],
                "identity": read.identity_of(name).fingerprint,
                "signature": unsigned.get(name, "good"),
            }
            for name in read.parties
        ],
    }


def _echo_fingerprints(prints: dict[str, str]) -> None:
    for name, text in prints.items():
        # Sixteen groups do not fit a terminal of 80 columns beside their name.
        lines = [text] if " " not in text else [text[:39], text[40:]]
        typer.echo("\n".join(f"  {label:<10} {line}" for label, line in zip([name, ""], lines, strict=False)))

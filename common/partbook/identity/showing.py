"""A roster as its signers look at it: who, with which keys, who signed, what is new, and what each has to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from partbook.errors import ForeignSealKey, ForgedMember

if TYPE_CHECKING:
    from partbook.identity.roster import Roster


def seal_id(text: str) -> str:
    """The id itself, or that of the public key in a file."""
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text
    from partbook.sealing.parameters import SealPublic

    return SealPublic.read(Path(text), None).key_id


def must_list(read: Roster, path: Path) -> None:
    """Return if the roster lists just what is in a file.

    Raises:
        ForgedMember: it lists that party with another key.
        ForeignSealKey: it names another seal.
    """
    from partbook.identity.parties import Member

    if path.suffixes[-2:] == [".seal", ".public"]:
        named = read.custodian.seal_key if read.custodian else "none"
        if (found := seal_id(str(path))) != named:
            raise ForeignSealKey(
                f"{path} is the seal's key {found[:16]}…, and the roster names {named[:16]}…. Sign nothing; ask the "
                "custodian which is right."
            )
        return
    held = Member.read(path)
    identity = read.identity_of(held.name)
    wrong = [] if identity == held.identity else ["identity"]
    members = {member.name: member for member in read.members}
    if held.name in members and members[held.name].receiving != held.receiving:
        # Nobody else would notice before something secret had been sent to the wrong eyes.
        wrong.append("receiving")
    if wrong:
        raise ForgedMember(
            f"The roster lists {held.name!r} with another {' and '.join(wrong)} key than {path}. Sign nothing: it was "
            "written from an older entry, or somebody put in a key of their own."
        )


def describe(read: Roster, before: Roster | None) -> None:
    """Parties, keys, signatures; what is new; the digits of it all."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from partbook.identity.spoken import in_two_lines

    unsigned, roles = read.unsigned(), _roles(read)
    members = {member.name: member for member in read.members}
    table = Table(title=Text(f"{read.federation}, roster version {read.version}"), title_justify="left")
    table.add_column("Party", overflow="fold")
    table.add_column("Keys", width=39)
    table.add_column("Signed", no_wrap=True)
    for name in read.parties:
        state = unsigned.get(name, "yes")
        style = {"yes": "green", "wrong": "bold red"}.get(state, "yellow")
        keys = f"signs\n{read.identity_of(name).fingerprint}"
        if name in members:
            keys += f"\nreceives\n{members[name].receiving.fingerprint}"
        party = name if roles[name] == name else f"{name}\n{roles[name]}"
        table.add_row(Text(party), Text(keys), Text("no" if state == "missing" else state, style))
    console = Console(highlight=False, soft_wrap=False)
    console.print(table)
    for name, reason in unsigned.items():
        if reason == "not a party":
            console.print(Text(f"There is a signature of {name!r}, who is not in this roster.", "bold red"))
    if read.custodian:
        typer.echo(f"Sums are sealed to the key\n  {read.custodian.seal_key[:32]}\n  {read.custodian.seal_key[32:]}")
    if before is not None:
        from partbook.identity.membership import changes, duties

        typer.echo(f"Since version {before.version}:")
        for change in changes(before, read):
            typer.echo(f"  {change.sentence}")
        typer.echo("What each has to do:")
        for name, steps in duties(before, read).items():
            typer.echo(f"  {name}: {'; '.join(steps)}.")
    missing = [name for name, reason in unsigned.items() if reason != "not a party"]
    typer.echo("Signed by all." if not unsigned else f"Still to sign: {', '.join(missing) or 'nobody'}.")
    typer.echo("Fingerprint of this roster, to be read to every other party:")
    typer.echo(in_two_lines(read.fingerprint))


def _roles(read: Roster) -> dict[str, str]:
    roles = dict.fromkeys(read.parties, "member") | {"coordinator": "coordinator"}
    return roles | ({read.custodian.name: "custodian"} if read.custodian else {})


def as_fields(read: Roster, before: Roster | None) -> dict[str, object]:
    """The same as one JSON object."""
    from partbook.identity.membership import changes, duties

    unsigned, roles = read.unsigned(), _roles(read)
    receiving = {member.name: member.receiving.fingerprint for member in read.members}
    return {
        "federation": read.federation,
        "version": read.version,
        "hash": read.hash,
        "fingerprint": read.fingerprint,
        "seal_key": read.custodian.seal_key if read.custodian else None,
        "signed_by_all": not unsigned,
        "parties": [
            {
                "name": name,
                "role": roles[name],
                "identity": read.identity_of(name).fingerprint,
                "receiving": receiving.get(name),
                "signature": unsigned.get(name, "good"),
            }
            for name in read.parties
        ],
        "changes": [
            {"kind": change.kind, "party": change.party, "sentence": change.sentence}
            for change in (changes(before, read) if before is not None else ())
        ],
        "duties": {name: list(steps) for name, steps in duties(before, read).items()},
    }

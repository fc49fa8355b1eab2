"""`partbook node budget`, `policy` and `withdraw`: what a label's engineer sees and decides of its privacy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partbook.identity.passphrase import PASSPHRASE_VARIABLE

if TYPE_CHECKING:
    from partbook.node.budget import Account, Budget

_Vault = Annotated[Path, typer.Option("--vault", help="Folder of the vault.", show_default=False)]
_Key = Annotated[Path | None, typer.Option("--key", help="Key file of mode 0600; inside the vault where not given.")]
_Ledger = Annotated[Path | None, typer.Option("--ledger", help="The ledger; inside the vault where not given.")]
_Policy = Annotated[
    Path | None, typer.Option("--policy", help="The policy; policy.toml in the vault, or the default, where not given.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def budget(
    vault: _Vault,
    key: _Key = None,
    ledger: _Ledger = None,
    policy: _Policy = None,
    as_json: _Json = False,
    plot: Annotated[Path | None, typer.Option(help="Draw ε over the rounds, as a PNG.", show_default=False)] = None,
) -> None:
    """Say what privacy was spent, what is left, and who asked for it."""
    from partbook.node.budget import Budget
    from partbook.node.ledger import LEDGER_FILE, Ledger
    from partbook.node.policy import Policy
    from partbook.vault.store import Vault

    limits = Policy.in_force(vault, policy)
    with Vault.open(vault, key) as opened:
        secret = opened.ledger_key
    with Ledger.open(ledger or vault / LEDGER_FILE, secret) as rows:
        found = Budget.of(rows, limits)
    if plot is not None:
        found.plot(plot)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        _print_budget(found)


def policy(
    vault: Annotated[Path | None, typer.Option("--vault", help="Folder of the vault.", show_default=False)] = None,
    file: _Policy = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to a new file instead, to be edited.")
    ] = None,
) -> None:
    """Print what this label allows, each key below what it means; or write it to a file."""
    from partbook.node.policy import Policy

    limits = Policy.in_force(vault, file) if vault else Policy.read(file) if file else Policy.default()
    if write is None:
        typer.echo(limits.text, nl=False)
        return
    limits.write(write)
    typer.echo(f"Wrote {write}. A node obeys policy.toml in its vault's folder, or the file it is started with.")


def withdraw(
    recording: Annotated[str, typer.Argument(help="Its id or the first digits of it, its audio file, or its title.")],
    vault: _Vault,
    identity: Annotated[Path, typer.Option(metavar="KEY.pem", help="The label's identity key.", show_default=False)],
    member: Annotated[str, typer.Option(metavar="NAME", help="The label's name in its roster.", show_default=False)],
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the certificate goes; in the vault where not given.")
    ] = None,
    title: Annotated[bool, typer.Option("--title", help="Name the recording's title in the certificate.")] = False,
    key: _Key = None,
    ledger: _Ledger = None,
    policy: _Policy = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help=f"File of mode 0600 with the identity key's passphrase; else {PASSPHRASE_VARIABLE}."),
    ] = None,
) -> None:
    """Take a recording out of all future rounds and out of the vault, for good, and certify what it had spent.

    Its audio is refused if it is ever ingested again. Run the same again if it was interrupted.
    """
    from partbook.errors import InputError
    from partbook.identity.keys import IdentityKey
    from partbook.identity.parties import checked_name
    from partbook.identity.passphrase import passphrase_of
    from partbook.node.ledger import LEDGER_FILE, Ledger
    from partbook.node.own_adapter import OwnAdapter
    from partbook.node.policy import Policy
    from partbook.node.withdrawal import certify, find, keep_certificate, refuse_other
    from partbook.node.withdrawal import withdraw as run
    from partbook.vault.store import Vault

    # All that can be wrong is found before anything is done that cannot be undone.
    checked_name(member)
    limits = Policy.in_force(vault, policy)
    signing = IdentityKey.load(identity, passphrase_of(identity, passphrase_file))
    with Vault.open(vault, key, writable=True) as opened:
        identifier = find(opened, recording)
        inside = identifier in opened
        if title and not inside:
            raise InputError("The title of a recording that is gone is not known any more; run it without --title.")
        named = opened.get(identifier).title if title else None
        if certificate is None:
            certificate = vault / "certificates" / f"{identifier}.json"
            certificate.parent.mkdir(exist_ok=True)
        refuse_other(certificate, identifier)
        with Ledger.open(ledger or vault / LEDGER_FILE, opened.ledger_key) as rows:
            typer.echo(f"Recording {identifier}")
            run(identifier, opened, rows)
            forgotten = OwnAdapter(vault, key).forget(identifier)
            data = certify(identifier, rows, member=member, key=signing, delta=limits.delta, title=named)
            spent = rows.spent(limits.delta, recording=identifier)
    keep_certificate(certificate, data)
    typer.echo(f"Withdrawn{'' if inside else ' already'}: no round holds it from now on, and its audio is refused.")
    if forgotten:
        typer.echo("The label's own adapter had learnt from it and is destroyed; `partbook node adapt` makes another.")
    typer.echo(f"It had spent ε = {spent.epsilon_reserved_too:.4g} at δ = {limits.delta:g} in {spent.rounds} rounds.")
    typer.echo(f"Certificate: {certificate}")


def _print_budget(budget: Budget) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from partbook.node.budget import asked

    console = Console()
    if not budget.recording:
        console.print("Nothing was spent: no recording has been offered to a round yet.")
        return
    console.print(
        f"{budget.recordings} recordings count, {budget.withdrawn} withdrawn. Figures are those of "
        f"{budget.recording[:12]}…, which has spent most, at δ = {budget.delta:g}.",
        highlight=False,
    )
    table = Table(title="Budget", title_justify="left")
    for heading in ("Federation", "Asked by", "Rounds", "ε sent", "ε with reserved", "Limit", "Left"):
        table.add_column(heading, justify="left" if heading in ("Federation", "Asked by") else "right")
    for account in (*budget.federations, budget.total):
        table.add_row(*_account_row(account))
    console.print(table)
    rounds = Table(title=f"Newest rounds ({len(budget.newest)} of {len(budget.debits)})", title_justify="left")
    for heading in ("When (UTC)", "Federation", "Asked by", "Round", "What for", "What it does", "State"):
        rounds.add_column(heading, justify="right" if heading == "Round" else "left")
    for debit in budget.newest:
        when = debit.reserved_at[:16].replace("T", " ")
        about = (Text(debit.federation), debit.coordinator[:9], str(debit.round), Text(debit.note or "–"))
        rounds.add_row(when, *about, asked(debit), debit.state)
    console.print(rounds)


def _account_row(account: Account) -> tuple[str, ...]:
    from rich.markup import escape

    figures = (account.committed, account.spent, account.limit, account.left)
    who = ", ".join(name[:9] for name in account.coordinators) or "–"
    return (escape(account.name) or "all", who, str(account.rounds), *(f"{figure:.3g}" for figure in figures))

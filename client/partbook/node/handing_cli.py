"""`partbook node hand-over` and `take-over`: the model of sealed rounds from one label to another, in a file.

It travels on a stick or by mail, and never through the coordinator, who holds no model; see docs/enrolment.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from partbook.errors import ConfigError, ForgedMember, VaultError

if TYPE_CHECKING:
    from torch import Tensor

    from partbook.identity.receiving import ReceivingKey
    from partbook.identity.roster import Roster
    from partbook.node.handing import Offer
    from partbook.node.settings import NodeSettings
    from partbook.node.shared_model import SharedModel

_Config = Annotated[Path, typer.Option("--config", help="The node's TOML file.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def hand_over(
    config: _Config,
    to: Annotated[
        str | None, typer.Option("--to", metavar="LABEL", help="Who may open it.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; must not exist.", show_default=False)
    ] = None,
    as_json: _Json = False,
) -> None:
    """Write the model that this label holds into a file that one other label can open.

    For a label that is new in a sealed federation that has run before, or lost its state. The node may go on running.
    Without --to and --out nothing is written: the 60 digits of the model held here are shown, for this label to read to
    one that has taken it over from another.
    """
    from partbook.identity.keys import IdentityKey
    from partbook.identity.passphrase import passphrase_of
    from partbook.node.handing import digest_of, hand_over, spoken_model
    from partbook.node.keeping import write_parts
    from partbook.node.settings import NodeSettings

    if (to is None) != (out is None):
        raise ConfigError("--to and --out belong together: to whom, and into which file.")
    if out is not None and out.exists():
        raise ConfigError(f"--out: {out} exists already and is not overwritten; choose another name.")
    settings = NodeSettings.read(config)
    roster, base, like = _sealed_roster(settings), *_base(settings)
    with _snapshot(settings, like) as model:
        if to is None or out is None:
            digits = spoken_model(roster.federation, model.round, digest_of(model))
            about = {"round": model.round, "model": model.hash, "fingerprint": digits}
        else:
            settings.unlock()
            identity = IdentityKey.load(settings.identity, passphrase_of(settings.identity))
            offer, parts = hand_over(model, base, roster, settings.member, identity, to)
            try:
                write_parts(out, parts)
            except OSError as error:
                raise ConfigError(f"--out: {out} cannot be written ({error.strerror}); name another file.") from error
            digits = offer.digits
            about = {"round": offer.round, "model": model.hash, "fingerprint": digits, "to": to, "file": str(out)}
    if as_json:
        typer.echo(json.dumps(about, ensure_ascii=False))
        return
    if out is not None:
        typer.echo(f"{out}: for {to} and nobody else. There: partbook node take-over --config node.toml {out.name}")
    _tell(f"{settings.member} holds the model after round {about['round']}, {model.hash}.", digits)


def take_over(
    config: _Config,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What another label's `hand-over` wrote.")],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="The 60 digits of their own model that a label other than the giver read to you.", show_default=False
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Take the model that another label handed over, in place of the one held here; the node must not run.

    Refused: another roster than the one pinned here, a file for another label or altered on its way, and a model that
    is not newer than the one held. Vault and ledger are not touched.
    """
    from partbook.identity.spoken import compare
    from partbook.node.handing import Offer
    from partbook.node.holding import only_one
    from partbook.node.settings import NodeSettings
    from partbook.node.shared_model import SharedModel

    settings = NodeSettings.read(config)
    roster, base, like = _sealed_roster(settings), *_base(settings)
    path = settings.node.model
    with only_one(settings.state):
        held = SharedModel.load(path, like)
        try:
            with file.open("rb") as source:
                offer = Offer.read(source, roster, settings.member)
                offer.must_lead_on(held, base)
                if fingerprint is not None:
                    compare(fingerprint, offer.digits, f"{offer.giver}'s model")
                with _taken(offer, source, _receiving(settings, roster), like, settings.state) as model:
                    model.save(path)
        except OSError as error:
            raise ConfigError(f"{file} cannot be read, or {path} written ({error.strerror}).") from error
    about = {
        "giver": offer.giver,
        "round": offer.round,
        "model": offer.handed.model,
        "fingerprint": offer.digits,
        "before": held.round,
        "compared": fingerprint is not None,
    }
    if as_json:
        typer.echo(json.dumps(about, ensure_ascii=False))
        return
    said = f"{settings.member} now holds the model after round {offer.round}, {offer.handed.model}, from {offer.giver}."
    if fingerprint is not None:
        typer.echo(f"{said} It is the one whose digits were read to you.")
        return
    _tell(said, offer.digits)
    typer.echo(f"If they read other digits, move {path} away, start no node, and find out whose model is wrong.")


def _tell(said: str, digits: str) -> None:
    from partbook.identity.spoken import in_two_lines

    typer.echo(said)
    typer.echo("A label other than the giver reads its own digits, for the same round, to the one that takes over")
    typer.echo("(`partbook node hand-over --config node.toml` shows them); these are the ones here:")
    typer.echo(in_two_lines(digits))


def _sealed_roster(settings: NodeSettings) -> Roster:
    from partbook.identity.roster import Roster

    roster = Roster.read(settings.roster)
    roster.member(settings.member)
    if roster.custodian is None:
        raise ConfigError(
            f"{settings.roster} names no custodian: rounds are masked, the coordinator sends the model with each plan, "
            "and no label has to hand it over."
        )
    return roster


def _base(settings: NodeSettings) -> tuple[str, dict[str, Tensor]]:
    """The base model's hash, and an adapter state that gives names and shapes."""
    from partbook.model.adapter import adapter_state, attach
    from partbook.model.checkpoint import base_manifest, load_model

    base: str = base_manifest(settings.node.base)["files"]["model.safetensors"]
    return base, adapter_state(attach(load_model(settings.node.base)))


def _receiving(settings: NodeSettings, roster: Roster) -> ReceivingKey:
    from partbook.identity.passphrase import passphrase_of
    from partbook.identity.receiving import ReceivingKey

    if settings.receiving is None:
        raise ConfigError("receiving: node.toml names no receiving key, and what is sealed to it cannot be opened.")
    settings.unlock()
    key = ReceivingKey.load(settings.receiving, passphrase_of(settings.receiving))
    if key.public != roster.member(settings.member).receiving:
        raise ForgedMember(
            f"The roster lists {settings.member} with another receiving key than {settings.receiving}; use that one."
        )
    return key


@contextmanager
def _snapshot(settings: NodeSettings, like: dict[str, Tensor]) -> Iterator[SharedModel]:
    """The model held now, whatever a running node does to the file meanwhile."""
    import shutil
    import tempfile

    from partbook.node.shared_model import SharedModel

    path = settings.node.model
    if not path.exists():
        yield SharedModel.fresh(like)
        return
    try:
        with tempfile.TemporaryDirectory(prefix="hand-over-", dir=settings.state) as folder:
            copy = Path(folder) / path.name
            shutil.copyfile(path, copy)
            yield SharedModel.load(copy, like)
    except OSError as error:
        raise VaultError(f"{path} cannot be copied in {settings.state} ({error.strerror}); free some space.") from error


@contextmanager
def _taken(
    offer: Offer, source: BinaryIO, key: ReceivingKey, like: dict[str, Tensor], state: Path
) -> Iterator[SharedModel]:
    """What was handed over, decrypted beside where it will be, and compared with what was signed."""
    import tempfile

    import numpy as np

    with tempfile.TemporaryFile(dir=state) as arrays:
        offer.take(source, key, arrays)
        arrays.flush()
        yield offer.model(np.memmap(arrays, "<f4", "r", shape=(3, offer.handed.numbers)), like)

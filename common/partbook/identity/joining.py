"""The folder that a party joins with: keys made on its own machine, the entry to send back, a configuration.

A folder comes into being whole or not at all: it is filled under another name beside its place and then renamed, so a
disk that is full or a plug that is pulled leaves no label with half its keys and a file that says it has all of them.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from partbook.errors import ConfigError
from partbook.identity.invitation import Invitation
from partbook.identity.keys import IdentityKey
from partbook.identity.membership import entry_digits
from partbook.identity.message import COORDINATOR
from partbook.identity.parties import Member, checked_name
from partbook.identity.receiving import ReceivingKey

SEAL_FILE = "Custodian.seal.public"  # what a label calls the custodian's public key, whatever the custodian's name


@dataclass(frozen=True, slots=True)
class Joined:
    """What was made, all of it public.

    Attributes:
        folder: where it lies.
        entry: name and public keys; the file NAME.public.toml holds it.
        seal_key: id of the custodian's seal; None for a member.
    """

    folder: Path
    entry: Member
    seal_key: str | None = None

    @property
    def digits(self) -> str:
        """60 digits for the party to read out."""
        return entry_digits(self.entry, self.seal_key)

    @property
    def to_send(self) -> tuple[Path, ...]:
        """The files that go back to whoever invited."""
        names = [f"{self.entry.name}.public.toml"] + ([f"{self.entry.name}.seal.public"] if self.seal_key else [])
        return tuple(self.folder / name for name in names)


def join(invitation: Invitation, name: str, role: str, folder: Path, passphrase: bytes | None = None) -> Joined:
    """Make a party's keys and its configuration, in a new folder.

    Args:
        invitation: verified.
        name: what the party is to be called in the roster.
        role: `member` or `custodian`.
        folder: must not exist; made for its owner alone.
        passphrase: encrypts the private keys.

    Raises:
        ConfigError: the invitation is not for this role, the name is none, or the folder exists or cannot be made.
        UnusableKey: a key cannot be written.
    """
    checked_name(name)
    if name.casefold() == COORDINATOR:
        raise ConfigError(f"--name: {name!r} is the coordinator's own; choose another name.")
    if role not in invitation.roles:
        raise ConfigError(f"--role: the invitation is for {' or '.join(invitation.roles)}, not for a {role[:40]!r}.")
    identity, receiving = IdentityKey.generate(), ReceivingKey.generate()
    entry = Member(name, identity.public, receiving.public)
    made: list[str] = []

    def fill(draft: Path) -> None:
        keys = draft / "keys"
        keys.mkdir(mode=0o700)
        identity.save(keys / f"{name}.pem", passphrase)
        receiving.save(keys / f"{name}.receiving.pem", passphrase)
        entry.write(draft / f"{name}.public.toml")
        invitation.write(draft / "invitation.toml")
        if role == "custodian":
            from partbook.sealing.parameters import generate

            secret, public = generate()
            secret.write(keys / f"{name}.seal.secret", passphrase)
            public.write(draft / f"{name}.seal.public")
            made.append(public.key_id)
            (draft / "custodian.toml").write_text(custodian_toml(invitation, name), encoding="utf-8")
        else:
            (draft / "node.toml").write_text(node_toml(invitation, name), encoding="utf-8")

    make_whole(folder, fill)
    return Joined(folder, entry, *made)


def make_whole(folder: Path, fill: Callable[[Path], None]) -> None:
    """Put what `fill` writes at `folder`, of mode 0700, or leave no trace.

    Raises:
        ConfigError: there is something at `folder`, or the disk refuses.
    """
    place = folder.absolute()
    if place.exists() or place.is_symlink():
        raise ConfigError(f"{folder} exists already, and keys are never written over; choose another folder.")
    draft = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir(mode=0o700)
        fill(draft)
        for path in (*draft.rglob("*"), draft):
            _flush(path)
        # Without the check a folder made meanwhile, and empty, would be replaced.
        if place.exists():
            raise ConfigError(f"{folder} was made by somebody else meanwhile; choose another folder.")
        draft.rename(place)
        _flush(place.parent)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}; nothing was left behind.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def node_toml(invitation: Invitation, name: str) -> str:
    """The text of a member's `node.toml`; its keys are those of `partbook node start`."""
    sealed = invitation.mode == "sealed"
    seal = (
        f'seal_key = "{SEAL_FILE}"  # the custodian\'s public key, which comes with the roster: save it by this name'
        if sealed
        else f'# seal_key = "{SEAL_FILE}"  # not needed: this federation is not sealed'
    )
    return f"""\
# The node of {name} in the federation {invitation.federation!r}.
# Paths are relative to this file. A key that is not known here is refused.
# Start: partbook node start --config node.toml

member = "{name}"  # its name in the roster
coordinator = "{invitation.address}"  # the one host that this node ever talks to

roster = "roster.toml"  # comes once all have signed it; compare its fingerprint by voice, then save it by this name
identity = "keys/{name}.pem"  # signs for {name}: secret
receiving = "keys/{name}.receiving.pem"  # opens what is sent to {name} alone: secret
{seal}

vault = "vault"  # the recordings, encrypted: partbook node ingest FOLDER --vault vault
state = "state"  # what is kept between exchanges, the shared model among it: back it up, with the vault
tls = "tls"  # TLS key and certificate, made and renewed by the node itself

# policy = "policy.toml"  # what this label allows: partbook node policy --write policy.toml; else the careful defaults
# ledger = "ledger.sqlite"  # what the recordings have spent; inside the vault where not given
# journal = "journal.jsonl"  # losses, for the label's own eyes
# key = "vault.key"  # the vault's key; inside the vault where not given

# How long it waits for the coordinator, in seconds. These figures hold where nothing is said.
# [timing]
# refused_for = 60  # after which "online already" means that somebody else has this key
# noticed = 2  # for the coordinator to notice that an earlier life of this node is over
# longest_wait = 10  # between two tries to reach it
# call_timeout = 60  # without a byte, until a call is given up and tried again
"""


def custodian_toml(invitation: Invitation, name: str) -> str:
    """The text of a custodian's `custodian.toml`; its keys are those of `partbook custodian start`."""
    return f"""\
# The custodian {name} of the federation {invitation.federation!r}.
# Paths are relative to this file. A key that is not known here is refused.
# Start: partbook custodian start --config custodian.toml

name = "{name}"  # its name in the roster
coordinator = "{invitation.address}"  # the one host that this custodian ever talks to

roster = "roster.toml"  # comes once all have signed it; compare its fingerprint by voice, then save it by this name
identity = "keys/{name}.pem"  # signs for {name}: secret
secret = "keys/{name}.seal.secret"  # opens sums: secret, and the most precious file here
record = "state/opened.json"  # what was opened; never lose it: without it a round could be opened twice

state = "state"  # what is kept between exchanges
tls = "tls"  # TLS key and certificate, made and renewed by the custodian itself

# How long it waits for the coordinator, in seconds. These figures hold where nothing is said.
# [timing]
# refused_for = 60  # after which "online already" means that somebody else has this key
# noticed = 2  # for the coordinator to notice that an earlier life of this custodian is over
# longest_wait = 10  # between two tries to reach it
# call_timeout = 60  # without a byte, until a call is given up and tried again
"""


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

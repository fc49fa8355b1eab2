"""The vault's master key in its file, and the keys derived from it.

The file is one line of text, `partbook/v1/vault-key:` and 64 hexadecimal digits, readable by its owner only.
Every purpose has its own key, by HKDF-SHA256 (RFC 5869) with the vault's id as salt.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from partbook.errors import InsecureKeyFile, VaultError, WrongVaultKey

_PREFIX: Final = "partbook/v1/vault-key:"
KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class VaultKeys:
    """One key for each purpose, 32 bytes each; none of them is ever printed.

    Attributes:
        check: tells whether a key file belongs to a vault.
        ids: names recordings and files without telling what they are.
        shards: encrypts recordings.
        index: encrypts the figures in the index.
        rounds: encrypts what a node keeps of a round.
        ledger: vouches for the rows of the ledger.
        adapters: encrypts what a label has trained for itself.
    """

    check: bytes = field(repr=False)
    ids: bytes = field(repr=False)
    shards: bytes = field(repr=False)
    index: bytes = field(repr=False)
    rounds: bytes = field(repr=False)
    ledger: bytes = field(repr=False)
    adapters: bytes = field(repr=False)

    @classmethod
    def derive(cls, master: bytes, vault_id: bytes) -> VaultKeys:
        """The keys of the vault with this id."""

        def key(purpose: str) -> bytes:
            label = f"partbook/v1/vault/{purpose}".encode()
            return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=vault_id, info=label).derive(master)

        return cls(
            check=key("check"),
            ids=key("ids"),
            shards=key("shards"),
            index=key("index"),
            rounds=key("rounds"),
            ledger=key("ledger"),
            adapters=key("adapters"),
        )


def create_key_file(path: Path) -> bytes:
    """A new master key in a new file of mode 0600.

    Raises:
        VaultError: there is a file already (it is never overwritten), or it cannot be written.
    """
    master = secrets.token_bytes(KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_EXCL: never follow a link or replace a key; mode at creation: never readable by others, even
        # briefly.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            file.write(f"{_PREFIX}{master.hex()}\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise VaultError(
            f"{path} exists already, and a key is never overwritten; name another key file, or move this one."
        ) from error
    except OSError as error:
        raise VaultError(f"The key file {path} cannot be written ({error.strerror}).") from error
    return master


def read_key_file(path: Path) -> bytes:
    """The master key in `path`.

    Raises:
        InsecureKeyFile: group or others have any right on it.
        VaultError: it is missing or cannot be read.
        WrongVaultKey: it holds no key.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise InsecureKeyFile(
                    f"Others may read the key file {path} (mode {mode:04o}); run: "
                    f"chmod 600 '{path}'. If somebody may have copied it, make a new vault and ingest again."
                )
            text = file.read(1024).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise VaultError(
            f"The key file {path} cannot be read ({error.strerror}); name the right one with "
            "--key. Without its key a vault cannot be opened by anyone."
        ) from error
    try:
        master = bytes.fromhex(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else b""
    except ValueError:
        master = b""
    if len(master) != KEY_BYTES:
        raise WrongVaultKey(f"{path} is not a vault key file; name the one written when the vault was made.")
    return master

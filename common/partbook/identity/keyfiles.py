"""The files that private keys live in: their owner's alone, never overwritten, PKCS #8 PEM where a key fits it.

One place for the rules, so that no kind of key is kept more carelessly than another. `what` names the kind in
messages ("identity key"), which never quote what is in the file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from partbook.errors import InsecureKeyFile, UnusableKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


def read_secret(path: Path, what: str) -> bytes:
    """What `write_secret` wrote at `path`.

    Raises:
        InsecureKeyFile: others than its owner may read or write the file.
        UnusableKey: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            blob = file.read()
    except OSError as error:
        raise UnusableKey(f"The {what} {path} cannot be read: {error.strerror}.") from error
    if os.name == "posix" and mode & 0o077:
        raise InsecureKeyFile(
            f"The {what} {path} has mode {mode:04o}, so other users may use it; "
            f"run `chmod 600 {path}`, or make a new one if anyone could have copied it."
        )
    return blob


def write_secret(path: Path, blob: bytes, what: str) -> None:
    """Write a new file that only its owner may read, whole or not at all.

    Raises:
        UnusableKey: something is already at `path` (a key is never overwritten), or it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UnusableKey(f"{path} exists already and a key is never overwritten; choose another name.") from error
    except OSError as error:
        raise UnusableKey(f"The {what} cannot be written to {path}: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # Half a key is worse than none: it would block the name and never load.
        with contextlib.suppress(OSError):
            path.unlink()
        raise UnusableKey(f"The {what} cannot be written to {path}: {error.strerror}.") from error


def read_private(path: Path, passphrase: bytes | None, what: str) -> PrivateKeyTypes:
    """The private key in a PEM file, of whatever algorithm.

    Raises:
        InsecureKeyFile: others than its owner may read or write the file.
        UnusableKey: it cannot be read, is no private key, or the passphrase is missing or wrong.
    """
    blob = read_secret(path, what)
    try:
        return serialization.load_pem_private_key(blob, password=passphrase)
    except TypeError as error:
        wanted = "is encrypted: give its passphrase" if passphrase is None else "is not encrypted: give no passphrase"
        raise UnusableKey(f"The {what} {path} {wanted}.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        reason = "is not a private key in PEM" if passphrase is None else "does not open with this passphrase"
        raise UnusableKey(f"The {what} {path} {reason}; restore it from your backup.") from error


def write_private(path: Path, key: PrivateKeyTypes, passphrase: bytes | None, what: str) -> None:
    """Write `key` as PKCS #8 PEM by the rules of `write_secret`, encrypted if there is a passphrase.

    Raises:
        UnusableKey: something is already at `path`, or it cannot be written.
    """
    cipher: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        cipher = serialization.BestAvailableEncryption(passphrase)
    write_secret(path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher), what)


def in_groups(digest: bytes) -> str:
    """Hex in groups of four digits, the way keys are shown to be read aloud and compared."""
    text = digest.hex()
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))

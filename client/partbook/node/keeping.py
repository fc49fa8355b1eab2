"""What a node keeps of a round, encrypted: its finished vector, and the secrets of the exchange it is in.

One file for each thing, AES-256-GCM under a key of the vault's, written whole or not at all and flushed before
anything that rests on it leaves the machine. A label that loses its vault's key loses these too, and nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from partbook.errors import VaultError, WrongVaultKey
from partbook.vault.disk import flush

_NONCE: Final = 12
_SUFFIX: Final = ".sealed"


class Keeping:
    """A folder of encrypted things by name."""

    def __init__(self, folder: Path, key: bytes) -> None:
        """Use `folder`, made where missing, with a key of 32 bytes."""
        self._folder, self._cipher = folder, AESGCM(key)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise VaultError(f"{folder} cannot be made ({error.strerror}); free some space or its name.") from error

    def put(self, name: str, plain: bytes) -> None:
        """Keep `plain` under `name`, in place of what was there; on the disk when this returns.

        Raises:
            VaultError: the disk refuses; what was there before is still there.
        """
        nonce = os.urandom(_NONCE)
        blob = nonce + self._cipher.encrypt(nonce, plain, name.encode())
        path = self._path(name)
        try:
            write_whole(path, blob)
        except OSError as error:
            raise VaultError(
                f"{path} cannot be written ({error.strerror}); nothing was sent. "
                "Free some space and start the round again."
            ) from error

    def get(self, name: str) -> bytes | None:
        """What is kept under `name`, or None.

        Raises:
            WrongVaultKey: it was altered, or the key is not the one it was written with.
        """
        path = self._path(name)
        try:
            blob = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise VaultError(f"{path} cannot be read ({error.strerror}).") from error
        try:
            return self._cipher.decrypt(blob[:_NONCE], blob[_NONCE:], name.encode())
        except (InvalidTag, ValueError):
            raise WrongVaultKey(
                f"{path} does not open: it was altered, or belongs to another vault. Restore it, or remove it to "
                "train for the round again."
            ) from None

    def remove(self, name: str) -> None:
        """Forget what is kept under `name`, if anything."""
        self._path(name).unlink(missing_ok=True)
        flush(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` in place of what is at `path`, for its owner to read: whole or not at all, and on the disk.

    Raises:
        OSError: the disk refuses; what was there before is still there.
    """
    temporary = path.with_suffix(".part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise

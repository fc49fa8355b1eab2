"""What a node keeps of a round, encrypted: its finished vector, and the secrets of the exchange it is in.

One file for each thing, AES-256-GCM under a key of the vault's, written whole or not at all and flushed before
anything that rests on it leaves the machine. A label that loses its vault's key loses these too, and nothing else.

A vector may be hundreds of megabytes: it is encrypted and decrypted a stretch at a time (NIST SP 800-38D, which one
call for the whole would do alike), and nothing decrypted is handed out before its tag was verified.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from partbook.errors import VaultError, WrongVaultKey
from partbook.vault.disk import flush

_NONCE: Final = 12
_TAG: Final = 16
_SUFFIX: Final = ".sealed"
_STRETCH: Final = 2**20  # bytes encrypted or decrypted at a time


class Keeping:
    """A folder of encrypted things by name."""

    def __init__(self, folder: Path, key: bytes) -> None:
        """Use `folder`, made where missing, with a key of 32 bytes."""
        self._folder, self._cipher = folder, algorithms.AES256(key)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise VaultError(f"{folder} cannot be made ({error.strerror}); free some space or its name.") from error

    def put(self, name: str, *plain: bytes | memoryview) -> None:
        """Keep the parts, one after another, under `name`, in place of what was there; on the disk when this returns.

        Raises:
            VaultError: the disk refuses; what was there before is still there.
        """
        path = self._path(name)
        try:
            write_parts(path, self._encrypted(name, plain))
        except OSError as error:
            raise VaultError(
                f"{path} cannot be written ({error.strerror}); nothing was sent. "
                "Free some space and start the round again."
            ) from error

    def get(self, name: str) -> bytearray | None:
        """What is kept under `name`, or None.

        Raises:
            WrongVaultKey: it was altered, or the key is not the one it was written with.
        """
        path = self._path(name)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size - _NONCE - _TAG
                if size < 0:
                    raise ValueError("cut")
                decryptor = Cipher(self._cipher, modes.GCM(file.read(_NONCE))).decryptor()
                decryptor.authenticate_additional_data(name.encode())
                plain = bytearray(size)
                view = memoryview(plain)
                for start in range(0, size, _STRETCH):
                    stretch = view[start : start + _STRETCH]
                    decryptor.update_into(file.read(len(stretch)), stretch)
                decryptor.finalize_with_tag(file.read(_TAG))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise VaultError(f"{path} cannot be read ({error.strerror}).") from error
        except (InvalidTag, ValueError):
            raise WrongVaultKey(
                f"{path} does not open: it was altered, or belongs to another vault. Restore it, or remove it to "
                "train for the round again."
            ) from None
        return plain

    def remove(self, name: str) -> None:
        """Forget what is kept under `name`, if anything."""
        self._path(name).unlink(missing_ok=True)
        flush(self._folder)

    def _encrypted(self, name: str, plain: Iterable[bytes | memoryview]) -> Iterator[bytes]:
        """Nonce, ciphertext, tag: what `AESGCM` gives at once."""
        nonce = os.urandom(_NONCE)
        yield nonce
        encryptor = Cipher(self._cipher, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(name.encode())
        for part in plain:
            view = memoryview(part).cast("B")
            for start in range(0, len(view), _STRETCH):
                yield encryptor.update(view[start : start + _STRETCH])
        yield encryptor.finalize()
        yield encryptor.tag

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` in place of what is at `path`, for its owner to read: whole or not at all, and on the disk.

    Raises:
        OSError: the disk refuses; what was there before is still there.
    """
    write_parts(path, (data,))


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """`write_whole` of parts, one after another, that need not lie in memory together."""
    with replacing(path) as file:
        file.writelines(parts)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` at the end of the block, and nothing's if it fails."""
    temporary = path.with_suffix(".part")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

"""Large blobs by name that memory has no room for: in files of one folder, which notice if they are altered.

A vector of fifty million numbers is four hundred megabytes under the seal, and every member sends one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from partbook.errors import AlteredFile


class Shelf:
    """Blobs in a folder, for its owner alone to read; in memory where there is no folder.

    What is put is on the disk only after `flush`, and known to another process only by what `digests` says.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Nothing yet; the folder is made with the first blob."""
        self._folder = folder
        self._memory: dict[str, bytes] = {}
        self._digests: dict[str, str] = {}
        self._written: set[str] = set()  # since the last flush

    def __contains__(self, name: str) -> bool:
        return name in self._digests

    def put(self, name: str, blob: bytes) -> None:
        """Keep `blob` under `name`, in place of what was there."""
        if self._folder is None:
            self._memory[name], self._digests[name] = blob, ""
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(blob)
        self._written.add(name)
        self._digests[name] = hashlib.sha256(blob).hexdigest()

    def get(self, name: str) -> bytes:
        """What was put under `name`.

        Raises:
            AlteredFile: it is gone, or not what was put.
            KeyError: nothing was put.
        """
        digest = self._digests[name]
        if self._folder is None:
            return self._memory[name]
        path = self._folder / name
        try:
            blob = path.read_bytes()
        except OSError as error:
            raise AlteredFile(
                f"{path} cannot be read ({error.strerror}), and the round's sum needs it; restore the folder, or "
                "remove the attempt beside it to start the round again."
            ) from error
        if hashlib.sha256(blob).hexdigest() != digest:
            raise AlteredFile(
                f"{path} is not what the coordinator wrote; restore it, or remove the attempt beside its folder to "
                "start the round again."
            )
        return blob

    def remove(self, name: str) -> None:
        """Forget what is under `name`, if anything."""
        self._digests.pop(name, None)
        self._memory.pop(name, None)
        self._written.discard(name)
        if self._folder is not None:
            (self._folder / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything, also what a process that was killed has left."""
        self._digests.clear()
        self._memory.clear()
        self._written.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def flush(self) -> None:
        """Return once all that was put is on the disk."""
        if self._folder is None or not self._written:
            return
        for path in (*(self._folder / name for name in sorted(self._written)), self._folder):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._written.clear()

    @property
    def digests(self) -> dict[str, str]:
        """By name, the SHA-256 of what is kept: all that another process needs to go on with this folder."""
        return dict(self._digests)

    def restore(self, digests: dict[str, str]) -> None:
        """Go on with a folder whose `digests` were kept.

        Raises:
            AlteredFile: a blob is gone. Whether it was altered is seen when it is asked for.
        """
        for name in digests:
            if self._folder is None or not (self._folder / name).is_file():
                raise AlteredFile(f"{name} of the round's sum is gone from {self._folder}.")
        self._digests = {str(name): str(digest) for name, digest in digests.items()}

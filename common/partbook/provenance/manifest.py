"""Manifests: the SHA-256 and size of every file in a folder, in one canonical JSON file beside them.

A manifest covers the folder completely: a file that is missing, altered, or simply not listed is named and
refused. `Manifest.read` hands out the very bytes it hashed, so that nothing can change between the check and
the use.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from partbook.errors import AlteredFile
from partbook.identity.canonical import Json, canonical, parse_canonical

MANIFEST: Final = "manifest.json"
_LONGEST_MANIFEST: Final = 4 * 2**20  # bytes; a manifest lists names, not contents
_CHUNK: Final = 2**20  # bytes
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its SHA-256 in hex, and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder holds.

    Attributes:
        files: relative POSIX path → entry.
        about: anything else worth vouching for, within what `canonical` can spell.
    """

    files: Mapping[str, Entry]
    about: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.files:
            _refuse_unsafe(name)

    def encode(self) -> bytes:
        """Canonical JSON: {"about": …, "files": {path: {"bytes": n, "sha256": hex}}}."""
        files: dict[str, Json] = {n: {"bytes": e.size, "sha256": e.sha256} for n, e in self.files.items()}
        return canonical({"about": self.about, "files": files})

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical encoding, in hex: one name for the whole folder."""
        return hashlib.sha256(self.encode()).hexdigest()

    @classmethod
    def decode(cls, blob: bytes, where: Path | str = MANIFEST) -> Manifest:
        """The manifest that `encode` wrote.

        Raises:
            AlteredFile: the bytes are not one, are not canonical, or list a path outside the folder.
        """
        try:
            value = parse_canonical(blob)
            if not isinstance(value, Mapping) or set(value) != {"about", "files"}:
                raise ValueError("it needs exactly the keys 'about' and 'files'")
            about, listed = value["about"], value["files"]
            if not isinstance(about, Mapping) or not isinstance(listed, Mapping):
                raise ValueError("'about' and 'files' must be objects")
            return cls({name: _entry(name, fields) for name, fields in listed.items()}, about)
        except ValueError as error:
            raise AlteredFile(
                f"{where} is not a manifest ({error}); fetch the folder again from its source."
            ) from error

    def read(self, folder: Path, name: str) -> bytes:
        """The bytes of one listed file, read once and verified.

        Raises:
            AlteredFile: it is missing, a link, or not the file that was listed.
        """
        entry = self.files[name]
        with _open(folder, name) as file:
            blob = file.read(entry.size + 1)
        _compare(folder / name, entry, Entry(hashlib.sha256(blob).hexdigest(), len(blob)))
        return blob

    def refuse_unlisted(self, folder: Path, beside: Iterable[str] = ()) -> None:
        """Return if every file below `folder` is listed, or is the manifest, or is named in `beside`.

        Raises:
            AlteredFile: a file is there that nobody vouched for; the first is named.
        """
        allowed = {*self.files, MANIFEST, *beside}
        for found in sorted(folder.rglob("*")):
            if found.is_dir() and not found.is_symlink():
                continue
            name = found.relative_to(folder).as_posix()
            if name not in allowed:
                raise AlteredFile(f"{found} is not in the manifest; remove it, or fetch the folder again.")


def build(folder: Path, names: Iterable[str], about: Mapping[str, Json] | None = None) -> Manifest:
    """Hash the named files of a folder, a megabyte at a time.

    Args:
        folder: where they are.
        names: relative POSIX paths.
        about: anything else to vouch for.

    Raises:
        AlteredFile: a file is missing, or is a link.
        ValueError: a name leads out of the folder.
    """
    names = list(names)
    for name in names:
        _refuse_unsafe(name)
    return Manifest({name: _hash(folder, name) for name in sorted(names)}, dict(about or {}))


def write(folder: Path, names: Iterable[str], about: Mapping[str, Json] | None = None) -> Manifest:
    """`build`, then write `manifest.json` into the folder, whole or not at all."""
    manifest = build(folder, names, about)
    unfinished = folder / f".{MANIFEST}.{os.getpid()}"
    unfinished.write_bytes(manifest.encode())
    unfinished.replace(folder / MANIFEST)
    return manifest


def read_manifest_bytes(folder: Path) -> bytes:
    """The bytes of a folder's manifest.json, as they are.

    Raises:
        AlteredFile: there is none, or it is far too large to be one.
    """
    with _open(folder, MANIFEST) as file:
        blob = file.read(_LONGEST_MANIFEST + 1)
    if len(blob) > _LONGEST_MANIFEST:
        raise AlteredFile(f"{folder / MANIFEST} is larger than any manifest; fetch the folder again.")
    return blob


def check(folder: Path, *, beside: Iterable[str] = ()) -> Manifest:
    """Verify a whole folder against its manifest.json.

    Args:
        folder: what to verify.
        beside: files that may lie there unlisted, such as a signature over the manifest.

    Raises:
        AlteredFile: names the first file that is missing, altered, or not listed.
    """
    manifest = Manifest.decode(read_manifest_bytes(folder), folder / MANIFEST)
    for name, entry in manifest.files.items():
        _compare(folder / name, entry, _hash(folder, name))
    manifest.refuse_unlisted(folder, beside)
    return manifest


def _refuse_unsafe(name: str) -> None:
    parts = PurePosixPath(name).parts
    if (
        not name
        or name != "/".join(parts)
        or name.startswith("/")
        or any(part in (".", "..") for part in parts)
        or any(sign in name for sign in ("\\", ":", "\0"))
        or name == MANIFEST
    ):
        raise ValueError(f"{name!r} is not a path inside the folder")


def _entry(name: str, fields: Json) -> Entry:
    if isinstance(fields, Mapping) and set(fields) == {"bytes", "sha256"}:
        size, digest = fields["bytes"], fields["sha256"]
        if (
            isinstance(size, int)
            and not isinstance(size, bool)
            and size >= 0
            and isinstance(digest, str)
            and _SHA256.fullmatch(digest)
        ):
            return Entry(digest, size)
    raise ValueError(f"the entry of {name!r} needs 'bytes', a count, and 'sha256', 64 hex digits")


def _open(folder: Path, name: str) -> BinaryIO:
    path = folder / name
    # A link could lead anywhere, and lead elsewhere tomorrow; what is vouched for lies in the folder itself.
    for step in (path, *path.parents):
        if step == folder:
            break
        if step.is_symlink():
            raise AlteredFile(f"{step} is a link, not a file of the folder; fetch the folder again.")
    try:
        return path.open("rb")
    except OSError as error:
        raise AlteredFile(f"{path} cannot be read: {error.strerror}. Fetch the folder again.") from error


def _hash(folder: Path, name: str) -> Entry:
    digest, size = hashlib.sha256(), 0
    with _open(folder, name) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Entry(digest.hexdigest(), size)


def _compare(path: Path, listed: Entry, found: Entry) -> None:
    if found.size < listed.size:
        raise AlteredFile(
            f"{path} has {found.size} bytes where its manifest says {listed.size}; fetch the folder again."
        )
    if found != listed:
        raise AlteredFile(f"{path} was altered: its SHA-256 is not the manifest's. Fetch the folder again.")

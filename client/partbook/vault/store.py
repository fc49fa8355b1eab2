"""Where a label keeps its recordings: encrypted shards, and an index that does not tell what is inside.

    <vault>/index.sqlite      which recordings there are, under keyed names; figures encrypted
    <vault>/shards/<id>.pbv   one recording each: `PBV1`, nonce (12 bytes), AES-256-GCM ciphertext and tag
    <vault>/vault.key         the master key, unless it is kept elsewhere
    <vault>/vault.lock        held by the one process that may write
    <vault>/adapters          what the label has trained for itself (`partbook.node.own_adapter`)

A recording's id is HMAC-SHA256 of its audio's hash, so nobody without the key can test the vault for a
recording they have. Sizes of shards still tell roughly how long recordings are. A shard is written whole and
flushed before the index names it, so at any kill or power cut the index is right; what it does not name is
removed at next open.

A withdrawn recording leaves a tombstone: the keyed names of its audio and of its files, by which it is refused
if it comes again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from partbook.errors import CorruptMessage, VaultBusy, VaultError, WithdrawnRecording, WrongVaultKey
from partbook.music.recording import Recording
from partbook.vault.disk import flush
from partbook.vault.keys import VaultKeys, create_key_file, read_key_file

FORMAT: Final = 2
_BEFORE_TOMBSTONES: Final = 1  # the format without them; it is read as it is, and brought up to date to be written
_MAGIC: Final = b"PBV1"
_NONCE_BYTES: Final = 12
_AAD: Final = b"partbook/v1/vault"
_UNBORN: Final = {
    "shards",
    "vault.lock",
    ".tmp-index.sqlite",
    ".tmp-index.sqlite-journal",
}  # of a failed `create`
_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID; CREATE TABLE recordings (place
INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, bytes INTEGER NOT NULL, figures BLOB NOT NULL); CREATE TABLE
files (id TEXT PRIMARY KEY, recording TEXT NOT NULL REFERENCES recordings (id) ON DELETE CASCADE) WITHOUT
ROWID;
"""
_TOMBSTONES: Final = "CREATE TABLE tombstones (id TEXT PRIMARY KEY, recording TEXT NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class VaultSummary:
    """What a vault holds: counts, seconds of audio, tokens, and bytes of shards on disk."""

    recordings: int
    seconds: float
    tokens: int
    bytes: int


class Vault:
    """An open vault. One process may write at a time; any number may read. Use it in a `with` statement."""

    def __init__(self, path: Path, index: sqlite3.Connection, keys: VaultKeys, lock: IO[bytes] | None) -> None:
        """Use `Vault.create` or `Vault.open`."""
        self._path = path
        self._index = index
        self._keys = keys
        self._lock = lock
        self._vault_id = bytes(_meta(index, "vault_id") or b"")

    def __repr__(self) -> str:
        return f"Vault({str(self._path)!r}, {'writable' if self._lock else 'read-only'})"

    # ------------------------------------------------------------------ making, opening, closing

    @classmethod
    def create(cls, path: Path, key_file: Path | None = None) -> Vault:
        """Make a vault in the new or empty folder `path`, with a new key, and open it for writing.

        Raises:
            VaultError: there is something in `path`, the key file exists, or the disk refuses.
        """
        with _disk_errors(path):
            if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - _UNBORN):
                raise VaultError(f"{path} is not an empty folder; open the vault that is there, or name another place.")
            (path / "shards").mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)
            with _locked(path):
                master = create_key_file(key_file or path / "vault.key")
                # The index gets its name only when it is whole: a vault either exists or does not.
                unborn = path / ".tmp-index.sqlite"
                unborn.unlink(missing_ok=True)
                _write_index(unborn, master)
                unborn.rename(path / "index.sqlite")
                flush(path)
        return cls.open(path, key_file, writable=True)

    @classmethod
    def open(cls, path: Path, key_file: Path | None = None, *, writable: bool = False) -> Vault:
        """Open the vault at `path`; opening it to write also removes what an interrupted write left behind.

        Raises:
            VaultError: there is no vault, or it is of another format.
            InsecureKeyFile: others may read the key file.
            WrongVaultKey: the key is another vault's.
            VaultBusy: `writable`, and another process is writing.
        """
        if not (path / "index.sqlite").is_file():
            raise VaultError(f"There is no vault at {path}; `partbook node ingest FOLDER --vault {path}` makes one.")
        master = read_key_file(key_file or path / "vault.key")
        with _disk_errors(path):
            lock = _locked(path) if writable else None
            index = _connect(path, writable=writable)
            try:
                written = int(_meta(index, "format") or 0)
                if written not in (FORMAT, _BEFORE_TOMBSTONES):
                    raise VaultError(
                        f"The vault at {path} has format {written}; this Partbook reads {FORMAT} and below. "
                        "Install the newest one."
                    )
                vault_id = bytes(_meta(index, "vault_id") or b"")
                keys = VaultKeys.derive(master, vault_id)
                expected = hmac.digest(keys.check, vault_id, "sha256")
                if not hmac.compare_digest(expected, _meta(index, "check") or b""):
                    raise WrongVaultKey(
                        f"The key in {key_file or path / 'vault.key'} is not this vault's; "
                        f"name the one written when {path} was made."
                    )
                vault = cls(path, index, keys, lock)
                if writable:
                    if written == _BEFORE_TOMBSTONES:
                        _add_tombstones(index)
                    vault._remove_leftovers()
            except BaseException:
                index.close()
                if lock:
                    lock.close()
                raise
            return vault

    def close(self) -> None:
        """Release the files and the lock. Closing twice is fine."""
        self._index.close()
        if self._lock:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ what is inside

    @property
    def rounds_key(self) -> bytes:
        """The key for what the node keeps of a round, 32 bytes."""
        return self._keys.rounds

    @property
    def adapters_key(self) -> bytes:
        """The key for what the label has trained for itself, 32 bytes."""
        return self._keys.adapters

    def known(self, audio_sha256: str) -> str | None:
        """The id of the recording with this audio, if it is inside."""
        identifier = self._name("audio", audio_sha256)
        found = self._index.execute("SELECT 1 FROM recordings WHERE id = ?", (identifier,)).fetchone()
        return identifier if found else None

    def known_file(self, file_sha256: str) -> str | None:
        """The id of the recording that a file with these bytes was ingested as, if it is inside."""
        name = self._name("file", file_sha256)
        found = self._index.execute("SELECT recording FROM files WHERE id = ?", (name,)).fetchone()
        return str(found[0]) if found else None

    @property
    def ledger_key(self) -> bytes:
        """The key that vouches for the ledger's rows, 32 bytes."""
        return self._keys.ledger

    def withdrawn(self, audio_sha256: str) -> str | None:
        """The id of the recording with this audio, if it was withdrawn."""
        return self._tombstone(self._name("audio", audio_sha256))

    def withdrawn_file(self, file_sha256: str) -> str | None:
        """The id of the recording that a file with these bytes was ingested as, if it was withdrawn."""
        return self._tombstone(self._name("file", file_sha256))

    def tombstones(self) -> list[str]:
        """Ids of the recordings that were withdrawn."""
        if not self._has_tombstones():
            return []
        return [
            str(row[0]) for row in self._index.execute("SELECT id FROM tombstones WHERE id = recording ORDER BY id")
        ]

    def ids(self) -> list[str]:
        """Ids of all recordings, in the order they came in."""
        return [str(row[0]) for row in self._index.execute("SELECT id FROM recordings ORDER BY place")]

    def get(self, identifier: str) -> Recording:
        """Decrypt a recording.

        Raises:
            VaultError: there is none with this id, or its shard is missing.
            WrongVaultKey: the shard was altered, or swapped with another.
        """
        if identifier not in self:
            raise VaultError(f"The vault {self._path} holds no recording {identifier}; `ids()` lists those it holds.")
        shard = self._shard(identifier)
        try:
            blob = shard.read_bytes()
        except OSError as error:
            raise VaultError(
                f"The shard {shard} cannot be read ({error.strerror}); restore it from a backup, or remove "
                "the recording and ingest it again."
            ) from error
        plain = self._unsealed(self._keys.shards, blob.removeprefix(_MAGIC), identifier, str(shard))
        try:
            return Recording.from_bytes(plain)
        except CorruptMessage as error:
            raise VaultError(f"The shard {shard} was written by another version: {error}") from error

    def __contains__(self, identifier: object) -> bool:
        return self._index.execute("SELECT 1 FROM recordings WHERE id = ?", (identifier,)).fetchone() is not None

    def __len__(self) -> int:
        return int(self._index.execute("SELECT COUNT(*) FROM recordings").fetchone()[0])

    def summary(self) -> VaultSummary:
        """Totals over all recordings.

        Raises:
            WrongVaultKey: the index was altered.
        """
        seconds, tokens, size, count = 0.0, 0, 0, 0
        for identifier, bytes_, sealed in self._index.execute("SELECT id, bytes, figures FROM recordings"):
            figures = json.loads(self._unsealed(self._keys.index, sealed, identifier, str(self._path / "index.sqlite")))
            seconds += figures["seconds"]
            tokens += figures["tokens"]
            size += bytes_
            count += 1
        return VaultSummary(count, seconds, tokens, size)

    @property
    def tokenizer_sha256(self) -> str | None:
        """Hash of the tokeniser all recordings were written with; None while that is undecided."""
        value = _meta(self._index, "tokenizer")
        return value.decode() if value is not None else None

    # ------------------------------------------------------------------ changing it

    def bind_tokenizer(self, sha256: str) -> None:
        """Fix the tokeniser of this vault, once and for all: ids of different tokenisers must never mix.

        Raises:
            VaultError: it is fixed to another one.
        """
        self._must_write()
        bound = self.tokenizer_sha256
        if bound is None:
            with _disk_errors(self._path), self._index:
                self._index.execute("INSERT INTO meta VALUES ('tokenizer', ?)", (sha256.encode(),))
        elif bound != sha256:
            raise VaultError(
                f"The vault {self._path} was written with tokeniser {bound[:12]}…, not {sha256[:12]}…; "
                "use that one, or ingest into a new vault."
            )

    def add(self, recording: Recording, audio_sha256: str, *, file_sha256: str | None = None) -> str:
        """Encrypt and keep a recording; nothing happens if its audio is inside already. Returns its id.

        Args:
            recording: what to keep.
            audio_sha256: `partbook.music.decode.Audio.sha256`.
            file_sha256: hash of the file it came from, to recognise that file later without decoding it.

        Raises:
            WithdrawnRecording: the label has withdrawn this audio.
            VaultError: the disk is full or refuses; the vault is as it was before.
        """
        self._must_write()
        identifier = self._name("audio", audio_sha256)
        if self._tombstone(identifier):
            raise WithdrawnRecording(withdrawn_reason(identifier))
        if identifier not in self:
            blob = _MAGIC + self._sealed(self._keys.shards, recording.to_bytes(), identifier)
            about = json.dumps({"seconds": recording.seconds, "tokens": len(recording.ids)}).encode()
            row = (identifier, len(blob), self._sealed(self._keys.index, about, identifier))
            shard = self._shard(identifier)
            try:
                with _disk_errors(self._path):
                    self._write_shard(shard, blob)
                    with self._index:
                        self._index.execute("INSERT INTO recordings (id, bytes, figures) VALUES (?, ?, ?)", row)
            except BaseException:
                if identifier not in self:
                    shard.unlink(missing_ok=True)
                raise
        if file_sha256 is not None:
            self.remember_file(file_sha256, identifier)
        return identifier

    def remember_file(self, file_sha256: str, identifier: str) -> None:
        """Note that a file with these bytes is the recording `identifier`."""
        self._must_write()
        row = (self._name("file", file_sha256), identifier)
        with _disk_errors(self._path), self._index:
            self._index.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", row)

    def remove(self, identifier: str) -> None:
        """Forget a recording and everything that named it; rows are overwritten, the shard is deleted.

        Raises:
            VaultError: there is none with this id.
        """
        self._must_write()
        if identifier not in self:
            raise VaultError(f"The vault {self._path} holds no recording {identifier}; nothing was removed.")
        with _disk_errors(self._path):
            with self._index:
                self._index.execute("DELETE FROM recordings WHERE id = ?", (identifier,))
            self._shard(identifier).unlink(missing_ok=True)
            flush(self._path / "shards")
            self._index.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def withdraw(self, identifier: str) -> None:
        """Remove a recording for good: its shard is deleted, and its audio is refused from now on. Twice is fine.

        Raises:
            VaultError: there is none with this id.
        """
        self._must_write()
        if identifier not in self:
            if not self._tombstone(identifier):
                raise VaultError(f"The vault {self._path} holds no recording {identifier}; nothing was withdrawn.")
        else:
            with _disk_errors(self._path), self._index:
                # One transaction: it is never inside and refused at once, nor neither.
                self._index.execute("INSERT INTO tombstones VALUES (?, ?)", (identifier, identifier))
                self._index.execute(
                    "INSERT OR REPLACE INTO tombstones SELECT id, recording FROM files WHERE recording = ?",
                    (identifier,),
                )
                self._index.execute("DELETE FROM recordings WHERE id = ?", (identifier,))
        with _disk_errors(self._path):
            self._shard(identifier).unlink(missing_ok=True)
            flush(self._path / "shards")
            self._index.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # ------------------------------------------------------------------ inside

    def _has_tombstones(self) -> bool:
        return int(_meta(self._index, "format") or 0) > _BEFORE_TOMBSTONES

    def _tombstone(self, name: str) -> str | None:
        if not self._has_tombstones():
            return None
        found = self._index.execute("SELECT recording FROM tombstones WHERE id = ?", (name,)).fetchone()
        return str(found[0]) if found else None

    def _name(self, kind: str, sha256: str) -> str:
        return hmac.digest(self._keys.ids, f"{kind}:{sha256}".encode(), hashlib.sha256).hex()

    def _shard(self, identifier: str) -> Path:
        return self._path / "shards" / f"{identifier}.pbv"

    def _aad(self, identifier: str) -> bytes:
        return _AAD + self._vault_id + bytes.fromhex(identifier)  # 17 + 16 + 32 bytes: no two read alike

    def _sealed(self, key: bytes, plain: bytes, identifier: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)  # random: safe for 2^32 messages a key (NIST SP 800-38D, 8.3)
        return nonce + AESGCM(key).encrypt(nonce, plain, self._aad(identifier))

    def _unsealed(self, key: bytes, blob: bytes, identifier: str, where: str) -> bytes:
        try:
            return AESGCM(key).decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], self._aad(identifier))
        except (InvalidTag, ValueError) as error:
            raise WrongVaultKey(
                f"{where} does not open with this vault's key: it was altered or replaced. Restore it from a "
                f"backup, or remove recording {identifier[:12]}… and ingest it again."
            ) from error

    def _must_write(self) -> None:
        if self._lock is None:
            raise VaultError(f"The vault {self._path} is open for reading only; open it with writable=True.")

    def _write_shard(self, shard: Path, blob: bytes) -> None:
        unborn = shard.parent / f".tmp-{secrets.token_hex(8)}"
        try:
            with unborn.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())
            unborn.rename(shard)
            flush(shard.parent)
        except BaseException:
            unborn.unlink(missing_ok=True)
            raise

    def _remove_leftovers(self) -> None:
        named = {f"{identifier}.pbv" for identifier in self.ids()}
        for file in (self._path / "shards").iterdir():
            if file.name.startswith(".tmp-") or (file.suffix == ".pbv" and file.name not in named):
                file.unlink(missing_ok=True)


def withdrawn_reason(identifier: str) -> str:
    """What a person is told who brings a withdrawn recording back."""
    return (
        f"This audio was withdrawn by its label (recording {identifier[:12]}…) and is not taken again, "
        "under any name or in any format; leave it out."
    )


def _add_tombstones(index: sqlite3.Connection) -> None:
    index.execute("BEGIN IMMEDIATE")
    with index:
        index.execute(_TOMBSTONES)
        index.execute("UPDATE meta SET value = ? WHERE name = 'format'", (str(FORMAT).encode(),))


def _write_index(path: Path, master: bytes) -> None:
    vault_id = secrets.token_bytes(16)
    check = hmac.digest(VaultKeys.derive(master, vault_id).check, vault_id, "sha256")
    rows = [("format", str(FORMAT).encode()), ("vault_id", vault_id), ("check", check)]
    with contextlib.closing(sqlite3.connect(path)) as index:
        index.executescript(_SCHEMA)
        index.execute(_TOMBSTONES)
        index.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        index.commit()
    flush(path)


def _meta(index: sqlite3.Connection, name: str) -> bytes | None:
    row: tuple[Any] | None = index.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return bytes(row[0]) if row else None


def _connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    mode = "rw" if writable else "ro"
    # Readers may be handed to a training thread; sqlite3 itself serialises the calls.
    uri = f"{(path / 'index.sqlite').absolute().as_uri()}?mode={mode}"
    index = sqlite3.connect(uri, uri=True, timeout=10.0, check_same_thread=False)
    if writable:
        index.execute("PRAGMA journal_mode = WAL")
        index.execute("PRAGMA synchronous = FULL")
        index.execute("PRAGMA secure_delete = ON")  # a withdrawn recording leaves no row behind in free pages
        index.execute("PRAGMA foreign_keys = ON")
    return index


def _locked(path: Path) -> IO[bytes]:
    lock = (path / "vault.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise VaultBusy(f"Another process is writing to the vault {path}; wait for it to end, or stop it.") from error
    return lock


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk says into a `VaultError` that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "no room is left; free some and run this again" if full else f"{error.strerror}; check the disk"
        raise VaultError(f"The vault {path} could not be written: {hint}. What was in it still is.") from error
    except sqlite3.Error as error:
        hint = "no room is left; free some and run this again" if "full" in str(error) else f"{error}; check the disk"
        raise VaultError(f"The index of the vault {path} cannot be used: {hint}.") from error

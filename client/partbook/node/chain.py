"""An append-only record on the disk, every row of which vouches for all rows before it.

    <name>          SQLite in WAL mode, `synchronous=FULL`: the rows
    <name>.head     number and MAC of the newest row, written after it: tells a shortened or older copy
    <name>.lock     held while a row is appended, by one process at a time

A row is a JSON object in its one spelling (`partbook.identity.canonical`) and HMAC-SHA256, under the owner's key, of
the MAC before it and the row. So rows can be neither altered, moved nor left out without the key; triggers stop
honest mistakes before that. What cannot be told is an older copy of record and head together, from one moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, Self

from partbook.errors import LedgerBroken, VaultBusy, VaultError
from partbook.identity.canonical import Json, canonical, parse_canonical
from partbook.node.keeping import write_whole
from partbook.vault.disk import flush

_LABEL: Final = b"partbook/v1/ledger"
_PATIENCE: Final = 60.0  # seconds to wait for another process; it appends in well under one
_SCHEMA: Final = """
CREATE TABLE rows (number INTEGER PRIMARY KEY, body BLOB NOT NULL, mac BLOB NOT NULL);
CREATE TRIGGER rows_stay BEFORE UPDATE ON rows BEGIN SELECT RAISE(ABORT, 'rows of a ledger are never changed'); END;
CREATE TRIGGER rows_last BEFORE DELETE ON rows BEGIN SELECT RAISE(ABORT, 'rows of a ledger are never removed'); END;
CREATE TRIGGER rows_follow BEFORE INSERT ON rows
WHEN NEW.number IS NOT (SELECT COALESCE(MAX(number), 0) + 1 FROM rows)
BEGIN SELECT RAISE(ABORT, 'rows of a ledger are only appended'); END;
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One fact.

    Attributes:
        number: counted from 1 without gaps.
        body: the fact.
        mac: 32 bytes over it and, through the one before, over everything that led to it.
    """

    number: int
    body: Mapping[str, Json]
    mac: bytes


class Chain:
    """An open record. Threads may share it, and processes may open it side by side."""

    def __init__(self, path: Path, key: bytes, lock: IO[bytes], told: Callable[[Row], None]) -> None:
        """Use `Chain.open`."""
        self._path, self._key, self._lock, self._told = path, key, lock, told
        self._number, self._mac = 0, hmac.digest(key, _LABEL, "sha256")
        self._marked = 0
        self._turn = threading.RLock()
        self._db: sqlite3.Connection | None = None

    @classmethod
    def open(cls, path: Path, key: bytes, told: Callable[[Row], None]) -> Chain:
        """Open the record at `path`, made where there is none, and check every row of it.

        Args:
            path: the database; its folder must exist.
            key: 32 bytes.
            told: called with each row in order, now and whenever more have come, once it has reached the disk.

        Raises:
            LedgerBroken: it was altered or shortened, or belongs to another key; the message names the row.
            VaultBusy: another process does not let go of it.
            VaultError: the disk refuses.
        """
        with _disk_errors(path):
            lock = path.with_name(f"{path.name}.lock").open("ab")
        chain = cls(path, key, lock, told)
        try:
            with _disk_errors(path), chain._alone():
                chain._open()
        except BaseException:
            chain.close()
            raise
        return chain

    def close(self) -> None:
        """Let go of the files. Closing twice is fine."""
        with self._turn:
            if self._db is not None:
                self._db.close()
            self._db = None
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def head(self) -> tuple[int, str]:
        """Number and MAC, hexadecimal, of the newest row told of."""
        return self._number, self._mac.hex()

    def catch_up(self) -> None:
        """Tell of rows that other processes have appended.

        Raises:
            LedgerBroken, VaultError: as `open`.
        """
        with self._turn, _disk_errors(self._path):
            self._read()

    @contextlib.contextmanager
    def appending(self) -> Iterator[Callable[[Mapping[str, Json]], None]]:
        """Caught up and alone; what the block appends is on the disk when it ends, or none of it is.

        The block is given a function that appends one object, to which it adds the time (`at`, UTC, for people).

        Raises:
            VaultBusy: another process does not let go.
            VaultError: the disk refuses; nothing was appended.
            LedgerBroken: as `open`.
        """
        new: list[Mapping[str, Json]] = []
        with self._turn, _disk_errors(self._path), self._alone():
            self._read()
            yield new.append
            if new:
                self._append(new)
            self._mark()

    # ------------------------------------------------------------------ inside

    def _open(self) -> None:
        unborn = self._path.with_name(f"{self._path.name}.new")
        if not self._path.exists():
            for left in (self._head, self._path.with_name(f"{self._path.name}-wal")):
                if left.exists():
                    raise LedgerBroken(
                        f"The ledger {self._path} is gone, though {left.name} says there was one. Restore it from a "
                        "backup; to begin a new one would forget what was spent."
                    )
            unborn.unlink(missing_ok=True)
            self._make(unborn)
            unborn.rename(self._path)
            flush(self._path.parent)
        marked = self._read_head()
        self._db = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,  # transactions begin and end where this module says so
            check_same_thread=False,
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = ON")  # where fsync alone stops at the drive's cache
        self._read(marked)
        if not self._number:
            raise LedgerBroken(f"The ledger {self._path} has lost its rows; restore it from a backup.")
        if marked is None and self._number > 1:
            raise LedgerBroken(
                f"{self._head}, which tells whether the ledger is whole, is gone. Restore it from a backup. If you "
                f"know that {self._path.name} is the newest copy, write this line into it: "
                f"{self._number} {self._mac.hex()}"
            )
        self._mark()

    def _make(self, path: Path) -> None:
        # The database gets its name only when it is whole: a ledger either exists or does not.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(descriptor)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(_SCHEMA)
            first = canonical({"at": _now(), "id": secrets.token_hex(16), "kind": "opened"})
            db.execute("INSERT INTO rows VALUES (1, ?, ?)", (first, self._next(self._mac, first)))
        flush(path)

    def _read(self, marked: tuple[int, bytes] | None = None) -> None:
        """Check and tell of the rows after the newest known; `marked` must be one of them."""
        assert self._db is not None, "the ledger is closed"
        found = self._db.execute("SELECT number, body, mac FROM rows WHERE number > ? ORDER BY number", (self._number,))
        for number, body, mac in found.fetchall():
            blobs = isinstance(body, bytes) and isinstance(mac, bytes)  # SQLite lets an editor put text there
            if not blobs or number != self._number + 1 or not hmac.compare_digest(self._next(self._mac, body), mac):
                of = "it was altered, or rows before it were" if self._number else "it was altered, or has another key"
                raise LedgerBroken(
                    f"Row {self._number + 1} of the ledger {self._path} is not what was written: {of}. Name the "
                    "vault's own key, or restore ledger and head from a backup; nothing can be spent before that."
                )
            if marked is not None and number == marked[0] and mac != marked[1]:
                break
            value = parse_canonical(body)
            assert isinstance(value, dict), "what has this MAC was written here"
            self._number, self._mac = number, mac
            self._told(Row(number, value, mac))
        if marked is not None and self._number < marked[0]:
            raise LedgerBroken(
                f"The ledger {self._path} ends at row {self._number}, but {self._head.name} names row {marked[0]}: "
                "rows were lost, or an older copy was put in its place. Restore the newest copy, with its -wal file if "
                "it has one; to go on without them would forget what was spent."
            )
        if marked is not None:
            self._marked = marked[0]

    def _append(self, bodies: list[Mapping[str, Json]]) -> None:
        assert self._db is not None, "the ledger is closed"
        number, mac, at = self._number, self._mac, _now()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for fact in bodies:
                body = canonical({**fact, "at": at})
                number, mac = number + 1, self._next(mac, body)
                self._db.execute("INSERT INTO rows VALUES (?, ?, ?)", (number, body, mac))
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self._read()  # only what can be read back is taken to be there

    def _mark(self) -> None:
        """Let the head name the newest row; it may lag behind after a kill, never run ahead."""
        if self._marked < self._number:
            write_whole(self._head, f"{self._number} {self._mac.hex()}\n".encode())
            self._marked = self._number

    @property
    def _head(self) -> Path:
        return self._path.with_name(f"{self._path.name}.head")

    def _read_head(self) -> tuple[int, bytes] | None:
        try:
            number, mac = self._head.read_text("ascii").split()
            return int(number), bytes.fromhex(mac)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise LedgerBroken(
                f"{self._head} is not what was written; restore it, with {self._path.name}, from a backup."
            ) from error

    def _next(self, before: bytes, body: bytes) -> bytes:
        return hmac.digest(self._key, before + body, hashlib.sha256)  # 32 bytes, then the rest: no two read alike

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise VaultBusy(
                        f"Another process has held the ledger {self._path} for {_PATIENCE:.0f} s; end it and try again."
                    ) from None
                time.sleep(0.005)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk or a broken database says into an error that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise LedgerBroken(f"The ledger {path} is not one ({error}); restore it from a backup.") from error
        raise VaultError(
            f"The ledger {path} cannot be used ({error}); nothing was written to it. Free some room, or let this user "
            "write there, and try again."
        ) from error
    except sqlite3.Error as error:
        raise LedgerBroken(
            f"The ledger {path} cannot be read ({error}): the file was cut short or overwritten. Restore it, with its "
            "-wal file and its head, from a backup."
        ) from error
    except OSError as error:
        raise VaultError(
            f"The ledger {path} cannot be written ({error.strerror}); free some room, or let this user write there."
        ) from error

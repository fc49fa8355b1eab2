"""One process at a time: the kernel's file locks, which end with their process however it ends.

`only_one` is flock(2), for a process that starts others and hands them nothing. `taken_over` is the record lock of
fcntl(2), which is not inherited by children: workers that outlive a killed ServerApp do not hold it on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from partbook.errors import AlreadyRunning, ConfigError

TRIES: Final = 4


@contextlib.contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for this process; it says whose it is.

    Raises:
        AlreadyRunning: another process holds it; the message says which, and that it is `what`.
        ConfigError: the file cannot be made.
    """
    handle = _opened(path)
    try:
        for left in reversed(range(TRIES)):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if left:  # it may be somebody who only asks whose it is, which takes a moment of the lock
                    time.sleep(0.1)
                    continue
                raise AlreadyRunning(
                    f"Process {_read(handle) or 'unknown'} {what} already ({path}); end that one first."
                ) from error
        _sign(handle)
        yield
    finally:
        os.close(handle)


def holder(path: Path) -> int | None:
    """The process that holds a lock of `only_one`, if any does."""
    try:
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(file.read().strip() or 0) or None
    except (FileNotFoundError, ValueError):
        return None
    return None


def taken_over(path: Path, seconds: float) -> bool:
    """Hold a lock file until this process ends; waits for an earlier holder, and says whether it went.

    Raises:
        ConfigError: the file cannot be made.
    """
    handle = _opened(path)  # stays open: closing it would end the lock
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sign(handle)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def is_taken(path: Path) -> bool:
    """Whether some other process holds a lock of `taken_over`."""
    try:
        with path.open("r+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    except FileNotFoundError:
        return False
    return False


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made ({error.strerror}); choose a folder to write in.") from error


def _read(handle: int) -> str:
    return os.pread(handle, 20, 0).decode(errors="replace").strip()


def _sign(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)

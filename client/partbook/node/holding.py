"""One process a state folder: two nodes on one ledger would each think the budget theirs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from partbook.errors import AlreadyRunning, ConfigError


@contextlib.contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold a state folder for this process alone.

    Raises:
        AlreadyRunning: another process holds it.
        ConfigError: it cannot be made.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"state: {state} cannot be used ({error.strerror}); name a folder to write in.") from error
    try:
        try:
            _take(handle)
        except OSError as error:
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
            raise AlreadyRunning(
                f"Process {holder} works in {state} already; stop it first, or give this one a state folder of its own."
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> None:
    """Lock it. Whoever only asks who runs (`running`) holds it for a moment too: one refusal is not the last word."""
    for _ in range(6):
        with contextlib.suppress(OSError):
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def running(state: Path) -> int | None:
    """The process that holds a state folder, if any does."""
    try:
        with (state / "lock").open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(file.read().strip() or 0) or None
    except (FileNotFoundError, ValueError):
        return None
    return None

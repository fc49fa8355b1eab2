"""Stopping for a while, or for good: a label may at any moment, and the round goes on without it.

A paused node trains for no further plan. What it has trained already it still hands over: to withhold a vector that its
peers' masks are bound to helps nobody, and the privacy it costs was debited before. A node that leaves destroys what it
has not handed over, and gets back what was reserved for it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from partbook.errors import AlreadyRunning, NodePaused, VaultError
from partbook.node.holding import running
from partbook.vault.disk import flush

_MARK: Final = "paused"
PATIENCE: Final = 120.0  # seconds for a running node to finish the message in hand


def pause(state: Path, why: str) -> None:
    """Train for no plan from now on; a running node obeys at once.

    Raises:
        VaultError: the mark cannot be written; nothing has changed.
    """
    mark = state / _MARK
    text = json.dumps({"since": datetime.now(UTC).isoformat(timespec="seconds"), "why": why})
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = mark.with_suffix(".part")
        temporary.write_text(text)
        temporary.replace(mark)
        flush(state)
    except OSError as error:
        raise VaultError(f"{mark} cannot be written ({error.strerror}); the node is NOT paused: stop it.") from error


def resume(state: Path) -> bool:
    """Take part again; returns whether it was paused."""
    mark = state / _MARK
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


def paused(state: Path) -> str | None:
    """Since when and why the node is paused; None where it is not. A mark that cannot be read counts."""
    try:
        found = json.loads((state / _MARK).read_text())
        return f"since {found['since']}" + (f": {found['why']}" if found["why"] else "")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "for a reason that cannot be read"


def must_not_be_paused(state: Path, member: str) -> None:
    """Return if the node may train.

    Raises:
        NodePaused: it may not.
    """
    found = paused(state)
    if found is not None:
        raise NodePaused(f"{member} is paused and trains for no plan until its engineer resumes it.")


def stop_running(state: Path) -> bool:
    """End the node that works in `state` in good order; returns whether there was one.

    Raises:
        AlreadyRunning: it does not end.
    """
    process = running(state)
    if process is None:
        return False
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while running(state) is not None:
        if time.monotonic() > deadline:
            raise AlreadyRunning(
                f"Process {process} has not ended after {PATIENCE:g} s; it may be training. Try again."
            )
        time.sleep(0.1)
    return True

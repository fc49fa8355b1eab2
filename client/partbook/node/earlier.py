"""The earlier life of a node that was killed: its number at the coordinator, if it surely is over.

A node that ends without a word counts as online for two more heartbeats, and until then nobody with its key is let in.
Whoever holds the lock on its state folder knows better, and may say goodbye in its place. That is so only where it
lived: the same folder, since the machine was started. A copy of the folder, on another machine or beside it, knows
nothing: the original may well be alive, and two nodes with one key would keep two ledgers.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Final

_FILE: Final = "online"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def remember(state: Path, node: int) -> None:
    """This process is online under this number. A disk that is full costs the next life half a minute, no more."""
    with contextlib.suppress(OSError):
        (state / _FILE).write_text(json.dumps({"node": node, **_where(state)}))


def recall(state: Path) -> int | None:
    """The number of the life that ended here; whoever asks holds the folder's lock."""
    try:
        found = json.loads((state / _FILE).read_text())
        node = int(found.pop("node"))
        return node if found == _where(state) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def forget(state: Path) -> None:
    """It said goodbye itself."""
    (state / _FILE).unlink(missing_ok=True)


def _where(state: Path) -> dict[str, str | int]:
    lock = os.stat(state / "lock")
    return {"boot": _BOOT.read_text().strip(), "device": lock.st_dev, "inode": lock.st_ino}

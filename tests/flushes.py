"""What is asked of the disk, in order: a power cut is too much for a test, and which flush comes before what is not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


def watched(patch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with each flush of a file that holds something, or of a folder, and with each new name."""
    seen: list[str] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def flushed(descriptor: int) -> None:
        found = os.fstat(descriptor)
        where = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        seen.append(f"folder {where}" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} bytes")
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        seen.append(f"named {Path(target).name}")
        replace(source, target)

    def renamed(source: Path, target: Path) -> None:
        seen.append(f"named {Path(target).name}")
        rename(source, target)

    patch.setattr(os, "fsync", flushed)
    patch.setattr(os, "replace", replaced)
    patch.setattr(os, "rename", renamed)
    return seen

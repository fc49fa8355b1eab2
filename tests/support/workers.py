"""The processes that multiprocessing spawned for somebody."""

from __future__ import annotations

import contextlib
import os

import psutil


def workers_of(pid: int | None = None) -> list[psutil.Process]:
    """Those below a process, this one where None, that have not ended."""
    found = []
    for child in psutil.Process(pid or os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found

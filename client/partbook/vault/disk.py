"""What a disk has to promise before anything rests on it."""

from __future__ import annotations

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

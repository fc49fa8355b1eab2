"""The C heap of a process that asks for the same large arrays over and over: a training's.

glibc gives an array above a threshold back to the kernel when it is freed, and gets its pages anew, zeroed and one
fault each, at the next step. Kept instead, a step of the small model takes a tenth less of a core's time.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1  # malloc.h
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3
_MOST: Final = 2**31 - 1
_PAD: Final = 2**28


def keep_freed_memory() -> bool:
    """Keep freed memory for the next array, in this process; returns whether its C library can (glibc)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, _MOST), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, _PAD))
    return all(mallopt(which, size) == 1 for which, size in settings)

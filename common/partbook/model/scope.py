"""Which of the adapter's numbers a federation trains.

Noise grows with the root of how many numbers carry it, so a small federation may do better with fewer:

    all     every adapted matrix and every norm of the decoder
    norms   the decoder's norms alone (5,632 of the small model's 95,744)
"""

from __future__ import annotations

from typing import Literal

Scope = Literal["all", "norms"]

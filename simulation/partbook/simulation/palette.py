"""Colours that every picture shares, so that a label looks the same wherever it appears.

The first four label colours follow Okabe & Ito 2008, "Color universal design", which people with any colour
vision can tell apart, darkened where need be to a contrast of 4.5:1 on white; the rest follow suit.
"""

from __future__ import annotations

from typing import Final

LABEL_COLOURS: Final = ("#0072B2", "#C75500", "#00805D", "#A8518A", "#946600", "#4B5563")
INK: Final = "#1D2433"
SOFT_INK: Final = "#5B6475"
RULE: Final = "#D9D3C7"
PAPER: Final = "#FBF8F2"
CARD: Final = "#FFFFFF"
ACCENT: Final = "#7A1F2B"  # oxblood, as on a bound partbook


def label_colour(index: int) -> str:
    """The colour of the label at a place in the roster; from the seventh on, colours come round again."""
    return LABEL_COLOURS[index % len(LABEL_COLOURS)]

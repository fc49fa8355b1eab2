"""A drawing of what each exchange costs: bytes out and in, and time of work, for every party, by exchange."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from partbook.simulation.diagram import in_bytes
from partbook.simulation.palette import INK, RULE, SOFT_INK, label_colour
from partbook.simulation.report_parts import brief

if TYPE_CHECKING:
    from partbook.simulation.report import DemoReport, ExchangeReport

_WIDTH: Final = 340
_LEFT, _RIGHT = 82, 68  # for names and for numbers
_BAR: Final = 4.5
_GAP: Final = 9.0  # between exchanges
_TOP: Final = 26


def exchange_panels(report: DemoReport) -> str:
    """Three panels side by side, or below each other on a phone: sent, received, worked."""
    colours = {label.name: label_colour(index) for index, label in enumerate(report.labels)}
    panels: tuple[tuple[str, str, Callable[[ExchangeReport], float], Callable[[float], str]], ...] = (
        ("Sent", "bytes of one message", lambda entry: entry.bytes_sent, in_bytes),
        ("Received", "bytes of one message", lambda entry: entry.bytes_received, in_bytes),
        ("Worked", "time over one message", lambda entry: entry.seconds, brief),
    )
    figures = "".join(
        f"<figure><figcaption>{name}: {unit}</figcaption>"
        f"{_panel(report.exchanges, colours, f'{name}, {unit}, by exchange and party', value, words)}</figure>"
        for name, unit, value, words in panels
    )
    keys = "".join(
        f'<span><i class="dot" style="background:{colours.get(party, INK)}"></i>{escape(party)}</span>'
        for party in dict.fromkeys(entry.party for entry in report.exchanges)
    )
    return (
        f'<div class="costs">{figures}</div><p class="note keys">{keys}</p><p class="note">Each grey line stands for '
        "ten times the one to its left. The number is the mean of all parties' messages.</p>"
    )


def _panel(
    entries: Sequence[ExchangeReport],
    colours: dict[str, str],
    about: str,
    value: Callable[[ExchangeReport], float],
    words: Callable[[float], str],
) -> str:
    each = [(entry, value(entry) / max(entry.messages, 1)) for entry in entries]
    known = [number for _, number in each if number > 0] or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    high = max(high, low + 1)
    span = _WIDTH - _LEFT - _RIGHT

    def across(number: float) -> float:
        return span * (math.log10(max(number, 10.0**low)) - low) / (high - low)

    parts, y = [], float(_TOP)
    for kind in dict.fromkeys(entry.kind for entry in entries):
        row = [(entry.party, number) for entry, number in each if entry.kind == kind]
        tall = max(_BAR * len(row), 12.0)
        middle = y + tall / 2
        begin = middle - _BAR * len(row) / 2
        parts.append(f'<text x="{_LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(_short(kind))}</text>')
        for index, (party, number) in enumerate(row):
            parts.append(
                f'<rect x="{_LEFT}" y="{begin + index * _BAR:.1f}" width="{max(across(number), 1.5):.1f}" '
                f'height="{_BAR - 1:.1f}" rx="1" fill="{colours.get(party, INK)}"/>'
            )
        mine = [entry for entry in entries if entry.kind == kind]
        mean = sum(map(value, mine)) / max(sum(entry.messages for entry in mine), 1)
        parts.append(
            f'<text x="{_WIDTH - 4}" y="{middle + 4:.1f}" text-anchor="end" fill="{INK}">{escape(words(mean))}</text>'
        )
        y += tall + _GAP
    lines = []
    every = 2 if high - low > 4 else 1
    for decade in range(low, high + 1):
        x = _LEFT + across(10.0**decade)
        lines.append(f'<path d="M{x:.1f} {_TOP - 6}V{y - _GAP / 2:.1f}" stroke="{RULE}"/>')
        if (decade - low) % every == 0:
            lines.append(
                f'<text x="{x:.1f}" y="{_TOP - 11}" text-anchor="middle" font-size="10.5">'
                f"{escape(words(10.0**decade).replace('.0 ', ' ').replace('.00 ', ' '))}</text>"
            )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {y:.0f}" role="img" aria-label="{escape(about)}" font-size="12.5" '
        f'fill="{SOFT_INK}">{"".join(lines)}{"".join(parts)}</svg>'
    )


def _short(kind: str) -> str:
    return kind.removeprefix("query.")

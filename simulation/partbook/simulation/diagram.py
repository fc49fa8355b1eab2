"""A drawing of the federation: each label's house with its audio locked in, what travels, and who can read what.

Plain SVG text, made by hand so that it needs no library, scales, prints, and brings its own background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from partbook.simulation.palette import ACCENT, CARD, INK, PAPER, RULE, SOFT_INK, label_colour

SERIF: Final = "'Iowan Old Style','Palatino Linotype',Palatino,Georgia,serif"
SANS: Final = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
_HOUSE_WIDTH: Final = 252
_HOUSE_HEIGHT: Final = 266
_ROOF: Final = 58
_GUTTERS: Final = (36, 62)  # between houses of one row; wider where strands run between them
_OVERHANG: Final = 12
_MARGIN: Final = 48
_ROW_GAP: Final = 46
_SUM: Final = "#9AA1AE"  # what comes back: the sum, or the model
_LANES: Final = 118  # height in which the strands run together


@dataclass(frozen=True, slots=True)
class House:
    """One label in the drawing.

    Attributes:
        name: of the label.
        about: what it recorded, such as "Bach's chorales".
        instrument: on what.
        recordings: how many it trained on; None to leave the count out.
        sent, received: bytes between its node and the coordinator; None to leave them out.
    """

    name: str
    about: str
    instrument: str
    recordings: int | None = None
    sent: int | None = None
    received: int | None = None


def in_bytes(count: float) -> str:
    """A number of bytes as a person reads it: 1,234 bytes is "1.2 kB"."""
    for unit, digits in (("B", 0), ("kB", 1), ("MB", 1)):
        if count < 999.5:
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def federation_svg(
    houses: Sequence[House],
    *,
    custodian: str | None,
    columns: int = 4,
    standalone: bool = False,
    identifier: str = "federation",
    noise: bool = False,
) -> str:
    """Draw a federation.

    Args:
        houses: the labels, in roster order.
        custodian: who opens the sums of sealed rounds; None where they are masked only, and the coordinator reads them.
        columns: houses side by side; 4 suits a screen, 2 a phone.
        standalone: with the XML namespace, to be a file of its own rather than part of a page.
        identifier: prefix of the ids in the drawing; must differ between drawings on one page.
        noise: whether the labels add some to what they send.

    Returns:
        An `<svg>` element with a title and a description for those who cannot see it.
    """
    columns = max(1, min(columns, len(houses)))
    rows = math.ceil(len(houses) / columns)
    gutter = _GUTTERS[rows > 1]
    inner = columns * _HOUSE_WIDTH + (columns - 1) * gutter
    width = max(inner, 2 * _HOUSE_WIDTH + gutter) + 2 * _MARGIN
    left = (width - inner) / 2
    top = 40
    floor = top + rows * _HOUSE_HEIGHT + (rows - 1) * _ROW_GAP
    stage = floor + _LANES
    wide = columns > 2
    height = stage + (136 if wide else 290) + 56
    sealed = custodian is not None
    centre = width / 2

    places = []
    for index in range(len(houses)):
        row, column = divmod(index, columns)
        x, y = left + column * (_HOUSE_WIDTH + gutter), top + row * (_HOUSE_HEIGHT + _ROW_GAP)
        middle = lane = x + _HOUSE_WIDTH / 2
        if row < rows - 1:  # round the house below, through the gutter nearer the middle
            toward = 1 if middle < centre else -1
            lane = middle + toward * (_HOUSE_WIDTH / 2 + gutter / 2 - 12)
        places.append((x, y, middle, lane))
    # Left to right they arrive as they come, so no two strands cross.
    order = sorted(range(len(houses)), key=lambda i: places[i][3])
    strands, drawn = [""] * len(houses), []
    for rank, index in enumerate(order):
        x, y, middle, exit_at = places[index]
        way_round = exit_at if y + _HOUSE_HEIGHT < floor else None
        goal = centre + (rank - (len(houses) - 1) / 2) * min(72, 280 / len(houses))
        strands[index] = _strand(middle, y + _HOUSE_HEIGHT, way_round, floor, goal, stage, label_colour(index))
    for index, (house, (x, y, _, _)) in enumerate(zip(houses, places, strict=True)):
        drawn.append(_house(x, y, house, label_colour(index), index))

    names = ", ".join(house.name for house in houses)
    if sealed:
        way = (
            "Only masked and sealed updates go to a coordinator, which adds them up without being able to read even "
            f"the sum. {custodian} opens the sum for the labels"
        )
    else:
        way = (
            "Only masked updates go to a coordinator, which can read their sum and nothing else of them, and sends the "
            "shared model back"
        )
    noised = " Each label has added noise to its update first." if noise else ""
    description = (
        f"Labels {names} each keep their recordings locked in. {way}.{noised} A signed generator comes out, from which "
        "a composer gets MIDI and WAV."
    )
    namespace = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    below = (_wide_stage if wide else _tall_stage)(width, stage, custodian)
    return (
        f'<svg{namespace} viewBox="0 0 {width:.0f} {height:.0f}" role="img" font-family="{SANS}" '
        f'aria-labelledby="{identifier}-title {identifier}-description">'
        f'<title id="{identifier}-title">The federation</title>'
        f'<desc id="{identifier}-description">{escape(description)}</desc>'
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="18" fill="{PAPER}"/>'
        f'<rect x="1" y="1" width="{width - 2:.0f}" height="{height - 2:.0f}" rx="17" fill="none" '
        f'stroke="{RULE}"/>'
        f"{''.join(strands)}{''.join(drawn)}{below}{_legend(width, height, sealed, noise)}</svg>"
    )


def _text(
    x: float, y: float, words: str, size: float, *, fill: str = INK, weight: int = 400, serif: bool = False,
    anchor: str = "middle",
) -> str:  # fmt: skip
    family = f' font-family="{SERIF}"' if serif else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}"{family}>{escape(words)}</text>'
    )


def _short(words: str, limit: int) -> str:
    return words if len(words) <= limit else words[: limit - 1].rstrip() + "…"


def _house(x: float, y: float, house: House, colour: str, index: int) -> str:
    middle, eaves, bottom = x + _HOUSE_WIDTH / 2, y + _ROOF, y + _HOUSE_HEIGHT
    parts = [
        f'<rect x="{x + _HOUSE_WIDTH - 62:.1f}" y="{y + 4:.1f}" width="22" height="40" fill="{colour}" opacity=".75"/>',
        f'<path d="M{x:.1f} {eaves - 2:.1f}V{bottom - 8:.1f}q0 8 8 8H{x + _HOUSE_WIDTH - 8:.1f}q8 0 8 -8'
        f'V{eaves - 2:.1f}Z" fill="{CARD}" stroke="{RULE}" stroke-width="1.5"/>',
        f'<path d="M{x - _OVERHANG:.1f} {eaves:.1f}L{middle:.1f} {y:.1f}'
        f'L{x + _HOUSE_WIDTH + _OVERHANG:.1f} {eaves:.1f}Z" '
        f'fill="{colour}" stroke="{colour}" stroke-width="5" stroke-linejoin="round"/>',
        _text(middle, eaves + 32, _short(house.name, 22), 21, weight=700, serif=True),
        _text(middle, eaves + 53, _short(house.about, 32), 15, fill=SOFT_INK),
        _text(middle, eaves + 73, _short(house.instrument, 32), 15, fill=SOFT_INK),
        _waveform(x + 26, eaves + 113, _HOUSE_WIDTH - 52, colour, index),
        _padlock(middle, eaves + 113, colour),
    ]
    if house.recordings is None:
        parts.append(_text(middle, eaves + 170, "its recordings stay here", 16, weight=600))
    else:
        noun = "recording stays" if house.recordings == 1 else "recordings stay"
        parts.append(_text(middle, eaves + 170, f"{house.recordings:,} {noun} here", 16, weight=600))
    if house.sent is not None and house.received is not None:
        words = f"{in_bytes(house.sent)} out · {in_bytes(house.received)} in"
        parts.append(_text(middle, eaves + 194, words, 15, fill=SOFT_INK))
    return "".join(parts)


def _waveform(x: float, y: float, width: float, colour: str, index: int) -> str:
    """Bars whose heights are two beating sines: sound, but nobody's."""
    bars, step = [], 6.0
    for bar in range(int(width / step)):
        phase = bar / (width / step)
        swell = 0.35 + 0.65 * math.sin(math.pi * phase) ** 0.7
        level = 4 + 22 * swell * abs(math.sin((5 + index) * math.pi * phase + index) * math.cos(17 * phase + 2 * index))
        bars.append(f"M{x + bar * step + 1.5:.1f} {y - level:.1f}V{y + level:.1f}")
    return f'<path d="{"".join(bars)}" stroke="{colour}" stroke-width="3" stroke-linecap="round" opacity=".38"/>'


def _padlock(x: float, y: float, colour: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="27" fill="{CARD}"/>'
        f'<path d="M{x - 9:.1f} {y - 3:.1f}v-6a9 9 0 0 1 18 0v6" fill="none" stroke="{colour}" '
        f'stroke-width="4.5"/>'
        f'<rect x="{x - 15:.1f}" y="{y - 4:.1f}" width="30" height="23" rx="4.5" fill="{colour}"/>'
        f'<path d="M{x:.1f} {y + 4:.1f}v6" stroke="{CARD}" stroke-width="4" stroke-linecap="round"/>'
    )


def _strand(x: float, start: float, lane: float | None, floor: float, goal: float, stage: float, colour: str) -> str:
    """Two lines between a house and the coordinator: its updates down, in colour; what comes back, in grey."""
    lines = []
    for shift, stroke, down in ((-7.0, colour, True), (7.0, _SUM, False)):
        begin, end = start + (3 if down else 12), stage - (11 if down else 3)
        if lane is None:
            way = f"M{x + shift:.1f} {begin:.1f}"
        else:
            bend = start + _ROW_GAP - 18
            way = (
                f"M{x + shift:.1f} {begin:.1f}V{start + 12:.1f}C{x + shift:.1f} {bend + 6:.1f} "
                f"{lane + shift:.1f} {start:.1f} {lane + shift:.1f} {bend + 34:.1f}V{floor:.1f}"
            )
        origin = x if lane is None else lane
        from_y = begin if lane is None else floor
        half = (stage - floor) * 0.55
        way += (
            f"C{origin + shift:.1f} {from_y + half:.1f} {goal + shift:.1f} {stage - half:.1f} "
            f"{goal + shift:.1f} {end:.1f}"
        )
        lines.append(f'<path d="{way}" fill="none" stroke="{stroke}" stroke-width="2.6"/>')
        tip_x, tip_y, turn = (goal + shift, stage - 2, 1) if down else (x + shift, start + 3, -1)
        lines.append(f'<path d="M{tip_x:.1f} {tip_y:.1f}l-5.5 {-11 * turn}h11Z" fill="{stroke}"/>')
    return "".join(lines)


def _box(x: float, y: float, width: float, fill: str, soft: str, name: str, lines: tuple[str, str]) -> str:
    middle = x + width / 2
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="104" rx="14" fill="{fill}"/>'
        + _text(middle, y + 38, name, 22, fill="#FFFFFF", weight=700, serif=True)
        + _text(middle, y + 63, lines[0], 14.5, fill=soft)
        + _text(middle, y + 83, lines[1], 14.5, fill=soft)
    )


def _coordinator(x: float, y: float, width: float, sealed: bool) -> str:
    masked = ("adds the masked updates up,", "reads only their sum")
    lines = ("adds masked, sealed updates up,", "cannot read even their sum") if sealed else masked
    return _box(x, y, width, INK, "#D7DCE5", "Coordinator", lines)


def _generator(x: float, y: float, width: float) -> str:
    return _box(x, y, width, ACCENT, "#F1DADD", "Generator", ("signed release", "over gRPC or files"))


def _custodian(x: float, y: float, width: float, name: str) -> str:
    lines = ("has the key, opens", "sums for the labels")
    return _box(x, y, width, "#33503F", "#D5E3DA", _short(name, 16), lines)


def _composer(x: float, y: float, width: float) -> str:
    """A stave with a few notes, and whom it is for."""
    middle = x + width / 2
    lines = "".join(f"M{x + 10:.1f} {y + 22 + 9 * i:.1f}h{width - 20:.1f}" for i in range(5))
    notes = ""
    for at, line in ((0.2, 4.0), (0.4, 2.5), (0.6, 3.0), (0.8, 1.0)):
        cx, cy = x + width * at, y + 22 + 9 * line
        notes += (
            f'<ellipse cx="{cx:.1f}" cy="{cy:.1f}" rx="6.2" ry="4.6" '
            f'transform="rotate(-20 {cx:.1f} {cy:.1f})" '
            f'fill="{INK}"/><path d="M{cx + 5.4:.1f} {cy - 1:.1f}v-28" stroke="{INK}" stroke-width="1.8"/>'
        )
    return (
        f'<path d="{lines}" stroke="{SOFT_INK}" stroke-width="1" opacity=".7"/>{notes}'
        + _text(middle, y + 86, "Composer", 20, weight=700, serif=True)
        + _text(middle, y + 106, "MIDI and WAV", 14, fill=SOFT_INK)
    )


def _arrow(x: float, y: float, dx: float, dy: float, colour: str = ACCENT) -> str:
    """From a point by so much, right or left, or down or up."""
    way = math.copysign(1, dx or dy)
    head = f"l{-11 * way:.0f} -5.5v11Z" if dx else f"l-5.5 {-11 * way:.0f}h11Z"
    stop = f"h{dx - 9 * way:.1f}" if dx else f"v{dy - 9 * way:.1f}"
    return (
        f'<path d="M{x:.1f} {y:.1f}{stop}" stroke="{colour}" stroke-width="3"/>'
        f'<path d="M{x + dx:.1f} {y + dy:.1f}{head}" fill="{colour}"/>'
    )


def _wide_stage(width: float, y: float, custodian: str | None) -> str:
    """Coordinator in the middle, the custodian to its left, generator and composer to its right."""
    middle, box = width / 2, 300.0
    generator, composer = middle + box / 2 + 52, width - _MARGIN - 144
    beside = ""
    if custodian is not None:
        office, room = middle - box / 2 - 52 - 200, 200.0
        beside = (
            _custodian(office, y, room, custodian)
            + _arrow(middle - box / 2 - 6, y + 40, -40, 0, _SUM)
            + _arrow(office + room + 6, y + 64, 40, 0, _SUM)
        )
    return (
        beside
        + _coordinator(middle - box / 2, y, box, custodian is not None)
        + _arrow(middle + box / 2 + 6, y + 52, 40, 0)
        + _generator(generator, y, 160)
        + _arrow(generator + 166, y + 52, composer - generator - 172, 0)
        + _composer(composer, y, 144)
    )


def _tall_stage(width: float, y: float, custodian: str | None) -> str:
    """Coordinator, and under it the custodian, generator and composer side by side."""
    middle, box, below = width / 2, 360.0, y + 104 + 52
    if custodian is None:
        return (
            _coordinator(middle - box / 2, y, box, False)
            + _arrow(middle - 90, y + 110, 0, 40)
            + _generator(middle - 190, below, 200)
            + _arrow(middle + 16, below + 52, 34, 0)
            + _composer(middle + 60, below, 150)
        )
    left = middle - 283
    return (
        _coordinator(middle - box / 2, y, box, True)
        + _custodian(left, below, 186, custodian)
        + _arrow(left + 118, y + 110, 0, 40, _SUM)
        + _arrow(left + 146, below - 6, 0, -40, _SUM)
        + _arrow(middle + 20, y + 110, 0, 40)
        + _generator(left + 210, below, 170)
        + _arrow(left + 386, below + 52, 34, 0)
        + _composer(left + 424, below, 142)
    )


def _legend(width: float, height: float, sealed: bool, noise: bool) -> str:
    y = height - 30
    down, up = ("masked updates, never audio", "the shared model, coming back")
    if sealed:
        down, up = ("masked and sealed updates, never audio", "their sum, for the labels only")
    if noise:  # as short as without
        down = "noised, masked, sealed; never audio" if sealed else "noised and masked; never audio"
    # Widths are guesses at 7.6 units a letter of this size; a fall-back font may differ.
    first = width / 2 - (34 + 7.6 * len(down) + 30 + 34 + 7.6 * len(up)) / 2
    second = first + 34 + 7.6 * len(down) + 30
    return (
        f'<path d="M{first:.1f} {y - 5:.1f}h26" stroke="{label_colour(0)}" stroke-width="3"/>'
        + _text(first + 34, y, down, 14, fill=SOFT_INK, anchor="start")
        + f'<path d="M{second:.1f} {y - 5:.1f}h26" stroke="{_SUM}" stroke-width="3"/>'
        + _text(second + 34, y, up, 14, fill=SOFT_INK, anchor="start")
    )

"""`evaluation.html`: is it music? One page that answers, shows, plays, and defines every number it holds.

The page stands alone: no script, font, picture or sound comes from elsewhere, its policy forbids it, and every string
from outside passes through `html.escape`. Beside it lies `evaluation.json` with the same numbers.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Final

from partbook.evaluation.drawing import AUC_AXIS, colour, gauge, place, ridges
from partbook.evaluation.measures import MEASURES, Measure
from partbook.evaluation.page_gallery import gallery
from partbook.evaluation.page_style import STYLE
from partbook.evaluation.page_tables import measure_table, surprise_tables, whole_table
from partbook.evaluation.results import Evaluation, Subject
from partbook.evaluation.wording import (
    answer,
    begun,
    calibration,
    counted,
    findings,
    label,
    lengths,
    main_subject,
    number,
    scale,
    verdict,
)

PAGE: Final = "evaluation.html"
DATA: Final = "evaluation.json"
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; base-uri 'none'; form-action 'none'"


def write_page(evaluation: Evaluation, folder: Path, on_piece: Callable[[str], None] = lambda _: None) -> Path:
    """Write `evaluation.html` and `evaluation.json` into a folder.

    Args:
        evaluation: all that they say.
        folder: in which the MIDI files of its galleries lie.
        on_piece: told the title of each piece when its player is made, the one part that takes time.

    Returns:
        The page.

    Raises:
        ScoreError: a gallery's MIDI file is missing or cannot be read.
    """
    html = page(evaluation, folder, on_piece)
    _write(folder / DATA, evaluation.to_json())
    _write(folder / PAGE, html)
    return folder / PAGE


def page(evaluation: Evaluation, folder: Path, on_piece: Callable[[str], None] = lambda _: None) -> str:
    """The page as one HTML document; see `write_page`."""
    surprises = surprise_tables(evaluation)
    pieces = gallery(evaluation, folder, on_piece)
    sections = [
        ("answer", "", _answer(evaluation)),
        ("measures", "Measure by measure", _measured(evaluation)),
        ("sets", "Sets as a whole", _whole(evaluation)),
        ("nats", "Nats a note: how well it predicts people", surprises and _NATS + surprises),
        ("distributions", "Distributions beside the human ones", _distributions(evaluation)),
        ("pieces", "Pieces to look at and play", pieces and _PIECES + pieces),
        ("definitions", "Definitions and sources", _definitions()),
        ("making", "How this page was made", _made(evaluation)),
    ]
    links = "".join(f'<a href="#{name}">{begun(name)}</a>' for name, title, body in sections if body and title)
    body = "\n".join(
        f'<section id="{name}">{f"<h2>{escape(title)}</h2>" if title else ""}{body}</section>'
        for name, title, body in sections
        if body
    )
    body = re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", body)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Is it music? {escape(_names(evaluation))}</title><style>{STYLE}</style></head>\n"
        f"<body>{_head(evaluation, links)}\n<main>{body}</main>\n"
        f"<footer>Every number on this page but times is in <code>{DATA}</code> beside it. The page holds all it "
        "shows and fetches nothing.</footer></body></html>\n"
    )


_NATS: Final = (
    "<p>A model reads works it has never seen, note by note, and is scored by how surprised it is: the negative "
    "logarithm of the probability it gave to what comes. Less is better. Noise has no such number: it predicts "
    "nothing.</p>"
)
_PIECES: Final = (
    "<p>Rolls show what was measured: the first 64 quarters, a solid line a bar, a dashed line a C. Players hold 20 "
    "seconds from the first note on. Suspicion: how sure the "
    "classifier on the measures is that no human wrote it, 0 to 1, by a model that has not seen the piece.</p>"
)


def _names(evaluation: Evaluation) -> str:
    subject = main_subject(evaluation)
    return subject.title if subject else ""


def _head(evaluation: Evaluation, links: str) -> str:
    subject = main_subject(evaluation)
    lead = ""
    if subject is not None:
        lead = f'<p class="lead"><b>{escape(subject.title)}:</b> {escape(answer(subject, evaluation))}</p>'
    return (
        f'<header><div class="mark">Partbook</div><h1>Is it music?</h1>{lead}'
        f'<p class="meta">{escape(lengths(evaluation))}</p><nav aria-label="Sections">{links}</nav></header>'
    )


def _answer(evaluation: Evaluation) -> str:
    tested = [(i, s) for i, s in enumerate(evaluation.subjects) if s.comparison is not None]
    low, high = AUC_AXIS
    ticks = "".join(
        f'<text x="{place(tick)}" y="13" font-size="12.5" text-anchor="{"end" if tick == high else "middle"}">'
        f"{number(tick, 1)}</text>"
        for tick in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
        if low <= tick <= high
    )
    rows = "".join(_row(index, subject) for index, subject in tested)
    keys = "".join(
        f'<span><svg viewBox="0 0 30 12" aria-hidden="true"><line class="reach" x1="2" x2="28" y1="6" y2="6"/>'
        f'<circle class="{mark}" cx="15" cy="6" r="4.6"/></svg>{words}</span>'
        for mark, words in (("mark-a", "by the measures"), ("mark-b", "by the notes as tokens"))
    )
    known = calibration(evaluation)
    cards = "".join(_card(index, subject, evaluation) for index, subject in enumerate(evaluation.subjects))
    return (
        '<div class="card"><h3>Can a classifier tell the pieces from human works?</h3>'
        '<p class="note">Area under the ROC curve with its 95 % interval: the chance that the classifier, given one '
        "of each, says rightly which is human. At .5 (dashed) nobody can tell; at 1 every piece gives itself away.</p>"
        f'<div class="row axis" aria-hidden="true"><span></span><svg style="height:18px;overflow:visible">{ticks}'
        f'</svg><span></span></div>{rows}<p class="note keys" style="margin:14px 0 0">{keys}</p>'
        + (f'<p class="note" style="margin:6px 0 0">{escape(known)}</p>' if known else "")
        + f'</div><div class="answers">{cards}</div>'
    )


def _row(index: int, subject: Subject) -> str:
    comparison = subject.comparison
    assert comparison is not None, "only subjects with pieces are in the figure"
    return (
        f'<div class="row {colour(index)}"><div class="who"><span class="dot"></span><span>{escape(subject.title)}'
        f"<small>{counted(comparison.pieces, 'piece')}</small></span></div>"
        f"{gauge(comparison.features, comparison.tokens, colour(index), subject.title)}"
        f'<div class="says">{escape(begun(verdict(subject)))}</div></div>'
    )


def _card(index: int, subject: Subject, evaluation: Evaluation) -> str:
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings(subject, evaluation))
    return (
        f'<article class="card {colour(index)}"><h3><span class="dot"></span>{escape(subject.title)}</h3>'
        f'<p class="verdict">{escape(begun(verdict(subject)))}</p><ul>{said}</ul>'
        f'<p class="note" style="margin:0">{escape(subject.about)}</p></article>'
    )


def _measured(evaluation: Evaluation) -> str:
    return (
        "<p>A piece of music can be unlike another in many ways at once; a measure looks at one of them. Eight in ten "
        "human works lie inside the band, so a set of pieces that is like them has its medians there and some 80 % of "
        'its pieces.</p><p class="note keys"><span><span class="out">▲</span>median above or below the band</span>'
        '<span><span class="far">▲</span>by more than half its width</span></p>' + measure_table(evaluation)
    )


def _whole(evaluation: Evaluation) -> str:
    return (
        "<p>The two-sample tests ask whether a set can be told from human works at all. n-gram precision and shared "
        "runs ask the opposite: how much of the melody is found in works that exist, in any key and at any tempo. A "
        "long run shared with training is a copy; human works share runs too, and how long theirs are is the "
        "yardstick.</p>" + whole_table(evaluation)
    )


def _distributions(evaluation: Evaluation) -> str:
    parts, group = [], ""
    for measure in MEASURES:
        if measure.name not in evaluation.bands:
            continue
        if measure.group != group:
            parts.append(f'{"</div>" * bool(group)}<h3>{measure.group}</h3><div class="panels">')
            group = measure.group
        parts.append(_panel(measure, evaluation))
    if not parts:
        return ""
    return (
        "<p>Each hill is a set of pieces, its height how many lie there; a tick marks the median. Grey: human works, "
        "and behind all hills the band in which eight in ten of them lie. What lies beyond the edge is drawn at the "
        "edge.</p>" + "".join(parts) + "</div>"
    )


def _panel(measure: Measure, evaluation: Evaluation) -> str:
    how, band = scale(measure), evaluation.bands[measure.name]
    sets = [
        (s.title, s.values[measure.name], colour(i))
        for i, s in enumerate(evaluation.subjects)
        if measure.name in s.values
    ]
    medians = "; ".join(
        f"{s.title} {how.one(s.comparison.measures[measure.name].median.value)}"
        for s in evaluation.subjects
        if s.comparison is not None and measure.name in s.values
    )
    about = f"{label(measure)}: human works {how.one(band[1])}, 10 to 90 % {how.range(band[0], band[2])}; {medians}"
    drawn = ridges(evaluation.reference_values.get(measure.name, ()), band, sets, how, about)
    unit = f" <small>{escape(how.unit)}</small>" if how.unit else ""
    return f"<figure><figcaption>{escape(measure.title)}{unit}</figcaption>{drawn}</figure>"


def _definitions() -> str:
    items = []
    for measure in MEASURES:
        how = scale(measure)
        unit = {"%": "percent", "": "a number without unit", "MIDI": "MIDI note numbers"}.get(how.unit, how.unit)
        marks = [
            *{1: ["more is more like music"], -1: ["less is more like music"], 0: []}[measure.sense],
            *(["claims to measure how bars follow one another"] if measure.structural else []),
            *(["of the whole piece"] if measure.whole else []),
        ]
        items.append(
            f"<dt>{escape(measure.title)} <code>{measure.name}</code></dt><dd>{escape(measure.definition)}</dd>"
            f'<dd class="note">In {escape(unit)}{"".join(f"; {mark}" for mark in marks)}. Source: '
            f"{escape(measure.source)}</dd>"
        )
    return (
        f'<details><summary>All {len(MEASURES)} measures: what, unit, source</summary><dl class="measures">'
        f"{''.join(items)}</dl></details>"
    )


def _made(evaluation: Evaluation) -> str:
    facts = [("Command", f"<code>{escape(evaluation.command)}</code>")]
    facts += [("Seed", str(evaluation.seed)), ("Reference", escape(evaluation.reference))]
    times = "; ".join(f"{s.title} {number(s.seconds, 0)} s" for s in evaluation.subjects if s.seconds > 0)
    facts += [("Time", escape(times))] * bool(times)
    facts += [(escape(what), escape(value)) for what, value in evaluation.machine]
    notes = "".join(f"<li>{escape(note)}</li>" for note in evaluation.notes)
    return (
        f'<dl class="facts">{"".join(f"<dt>{what}</dt><dd>{value}</dd>" for what, value in facts)}</dl>'
        + f'<ul class="notes-list">{notes}</ul>' * bool(notes)
    )


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's 0600 is for secrets; this is to be shown
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

"""The part of `report.html` that asks whether what was written is music: the short form of an evaluation."""

from __future__ import annotations

import math
from html import escape

from partbook.evaluation.brief import HEADLINES, QUARTERS, Brief, BriefRow
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.measures import by_name
from partbook.simulation.report_parts import table


def is_it_music(brief: Brief) -> str:
    """A sentence and a table: the generator, human works, and what a failure looks like."""
    first = brief.rows[0]
    rows = [
        (
            "Told from human works by its measures (0.5: not at all)",
            "0.5",
            *(_auc(r.comparison.features) for r in brief.rows),
        ),
        ("Told from human works by its tokens", "0.5", *(_auc(r.comparison.tokens) for r in brief.rows)),
    ]
    for name in HEADLINES:
        measure = by_name(name)
        band = "–" if math.isnan(brief.bands[name][0]) else " – ".join(map(_number, brief.bands[name]))
        title = f"{measure.title} ({measure.unit})" if measure.unit else measure.title
        rows.append((title, band, *(_median(brief, row, name) for row in brief.rows)))
    columns = ("", "Human works, 10 – 50 – 90 %", *(f"{r.title} ({r.comparison.pieces})" for r in brief.rows))
    return (
        f"<h3>Is it music?</h3><p>{escape(_verdict(brief))} The release wrote {first.comparison.pieces} pieces of "
        f"{QUARTERS:g} quarters, given nothing but a genre; they are held against {brief.works} human works "
        f"({escape(brief.reference)}). Each number is the median over pieces, marked * outside the band in which eight "
        f"of ten human works lie.{escape(_hand(brief))} "
        "<code>partbook evaluate</code> measures all there is, at length.</p>"
        + table(columns, rows, caption="The release's pieces, human works, and noise")
    )


def _hand(brief: Brief) -> str:
    """What of it is the transcriber's doing: human works as a node hears them are told from scores as well."""
    for row in brief.rows:
        if row.kind == "human" and row.comparison.features.value >= 0.75:
            return (
                f" {row.title} are told from scores too (AUC {_auc(row.comparison.features)}): part of the difference "
                "is how a transcription is written down."
            )
    return ""


def _verdict(brief: Brief) -> str:
    row = brief.rows[0]
    auc = row.comparison.features
    known = [name for name in HEADLINES if not math.isnan(row.comparison.measures[name].median.value)]
    known = [name for name in known if not math.isnan(brief.bands[name][0])]
    inside = sum(not _outside(brief, row, name) for name in known)
    medians = f"{inside} of {len(known)} medians lie where human works do."
    if math.isnan(auc.value):
        return f"There are too few pieces to say; {medians}"
    if auc.value >= 0.95:
        said = "No: a small classifier tells nearly every piece of the release from human works"
    elif auc.value >= 0.75:
        said = "Not yet: a small classifier mostly tells the release's pieces from human works"
    elif auc.high >= 0.6:
        said = "Nearly: a small classifier has trouble telling the release's pieces from human works"
    else:
        said = "By these measures, yes: a small classifier cannot tell the release's pieces from human works"
    return f"{said} (AUC {_auc(auc)}); {medians}"


def _outside(brief: Brief, row: BriefRow, name: str) -> bool:
    median = row.comparison.measures[name].median.value
    low, _, high = brief.bands[name]
    return not (math.isnan(median + low + high) or low - 1e-9 <= median <= high + 1e-9)


def _median(brief: Brief, row: BriefRow, name: str) -> str:
    return _number(row.comparison.measures[name].median.value) + ("*" if _outside(brief, row, name) else "")


def _auc(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "–"
    return f"{estimate.value:.2f} ({estimate.low:.2f}–{estimate.high:.2f})"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"

"""The tables of `evaluation.html`: subjects are columns, and what is measured of them rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from partbook.evaluation.comparison import Comparison, Spread
from partbook.evaluation.drawing import colour
from partbook.evaluation.estimates import Estimate
from partbook.evaluation.measures import MEASURES, Measure
from partbook.evaluation.results import Evaluation, Hand, Subject, Surprise
from partbook.evaluation.wording import (
    DASH,
    collections,
    counted,
    distance,
    interval,
    number,
    percent,
    scale,
    side,
)

_FAR: Final = 0.5  # widths of the band beyond which a median is shaded darker
_ARROWS: Final = {"above": "▲", "below": "▼"}
_HANDS: Final = {"score": "as written", "heard": "as heard"}

Columns = Sequence[tuple[int, Subject]]


def measure_table(evaluation: Evaluation) -> str:
    """Every measure: the reference's band, then each subject's median, interval, share inside, overlapping area."""
    columns = [(i, s) for i, s in enumerate(evaluation.subjects) if s.comparison is not None]
    rows, group = [], ""
    for measure in MEASURES:
        if measure.name not in evaluation.bands:
            continue
        if measure.group != group:
            group = measure.group
            rows.append(_group(group, len(columns) + 1))
        low, middle, high = evaluation.bands[measure.name]
        how = scale(measure)
        band = (
            f'<td class="band">{escape(how.one(middle))}<small>{escape(how.range(low, high))}</small></td>'
        )  # fmt: skip
        cells = "".join(_spread(s.comparison, measure, evaluation) for _, s in columns)
        rows.append(f"<tr>{_head(measure.title, how.unit)}{band}{cells}</tr>")
    human = f'<th scope="col">Human works<small>{counted(evaluation.works, "work")}</small></th>'
    return _table(
        "Measures of the pieces: the median with its 95 % interval over pieces; under it the share of pieces inside "
        "the band of the human works (10 to 90 %), and the overlapping area with them, 0 to 1. Human works: the "
        "median, and the band.",
        "Measure",
        human + _heads(columns),
        rows,
        tall=True,
    )


def _spread(comparison: Comparison | None, measure: Measure, evaluation: Evaluation) -> str:
    spread = comparison.measures.get(measure.name) if comparison else None
    if spread is None or comparison is None or math.isnan(spread.median.value):
        return f"<td>{DASH}</td>"
    how, band = scale(measure), evaluation.bands[measure.name]
    median = spread.median
    where = side(median.value, band)
    shade = "" if not where else ' class="far"' if distance(median.value, band) > _FAR else ' class="out"'
    arrow = (
        f' <span aria-hidden="true">{_ARROWS[where]}</span><span class="unseen">{where} the band</span>'
        if where
        else ""
    )
    inside = DASH if math.isnan(band[0]) else percent(spread.inside.value)
    return (
        f"<td{shade}><b>{escape(how.one(median.value))}</b>{arrow}"
        f"<small>{escape(how.range(median.low, median.high))}</small>"
        f"<small>{escape(inside)} in · {escape(number(spread.overlap))}</small>"
        f"{_undefined(spread, comparison)}</td>"
    )


def _undefined(spread: Spread, comparison: Comparison) -> str:
    return f"<small>of {comparison.pieces - spread.undefined} pieces</small>" if spread.undefined else ""


def whole_table(evaluation: Evaluation) -> str:
    """What is asked of a set as a whole: two-sample tests, likeness to works, sound, style."""
    columns = [(i, s) for i, s in enumerate(evaluation.subjects) if s.comparison is not None]
    compared: list[tuple[str, str, Callable[[Comparison], str]]] = [
        ("Two-sample test, measures", "AUC; .5 cannot be told, 1 always", lambda c: _estimate(c.features)),
        ("Two-sample test, tokens", "AUC", lambda c: _estimate(c.tokens)),
        ("n-gram precision", "of melodies against the human works, 0–1", lambda c: _estimate(c.precision)),
        (
            "Run shared with human works",
            "notes, median; longest of all",
            lambda c: _run(c.heldout_run, c.heldout_longest),
        ),
        (
            "Run shared with training",
            "notes, median; longest of all",
            lambda c: _run(c.training_run, c.training_longest),
        ),
    ]  # fmt: skip
    rows = [_group("Likeness", len(columns))]
    rows += [
        f"<tr>{_head(title, unit)}{''.join(cell(s.comparison) for _, s in columns if s.comparison)}</tr>"
        for title, unit, cell in compared
    ]
    if any(s.listening for _, s in columns):
        rows.append(_group("Sound", len(columns)))
        rows.append(
            _row(
                "Fréchet audio distance",
                "to the human works; less is nearer",
                columns,
                lambda s: (
                    _estimate(s.listening.distance, 1, f"{counted(s.listening.clips, 'clip')}") if s.listening else None
                ),
            )
        )
        rows.append(
            _row(
                "Inception-style score",
                "on tags; more is clearer and more varied",
                columns,
                lambda s: _estimate(s.listening.score) if s.listening else None,
            )
        )
    if any(s.style for _, s in columns):
        rows.append(_group("Style", len(columns)))
        rows.append(
            _row(
                "Heard in the style asked for",
                "% of pieces; of human works; by chance",
                columns,
                lambda s: (
                    _share(
                        s.style.right,
                        f"human {percent(s.style.human.value)}, chance {percent(s.style.chance)}",
                        counted(s.style.pieces, "piece"),
                    )
                    if s.style
                    else None
                ),
            )
        )
    return _table("Sets of pieces as a whole, with 95 % intervals", "Asked of the set", _heads(columns), rows)


def surprise_tables(evaluation: Evaluation) -> str:
    """Nats a note and a token of every model on the held-out works, and on what repeats; empty without models."""
    columns = [(i, s) for i, s in enumerate(evaluation.subjects) if s.surprise]
    if not columns:
        return ""
    pairs = collections([s for _, s in columns])

    def rows(cell: Callable[[Surprise], str]) -> list[str]:
        found = []
        for collection, hand in pairs:
            of = [_of(s, collection, hand) for _, s in columns]
            works = sorted({surprise.works for surprise in of if surprise})
            unit = f"{_HANDS[hand]}, {'/'.join(f'{w:,}' for w in works)} work{'s' * (works != [1])}"
            cells = "".join(cell(surprise) if surprise else f"<td>{DASH}</td>" for surprise in of)
            found.append(f"<tr>{_head(collection, unit)}{cells}</tr>")
        return found

    first = _table(
        "Nats a note on held-out human works, with 95 % intervals over works; under it nats a token and perplexity. "
        "Less is better; ≤ marks an upper bound.",
        "Collection",
        _heads(columns, pieces=False),
        rows(_nats),
    )
    second = _table(
        "Nats a note on bars that repeat an earlier bar of the model's own window verbatim, and on all others. A model "
        "that hears repetition is far less surprised by the former.",
        "Collection",
        _heads(columns, pieces=False),
        rows(_repeated),
    )
    return f"{first}{second}"


def _of(subject: Subject, collection: str, hand: Hand) -> Surprise | None:
    return subject.surprise.get(collection, {}).get(hand)


def _nats(surprise: Surprise) -> str:
    if math.isnan(surprise.per_note.value):
        return f"<td>{DASH}</td>"
    bound = "≤ " * surprise.bound
    note, token, many = surprise.per_note, surprise.per_token, surprise.perplexity
    return (
        f"<td><b>{bound}{number(note.value)}</b><small>{interval(note.low, note.high)}</small>"
        f"<small>token {bound}{number(token.value)}, {interval(token.low, token.high)}</small>"
        f"<small>perpl. {bound}{number(many.value)}, {interval(many.low, many.high)}</small></td>"
    )


def _repeated(surprise: Surprise) -> str:
    def line(what: str, value: Estimate) -> str:
        return f"<small>{what}: {interval(value.low, value.high)}</small>"

    bound = "≤ " * surprise.bound
    return (
        f"<td><b>{_bounded(bound, surprise.repeated)}</b> / {_bounded(bound, surprise.new)}"
        f"{line('repeated', surprise.repeated)}{line('other', surprise.new)}</td>"
    )


def _bounded(bound: str, value: Estimate) -> str:
    return DASH if math.isnan(value.value) else bound + number(value.value)


def _row(title: str, unit: str, columns: Columns, cell: Callable[[Subject], str | None]) -> str:
    return f"<tr>{_head(title, unit)}{''.join(cell(s) or f'<td>{DASH}</td>' for _, s in columns)}</tr>"


def _estimate(value: Estimate, decimals: int = 2, below: str = "") -> str:
    if math.isnan(value.value):
        return f"<td>{DASH}</td>"
    extra = f"<small>{escape(below)}</small>" if below else ""
    return (
        f"<td><b>{number(value.value, decimals)}</b>"
        f"<small>{escape(interval(value.low, value.high, decimals))}</small>{extra}</td>"
    )


def _share(value: Estimate, *below: str) -> str:
    if math.isnan(value.value):
        return f"<td>{DASH}</td>"
    lines = "".join(f"<small>{escape(text)}</small>" for text in below)
    return (
        f"<td><b>{escape(number(100 * value.value, 0))}</b>"
        f"<small>{interval(100 * value.low, 100 * value.high, 0)}</small>{lines}</td>"
    )


def _run(value: Estimate, longest: int) -> str:
    if math.isnan(value.value):
        return f"<td>{DASH}</td>"
    return (
        f"<td><b>{number(value.value, 0)}</b><small>{interval(value.low, value.high, 0)}</small>"
        f"<small>longest {longest}</small></td>"
    )


def _group(title: str, columns: int) -> str:
    return f'<tr class="group"><th scope="rowgroup">{escape(title)}</th><td colspan="{columns}"></td></tr>'


def _head(title: str, unit: str) -> str:
    below = f"<small>{escape(unit)}</small>" if unit else ""
    return f'<th scope="row">{escape(title)}{below}</th>'


def _heads(columns: Columns, *, pieces: bool = True) -> str:
    return "".join(
        f'<th scope="col" class="{colour(i)}"><span class="dot"></span>{escape(s.title)}'
        + (f"<small>{counted(s.comparison.pieces, 'piece')}</small></th>" if pieces and s.comparison else "</th>")
        for i, s in columns
    )


def _table(caption: str, corner: str, heads: str, rows: Iterable[str], *, tall: bool = False) -> str:
    name = caption.split(":")[0].split(",")[0]
    first = f'<th scope="col">{escape(corner)}</th>'
    return (
        f'<p class="note">{escape(caption)}</p><div class="scroll{" tall" * tall}" role="region" tabindex="0" '
        f'aria-label="{escape(name)}"><table style="--n:{heads.count("<th")}"><thead><tr>{first}{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )

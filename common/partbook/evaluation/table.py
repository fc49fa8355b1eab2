"""An evaluation as text: tables for a terminal of 80 columns, and as Markdown for a file of figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from partbook.evaluation.estimates import Estimate
from partbook.evaluation.measures import MEASURES, Measure
from partbook.evaluation.results import Evaluation, Subject, Surprise
from partbook.evaluation.wording import (
    DASH,
    answer,
    calibration,
    collections,
    counted,
    distance,
    estimate,
    interval,
    label,
    lengths,
    main_subject,
    medians_inside,
    number,
    percent,
    scale,
    side,
    telling,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ARROWS: Final = {"above": "▲", "below": "▼", "": " "}
_HANDS: Final = {"score": "written", "heard": "heard"}
_MEASURE, _BAND, _CELL, _ESTIMATE, _EDGE = 26, 12, 12, 20, 1  # columns of a terminal; edge: between two of ours


def print_table(evaluation: Evaluation, console: Console, *, rows: int | None = None) -> None:
    """Print an evaluation: the answer, a row a subject, measures that tell most first, nats.

    As many subjects stand side by side as the console is wide; the others follow below.

    Args:
        evaluation: what to print.
        console: where; 80 columns do.
        rows: of measures, at most; None for all.
    """
    from rich.text import Text

    main = main_subject(evaluation)
    if main is not None:
        console.print(Text.assemble((f"{main.title}: ", "bold"), answer(main, evaluation)))
    console.print(Text(lengths(evaluation), style="dim"))
    console.print(_heads(evaluation), "")
    compared = [s for s in evaluation.subjects if s.comparison is not None]
    measures = telling(evaluation, main)[:rows]
    for some in _blocks(compared, console.width - _MEASURE - _EDGE - _BAND, _CELL + _EDGE):
        console.print(_measures(evaluation, some, measures), "")
    models = [s for s in evaluation.subjects if s.surprise]
    for some in _blocks(models, console.width - _MEASURE, _ESTIMATE + _EDGE):
        console.print(_nats(some), "")
    for note in (calibration(evaluation), *evaluation.notes):
        if note:
            console.print(Text(note, style="dim"))


def _blocks(subjects: Sequence[Subject], width: int, each: int) -> Iterator[Sequence[Subject]]:
    most = max(1, width // each)
    count = math.ceil(len(subjects) / most)
    size = math.ceil(len(subjects) / count) if count else 1  # three and three rather than four and two
    for first in range(0, len(subjects), size):
        yield subjects[first : first + size]


def _heads(evaluation: Evaluation) -> Table:
    table = _table("Told from human works?")
    table.add_column("Set", ratio=1)
    for name in ("Pieces", "AUC, measures", "AUC, tokens", "Inside"):
        table.add_column(name, justify="right")
    for subject in evaluation.subjects:
        c = subject.comparison
        if c is None:
            continue
        inside, of = medians_inside(subject, evaluation)
        table.add_row(
            _plain(subject.title),
            f"{c.pieces:,}",
            estimate(c.features),
            estimate(c.tokens),
            f"{inside} of {of}" if of else DASH,
        )
    table.caption = (
        "AUC: .5 cannot be told, 1 always; with its 95 % interval. Inside: measures whose median lies in the band of "
        "eight in ten human works."
    )
    return table


def _measures(evaluation: Evaluation, subjects: Sequence[Subject], measures: Sequence[Measure]) -> Table:
    from rich.text import Text

    table = _table("Measures")
    table.add_column("Measure", width=_MEASURE)
    table.add_column("Human works", width=_BAND, justify="right", style="dim")
    for subject in subjects:
        table.add_column(_plain(subject.title), width=_CELL, justify="right")
    for measure in measures:
        band, how = evaluation.bands[measure.name], scale(measure)
        cells = []
        for subject in subjects:
            spread = subject.comparison.measures.get(measure.name) if subject.comparison else None
            if spread is None or math.isnan(spread.median.value):
                cells.append(Text(DASH))
                continue
            where = side(spread.median.value, band)
            style = "bold red" if distance(spread.median.value, band) > 0.5 else "yellow" if where else ""
            cells.append(
                Text.assemble(
                    (f"{how.one(spread.median.value)} {_ARROWS[where]}", style),
                    (f"{DASH:>5}" if math.isnan(band[0]) else f"{100 * spread.inside.value:4.0f}%", "dim"),
                )
            )
        table.add_row(label(measure), how.range(band[0], band[2]), *cells)
    table.caption = (
        "Human works: 10 to 90 %. Others: the median, ▲ above or ▼ below that band, and the share of pieces inside it. "
        "The first rows tell most."
    )
    return table


def _nats(subjects: Sequence[Subject]) -> Table:
    table = _table("Nats a note on held-out human works")
    table.add_column("Collection", width=_MEASURE)
    for subject in subjects:
        table.add_column(_plain(subject.title), width=_ESTIMATE, justify="right")
    for name, works, cells in _surprises(subjects, lambda s: _bounded(s, s.per_note)):
        table.add_row(f"{_plain(name)}, {works}", *cells)
    table.caption = "Less is better; with 95 % intervals over works. ≤ marks an upper bound."
    return table


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        title=title, title_justify="left", title_style="bold", caption_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def as_markdown(evaluation: Evaluation) -> str:
    """An evaluation as Markdown: a row a subject, measures × subjects, nats by collection and hand."""
    parts = [lengths(evaluation), _markdown_heads(evaluation), _markdown_measures(evaluation)]
    models = [s for s in evaluation.subjects if s.surprise]
    if models:
        for title, cell in (
            ("Nats a note", lambda s: _bounded(s, s.per_note)),
            ("Nats a token", lambda s: _bounded(s, s.per_token, 3)),
            ("Perplexity, a token", lambda s: _bounded(s, s.perplexity)),
            ("Nats a note, bars that repeat one of the window / others", _repeated),
        ):
            found = [[f"{name}, {works}", *cells] for name, works, cells in _surprises(models, cell)]
            parts.append(f"{title}, on held-out human works:\n\n" + _markdown([title, *_titles(models)], found))
    known = calibration(evaluation)
    parts += [known] * bool(known)
    parts += ["\n".join(f"- {note}" for note in evaluation.notes)] * bool(evaluation.notes)
    parts.append(f"    {evaluation.command}")
    return "\n\n".join(parts) + "\n"


def _markdown_heads(evaluation: Evaluation) -> str:
    head = [
        "Set", "Pieces", "AUC, measures", "AUC, tokens", "Medians inside", "n-gram precision",
        "Run shared, held-out (longest)", "Run shared, training (longest)", "FAD", "Inception score", "Style right",
    ]  # fmt: skip
    rows = []
    for subject in evaluation.subjects:
        c, heard, style = subject.comparison, subject.listening, subject.style
        if c is None:
            continue
        inside, of = medians_inside(subject, evaluation)
        rows.append(
            [
                subject.title,
                f"{c.pieces:,}",
                estimate(c.features),
                estimate(c.tokens),
                f"{inside} of {of}",
                estimate(c.precision),
                _run(c.heldout_run, c.heldout_longest),
                _run(c.training_run, c.training_longest),
                estimate(heard.distance, 1) if heard else DASH,
                estimate(heard.score) if heard else DASH,
                f"{percent(style.right.value)} (human {percent(style.human.value)}, chance {percent(style.chance)})"
                if style
                else DASH,
            ]
        )
    used = [i for i in range(len(head)) if i < 5 or any(row[i] != DASH for row in rows)]
    return _markdown([head[i] for i in used], [[row[i] for i in used] for row in rows])


def _markdown_measures(evaluation: Evaluation) -> str:
    compared = [s for s in evaluation.subjects if s.comparison is not None]
    rows = []
    for measure in MEASURES:
        if measure.name not in evaluation.bands:
            continue
        low, middle, high = evaluation.bands[measure.name]
        how = scale(measure)
        cells = [f"{how.one(middle)} ({how.range(low, high)})"]
        for subject in compared:
            spread = subject.comparison.measures.get(measure.name) if subject.comparison else None
            if spread is None or math.isnan(spread.median.value):
                cells.append(DASH)
                continue
            mark = _ARROWS[side(spread.median.value, (low, middle, high))].strip()
            cells.append(f"{how.one(spread.median.value)} ({how.range(spread.median.low, spread.median.high)}) {mark}")
        rows.append([label(measure), *(cell.strip() for cell in cells)])
    head = ["Median (human: 10–90 %; others: 95 % interval)", f"Human, {counted(evaluation.works, 'work')}"]
    return _markdown([*head, *_titles(compared)], rows) + (
        "\n\n▲ ▼: the median lies above, below the 10–90 % band of the human works."
    )


def _titles(subjects: Sequence[Subject]) -> list[str]:
    return [subject.title for subject in subjects]


def _surprises(
    subjects: Sequence[Subject], cell: Callable[[Surprise], str]
) -> Iterator[tuple[str, str, list[str]]]:  # fmt: skip
    """For each collection and hand: its name with the hand, its works, and a cell a subject."""
    for collection, hand in collections(subjects):
        found = [subject.surprise.get(collection, {}).get(hand) for subject in subjects]
        works = sorted({surprise.works for surprise in found if surprise})
        count = "/".join(f"{w:,}" for w in works)
        yield (
            f"{collection}, {_HANDS[hand]}",
            f"{count} work{'s' * (works != [1])}",
            [cell(s) if s else DASH for s in found],
        )


def _bounded(surprise: Surprise, value: Estimate, decimals: int = 2) -> str:
    if math.isnan(value.value):
        return DASH
    return "≤ " * surprise.bound + estimate(value, decimals)


def _repeated(surprise: Surprise) -> str:
    return f"{_bounded(surprise, surprise.repeated)} / {_bounded(surprise, surprise.new)}"


def _run(value: Estimate, longest: int) -> str:
    if math.isnan(value.value):
        return DASH
    return f"{number(value.value, 0)}, {interval(value.low, value.high, 0)} ({longest})"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return "\n".join(
        [line(head), "|" + "|".join("---" if not i else "--:" for i in range(len(head))) + "|", *map(line, rows)]
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

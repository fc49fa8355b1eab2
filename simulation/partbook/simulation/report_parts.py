"""Parts that sections of `report.html` share: tables, dots, and numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from partbook.simulation.palette import label_colour


def in_words(count: int) -> str:
    """A small number as a word that begins a sentence."""
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    return words[count] if count < len(words) else f"{count:,}"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def duration(seconds: float) -> str:
    """A stage's time."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def brief(seconds: float) -> str:
    """An exchange's time, in milliseconds below a second."""
    if seconds >= 0.9995:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    return f"{1000 * seconds:.1f} ms" if seconds < 0.09995 else f"{1000 * seconds:.0f} ms"


def dot(index: int) -> str:
    """A label's colour."""
    return f'<span class="dot" style="background:{label_colour(index)}"></span>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, words: int = 1) -> str:
    """A table of text whose first column heads its rows; from column `words` on, cells are numbers."""
    body = []
    for row in rows:
        cells = "".join(
            f"<td{' class=n' if i >= words else ' class=long' if len(cell) > 40 else ''}>{escape(cell)}</td>"
            for i, cell in enumerate(row[1:], start=1)
        )
        body.append(f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    return raw_table(head, body, caption=caption, words=words)


def raw_table(head: Sequence[str], rows: Iterable[str], *, caption: str, words: int = 1) -> str:
    """A table whose rows are HTML already."""
    heads = "".join(
        f'<th scope="col"{"" if i < words else " class=n"}>{escape(name)}</th>' for i, name in enumerate(head)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" '
        f'aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )

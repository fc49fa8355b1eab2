"""What an audit leaves behind: `report.html`, which stands alone, and `audit.json`, with every number.

No script, font or picture comes from elsewhere; every string from outside passes through `html.escape`.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from partbook.simulation.audit.results import AuditResult
from partbook.simulation.report_parts import duration, in_words, raw_table
from partbook.simulation.report_style import STYLE

REPORT: Final = "report.html"
FIGURES: Final = "audit.json"


def write_audit(
    out: Path, results: Mapping[str, AuditResult], asked: Mapping[str, Any], seconds: Mapping[str, float]
) -> Path:
    """Write the report and the figures into `out`; returns the report.

    Args:
        out: folder, in which the plots lie already.
        results: by attack, in the order they are told.
        asked: what the audit was asked for.
        seconds: how long each attack took.
    """
    now = datetime.datetime.now(datetime.UTC).astimezone()
    (out / FIGURES).write_text(json.dumps(as_json(results, asked, seconds, now), indent=1, ensure_ascii=False) + "\n")
    path = out / REPORT
    path.write_text(_page(results, asked, seconds, now), encoding="utf-8")
    return path


def as_json(
    results: Mapping[str, AuditResult],
    asked: Mapping[str, Any],
    seconds: Mapping[str, float],
    when: datetime.datetime,
) -> dict[str, Any]:
    """What `audit.json` holds."""
    return {
        "created": when.isoformat(timespec="seconds"),
        "asked": dict(asked),
        "within": all(result.within for result in results.values()),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "attacks": {name: result.to_json() for name, result in results.items()},
    }


def _page(
    results: Mapping[str, AuditResult],
    asked: Mapping[str, Any],
    seconds: Mapping[str, float],
    when: datetime.datetime,
) -> str:
    beyond = [result.title for result in results.values() if not result.within]
    title = f"{in_words(len(results))} attacks, {in_words(len(beyond)).lower() if beyond else 'none'} beyond the claim"
    if len(results) == 1:
        title = f"One attack, {'beyond' if beyond else 'within'} the claim"
    command = " ".join(f"--{name} {value}" if value is not True else f"--{name}" for name, value in asked.items())
    contents = "".join(
        f'<li><a href="#{name}">{escape(result.title)}</a> {_state(result)}<br>{escape(result.finding)}</li>'
        for name, result in results.items()
    )
    head = (
        '<header><div class="mark">Partbook</div>'
        f"<h1>{escape(title)}</h1>"
        '<p class="lead">An audit plays a federation’s strongest adversaries and holds what they find against '
        "what it claims. What an attack does not find proves "
        "nothing by itself, so each is shown beside what it finds where a lock is missing.</p>"
        f'<p class="meta">{when:%d %B %Y, %H:%M} · <code>partbook audit {escape(command)}</code> · '
        f"{duration(sum(seconds.values()))}</p><ul>{contents}</ul></header>"
    )
    sections = "\n".join(_section(name, result, seconds.get(name, 0.0)) for name, result in results.items())
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit: {escape(title)}</title><style>{STYLE}</style></head>\n<body>{head}\n<main>{sections}</main>\n"
        f"<footer>Every number on this page is in <code>{FIGURES}</code> beside it. The page holds all it shows and "
        "fetches nothing.</footer></body></html>\n"
    )


def _section(name: str, result: AuditResult, seconds: float) -> str:
    picture = base64.b64encode(result.plot.read_bytes()).decode("ascii")
    rows = [
        f'<tr><th scope="row">{escape(key)}</th><td class="long">{escape(value)}</td></tr>'
        for key, value in result.facts or tuple(_flat(result.figures))
    ]
    return (
        f'<section id="{escape(name)}"><h2>{escape(result.title)}</h2>'
        f'<p class="lead">{escape(result.finding)}</p>'
        f'<div class="card roll"><img alt="{escape(result.title)}" src="data:image/png;base64,{picture}"></div>'
        + raw_table(("What", "Found"), rows, caption=f"Took {duration(seconds)}.", words=2)
        + "</section>"
    )


def _state(result: AuditResult) -> str:
    return (
        '<span class="state on">within the claim</span>'
        if result.within
        else '<span class="state off">beyond the claim</span>'
    )


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Figures as rows of a table: nested names one after another, lists on one line."""
    for key, value in figures.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if all(isinstance(item, int | float | str) for item in value):
                yield name, ", ".join(_said(item) for item in value)
        else:
            yield name, _said(value)


def _said(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)

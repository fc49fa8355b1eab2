"""The part of `report.html` that tells change of hand from style."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from partbook.simulation.report_parts import dot, raw_table

if TYPE_CHECKING:
    from partbook.simulation.control import Gain
    from partbook.simulation.report import DemoReport, LabelReport

_COLUMNS = ("Label", "Base model", "Release", "Gain", "Control's gain", "Style")


def hand_and_style(report: DemoReport) -> str:
    """What the labels' kinds of music gained beyond what music of none of them did, in nats a note and a token."""
    control = report.control
    without = _without_noise(report.labels)
    return (
        "<h3>Change of hand, and style</h3><p>The base knows transcriptions already; what labels can add is style. "
        f"The control tells the two apart: {control.recordings} recordings of {escape(control.about)}, on the "
        f"{escape(control.instrument)}, which no label plays and nothing was trained on, written down by the same "
        "transcriber. What the rounds gain there counts as change of hand, which all recordings share; what a label's "
        "own kind of music gains beyond that, as style. Below zero, the control gained more.</p>"
        + _table(report.labels, [label.per_note for label in report.labels], "Nats a note")
        + _table(report.labels, [label.per_token for label in report.labels], "Nats a token")
        + f'<p class="note">The control stood at {control.note_before:.3f} nats a note before the rounds and stands at '
        f"{control.note_after:.3f} after them ({control.nll_before:.3f} and {control.nll_after:.3f} a token)."
        f"{without} So few recordings, and one seed, say little about small differences.</p>"
    )


def _table(labels: tuple[LabelReport, ...], gains: list[Gain], caption: str) -> str:
    rows = [
        f'<tr><th scope="row">{dot(index)}{escape(label.name)}</th>'
        f'<td class="n">{gain.base:.3f}</td><td class="n">{gain.release:.3f}</td>'
        f'<td class="n {_kind(gain.gain)}">{gain.gain:+.3f}</td><td class="n">{gain.hand:+.3f}</td>'
        f'<td class="n {_kind(gain.style)}">{gain.style:+.3f}</td></tr>'
        for index, (label, gain) in enumerate(zip(labels, gains, strict=True))
    ]
    return raw_table(_COLUMNS, rows, caption=caption)


def _kind(gain: float) -> str:
    return "better" if gain > 0 else "worse"


def _without_noise(labels: tuple[LabelReport, ...]) -> str:
    styles = [label.per_note_without_noise.style for label in labels if label.per_note_without_noise is not None]
    if not styles:
        return ""
    mean = sum(styles) / len(styles)
    return f" Without noise the same rounds would have gained {mean:+.3f} nats a note of style in the mean of labels."

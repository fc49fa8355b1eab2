"""`report.html`: one page that stands alone, readable on a desk, on a phone and on paper.

No script, font or picture comes from elsewhere; every string from outside passes through `html.escape`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partbook.errors import InputError
from partbook.music.encoding import data_address, mp3
from partbook.simulation.diagram import House, federation_svg, in_bytes
from partbook.simulation.palette import RULE, SOFT_INK, label_colour
from partbook.simulation.pictures import LabelCurve, note_name
from partbook.simulation.report_gains import hand_and_style
from partbook.simulation.report_music import is_it_music
from partbook.simulation.report_parts import dot, duration, in_words, listed, raw_table, table
from partbook.simulation.report_privacy import cost, tiny
from partbook.simulation.report_protocol import exchanges, locks, messages, rounds
from partbook.simulation.report_style import STYLE

if TYPE_CHECKING:
    from partbook.simulation.report import DemoReport, LabelReport, PieceReport


def page(report: DemoReport) -> str:
    """The whole report as one HTML document.

    Raises:
        InputError: a piece's WAV or PNG cannot be read.
    """
    title = f"{report.federation}: what the run did"
    sections = (
        _listen(report), _learnt(report), locks(report), rounds(report), messages(report), exchanges(report),
        _labels(report), _time(report), _model(report), _limits(report),
    )  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>{_head(report)}\n<main>"
        + "\n".join(sections)
        + "</main>\n<footer>Every number on this page is in <code>report.json</code> beside it. The page "
        "holds all it shows and fetches nothing.</footer></body></html>\n"
    )


def embedded_mp3(wav: Path) -> str:
    """A WAV as an MP3 `data:` address, some 120 kbit a second, which every browser plays.

    Raises:
        InputError: the file is missing or is not audio.
    """
    import soundfile

    try:
        samples, rate = soundfile.read(wav, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise InputError(f"The report cannot embed {wav} ({error}); render the piece again.") from error
    return data_address(mp3(samples, rate))


def _embedded_png(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"The report cannot embed {path} ({error.strerror}); draw the piece again.") from error
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _head(report: DemoReport) -> str:
    recordings = sum(label.recordings for label in report.labels)
    sent = sum(label.bytes_sent for label in report.labels)
    better = sum(label.nll_after < label.nll_before for label in report.labels)
    count = len(report.labels)
    setting = report.locks
    travels = listed((*("noised",) * setting.noise, "masked", *("sealed",) * setting.seal))
    houses = [
        House(
            label.name,
            label.collection,
            label.instrument,
            label.recordings,
            label.bytes_sent,
            label.bytes_received,
        )
        for label in report.labels
    ]
    drawn: dict[str, Any] = {"custodian": setting.custodian, "noise": setting.noise}
    facts = (
        (f"{recordings:,}", "recordings, none of which left its label"),
        (in_bytes(sent), "of updates and answers sent by all nodes together"),
        (f"{better} of {count}", "labels whose kind of music the generator now predicts better"),
        _bound(report),
    )
    tiles = "".join(f"<div><dd>{escape(a)}</dd><dt>{escape(b)}</dt></div>" for a, b in facts)
    return (
        f'<header><div class="mark">Partbook</div><h1>{escape(report.federation)}</h1>'
        f'<p class="lead">{in_words(count)} label{"s" * (count != 1)} trained one music generator. '
        f"Each kept its recordings on its own machine and sent only {travels} changes to a shared model. This page "
        "shows what came out, what travelled, and which protections were on.</p>"
        f'<p class="meta">{escape(report.created.strftime("%d %B %Y, %H:%M %Z").strip(" ,"))} · seed '
        f"{report.seed} · release <code>{escape(report.model.release)}</code></p>"
        f'<dl class="facts">{tiles}</dl>'
        f'<div class="drawing"><div class="wide">{federation_svg(houses, **drawn)}</div>'
        f'<div class="tall">{federation_svg(houses, **drawn, columns=2, identifier="phone")}</div></div></header>'
    )


def _bound(report: DemoReport) -> tuple[str, str]:
    setting = report.locks
    if setting.epsilon_colluders is None:
        total = duration(sum(seconds for _, seconds in report.stages))
        return total, f"for {report.rounds} rounds and all around them"
    delta = 0.0 if setting.delta is None else setting.delta
    return (
        f"ε = {setting.epsilon_colluders:.2f}",
        f"limits what can be found out about any recording (δ = {tiny(delta)})",
    )


def _listen(report: DemoReport) -> str:
    cards = []
    for piece in report.pieces:
        copied = ""
        if piece.copied_notes is not None:
            copied = (
                f" Longest passage shared with any of {piece.compared_with:,} recordings, in any key: "
                f"{piece.copied_notes} notes."
            )
        cards.append(
            f'<article class="card"><h3>{escape(piece.name)}</h3><p>{escape(piece.how)}</p>'
            f'<audio controls preload="metadata" src="{embedded_mp3(piece.wav)}" '
            f'aria-label="{escape(piece.name)}"></audio>'
            f'<div class="roll"><img src="{_embedded_png(piece.roll)}" alt="{escape(_seen(piece))}"></div>'
            f"{_by_the_base(piece)}"
            f'<p class="note">{piece.seconds:.1f} s · peak {piece.peak_dbfs:.1f} dBFS · seed {piece.seed} · '
            f"<code>{escape(piece.wav.name)}</code>, "
            f"<code>{escape(piece.midi.name)}</code>.{copied}</p></article>"
        )
    return (
        "<h2>Listen</h2><p>Written by the released generator and played by a SoundFont with a little "
        "room. The same pieces lie beside this page as WAV and MIDI.</p>" + "".join(cards) + is_it_music(report.music)
    )


def _by_the_base(piece: PieceReport) -> str:
    if piece.base_roll is None:
        return ""
    return (
        '<p class="note">The base model alone, asked for the same, as it was before any label:</p>'
        f'<div class="roll"><img src="{_embedded_png(piece.base_roll)}" '
        f'alt="{escape(f"Piano roll of {piece.name}, as the base model alone writes it.")}"></div>'
    )


def _seen(piece: PieceReport) -> str:
    return (
        f"Piano roll of {piece.name}: {piece.notes} generated notes between {note_name(piece.lowest)} and "
        f"{note_name(piece.highest)} in {piece.seconds:.0f} seconds."
    )


def _learnt(report: DemoReport) -> str:
    rows = []
    compared = any(label.nll_without_noise is not None for label in report.labels)
    for index, label in enumerate(report.labels):
        change = label.nll_after - label.nll_before
        without = "–" if label.nll_without_noise is None else f"{label.nll_without_noise:.4f}"
        rows.append(
            f'<tr><th scope="row">{dot(index)}{escape(label.name)}</th><td '
            f'class="n">{label.nll_before:.4f}</td>'
            f'<td class="n">{label.nll_after:.4f}</td><td class="n '
            f'{"better" if change < 0 else "worse"}">{change:+.4f}</td>'
            + (f'<td class="n">{without}</td>' if compared else "")
            + f'<td class="n">{label.heldout_recordings:,}</td><td class="n">{label.heldout_tokens:,}</td></tr>'
        )
    panels = "".join(
        f"<figure><figcaption>{dot(index)}{escape(label.name)}</figcaption>"
        f"{_curve(label.curve, label_colour(index))}</figure>"
        for index, label in enumerate(report.labels)
    )
    dotted = ""
    if any(label.curve.local for label in report.labels):
        dotted = (
            " Dotted: the loss each node saw on its own recordings while training. No message carried it; "
            "this page has it because a demo plays every part on one machine."
        )
    scored = ""
    if report.locks.seal:
        scored = (
            " Between the base model and the release, the coordinator did not know the model. The demo, which plays "
            "every part, took it from a label's copy to draw the points between; a real coordinator has only the "
            "first and the last."
        )
    return (
        "<h2>Did it learn?</h2><p>Loss is how surprised the model is by music it has never met: the mean "
        "negative log-likelihood of each token, in nats, over public recordings of the same kind that no "
        "one trained on. Lower is better.</p>"
        + raw_table(
            (
                "Label",
                "Base model",
                "With noise" if compared else "After the rounds",
                "Change",
                *("Without noise",) * compared,
                "Held-out recordings",
                "Tokens",
            ),
            rows,
            caption="Held-out loss, nats per token",
        )
        + hand_and_style(report)
        + cost(report.labels)
        + f'<div class="panels">{panels}</div><p class="note">Solid: held-out loss after the rounds, from '
        f"the base model at round 0.{scored}{dotted}</p>"
    )


def _curve(curve: LabelCurve, colour: str) -> str:
    """A small line chart; its numbers are in the table above and in `report.json`."""
    everything = [*curve.held_out, *curve.local]
    if not everything:
        return "<p class='note'>Not evaluated between rounds.</p>"
    last = max(1, max(r for r, _ in everything))
    low, high = min(v for _, v in everything), max(v for _, v in everything)
    spread = max(high - low, 0.02)
    low, high = low - 0.12 * spread, high + 0.12 * spread

    def at(point: tuple[int, float]) -> str:
        return f"{44 + 206 * point[0] / last:.1f},{12 + 116 * (high - point[1]) / (high - low):.1f}"

    parts = []
    for value in (low + 0.12 * spread, (low + high) / 2, high - 0.12 * spread):
        y = 12 + 116 * (high - value) / (high - low)
        parts.append(
            f'<path d="M44 {y:.1f}H252" stroke="{RULE}"/><text x="38" y="{y + 3.8:.1f}" '
            f'text-anchor="end">{value:.2f}</text>'
        )
    for value in sorted({0, last // 2, last}):
        parts.append(f'<text x="{44 + 206 * value / last:.1f}" y="148" text-anchor="middle">{value}</text>')
    if curve.local:
        points = " ".join(map(at, curve.local))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6" '
            f'stroke-dasharray="1.5 3.5" stroke-linecap="round"/>'
        )
    if curve.held_out:
        points = " ".join(map(at, curve.held_out))
        x, y_last = at(curve.held_out[-1]).split(",")
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.6" '
            f'stroke-linejoin="round"/>'
            f'<circle cx="{x}" cy="{y_last}" r="4" fill="{colour}"/>'
        )
    summary = f"Held-out loss of {curve.label} over {last} rounds"
    if curve.held_out:
        summary += f", from {curve.held_out[0][1]:.3f} to {curve.held_out[-1][1]:.3f} nats per token"
    return (
        f'<svg viewBox="0 0 262 166" role="img" aria-label="{escape(summary)}" font-size="11" '
        f'fill="{SOFT_INK}">'
        f'{"".join(parts)}<text x="148" y="163" text-anchor="middle">round</text></svg>'
    )


def _labels(report: DemoReport) -> str:
    rows = [
        (
            label.name, label.collection, label.instrument, f"{label.recordings:,}", duration(label.seconds),
            f"{label.tokens:,}", f"{len(label.refused):,}",
        )
        for label in report.labels
    ]  # fmt: skip
    return (
        "<h2>The labels</h2>"
        + table(
            ("Label", "Collection", "Instrument", "Recordings", "Audio", "Tokens", "Files refused"), rows,
            caption="What each node ingested", words=3,
        )
        + _refusals(report.labels)
    )  # fmt: skip


def _refusals(labels: Iterable[LabelReport]) -> str:
    items = "".join(
        f"<li><code>{escape(file)}</code> ({escape(label.name)}): {escape(reason)}</li>"
        for label in labels
        for file, reason in label.refused
    )
    return f"<details><summary>Files that were refused, and why</summary><ul>{items}</ul></details>" if items else ""


def _time(report: DemoReport) -> str:
    total = sum(seconds for _, seconds in report.stages)
    longest = max((seconds for _, seconds in report.stages), default=1.0) or 1.0
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td class="n">{duration(seconds)}</td>'
        f'<td style="width:45%"><span class="bar" '
        f'style="width:{100 * seconds / longest:.1f}%"></span></td></tr>'
        for name, seconds in report.stages
    ]
    rows.append(f'<tr class="total"><th scope="row">Together</th><td class="n">{duration(total)}</td><td></td></tr>')
    machine = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.machine)
    return (
        "<h2>Time and machine</h2>"
        + raw_table(("Stage", "Time", "Share of the longest"), rows, caption="Wall-clock time of each stage")
        + (f'<dl class="model">{machine}</dl>' if machine else "")
    )


def _model(report: DemoReport) -> str:
    model = report.model
    trained = report.locks.dimension or model.adapter_parameters
    share = trained / max(model.parameters, 1)
    rows = (
        ("Release", f"<code>{escape(model.release)}</code>"),
        ("Signed by", f"<code>{escape(model.signer)}</code>"),
        ("Base model, SHA-256", f"<code>{escape(model.base_sha256)}</code>"),
        ("Global adapter, SHA-256", f"<code>{escape(model.adapter_sha256)}</code>"),
        (
            "Parameters",
            f"{model.parameters:,}, of which {trained:,} ({share:.2%}) were trained here",
        ),
    )
    return (
        "<h2>The release</h2><p>What the generator serves. It refuses to start if one byte differs from "
        "these hashes.</p>"
        f'<dl class="model">{"".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)}</dl>'
    )


def _limits(report: DemoReport) -> str:
    limits = list(report.limits)
    if report.locks.noise:
        limits.insert(
            0,
            "The bound is for each recording, not for a label as a whole, and it is a bound: how much less "
            "an attacker really finds is for an audit to measure.",
        )
    else:
        limits.insert(0, "There was no noise: nothing here bounds what the model may reveal about one recording.")
    if any(piece.copied_notes is not None for piece in report.pieces):
        limits.append(
            "The search for copied passages finds notes in the same order and rhythm at the same tempo, "
            "in any key. It cannot rule out subtler likeness."
        )
    items = "".join(f"<li>{escape(limit)}</li>" for limit in limits)
    return f"<h2>What this run does not show</h2><ul>{items}</ul>" if items else ""

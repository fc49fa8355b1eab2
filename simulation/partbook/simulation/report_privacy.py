"""Sections of `report.html` on the noise: what it hides, what it cost the music, and what each label's ledger says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from partbook.simulation.palette import ACCENT, RULE, SOFT_INK
from partbook.simulation.report_parts import table

if TYPE_CHECKING:
    from partbook.simulation.report import DemoReport, LabelReport, Locks

Card = tuple[str, tuple[tuple[str, str], ...]]


def noise_card(setting: Locks, rounds: int) -> Card:
    """What the noise is, and (question, answer) pairs on what it hides, from whom and on what assumption."""
    if not setting.noise or setting.epsilon_colluders is None or setting.epsilon_outsiders is None:
        return _NO_NOISE
    delta = 0.0 if setting.delta is None else setting.delta
    local = setting.noise_kind == "local"
    how = (
        "In training, each label added noise of its own, enough by itself: what it sends is safe to show to anybody, "
        "and the masks come on top."
        if local
        else "Before its update is masked, each label adds random numbers to it. No label's share alone is enough; "
        "inside the sum the shares add up to what one recording can hide in."
    )
    measured = (
        f" How much was measured out before the first round: a spread of {setting.noise_multiplier:g} times the most "
        f"that one recording can change, in each of {setting.dimension or 0:,} trained numbers. "
        + (
            "Every recording took part each time."
            if setting.sampling == 1
            else f"Each recording was drawn with probability {setting.sampling:g} each time."
        )
    )
    colluders = setting.colluders or 0
    if local:
        bound = f"ε = {setting.epsilon_colluders:.2f} at δ = {tiny(delta)} for each recording, against everybody."
        whom = (
            "Everybody but the label itself, also if all the others, the coordinator and the custodian join hands and "
            "open every lock there is."
        )
        trust = "The label's own node runs this software unaltered, and its system draws good random numbers."
    else:
        them = "one label" if colluders == 1 else f"{colluders} labels"
        own = "its own noise" if colluders == 1 else "their own noise"
        held = f"{them} that would take {own} out again" if colluders else "labels that keep to the protocol"
        bound = (
            f"ε = {setting.epsilon_colluders:.2f} for each recording against {held}, ε = "
            f"{setting.epsilon_outsiders:.2f} against everybody else; both at δ = {tiny(delta)}."
        )
        whom = (
            "Everybody who sees the sums or the model: the coordinator, the custodian, the other labels, and whoever "
            "gets the release."
        )
        honest = setting.threshold - colluders
        trust = (
            f"In every sum of at least {setting.threshold} updates, at least {honest} come from labels that added "
            "their noise as planned; and the masks hold, since one update alone carries only its share of the noise."
        )
    factor = math.exp(min(setting.epsilon_colluders, 30.0))
    odds = f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"
    return (
        how + measured,
        (
            (
                "What it hides",
                "Whether any one recording was there at all. Whatever is done with the sums or the released model, no "
                "outcome can be more than so much likelier with that recording than without it.",
            ),
            ("The bound", bound),
            (
                "What that means",
                f"Learning all there is to learn can multiply the odds that a given recording was used by {odds} at "
                f"most, but for a chance of about {tiny(delta)}. That proves a limit, not silence: the smaller ε, the "
                f"less. {_few(setting)}",
            ),
            ("From whom", whom),
            ("On what assumption", trust + " Each label's own ledger counted along and would have ended the rounds."),
            (
                "What it does not hide",
                "What many recordings have in common: a style, a sound, a label's taste. A work that a label "
                "recorded twice counts as two recordings and is protected less.",
            ),
        ),
    )


def tiny(figure: float) -> str:
    """A small probability to one digit, such as 10⁻⁵ or 2·10⁻⁶."""
    if not figure:
        return "0"
    digit, exponent = f"{figure:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digit == "1" else f"{digit}·{power}"


def _few(setting: Locks) -> str:
    if not setting.recordings:
        return ""
    return (
        f"{setting.recordings:,} recordings stand behind it, few as they are for this; with more of them the same ε "
        "needs less noise for each."
    )


_NO_NOISE: Card = (
    "There was none. Masks and seal protect updates on their way; they set no limit to what the finished model "
    "remembers.",
    (
        (
            "What that means",
            "The finished model is not guaranteed to forget any one recording. Nothing proves how much someone "
            "who examines the released model, or who reads each round's sum, could find out about a single "
            "recording. This report claims no bound.",
        ),
        (
            "What would change it",
            "Random noise, measured out in advance and added by every label before masking, limits by proof what the "
            "model can ever reveal about one recording (differential privacy). It is on unless one asks for none.",
        ),
    ),
)


def spending(report: DemoReport) -> str:
    """ε over the rounds, drawn, and what each label's own ledger says was spent and is left."""
    setting = report.locks
    if not setting.noise or not setting.epsilon_curve:
        return ""
    rows = [
        (
            label.name, f"{label.recordings:,}", f"{label.rounds_paid:,}", _epsilon(label.epsilon_spent),
            _epsilon(label.epsilon_left),
        )
        for label in report.labels
    ]  # fmt: skip
    agreed = all(label.epsilon_spent == setting.epsilon_colluders for label in report.labels)
    said = (
        "It agrees to the last digit with what the coordinator states from the plans alone"
        if agreed
        else "A label that fell away before its update left has spent less than what the coordinator states from the "
        "plans alone"
    )
    return (
        "<h3>What each recording has spent</h3>"
        "<p>Every label keeps a ledger that no coordinator can reach. It is debited before anything is trained, holds "
        f"for each of the label's recordings, and refuses a round that its policy does not pay for. {said}. Here "
        "ledgers and policies belong to this run alone, as the vaults are shared between runs; a real label has one "
        "ledger, in its vault, for everything.</p>"
        f'<div class="panels"><figure style="max-width:420px"><figcaption>ε of each recording</figcaption>'
        f"{_curve(setting)}</figure></div>"
        + table(
            ("Label", "Recordings", "Rounds paid for", "ε spent, each", "ε left, each"), rows,
            caption=f"The labels' ledgers, at δ = {tiny(setting.delta or 0.0)}",
        )
    )  # fmt: skip


def _epsilon(figure: float | None) -> str:
    return "no bound" if figure is None else f"{figure:.4f}"


def _curve(setting: Locks) -> str:
    points = setting.epsilon_curve
    last, high = max(1, points[-1][0]), max(max(a, b) for _, a, b in points) or 1.0

    def line(which: int, style: str) -> str:
        path = " ".join(f"{40 + 210 * p[0] / last:.1f},{128 - 112 * p[which] / high:.1f}" for p in points)
        return f'<polyline points="{path}" fill="none" stroke="{ACCENT}" stroke-linejoin="round" {style}/>'

    parts = [
        f'<path d="M40 {y:.1f}H252" stroke="{RULE}"/><text x="34" y="{y + 3.8:.1f}" text-anchor="end">{value:.1f}'
        "</text>"
        for value, y in ((0.0, 128.0), (high / 2, 72.0), (high, 16.0))
    ]
    parts += [
        f'<text x="{40 + 210 * value / last:.1f}" y="146" text-anchor="middle">{value}</text>'
        for value in sorted({0, last // 2, last})
    ]
    both = setting.noise_kind != "local"
    if both:
        parts.append(line(2, 'stroke-width="1.8" stroke-dasharray="5 3"'))
    parts.append(line(1, 'stroke-width="2.6"'))
    _, colluders, outsiders = points[-1]
    words = "everybody" if not both else "colluding labels (solid)"
    key = words if not both else f"solid: {words.removesuffix(' (solid)')}; dashed: everybody else"
    summary = f"ε over {last} rounds, up to {colluders:.2f} against {words}"
    if both:
        summary += f" and {outsiders:.2f} against everybody else (dashed)"
    return (
        f'<svg viewBox="0 0 262 180" role="img" aria-label="{escape(summary)}" font-size="11" fill="{SOFT_INK}">'
        f'{"".join(parts)}<text x="146" y="160" text-anchor="middle">round</text>'
        f'<text x="131" y="176" text-anchor="middle" font-size="10">{escape(key)}</text></svg>'
    )


def cost(labels: Sequence[LabelReport]) -> str:
    """One sentence or two on what the noise cost the music; empty where there is nothing to compare with."""
    pairs = [
        (label.nll_before, label.nll_after, label.nll_without_noise)
        for label in labels
        if label.nll_without_noise is not None
    ]
    if not pairs:
        return ""
    before, after, without = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    gained, possible = before - after, before - without
    share = f" It left {gained / possible:.0%} of the gain." if possible > 0 and 0 <= gained <= possible else ""
    verdict = (
        f"The noise cost {after - without:.3f}."
        if after >= without
        else f"Here, by chance, they came {without - after:.3f} further with it."
    )
    return (
        f"<p><strong>What the noise cost.</strong> The same rounds, with the same clipping and steps but without "
        f"noise, would have come from {before:.3f} to {without:.3f} nats a token, mean of the labels; with noise they "
        f"came to {after:.3f}. {verdict}{share} Only a demo can make this comparison: it put all labels' recordings in "
        "one place, scored the model and threw it away. No message and no release has anything of it.</p>"
    )

"""Sections of `report.html` on the protocol: the locks, who fell away, what was sent, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from partbook.simulation.diagram import in_bytes
from partbook.simulation.exchange_figure import exchange_panels
from partbook.simulation.report_parts import brief, in_words, listed, raw_table, table
from partbook.simulation.report_privacy import noise_card, spending

if TYPE_CHECKING:
    from partbook.simulation.report import DemoReport, ExchangeReport, Locks, RoundReport


def locks(report: DemoReport) -> str:
    """What each lock hides, from whom, on what assumption, and what it leaves open."""
    setting = report.locks
    clip, whose = "", ("each recording's update", "recording") if setting.noise else ("each update", "label")
    if setting.clip_norm is not None:
        clip = (
            f" Before anything left, {whose[0]} was clipped: its length could not exceed {setting.clip_norm:g}, which "
            f"bounds what a {whose[1]} can change in one round. Clipping alone hides nothing."
        )
    if setting.bits is not None:
        clip += f" Its numbers were rounded to {setting.bits} bits, so that sums are exact."
    cards = "".join(
        f'<section class="card"><span class="state {"on" if on else "off"}">{"ON" if on else "OFF"} in '
        f"this run</span><h3>{name}</h3><p>{escape(what)}</p><dl>"
        + "".join(f"<dt>{escape(question)}</dt><dd>{escape(answer)}</dd>" for question, answer in answers)
        + "</dl></section>"
        for name, on, what, answers in (
            ("Masks", setting.masks, *_masks(setting, report)),
            ("Seal", setting.seal, *_seal(setting)),
            ("Noise", setting.noise, *noise_card(setting, report.rounds)),
        )
    )
    return (
        "<h2>The locks</h2><p>For those who must answer for the recordings. The audio itself, its "
        "spectrograms and its notes stayed with the label's node; these three locks protect what was "
        f"<em>learnt</em> from it.{escape(clip)}</p>"
        f'<div class="locks">{cards}</div>' + spending(report)
    )


def _masks(setting: Locks, report: DemoReport) -> tuple[str, tuple[tuple[str, str], ...]]:
    labels, threshold = len(report.labels), setting.threshold
    fewest = min((len(round_.members) for round_ in report.history), default=labels)
    # Two lists of survivors need 2·threshold signatures; c liars sign both, the other n − c labels one each.
    liars = min(threshold - 1, 2 * threshold - labels - 1)
    lying = (
        f"If the coordinator also lies about who took part, the same holds while no more than {liars} of them help it."
        if liars > 0
        else "It must not lie about who took part, or a label must not help it in that: for more, raise the threshold."
    )
    return (
        "Before an update leaves its node, secret numbers are added to it, which turn it into what looks like random "
        "digits. Each pair of labels agrees on such numbers between the two of them; one adds what the other takes "
        "away, so that they vanish when all updates are added up.",
        (
            ("What it hides", "Each label's update: what its recordings would change in the model."),
            (
                "From whom",
                f"The coordinator and the other labels, also if they put together what they know, while fewer than "
                f"{threshold} of the {labels} labels are in it. {lying}",
            ),
            (
                "On what assumption",
                "The keys in the signed roster are those of the labels they name, which people compare by reading "
                "fingerprints to each other; and the published methods hold: X25519, AES-256, ECDSA P-256, Shamir's "
                "secret sharing, put together as in Bonawitz et al., 2017.",
            ),
            (
                "What it does not hide",
                f"The sum. Whoever knows every update in it but one finds that one by subtraction; the smallest sum "
                f"of this run had {fewest} updates, so for that {fewest - 1} labels would have to join hands. Also: "
                "who took part, and when.",
            ),
        ),
    )


def _seal(setting: Locks) -> tuple[str, tuple[tuple[str, str], ...]]:
    if not setting.seal:
        return (
            "The sums were not encrypted: round by round the coordinator read what all labels' updates added up "
            "to, and it held the model throughout.",
            (
                (
                    "What it would hide",
                    "The sum and the model in the making, from the coordinator, from whoever hosts it and from its "
                    "backups. It needs a custodian who is not the coordinator.",
                ),
            ),
        )
    return (
        "The masked updates were also encrypted, in a way that allows adding without reading. The coordinator added "
        f"them up blind. One party alone has the key that opens the sum: {setting.custodian or 'the custodian'}. It "
        f"opened one sum a round, only against the signatures of at least {setting.threshold} labels under the list "
        "of those in it, and encrypted what it found to the labels again.",
        (
            ("What it hides", "The sum of the updates, and the model in the making."),
            (
                "From whom",
                "The coordinator, whoever hosts it, and its backups. It learnt the model once, at the end, when the "
                f"labels had signed that this model may be released: at least {setting.threshold} had to.",
            ),
            (
                "On what assumption",
                "Nobody who may read the sum, the custodian or a label, passes it on to the coordinator. Even then the "
                "masks stand: under its seal, each label's update was masked. The encryption (BFV) is set to the "
                "public standard's 128-bit level.",
            ),
            (
                "What it does not hide",
                "The sum from the labels, who need it to take the step, and from the custodian while it opens it. And "
                "nothing about the finished model, which is released on purpose.",
            ),
        ),
    )


def rounds(report: DemoReport) -> str:
    """Who was in each round's sum, who fell away where, and what was recovered."""
    count, lost = len(report.labels), sum(len(round_.dropped) for round_ in report.history)
    needed = f"A round needs {report.locks.threshold} of the {count} labels at every step, or it ends without a sum."
    if lost:
        often = {1: "Once", 2: "Twice"}.get(lost, f"{in_words(lost)} times")
        said = (
            f"{often} a label fell away during a round. The sum of the others was still exact: masks that a label "
            "leaves behind are rebuilt from shares that the others hold of its secrets."
        )
    else:
        said = (
            "No label fell away. Had one done so at any step, the masks it left behind would have been rebuilt from "
            "shares that the others hold of its secrets (try it: <code>partbook demo --drop Cremona@confirm:2</code>)."
        )
    if report.locks.seal:
        said += " A label that was away takes the steps it missed before its next round."
    rows = [_round(round_) for round_ in report.history]
    return f"<h2>Who took part</h2><p>{said} {needed}</p>" + raw_table(
        ("Round", "In the sum", "Fell away, and what was recovered", "Time", "Model after it"),
        rows,
        caption="The rounds",
        words=3,
    )


def _round(round_: RoundReport) -> str:
    dropped = "<br>".join(
        f"<strong>{escape(drop.member)}</strong>, at <code>{escape(drop.kind)}</code>. {escape(drop.recovered)}"
        for drop in round_.dropped
    )
    members = escape(listed(round_.members))
    fell = f'<td class="long">{dropped}</td>' if dropped else "<td>nobody</td>"
    return (
        f'<tr><th scope="row">{round_.round}</th><td>{members}</td>{fell}'
        f'<td class="n">{brief(round_.seconds)}</td><td class="n"><code>{escape(round_.model[:12])}</code></td></tr>'
    )


def messages(report: DemoReport) -> str:
    """Every kind of message, counted."""
    kinds = [
        (
            kind.kind, f"{kind.party} → coordinator" if kind.from_party else f"coordinator → {kind.party}", kind.holds,
            f"{kind.count:,}", in_bytes(kind.largest_bytes), in_bytes(kind.total_bytes),
        )
        for kind in report.messages
    ]  # fmt: skip
    nodes = [
        (label.name, f"{label.messages:,}", in_bytes(label.bytes_sent), in_bytes(label.bytes_received))
        for label in report.labels
    ]
    return (
        "<h2>What left the nodes</h2><p>Every kind of message of the run, each one counted. What is not "
        "in this table was not sent. All but the first are signed, for one round and one plan. An "
        "answer may be a refusal instead, which is an error's name and a sentence.</p>"
        + table(
            ("Message", "Way", "What it holds", "How many", "Largest", "All together"), kinds,
            caption="Kinds of messages", words=3,
        )
        + table(("Label's node", "Messages", "Sent", "Received"), nodes, caption="Traffic of each node")
    )  # fmt: skip


def exchanges(report: DemoReport) -> str:
    """What each exchange cost every party, drawn and as tables, and the coordinator's wall clock."""
    if not report.exchanges:
        return ""
    kinds = list(dict.fromkeys(entry.kind for entry in report.exchanges))
    clocks = {kind: [round_.exchanges[kind] for round_ in report.history if kind in round_.exchanges] for kind in kinds}
    rows = []
    for kind in kinds:
        entries = [entry for entry in report.exchanges if entry.kind == kind]
        out, into, work = (_mean(entries, field) for field in ("bytes_sent", "bytes_received", "seconds"))
        wall = brief(sum(clocks[kind]) / len(clocks[kind])) if clocks[kind] else "–"
        rows.append((kind, entries[0].name, in_bytes(out), in_bytes(into), brief(work), wall))
    each = [
        (
            entry.party, entry.kind, f"{entry.messages:,}", in_bytes(entry.bytes_sent),
            in_bytes(entry.bytes_received), brief(entry.seconds / max(entry.messages, 1)), brief(entry.seconds),
        )
        for entry in sorted(report.exchanges, key=lambda entry: [e.party for e in report.exchanges].index(entry.party))
    ]  # fmt: skip
    whom = "the custodian's in <code>query.open</code>, a node's elsewhere" if report.locks.seal else "a node's"
    return (
        "<h2>What each step cost</h2><p>Sizes are the messages as they would cross a network. Work is the time a party "
        "took over one answer while up to two worked at a time on this machine; training is in <code>train</code>, and "
        "so is, the first time, opening the vault and loading the base model.</p>"
        + exchange_panels(report)
        + table(
            ("Exchange", "What happens", "Sent", "Received", "Work", "Coordinator's clock"), rows,
            caption="One answer in each exchange, as a mean", words=2,
        )
        + f'<p class="note">Sent, received and work are {whom}. The coordinator\'s clock runs from its first message '
        "of an exchange to the last answer, mean over the rounds; it looks for answers every 50 ms, so less does not "
        "show. What follows the last round has no entry there.</p>"
        + "<details><summary>Every party in every exchange</summary>"
        + table(
            ("Party", "Exchange", "Answers", "Sent in all", "Received in all", "Work on one", "Work in all"), each,
            caption="Every party in every exchange, over the whole run", words=2,
        )
        + "</details>"
    )  # fmt: skip


def _mean(entries: Sequence[ExchangeReport], field: str) -> float:
    return sum(float(getattr(e, field)) for e in entries) / max(sum(e.messages for e in entries), 1)

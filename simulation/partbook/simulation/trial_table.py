"""What a run cost and did, for a terminal: ε in a sentence, a trial's rounds as a table and as JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from partbook.coordinator.privacy import PrivacyStatement
from partbook.simulation.diagram import in_bytes
from partbook.simulation.trial import TrialResult


def stated(privacy: PrivacyStatement, recordings: int, colluders: int | None) -> str:
    """What the rounds cost, in a sentence.

    Args:
        privacy: the figures.
        recordings: behind them.
        colluders: labels that the noise was measured to withstand; None where each label has noise enough of its own.
    """
    if not privacy.bounded:
        return f"There was no noise: ε is infinite for each of {recordings} recordings."
    if colluders is None:
        figures = f"ε = {privacy.colluders:.3f} against everybody"
    elif not colluders:
        figures = f"ε = {privacy.outsiders:.3f} against everybody but labels that would take their noise out again"
    else:
        figures = (
            f"ε = {privacy.colluders:.3f} against {colluders} label{'s' * (colluders > 1)} taking noise out again, "
            f"ε = {privacy.outsiders:.3f} against everybody else"
        )
    return f"{figures}, at δ = {privacy.delta:.0e}: for each of {recordings} recordings, adding or removing one."


def trial_json(result: TrialResult, spent: dict[str, float]) -> dict[str, Any]:
    """A trial for programs; `spent` is the ε of each label's recordings, by its ledger."""
    bounded = result.cost.bounded
    rounds = [
        {
            "round": record.round,
            "members": record.members,
            "dropped": record.dropped,
            "seconds": round(record.seconds, 3),
            "exchanges": {kind: round(seconds, 4) for kind, seconds in record.exchanges.items()},
            "model": record.adapter_hash,
            "epsilon": (
                {"colluders": so_far.colluders, "outsiders": so_far.outsiders}
                if (so_far := result.privacy[record.round]).bounded
                else None
            ),
            "bytes_per_node": (
                {"sent": round(crossed.sent), "received": round(crossed.received)}
                if (crossed := result.traffic.get(record.round))
                else None
            ),
        }
        for record in result.history
    ]
    adapter = None if result.adapter is None else str(result.adapter)
    cost = {**result.cost.about(), "recordings": result.recordings, "spent_by_ledger": spent if bounded else None}
    return {"labels": result.labels, "rounds": rounds, "adapter": adapter, "privacy": cost}


def _both(privacy: PrivacyStatement) -> str:
    return f"{privacy.colluders:.2f} / {privacy.outsiders:.2f}"


def trial_table(result: TrialResult) -> Table:
    """A trial for people, a row a round."""
    table = Table(
        "Round", "In the sum", "Fell away", title="Rounds",
        caption="Sent and received: by one node, mean of all. ε: against colluding labels / everybody else.",
    )  # fmt: skip
    bounded = result.cost.bounded and bool(result.history)
    for name in (*("ε so far",) * bounded, "Time", "Sent", "Received", "Model after it"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in result.history:
        crossed = result.traffic.get(record.round)
        table.add_row(
            str(record.round),
            f"{len(record.members)} of {len(result.labels)}",
            "\n".join(f"{who} @ {kind.removeprefix('query.')}" for who, kind in sorted(record.dropped.items())) or "–",
            *((_both(result.privacy[record.round]),) if bounded else ()),
            f"{record.seconds:.1f} s",
            *(("earlier", "earlier") if crossed is None else (in_bytes(crossed.sent), in_bytes(crossed.received))),
            record.adapter_hash[:12],
        )
    after = result.traffic.get(len(result.history) + 1)
    if after is not None:
        name = f"{len(result.history) + 1}, cut short" if result.adapter is None else "release"
        table.add_row(name, "", "", *("",) * bounded, "", in_bytes(after.sent), in_bytes(after.received), "")
    return table

"""What the rounds so far have cost each recording, as the coordinator can say it: from the plans alone.

A label's own ledger is what binds it; this is the statement that goes with a release. It counts every round whose
contributions left their nodes, those that were given up among them, and a recording as if it had been there in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from partbook.coordinator.checkpoints import RoundRecord
from partbook.plan.rounds import RoundPlan
from partbook.privacy.accounting import epsilon
from partbook.privacy.events import Against, Repeated, events_of, from_json, to_json

ADVERSARIES: tuple[Against, ...] = ("colluders", "outsiders")


@dataclass(frozen=True, slots=True)
class PrivacyStatement:
    """(ε, δ)-differential privacy for each recording, adding or removing one.

    Attributes:
        delta: δ.
        colluders: ε against the members that the noise was calibrated to withstand, who know their own noise.
        outsiders: ε against everyone else, who know nobody's.
        rounds: how many are counted.
    """

    delta: float
    colluders: float
    outsiders: float
    rounds: int

    @property
    def bounded(self) -> bool:
        """Whether there is any bound."""
        return self.colluders < float("inf")

    def about(self) -> dict[str, Any]:
        """For `release.json`; an ε that is infinite is None there, for JSON has no such number."""
        return {
            "unit": "recording",
            "adjacency": "add or remove one",
            "delta": self.delta,
            "epsilon_colluders": self.colluders if self.bounded else None,
            "epsilon_outsiders": self.outsiders if self.bounded else None,
            "rounds": self.rounds,
        }


def spent_by(plan: RoundPlan) -> dict[str, str]:
    """`RoundRecord.spent` of a round."""
    return {who: to_json(events_of(plan, who)) for who in ADVERSARIES}


def statement(
    history: Sequence[RoundRecord], lost: Iterable[tuple[int, Mapping[str, str]]], delta: float
) -> PrivacyStatement:
    """What a federation's rounds cost, at δ.

    Args:
        history: finished rounds.
        lost: `Checkpoints.lost`.
        delta: δ, below one over the number of recordings.

    Raises:
        ConfigError: δ is not between 0 and 1.
        CorruptMessage: a record is broken.
    """
    spent = [record.spent for record in history if record.round] + [cost for _, cost in lost]
    figures = {}
    for who in ADVERSARIES:
        events: list[Repeated] = []
        for cost in spent:
            events.extend(from_json(cost[who]))
        figures[who] = epsilon(events, delta)
    return PrivacyStatement(delta, figures["colluders"], figures["outsiders"], len(spent))

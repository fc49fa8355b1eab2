"""Debits: what a coordinator asked, which recordings pay for it, and what it comes to. No disk here.

A recording pays for every round that may hold it, whether it was sampled or not: for a question that was reserved
before its withdrawal, and committed after its joining or not committed yet, until it is released.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from partbook.node.chain import Row

if TYPE_CHECKING:
    from partbook.privacy.events import Event, Repeated

State = Literal["unknown", "reserved", "committed", "released"]
NEVER: Final = math.inf  # a row number after all others


@dataclass(frozen=True, slots=True)
class Debit:
    """One question of a coordinator, and what became of it.

    Attributes:
        federation: which.
        coordinator: fingerprint of the coordinator that asked.
        round: counted from 1.
        question: `RoundPlan.question`.
        plan: hash of the plan it was reserved for.
        note: what it was for, in words; for people.
        events: what happens to a recording, as `partbook.privacy.events` spells it.
        reserved_at: when, ISO 8601 in UTC; for people.
        reserved: number of the row that reserved it, for the last time.
        settled_at: when it was committed or released; empty before.
        settled: number of the row that did; infinite before.
        state: `reserved`, `committed` or `released`.
        answer: SHA-256 of the vector that may leave for it, hexadecimal; empty where none was named.
    """

    federation: str
    coordinator: str
    round: int
    question: str
    plan: str
    note: str
    events: str
    reserved_at: str
    reserved: int
    settled_at: str = ""
    settled: float = NEVER
    state: Literal["reserved", "committed", "released"] = "reserved"
    answer: str = ""

    @classmethod
    def of(cls, row: Row) -> Debit:
        """The debit that a row of kind `reserved` tells of."""
        said, number = row.body, row.body["round"]
        assert isinstance(number, int), "what has this MAC was written here"
        return cls(
            federation=str(said["federation"]),
            coordinator=str(said["coordinator"]),
            round=number,
            question=str(said["question"]),
            plan=str(said["plan"]),
            note=str(said["note"]),
            events=str(said["events"]),
            reserved_at=str(said["at"]),
            reserved=row.number,
        )


@dataclass(frozen=True, slots=True)
class Stay:
    """How long a recording has counted: numbers of the rows that say so, and their times for people."""

    recording: str
    joined: float = NEVER
    joined_at: str = ""
    withdrawn: float = NEVER
    withdrawn_at: str = ""

    def pays(self, debit: Debit) -> bool:
        """Whether a question may hold this recording."""
        over = debit.settled if debit.state == "committed" else NEVER
        return debit.state != "released" and debit.reserved < self.withdrawn and self.joined < over


@dataclass(frozen=True, slots=True)
class Spent:
    """What a recording has spent.

    Attributes:
        epsilon_committed: ε of what left the node.
        epsilon_reserved_too: ε of that and of what is reserved; limits hold for this one.
        rounds: questions behind it.
        recording: which recording; empty where there is none.
    """

    epsilon_committed: float
    epsilon_reserved_too: float
    rounds: int
    recording: str


def price(debits: Iterable[Debit], delta: float, more: Iterable[Repeated] = ()) -> float:
    """ε at `delta` of all these questions together, and of `more` events; 0 for none.

    Raises:
        UnsupportedEvent: the accountant has no theorem for one of the events.
    """
    from partbook.privacy.accounting import epsilon
    from partbook.privacy.events import Repeated, from_json

    times: Counter[Event] = Counter()
    for item in more:
        times[item.event] += item.times
    for spelt, often in Counter(debit.events for debit in debits).items():
        for item in from_json(spelt):
            times[item.event] += item.times * often
    return epsilon([Repeated(event, count) for event, count in times.items()], delta) if times else 0.0

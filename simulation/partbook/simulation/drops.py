"""Members that fall away on purpose, to see what a round does without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from partbook.errors import ConfigError
from partbook.plan import wire

EXCHANGES: Final = {kind.removeprefix("query."): kind for kind in wire.KINDS if kind not in (wire.HELLO, wire.OPEN)}


@dataclass(frozen=True, slots=True)
class Drop:
    """A member that is down from one exchange to the end of its round.

    Attributes:
        member: the label's name.
        exchange: message kind of `partbook.plan.wire`.
        round: in which; None for every round.
    """

    member: str
    exchange: str
    round: int | None = None

    @classmethod
    def parse(cls, text: str, members: Sequence[str]) -> Drop:
        """Read `MEMBER@EXCHANGE` or `MEMBER@EXCHANGE:ROUND`, such as `Cremona@confirm:3`.

        Raises:
            ConfigError: no such member or exchange, or no such round.
        """
        member, _, rest = text.partition("@")
        exchange, _, number = rest.partition(":")
        if member not in members:
            raise ConfigError(f"--drop {text!r}: no member is called {member!r}; there are {', '.join(members)}.")
        if exchange not in EXCHANGES:
            raise ConfigError(f"--drop {text!r}: no exchange is called {exchange!r}; there are {', '.join(EXCHANGES)}.")
        if number and not (number.isdigit() and int(number) >= 1):
            raise ConfigError(f"--drop {text!r}: {number!r} is no round; count from 1, or leave it out for all.")
        return cls(member, EXCHANGES[exchange], int(number) if number else None)


class Losses:
    """Tells the grid which messages never arrive."""

    def __init__(self, drops: Sequence[Drop], members: Mapping[int, str]) -> None:
        """`members` gives names by node id."""
        self._drops, self._members = drops, members
        self._rounds: Counter[str] = Counter()
        self._back: set[tuple[str, int]] = set()

    def __call__(self, node_id: int, kind: str) -> bool:
        """Whether a message of this kind to this node is lost."""
        member = self._members[node_id]
        if kind == wire.TRAIN:
            self._rounds[member] += 1
        if kind not in EXCHANGES.values():
            return False
        number, place = self._rounds[member], wire.KINDS.index(kind)
        down = (member, number) not in self._back and any(
            drop.member == member and drop.round in (None, number) and wire.KINDS.index(drop.exchange) <= place
            for drop in self._drops
        )
        if down and kind == wire.APPLY:
            # A round's own sum is its last message; what comes before the next plan is for catching up.
            self._back.add((member, number))
        return down

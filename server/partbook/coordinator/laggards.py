"""Labels that are behind, and which of the kept sums can help them: a sum that cannot is not sent.

An opened sum is encrypted to the labels of the roster that its round was planned for, and counts while the custodian
who signed it is the one in force. So the sums of rounds before a label came pass it by, and so do all before a change
of the custodian's key. A label that declines a sum of an earlier roster, or the first that is encrypted to it, holds
another model than the sums begin with: none leads on from it, until another label hands it the model
(docs/enrolment.md). It is left alone for some rounds, or until it has trained for one: with the model of all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from partbook.errors import PartbookError
from partbook.identity.message import Message
from partbook.identity.roster import Roster
from partbook.plan import exchanges as e

ASK_AGAIN: Final = 4
"""Rounds after which a label that declined is asked again: it may have been handed a model that is behind by now."""

_REMEDY: Final = "another label hands its model over (`partbook node hand-over`; docs/enrolment.md)"

log = logging.getLogger(__name__)


class Laggards:
    """What one run knows of labels that are behind."""

    def __init__(self, roster: Roster, kept: Callable[[int], tuple[bytes, bytes]]) -> None:
        """For the roster in force; `kept` gives a round's signed plan, and the signed `opened` of its first chunk."""
        self._roster, self._kept = roster, kept
        self._helps: dict[int, frozenset[str]] = {}
        self._declined: dict[str, int] = {}  # by member: before which round
        self._told: set[str] = set()

    def helped(self, number: int) -> frozenset[str]:
        """Members that a round's sum is encrypted to, if the custodian in force opened it; worked out once."""
        if number not in self._helps:
            self._helps[number] = self._encrypted_to(*self._kept(number))
        return self._helps[number]

    def forget(self, number: int) -> None:
        """Another sum of this round is kept from now on."""
        self._helps.pop(number, None)

    def passed_by(self, member: str, number: int) -> None:
        """None of the sums up to this round that the member lacks is encrypted to it."""
        if member not in self._told:
            self._told.add(member)
            log.warning(
                "%s cannot be caught up: no sum that is kept up to round %d is for it. Unless it holds the model, %s.",
                member, number, _REMEDY, extra={"peer": member, "round": number},
            )  # fmt: skip

    def declined(self, members: Iterable[str], number: int, plan_message: bytes, before: int) -> None:
        """Members refused the sum of round `number`, while the others were led up to round `before`."""
        earlier = e.unverified_plan(plan_message).roster != self._roster.hash
        for member in members:
            begins = min((found for found, members in self._helps.items() if member in members), default=number)
            # Before the first round every label holds one model: what it declines that sum for will pass.
            if earlier or number == begins > 1:
                self._declined[member] = before
                log.warning(
                    "%s does not step with the sum of round %d, and is not asked for %d rounds. Unless it says why "
                    "otherwise, %s.",
                    member, number, ASK_AGAIN, _REMEDY, extra={"peer": member, "round": before},
                )  # fmt: skip

    def resting(self, member: str, number: int) -> bool:
        """Whether it is too early to ask this member again, up to this round."""
        return member in self._declined and number < self._declined[member] + ASK_AGAIN

    def trained(self, members: Iterable[str]) -> None:
        """These members hold the model of all."""
        for member in members:
            self._declined.pop(member, None)

    def _encrypted_to(self, plan_message: bytes, opened: bytes) -> frozenset[str]:
        custodian = self._roster.custodian
        assert custodian is not None, "sums are opened where there is one"
        try:
            message = Message.decode(opened)
            message.check(custodian.identity, e.OPENED, e.unverified_plan(plan_message).context(), custodian.name)
            return frozenset(e.Opened.of(message).keys)
        except PartbookError:
            return frozenset()

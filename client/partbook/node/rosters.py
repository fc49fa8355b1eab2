"""The rosters that a label has pinned: the one in force, and those before it, for rounds that were played under them.

A change of the roster ends no model. What an earlier version led to is still stepped with by a label that was away, and
still released; the plan of such a round names the earlier version. So a label keeps every version it has started with
(signed by all, or it would not have started), and takes such a plan where, and only where, all of this holds:

- It pinned that version itself: nobody can hand it a roster, or the hash of one, that it never agreed to.
- For a **step**: the sum is signed by a custodian whose key is in force *now*. Its signature covers the plan's hash,
  and the custodian opens a sum only for a plan of the roster that it had pinned and against the labels' confirmations;
  so it vouches for the plan as well, also where the coordinator has a new key since. A custodian's key that was
  replaced vouches for nothing any more: whoever stole it could lead a label that was away to another model, and the
  change of the roster is to end just that. The label's own receiving key must be the one of then, or it opens nothing.
- For a **release**: the coordinator asks with its key of *now*, and only labels that are in the roster *now* agree,
  with their keys of now. Who left has no say, nor has whoever found an old key. As many must agree as the round's plan
  wanted, and more than half of the roster in force: where labels came, a few of the old ones do not decide for all;
  where so many left that too few are there, the next round, planned under the new roster, leads to a model that can be
  released.

Neither asks anything of a recording: a step reads a sum that the custodian opened for this label, and a release hands
over a model that has been paid for. To *train*, a plan has to be for the roster in force; that is not decided here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from partbook.errors import ConfigError, ForgedMember, PartbookError, VaultError
from partbook.identity.receiving import PublicReceiving
from partbook.identity.roster import Roster
from partbook.plan import exchanges as e
from partbook.plan.rounds import RoundPlan

_FOLDER: Final = "rosters"
REMEDY: Final = "have another label hand its model over (`partbook node hand-over`)"


class PinnedRosters:
    """The roster in force at one label, and what it kept of those before."""

    def __init__(self, state: Path, roster: Roster, member: str) -> None:
        """Keep `roster`, which all have signed, among those of the state folder.

        Raises:
            VaultError: the disk refuses.
        """
        self._folder, self._roster, self._member = state / _FOLDER, roster, member
        path = self._path(roster.hash)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                roster.write(path)
        except (OSError, ConfigError) as error:
            raise VaultError(f"{path} cannot be written ({error}); free some space and start again.") from error

    def plan(self, data: bytes) -> RoundPlan:
        """The plan of a round that is over, signed by the coordinator of the roster it was planned for.

        Raises:
            CorruptMessage, BadSignature, ReplayedMessage: it is not the coordinator's plan.
            ForgedMember: it is for a roster that this label never pinned, or pinned after the one in force.
            ForeignSealKey: it is sealed to another key than that roster's.
        """
        named = e.unverified_plan(data).roster
        roster = self._roster if named == self._roster.hash else self._earlier(named)
        if roster is None:
            plan = e.read_plan(data, self._roster)
            raise ForgedMember(
                f"Round {plan.round} was planned for roster {plan.roster[:12]}…, which {self._member} never pinned "
                f"before the one in force, {self._roster.hash[:12]}…; what it led to cannot be checked here. If the "
                f"federation has gone on without {self._member}, {REMEDY}."
            )
        plan = e.read_plan(data, roster)
        plan.session(roster)
        return plan

    def may_step(self, plan: RoundPlan, receiving: PublicReceiving) -> None:
        """Return if what the custodian says of this round still counts, and can be opened here.

        Raises:
            ForgedMember: another custodian's key is in force now, or another receiving key of this label.
        """
        if plan.roster == self._roster.hash:
            return
        then, now = self._then(plan), self._roster
        if then.custodian is None or now.custodian is None or _who(then) != _who(now):
            raise ForgedMember(
                f"The sum of round {plan.round} was opened under an earlier roster, by a custodian's key that is not "
                f"in force any more; {self._member} takes no step with it. To go on, {REMEDY}."
            )
        if then.member(self._member).receiving != receiving:
            raise ForgedMember(
                f"The sum of round {plan.round} was encrypted to an earlier receiving key of {self._member}, which is "
                f"not in use any more. To go on, {REMEDY}."
            )

    def agreement(self, plan: RoundPlan) -> int:
        """How many labels of the roster in force must endorse the model after this round; see above."""
        return e.endorsements_needed(plan, self._roster)

    def _then(self, plan: RoundPlan) -> Roster:
        found = self._earlier(plan.roster)
        assert found is not None, "the plan was read with it"
        return found

    def _earlier(self, named: str) -> Roster | None:
        """The roster of this hash, if it was pinned here before the one in force. A broken file counts as none."""
        try:
            found = Roster.read(self._path(named))
        except PartbookError:
            return None
        before = found.federation == self._roster.federation and found.version < self._roster.version
        return found if found.hash == named and before else None

    def _path(self, named: str) -> Path:
        return self._folder / f"{named}.toml"


def _who(roster: Roster) -> tuple[str, bytes] | None:
    return None if roster.custodian is None else (roster.custodian.name, roster.custodian.identity.pem)

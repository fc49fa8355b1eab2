"""The model that sealed rounds lead to, as one label holds it: the steps it takes, and what it says of a release.

Nothing here asks anything of a recording. A step reads a sum that the custodian opened for this label, and a release
hands over a model that has been paid for; so both may be of a round that was played under an earlier roster, where
`PinnedRosters` lets them. No lock: `LabelNode` lets one message in at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from torch import Tensor

from partbook.errors import ConfigError, CorruptMessage, ReleaseRefused, StalePlan, UnknownModel
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Message
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Roster
from partbook.node.opened_sum import OpenedSum
from partbook.node.policy import Policy
from partbook.node.rosters import REMEDY, PinnedRosters
from partbook.node.shared_model import SharedModel
from partbook.plan import exchanges as e
from partbook.plan.rounds import RoundPlan
from partbook.secagg.rings import CHUNK

MODEL_FILE: Final = "model.safetensors"


class HeldModel:
    """One label's copy, on its disk.

    Attributes:
        shared: the model after the last round whose sum was opened.
    """

    def __init__(
        self,
        kept: Path,
        member: str,
        roster: Roster,
        identity: IdentityKey,
        receiving: ReceivingKey | None,
        policy: Policy,
        like: dict[str, Tensor],
    ) -> None:
        """Take up what `kept` holds.

        Args:
            kept: the node's folder for what it keeps.
            member: the label's name.
            roster: the one in force.
            identity: signs what the label says.
            receiving: opens what the custodian sealed to it; None where no rounds are sealed.
            policy: whether the label releases anything by itself.
            like: an adapter state that gives names and shapes.

        Raises:
            AlteredFile: the model's file is broken.
            VaultError: the disk refuses.
        """
        self._kept, self._path, self._member = kept, kept / MODEL_FILE, member
        self._roster, self._identity, self._receiving, self._policy = roster, identity, receiving, policy
        self._rosters = PinnedRosters(kept, roster, member)
        self.shared = SharedModel.load(self._path, like)

    def must_be(self, model_hash: str) -> None:
        """Return if this is the model held here.

        Raises:
            UnknownModel: it is another.
        """
        if model_hash != self.shared.hash:
            raise UnknownModel(
                f"{self._member} holds the model after round {self.shared.round}, {self.shared.hash[:12]}…; the "
                f"coordinator asks about {model_hash[:12]}…, which no agreed round led to. If that stays so, {REMEDY}."
            )

    def apply(self, plan_message: bytes, opened: Sequence[bytes], blobs: Sequence[bytes]) -> bytes:
        """Keep chunks of an opened sum, and take the step that it leads to once all are here, once.

        Args:
            plan_message: the coordinator's signed plan.
            opened, blobs: chunks, any number of them, in any order: what the custodian signed, and the encrypted bytes
                that each of these vouches for.

        Returns:
            The signed hash of the model after the step; while chunks are missing, the signed `held`.

        Raises:
            UnknownModel: the sum is not of the next round of the model held here.
            ForgedMember: its round was played under an earlier roster, and does not count here (`PinnedRosters`).
            CorruptMessage, BadSignature, AlteredCiphertext: it is not what the custodian opened.
        """
        plan = self._rosters.plan(plan_message)
        if plan.mode != "sealed":
            raise CorruptMessage("An opened sum was handed over for a round that is not sealed.")
        if plan.round > self.shared.round:
            total = self._opened_sum(plan)
            total.take(opened, blobs)
            self.shared.must_precede(plan)
            if not total.whole:
                total.keep()
                return e.write(self._identity, e.HELD, plan.context(), self._member)
            self.shared = self.shared.step_into(self._path, plan, total.numbers(), total.contributions())
            total.remove()
        model = e.ModelHash(model=self.shared.hash)
        return e.write(self._identity, e.APPLIED, plan.context(), self._member, model)

    def endorse(self, plan_message: bytes, request: bytes) -> bytes:
        """Agree to the release of the model this label holds.

        Raises:
            UnknownModel: the coordinator asks about another.
            StalePlan: the plan is not that of the round which led to it.
            ReleaseRefused: the label's policy releases nothing by itself.
        """
        plan = self._last_plan(plan_message)
        message = Message.decode(request)
        message.check(self._roster.coordinator, e.ENDORSE, plan.context(), COORDINATOR)
        self.must_be(e.ModelHash.of(message).model)
        return e.write(self._identity, e.ENDORSED, plan.context(), self._member, e.ModelHash(model=self.shared.hash))

    def publish(self, plan_message: bytes, request: bytes) -> tuple[bytes, bytes]:
        """Hand over a stretch of the model, against the signatures of as many labels as a round needs.

        Raises:
            CorruptMessage: too few labels endorsed this model, or it has no such stretch.
            StalePlan: the plan is not that of the round which led to it.
            ReleaseRefused: the label's policy releases nothing by itself.
        """
        plan = self._last_plan(plan_message)
        message = Message.decode(request)
        message.check(self._roster.coordinator, e.PUBLISH, plan.context(), COORDINATOR)
        agreed, asked = set(), e.Publish.of(message)
        for text in asked.endorsements:
            endorsed = Message.decode(text.encode())
            public = self._roster.member(endorsed.sender).identity
            endorsed.check(public, e.ENDORSED, plan.context(), endorsed.sender)
            if e.ModelHash.of(endorsed).model == self.shared.hash:
                agreed.add(endorsed.sender)
        needed = self._rosters.agreement(plan)
        if len(agreed) < needed:
            raise CorruptMessage(
                f"{len(agreed)} labels endorsed the release of this model, {needed} are needed; "
                f"{self._member} keeps it."
            )
        body = e.ModelHash(model=self.shared.hash)
        signed = e.write(self._identity, e.PUBLISHED, plan.context(), self._member, body)
        start = asked.chunk * e.PUBLISHED_NUMBERS
        stretch = self.shared.adapter[start : start + e.PUBLISHED_NUMBERS]
        if not len(stretch):
            raise CorruptMessage(f"Stretch {asked.chunk} of the model was asked for; it has fewer.")
        return signed, stretch.astype("<f4").tobytes()

    def _last_plan(self, plan_message: bytes) -> RoundPlan:
        """The plan of the round that led to the model held here, for the roster in force or one pinned before."""
        plan = self._rosters.plan(plan_message)
        if plan.round != self.shared.round:
            raise StalePlan(
                f"A release was asked for with the plan of round {plan.round}; {self._member} holds the model after "
                f"round {self.shared.round}."
            )
        if self._policy.releases == "never":
            raise ReleaseRefused(
                f"{self._member} releases no model by itself (`releases` in its policy); ask the label's engineer."
            )
        return plan

    def _opened_sum(self, plan: RoundPlan) -> OpenedSum:
        custodian = self._roster.custodian
        if custodian is None or self._receiving is None:
            raise ConfigError(f"{self._member} has no receiving key, or its roster no custodian; name them.")
        self._rosters.may_step(plan, self._receiving.public)
        return OpenedSum(self._kept / "opened", plan, self._member, self._receiving, custodian, CHUNK)

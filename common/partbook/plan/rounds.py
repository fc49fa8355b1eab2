"""RoundPlan: everything about a round that all parties must agree on, hashed in one canonical form."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from partbook.errors import CorruptMessage, ForeignSealKey, ForgedMember
from partbook.identity.message import Context
from partbook.identity.roster import MEMBER_NAME, Roster
from partbook.model.scope import Scope
from partbook.plan.training import DistributedDp, LocalDp, Training
from partbook.privacy.mechanism import NoisyGrid
from partbook.sealing.packing import Packing
from partbook.sealing.parameters import MAX_CONTRIBUTIONS
from partbook.secagg.grid import FINEST_BITS, Grid
from partbook.secagg.rings import CHUNK, RESIDUES, WORDS, Ring
from partbook.secagg.session import Session

PROTOCOL: Final = "partbook/v1"
MINIMUM_COHORT: Final = 3  # PROTOCOL §1: with two members, each would learn the other's update from the sum

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
MemberName = Annotated[str, StringConstraints(pattern=MEMBER_NAME)]


Mode = Literal["masked", "sealed"]
MODES: Final[dict[Mode, Ring]] = {"masked": WORDS, "sealed": RESIDUES}  # and the ring in which each adds up


class ServerStep(BaseModel):
    """How the average update moves the global adapter.

    The coordinator takes this step in masked rounds, every label in sealed ones. It sees sums alone, so it costs no
    privacy (post-processing: Dwork and Roth 2014, Proposition 2.1).

    Attributes:
        rule: `momentum`: FedAvgM (Hsu et al. 2019, arXiv 1909.06335); `adam`: FedAdam (Reddi et al. 2021, arXiv
            2003.00295, algorithm 2) with Adam's bias correction.
        learning_rate: what the average, or Adam's direction, is multiplied by.
        momentum: share of the last step that is carried on (Adam's β1), 0 for plain averaging.
        second: Adam's β2.
        floor: Adam's τ, added to the root of the second moment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["momentum", "adam"] = "momentum"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    second: Annotated[float, Field(ge=0, lt=1)] = 0.95
    floor: Annotated[float, Field(gt=0, le=1)] = 1e-8


class RoundPlan(BaseModel):
    """One attempt at a round, as the coordinator proposes it and every party checks it.

    Attributes:
        federation: the federation's name.
        roster: `Roster.hash` of the roster that says who everyone is.
        round: counted from 1.
        nonce: 16 random bytes, hexadecimal; two attempts at a round have different plans, and so different masks.
        deadline: Unix time, seconds, after which no node takes part.
        base_hash: SHA-256 of the base model's weights file.
        model_hash: `partbook.model.adapter.state_hash` of the adapter the round starts from.
        scope: which of the adapter's numbers are trained.
        parameters: how many those are, d: the length of every contribution.
        cohort: members asked, sorted, unique, at least three.
        threshold: fewest members whose sum may be opened; above half the cohort.
        training: what each node does, and with which noise.
        step: what the average then does to the adapter.
        mode: `masked`: the coordinator sees the sum; `sealed`: only the labels do.
        bits: of a quantised number.
        seal_key: id of the custodian's public key in sealed rounds, otherwise empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["partbook/v1"] = PROTOCOL
    federation: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    roster: Sha256
    round: Annotated[int, Field(ge=1)]
    nonce: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    deadline: Annotated[int, Field(ge=0)]
    base_hash: Sha256
    model_hash: Sha256
    scope: Scope = "all"
    parameters: Annotated[int, Field(ge=1)]
    cohort: tuple[MemberName, ...]
    threshold: int
    training: Training
    step: ServerStep = ServerStep()
    mode: Mode
    bits: Annotated[int, Field(ge=2, le=24)]
    seal_key: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.cohort) != sorted(set(self.cohort)):
            raise ValueError("cohort must be sorted and name each member once")
        if len(self.cohort) < MINIMUM_COHORT:
            raise ValueError(f"cohort has {len(self.cohort)} members; at least {MINIMUM_COHORT} are needed")
        if not len(self.cohort) < 2 * self.threshold <= 2 * len(self.cohort):
            raise ValueError(f"threshold {self.threshold} is not above half of {len(self.cohort)} and at most all")
        if (self.mode == "sealed") != bool(self.seal_key):
            raise ValueError("sealed rounds name the custodian's key, and no others do")
        if self.mode == "sealed" and len(self.cohort) > MAX_CONTRIBUTIONS:
            raise ValueError(f"a sealed sum has at most {MAX_CONTRIBUTIONS} contributions, not {len(self.cohort)}")
        if isinstance(self.training, DistributedDp):
            colluders = self.training.colluders
            if colluders >= self.threshold:
                raise ValueError(f"{colluders} colluders leave nobody of {self.threshold} to make the noise")
            # Two sums of the same vectors would need threshold - colluders honest members' shares each, and no honest
            # member hands out two: their difference would be protected by less noise than was accounted.
            if 2 * self.threshold <= len(self.cohort) + colluders:
                raise ValueError(
                    f"threshold {self.threshold} of {len(self.cohort)} lets {colluders} colluders open two sums of one "
                    f"round; it must be above half of {len(self.cohort) + colluders}"
                )
        if isinstance(self.training, LocalDp):
            _ = self.local_grid
        if not self.grid.fits(len(self.cohort), self.ring.modulus):
            raise ValueError(f"{len(self.cohort)} numbers of {self.bits} bits do not fit the ring; use fewer bits")
        return self

    @property
    def grid(self) -> Grid | NoisyGrid:
        """How what a member sends becomes integers."""
        training = self.training
        if isinstance(training, DistributedDp):
            honest = self.threshold - training.colluders
            return NoisyGrid(self.bits, training.clip, self.parameters, training.noise_multiplier, honest)
        return Grid(self.bits, training.bound if isinstance(training, LocalDp) else training.clip)

    @property
    def local_grid(self) -> NoisyGrid:
        """How a recording's update becomes integers in a member's own noisy steps; local mode only."""
        assert isinstance(self.training, LocalDp), "only then is there noise of a member's own"
        return NoisyGrid(FINEST_BITS, self.training.clip, self.parameters, self.training.noise_multiplier, 1)

    @property
    def ring(self) -> Ring:
        """Where they are added up."""
        return MODES[self.mode]

    @property
    def packing(self) -> Packing:
        """How integers share the slots of a ciphertext, in sealed rounds."""
        return Packing(self.grid.span, len(self.cohort))

    @property
    def elements(self) -> int:
        """Ring elements of a contribution: numbers in masked rounds, slots in sealed ones."""
        return self.parameters if self.mode == "masked" else self.packing.slots(self.parameters)

    @property
    def chunks(self) -> int:
        """Messages of a contribution."""
        return -(-self.elements // CHUNK)

    def context(self) -> Context:
        """What every message of this attempt carries."""
        return Context(self.federation, self.round, self.hash())

    def session(self, roster: Roster) -> Session:
        """The attempt's secure aggregation, with keys from the pinned roster.

        Raises:
            ForgedMember: the plan is for another roster, or names somebody whom this one does not hold.
            ForeignSealKey: the plan's custodian key is not the roster's.
        """
        if (self.federation, self.roster) != (roster.federation, roster.hash):
            raise ForgedMember(
                f"Round {self.round} is planned for roster {self.roster[:12]}… of {self.federation!r}; the one pinned "
                f"here is {roster.hash[:12]}… of {roster.federation!r}. Compare fingerprints first."
            )
        if self.seal_key and (roster.custodian is None or roster.custodian.seal_key != self.seal_key):
            raise ForeignSealKey(
                f"Round {self.round} is to be sealed to the key {self.seal_key[:12]}…, which is not the custodian's in "
                "the pinned roster; whoever holds it could open the sum. Nothing was sent."
            )
        identities = {member: roster.member(member).identity for member in self.cohort}
        return Session(self.context(), self.cohort, self.threshold, self.ring, identities, roster.coordinator)

    def question(self) -> str:
        """SHA-256 of what a node computes from: one stored vector answers all attempts with the same question."""
        fields = {"federation", "round", "base_hash", "model_hash", "scope", "training", "bits"}
        if isinstance(self.training, DistributedDp):
            fields.add("threshold")  # a member's share of the noise is calibrated to it
        asked = self.model_dump(mode="json", include=fields)
        return hashlib.sha256(b"partbook/v1/question" + json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def encode(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()

    @classmethod
    def decode(cls, data: bytes) -> RoundPlan:
        """Read a plan, accepting only its canonical form.

        Raises:
            CorruptMessage: not a plan, or not canonically encoded.
        """
        try:
            plan = cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the plan"
            raise CorruptMessage(f"The round plan is broken at {where}: {first['msg']}.") from error
        if plan.encode() != data:
            raise CorruptMessage("The round plan is not in its canonical form; the coordinator must re-send it.")
        return plan

    def hash(self) -> str:
        """SHA-256 of the domain label and the canonical form, hex."""
        return hashlib.sha256(b"partbook/v1/plan" + self.encode()).hexdigest()


def default_threshold(members: int) -> int:
    """⌊2n/3⌋ + 1: secure against a lying coordinator with fewer than n/3 members (PROTOCOL §1)."""
    return 2 * members // 3 + 1

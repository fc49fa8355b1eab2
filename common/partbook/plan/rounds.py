"""RoundPlan: everything about a round that all parties must agree on, hashed in one canonical form."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from partbook.errors import CorruptMessage

PROTOCOL: Final = "partbook/v1"
MINIMUM_COHORT: Final = 3  # PROTOCOL §1: with two members, each would learn the other's update from the sum

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
MemberName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]


class Locks(BaseModel):
    """Which of the three locks of PROTOCOL §0 protect a round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    masks: bool = False
    seal: bool = False
    noise: bool = False

    def names(self) -> list[str]:
        """The locks that are on, in order."""
        return [name for name in ("masks", "seal", "noise") if getattr(self, name)]


class LocalTraining(BaseModel):
    """What a node does with its recordings in one round.

    Attributes:
        steps: optimiser steps.
        batch: windows a step.
        learning_rate: AdamW's.
        clip: L2 norm C to which the update is clipped, over all trained parameters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=10_000)] = 8
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    clip: Annotated[float, Field(gt=0, le=1e6)] = 3.0


class RoundPlan(BaseModel):
    """One round, as the coordinator proposes it and every node checks it.

    Attributes:
        federation: the federation's name.
        round: counted from 1.
        base_hash: SHA-256 of the base model's weights file.
        model_hash: `partbook.model.adapter.state_hash` of the adapter the round starts from.
        cohort: members asked, sorted, unique, at least three.
        threshold: fewest members whose sum may be opened; above half the cohort.
        training: what each node does.
        locks: what protects the updates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["partbook/v1"] = PROTOCOL
    federation: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    round: Annotated[int, Field(ge=1)]
    base_hash: Sha256
    model_hash: Sha256
    cohort: tuple[MemberName, ...]
    threshold: int
    training: LocalTraining
    locks: Locks

    @model_validator(mode="after")
    def _cohort_and_threshold(self) -> Self:
        if list(self.cohort) != sorted(set(self.cohort)):
            raise ValueError("cohort must be sorted and name each member once")
        if len(self.cohort) < MINIMUM_COHORT:
            raise ValueError(f"cohort has {len(self.cohort)} members; at least {MINIMUM_COHORT} are needed")
        if not len(self.cohort) < 2 * self.threshold <= 2 * len(self.cohort):
            raise ValueError(f"threshold {self.threshold} is not above half of {len(self.cohort)} and at most all")
        return self

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

"""The global adapter as a label holds it in sealed rounds, where the coordinator does not.

Every label begins with the base model's fresh adapter, takes the same step from every opened sum, and signs the hash
of what came out (PROTOCOL §2). A label that missed a round takes the steps it missed, in order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from partbook.errors import AlteredFile, StalePlan, UnknownModel, VaultError
from partbook.model.adapter import flatten, state_hash, unflatten
from partbook.node.keeping import write_whole
from partbook.plan.rounds import RoundPlan
from partbook.plan.step import mean_update, step


@dataclass(frozen=True, slots=True)
class SharedModel:
    """Adapter and velocity after a round.

    Attributes:
        round: after which; 0 before any.
        adapter: float32 (d,).
        velocity: float32 (d,), the server step's.
        like: an adapter state that gives names and shapes.
    """

    round: int
    adapter: NDArray[np.float32]
    velocity: NDArray[np.float32]
    like: dict[str, Tensor]

    @classmethod
    def fresh(cls, like: dict[str, Tensor]) -> SharedModel:
        """Before any round."""
        adapter = flatten(like)
        return cls(0, adapter, np.zeros_like(adapter), like)

    @classmethod
    def load(cls, path: Path, like: dict[str, Tensor]) -> SharedModel:
        """What `save` wrote, or a fresh one where there is nothing.

        Raises:
            AlteredFile: the file is broken.
        """
        if not path.exists():
            return cls.fresh(like)
        try:
            with safe_open(path, framework="numpy") as file:
                found = cls(
                    int(file.metadata()["round"]), file.get_tensor("adapter"), file.get_tensor("velocity"), like
                )
                digest = file.metadata()["sha256"]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise AlteredFile(
                f"{path} is broken ({error}); restore it, or remove it to take every step again."
            ) from error
        if found._digest() != digest:
            raise AlteredFile(f"{path} was altered; restore it, or remove it to take every step again.")
        return found

    def save(self, path: Path) -> None:
        """Write it whole or not at all.

        Raises:
            VaultError: the disk refuses; what was there before is still there.
        """
        about = {"round": str(self.round), "sha256": self._digest()}
        try:
            write_whole(path, save({"adapter": self.adapter, "velocity": self.velocity}, metadata=about))
        except OSError as error:
            raise VaultError(
                f"{path} cannot be written ({error.strerror}); the step was not taken. Free some space, and the next "
                "round takes it."
            ) from error

    @property
    def hash(self) -> str:
        """`state_hash` of the adapter."""
        return state_hash(self.state)

    @property
    def state(self) -> dict[str, Tensor]:
        """The adapter by name."""
        return unflatten(self.adapter, self.like)

    def after(self, plan: RoundPlan, total: NDArray[np.uint64], contributions: int) -> SharedModel:
        """The model after a round's step.

        Args:
            plan: the round's.
            total: exact integer sums, (d,).
            contributions: how many were added.

        Raises:
            StalePlan: the round is over.
            UnknownModel: the round did not start from this model.
            ValueOutOfRange: the sums are larger than so many contributions can make them.
        """
        # Numbers may be left out, where a round was given up; the model's hash says whether a sum is the next one.
        if plan.round <= self.round:
            raise StalePlan(f"The sum of round {plan.round} was handed over after that of round {self.round}.")
        if plan.model_hash != self.hash:
            raise UnknownModel(f"Round {plan.round} started from another model than the one held here.")
        moved, velocity = step(self.adapter, mean_update(total, contributions, plan), self.velocity, plan.step)
        return SharedModel(plan.round, moved, velocity, self.like)

    def _digest(self) -> str:
        parts = (self.round.to_bytes(8, "big"), self.adapter.tobytes(), self.velocity.tobytes())
        return hashlib.sha256(b"".join(parts)).hexdigest()

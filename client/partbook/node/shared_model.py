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
from partbook.model.adapter import flatten, selection, state_hash, unflatten
from partbook.node.keeping import write_whole
from partbook.plan.rounds import RoundPlan
from partbook.plan.step import Motion, mean_update, step


@dataclass(frozen=True, slots=True)
class SharedModel:
    """Adapter and the server step's memory after a round.

    Attributes:
        round: after which; 0 before any.
        adapter: float32 (d,).
        motion: what the next step needs of the ones before.
        like: an adapter state that gives names and shapes.
    """

    round: int
    adapter: NDArray[np.float32]
    motion: Motion
    like: dict[str, Tensor]

    @classmethod
    def fresh(cls, like: dict[str, Tensor]) -> SharedModel:
        """Before any round."""
        adapter = flatten(like)
        return cls(0, adapter, Motion.none(len(adapter)), like)

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
                about = file.metadata()
                motion = Motion(file.get_tensor("velocity"), file.get_tensor("second"), int(about["steps"]))
                found = cls(int(about["round"]), file.get_tensor("adapter"), motion, like)
                digest = about["sha256"]
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
        about = {"round": str(self.round), "steps": str(self.motion.steps), "sha256": self._digest()}
        arrays = {"adapter": self.adapter, "velocity": self.motion.velocity, "second": self.motion.second}
        try:
            write_whole(path, save(arrays, metadata=about))
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
        mean, trained = mean_update(total, contributions, plan), selection(self.like, plan.scope)
        moved, motion = step(self.adapter, mean, self.motion, plan.step, trained)
        return SharedModel(plan.round, moved, motion, self.like)

    def _digest(self) -> str:
        counts = self.round.to_bytes(8, "big") + self.motion.steps.to_bytes(8, "big")
        arrays = (self.adapter, self.motion.velocity, self.motion.second)
        return hashlib.sha256(counts + b"".join(array.tobytes() for array in arrays)).hexdigest()

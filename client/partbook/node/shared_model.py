"""The global adapter as a label holds it in sealed rounds, where the coordinator does not.

Every label begins with the base model's fresh adapter, takes the same step from every opened sum, and signs the hash
of what came out (PROTOCOL §2). A label that missed a round takes the steps it missed, in order.

An adapter may have tens of millions of numbers, and a step needs three times as many. So the file holds them (as
safetensors: a header, then the arrays one after another), memory the adapter alone, and a step goes from the old file
to the new one a stretch at a time.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from partbook.errors import AlteredFile, StalePlan, UnknownModel, VaultError
from partbook.model.adapter import flatten, in_scope, selection, state_hash, unflatten
from partbook.node.keeping import replacing
from partbook.plan.rounds import RoundPlan
from partbook.plan.step import Motion, mean_update, step

_NAMES: Final = ("adapter", "velocity", "second")
_DIGEST: Final = 64  # hexadecimal digits
_STRETCH: Final = 2**20  # numbers worked on at a time

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class SharedModel:
    """Adapter and the server step's memory after a round.

    Attributes:
        round: after which; 0 before any.
        adapter: float32 (d,).
        motion: what the next step needs of the ones before; read from the file, if there is one, where it is needed.
        like: an adapter state that gives names and shapes.
    """

    round: int
    adapter: Numbers
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
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                head = json.loads(file.read(min(size, 2**20)))
                about = head["__metadata__"]
                number, steps = int(about["round"]), int(about["steps"])
                places = {name: _place(head[name], 8 + size) for name in _NAMES}
                (count,) = {count for _, count in places.values()}
                digest = _digest(file, number, steps, places)
                adapter = np.empty(count, "<f4")
                file.seek(places["adapter"][0])
                if file.readinto(adapter.data) != adapter.nbytes:
                    raise ValueError("cut")
            velocity, second = (_mapped(path, *places[name]) for name in ("velocity", "second"))
        except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError) as error:
            raise AlteredFile(
                f"{path} is broken ({error}); restore it, or remove it to take every step again."
            ) from error
        if digest != about.get("sha256"):
            raise AlteredFile(f"{path} was altered; restore it, or remove it to take every step again.")
        return cls(number, adapter, Motion(velocity, second, steps), like)

    def save(self, path: Path) -> None:
        """Write it whole or not at all.

        Raises:
            VaultError: the disk refuses; what was there before is still there.
        """
        parts = (
            (start, self.adapter[part], self.motion.velocity[part], self.motion.second[part])
            for start in range(0, len(self.adapter), _STRETCH)
            for part in [slice(start, start + _STRETCH)]
        )
        _write(path, self.round, self.motion.steps, len(self.adapter), parts)

    @cached_property
    def hash(self) -> str:
        """`state_hash` of the adapter."""
        views, start = dict[str, Tensor](), 0
        for name in sorted(self.like):
            stop = start + self.like[name].numel()
            views[name] = torch.from_numpy(self.adapter[start:stop]).reshape(self.like[name].shape)
            start = stop
        return state_hash(views)

    @property
    def state(self) -> dict[str, Tensor]:
        """The adapter by name."""
        return unflatten(self.adapter, self.like)

    def must_precede(self, plan: RoundPlan) -> None:
        """Return if a plan starts from this model.

        Raises:
            StalePlan: the round is over.
            UnknownModel: the round did not start from this model.
        """
        # Numbers may be left out, where a round was given up; the model's hash says whether a sum is the next one.
        if plan.round <= self.round:
            raise StalePlan(f"The sum of round {plan.round} was handed over after that of round {self.round}.")
        if plan.model_hash != self.hash:
            raise UnknownModel(f"Round {plan.round} started from another model than the one held here.")

    def after(self, plan: RoundPlan, total: NDArray[np.uint64], contributions: int) -> SharedModel:
        """The model after a round's step, in memory.

        Args:
            plan: the round's.
            total: exact integer sums, (d,).
            contributions: how many were added.

        Raises:
            StalePlan, UnknownModel: see `must_precede`.
            ValueOutOfRange: the sums are larger than so many contributions can make them.
        """
        moved = [np.empty_like(self.adapter) for _ in _NAMES]
        for start, *arrays in self._moved(plan, (total,), contributions):
            for whole, array in zip(moved, arrays, strict=True):
                whole[start : start + len(array)] = array
        adapter, velocity, second = moved
        return SharedModel(plan.round, adapter, Motion(velocity, second, self.motion.steps + 1), self.like)

    def step_into(
        self, path: Path, plan: RoundPlan, sums: Iterable[NDArray[np.uint64]], contributions: int
    ) -> SharedModel:
        """The same bits as `after`, by way of the file at `path`, which is replaced whole or not at all.

        Args:
            path: where this model is, and the next will be.
            plan: the round's.
            sums: stretches of the exact integer sums, in order, (d,) in all.
            contributions: how many were added.

        Raises:
            VaultError: the disk refuses; what was there before is still there.
            StalePlan, UnknownModel, ValueOutOfRange: see `after`.
        """
        _write(path, plan.round, self.motion.steps + 1, len(self.adapter), self._moved(plan, sums, contributions))
        return SharedModel.load(path, self.like)

    def _moved(
        self, plan: RoundPlan, sums: Iterable[NDArray[np.uint64]], contributions: int
    ) -> Iterator[tuple[int, Numbers, Numbers, Numbers]]:
        """Stretches of adapter, velocity and second moment after a step, each behind where it begins."""
        self.must_precede(plan)
        size, motion = len(self.adapter), self.motion
        # Places of the trained numbers, of which a stretch of the sum is about some; all places need no list.
        everything = set(in_scope(self.like, plan.scope)) == set(self.like)
        trained = None if everything else selection(self.like, plan.scope)
        if plan.parameters != (size if trained is None else len(trained)):
            raise UnknownModel(f"Round {plan.round} is for {plan.parameters} numbers; the adapter has another count.")
        known = start = 0
        for total in _cut(sums):
            mean = mean_update(total, contributions, plan)
            after = known + len(mean)
            if trained is None:
                stop, places = after, None
            else:
                stop = size if after == plan.parameters else int(trained[after])
                places = trained[known:after] - start
            part = slice(start, stop)
            before = Motion(motion.velocity[part], motion.second[part], motion.steps)
            adapter, moved = step(self.adapter[part], mean, before, plan.step, places)
            yield start, adapter, moved.velocity, moved.second
            known, start = after, stop
            _let_go(motion.velocity)
            _let_go(motion.second)
        if known != plan.parameters:
            raise ValueError(f"the sums are {known} numbers, {plan.parameters} were due")


def _cut(sums: Iterable[NDArray[np.uint64]]) -> Iterator[NDArray[np.uint64]]:
    for total in sums:
        for start in range(0, len(total), _STRETCH):
            yield total[start : start + _STRETCH]


def _place(entry: dict[str, Any], base: int) -> tuple[int, int]:
    """Where an array begins in the file, and how many numbers it has, out of its entry in the header."""
    start, stop = entry["data_offsets"]
    (count,) = entry["shape"]
    if entry["dtype"] != "F32" or not 0 <= start <= stop or stop - start != 4 * count:
        raise ValueError("an array is not of float32")
    return base + start, count


def _mapped(path: Path, start: int, count: int) -> Numbers:
    if not count:
        return np.zeros(0, np.float32)
    return np.memmap(path, "<f4", "r", start, (count,))


def _let_go(array: Numbers) -> None:
    """Count what was read of a mapped file as this process's memory no longer."""
    if isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


def _write(
    path: Path, number: int, steps: int, count: int, parts: Iterable[tuple[int, Numbers, Numbers, Numbers]]
) -> None:
    # In the order in which safetensors itself would lay them out.
    offsets = {name: [4 * count * index, 4 * count * (index + 1)] for index, name in enumerate(sorted(_NAMES))}
    arrays = {name: {"dtype": "F32", "shape": [count], "data_offsets": offsets[name]} for name in sorted(_NAMES)}

    def head(digest: str) -> bytes:
        about = {"round": str(number), "steps": str(steps), "sha256": digest}
        text = json.dumps({"__metadata__": about, **arrays}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # so that the arrays are aligned
        return len(text).to_bytes(8, "little") + text

    base = len(head("0" * _DIGEST))
    places = {name: (base + offsets[name][0], count) for name in _NAMES}
    try:
        with replacing(path) as file:
            for start, *stretches in parts:
                for name, stretch in zip(_NAMES, stretches, strict=True):
                    file.seek(places[name][0] + 4 * start)
                    file.write(np.ascontiguousarray(stretch, "<f4").data)
            file.flush()
            digest = _digest(file, number, steps, places)
            file.seek(0)
            file.write(head(digest))
    except OSError as error:
        raise VaultError(
            f"{path} cannot be written ({error.strerror}); the step was not taken. Free some space, and the next "
            "round takes it."
        ) from error


def _digest(file: BinaryIO, number: int, steps: int, places: dict[str, tuple[int, int]]) -> str:
    """SHA-256 over the counts and the arrays, as they are in the file."""
    digest = hashlib.sha256(number.to_bytes(8, "big") + steps.to_bytes(8, "big"))
    for name in _NAMES:
        start, count = places[name]
        file.seek(start)
        left = 4 * count
        while left:
            block = file.read(min(left, 2**20))
            if not block:
                raise ValueError("cut")
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()

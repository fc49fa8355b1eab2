"""Batches made ahead: a thread lays out the next steps' while this one is computed, which lets the interpreter go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from partbook.model.likelihood import to_tensors
from partbook.music.windows import Windows

Tensors = tuple[Tensor, Tensor, Tensor]  # ids (b, t + 1), mel (b, 688, 128), has_memory (b,)
_AHEAD = 2  # steps


class Prepared:
    """One step's micro-batches.

    Attributes:
        windows: as they were made.
        tensors: the same, on the CPU, in page-locked memory where they go to an accelerator.
        tokens: targets that are no padding.
    """

    __slots__ = ("tensors", "tokens", "windows")

    def __init__(self, windows: Sequence[Windows], pad: int, *, pinned: bool) -> None:
        self.windows = tuple(windows)
        cpu = torch.device("cpu")
        made = [to_tensors(one, cpu) for one in self.windows]
        self.tensors: list[Tensors] = [
            (i.pin_memory(), m.pin_memory(), h.pin_memory()) if pinned else (i, m, h) for i, m, h in made
        ]
        self.tokens = sum(int((one.ids[:, 1:] != pad).sum()) for one in self.windows)


class Prefetch:
    """The batches of steps `first`, `first + 1`, …, in order, each made once."""

    def __init__(self, batch: Callable[[int], Sequence[Windows]], first: int, pad: int, *, pinned: bool) -> None:
        """Start making.

        Args:
            batch: a step's micro-batches by its number; called in a thread, one call at a time.
            first: number of the first step.
            pad: id of padding.
            pinned: for an accelerator.
        """
        self._batch, self._next, self._pad, self._pinned = batch, first, pad, pinned
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._made: deque[Future[Prepared]] = deque()
        for _ in range(_AHEAD):
            self._ask()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def take(self) -> Prepared:
        """The next step's; waits for it. What making it raises is raised here."""
        self._ask()
        return self._made.popleft().result()

    def _ask(self) -> None:
        self._made.append(self._thread.submit(self._prepare, self._next))
        self._next += 1

    def _prepare(self, number: int) -> Prepared:
        return Prepared(self._batch(number), self._pad, pinned=self._pinned)

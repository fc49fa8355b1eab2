"""Whoever shows a person how far reading public works is."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Draws stages; `partbook.simulation.watching.RichWatcher` does so on a terminal."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins; it has `total` steps."""
        ...

    def step(self, what: str) -> None:
        """One step is done."""
        ...


class NoWatcher:
    """Nobody looks."""

    def stage(self, name: str, total: int) -> None:
        """Nobody is told."""

    def step(self, what: str) -> None:
        """Nobody is told."""

"""What whoever watches the rounds is told: a table, a log, metrics, curves.

The round loop and the transport tell; a `Watch` shows or keeps. It is never asked anything back, and what it does must
not take long: it is called between exchanges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from partbook.coordinator.rounds import Progress


class Watch(Protocol):
    """Told where the rounds are and who answers."""

    def progress(self, progress: Progress) -> None:
        """The loop has come to another stage, or finished a round."""

    def here(self, parties: Sequence[str]) -> None:
        """These parties have a node that said who it is, and is online."""

    def asked(self, kind: str, parties: Sequence[str], sent: int) -> None:
        """An exchange began; `sent` bytes of content went out in all."""

    def answered(self, kind: str, party: str, seconds: float, received: int, refusal: str | None) -> None:
        """One party's answer came, so many seconds after it was asked; `refusal` says why where it is none."""


class Unwatched:
    """Nobody watches."""

    def progress(self, progress: Progress) -> None:
        """See `Watch`."""

    def here(self, parties: Sequence[str]) -> None:
        """See `Watch`."""

    def asked(self, kind: str, parties: Sequence[str], sent: int) -> None:
        """See `Watch`."""

    def answered(self, kind: str, party: str, seconds: float, received: int, refusal: str | None) -> None:
        """See `Watch`."""

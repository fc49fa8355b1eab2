"""The seam between the round loop and whatever carries its messages.

One method does an exchange. Simulation and deployment differ only in what stands behind it: both are Flower grids,
so the coordinator's loop and the node's ClientApp are the same objects in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from flwr.app import RecordDict


class Transport(Protocol):
    """Carries one exchange between the coordinator and members."""

    def members(self) -> list[str]:
        """Members that can be reached now, by name, sorted."""
        ...

    def exchange(
        self, kind: str, requests: Mapping[str, RecordDict], *, timeout: float
    ) -> dict[str, RecordDict | Exception]:
        """Send each member its request and wait for the answers.

        Args:
            kind: a message kind of `partbook.plan.wire`.
            requests: content per member.
            timeout: seconds to wait in all.

        Returns:
            Per member that answered, the content, or the exception that says why there is none. Members
            of whom nothing is known may be absent. Never raises for a member's sake.
        """
        ...

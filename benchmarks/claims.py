"""What a benchmark prints: one JSON line, last, in the form every benchmark of this project shares."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """One measured ratio.

    Attributes:
        what: what was measured.
        unit: of `ours` and `peer`.
        ours, peer: the two figures.
        peer_name: what it is compared with: another program, another way, or a limit.
        target: the ratio ours / peer that is asked for.
        at_least: whether the ratio must reach the target or stay under it.
    """

    what: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    target: float
    at_least: bool = True


def report(bench: str, claims: list[Claim]) -> bool:
    """Print the closing JSON line; returns whether every claim is met."""
    rows = []
    for claim in claims:
        ratio = claim.ours / claim.peer
        met = ratio >= claim.target if claim.at_least else ratio <= claim.target
        row = asdict(claim) | {"ratio": float(f"{ratio:.4g}"), "met": met}
        rows.append({k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()})
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(json.dumps({"bench": bench, "machine": machine, "claims": rows}))
    return all(row["met"] for row in rows)

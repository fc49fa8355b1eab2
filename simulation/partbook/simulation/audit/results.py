"""What an attack on a federation hands to the report, whichever attack it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class AuditResult:
    """One attack and what came of it.

    Attributes:
        title: a heading, for people.
        finding: one honest sentence: what was tried, and what it found.
        figures: numbers by name, as JSON holds them: dictionaries, lists, strings, numbers, booleans, None.
        plot: a PNG that shows it.
        within: whether everything found is within what is claimed; an audit with one that is not fails.
        facts: what a reader of the report wants to see in a table, name by value; the figures where empty.
    """

    title: str
    finding: str
    figures: Mapping[str, Any]
    plot: Path
    within: bool = True
    facts: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a dictionary; the plot by its file's name, which lies beside the report."""
        return {
            "title": self.title,
            "finding": self.finding,
            "within": self.within,
            "figures": dict(self.figures),
            "plot": self.plot.name,
        }

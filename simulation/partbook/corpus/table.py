"""The shipped table: which works of the installed corpus are one tune. `partbook.corpus.families` works it out."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_name("families.json")


@functools.lru_cache
def shipped() -> Mapping[str, str]:
    """Key → family of the installed corpus' works that share one; a work that is not in it is a family of its own.

    A family is called like the first of its members by name.
    """
    found: dict[str, str] = {}
    for members in json.loads(TABLE.read_text(encoding="utf-8"))["families"]:
        found.update(dict.fromkeys(members, min(members)))
    return found


def table_of(grouped: Mapping[str, str]) -> str:
    """The shipped table's text: each family a sorted list of keys, a line each."""
    members: dict[str, list[str]] = {}
    for key, family in grouped.items():
        members.setdefault(family, []).append(key)
    lines = ",\n".join("  " + json.dumps(sorted(group)) for _, group in sorted(members.items()))
    return f'{{\n "families": [\n{lines}\n ]\n}}\n'


def leaks(families: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Families that are in more than one pool, with these pools; empty where the pools do not leak.

    Args:
        families: by pool, the families of its works.
    """
    pools: dict[str, set[str]] = {}
    for pool, own in families.items():
        for family in own:
            pools.setdefault(family, set()).add(pool)
    return {family: where for family, where in pools.items() if len(where) > 1}

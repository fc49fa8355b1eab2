"""What a node trains on."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainers import loaded
from trio import MEMBERS, Trio

from partbook.node import learning


def test_windows_are_no_longer_than_said_and_most_follow_on_from_sound(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trio.config(MEMBERS[0], tmp_path)
    whole = loaded(config)._examples
    monkeypatch.setattr(learning, "WINDOW", 32)
    short = loaded(config)._examples
    assert len(short) == len(whole)
    items = [item for rows in short._rows for item in (short._items[row] for row in rows)]
    assert max(span.tokens for _, span in items) <= 32
    assert len(items) > 2 * len(short)
    assert sum(span.second > 0 for _, span in items) == len(items) - len(short)

import json
from pathlib import Path

import pytest

from partbook.coordinator import running
from partbook.coordinator.control import Control
from partbook.coordinator.home import Home, init
from partbook.coordinator.running import Stubbornness, rounds_done
from partbook.errors import (
    AlteredFile,
    CohortTooSmall,
    ConfigError,
    CoordinatorUnreachable,
    CorruptMessage,
    ForeignSealKey,
    NodeFailed,
    PartbookError,
    RunFailed,
)
from partbook.simulation.ports import lease_port


@pytest.mark.parametrize("kind", [ConfigError, AlteredFile, ForeignSealKey])
def test_what_would_only_come_again_is_not_tried_again(kind: type[PartbookError]) -> None:
    with pytest.raises(kind, match="as it was"):
        Stubbornness(5, 30.0, 0.5).pause(kind("as it was"), 3)


@pytest.mark.parametrize("kind", [CohortTooSmall, CorruptMessage, NodeFailed, RunFailed])
def test_a_round_that_was_aborted_is_tried_again_after_the_pause_and_so_often_in_a_row(
    kind: type[PartbookError],
) -> None:
    stubborn = Stubbornness(3, 30.0, 0.5)
    assert stubborn.pause(kind("x"), 3) == 30.0
    assert stubborn.pause(kind("x"), 3) == 30.0
    with pytest.raises(RunFailed, match=rf"3 runs in a row .* after round 3.*{kind.__name__}"):
        stubborn.pause(kind("x"), 3)


def test_a_finished_round_wipes_the_slate() -> None:
    stubborn = Stubbornness(2, 30.0, 0.5)
    for rounds in range(20):
        assert stubborn.pause(CohortTooSmall("x"), rounds) == 30.0


def test_a_run_that_was_killed_is_followed_by_the_next_at_once_and_then_less_so() -> None:
    stubborn = Stubbornness(20, 30.0, 0.5)
    pauses = [stubborn.pause(None, 0) for _ in range(12)]
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == running.SLOWEST
    assert stubborn.pause(None, 1) == pauses[0]


def test_what_was_killed_each_time_is_given_up_too() -> None:
    with pytest.raises(RunFailed, match="killed each time"):
        Stubbornness(1, 0.0, 0.5).pause(None, 0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"history": []}', '{"history": [{"round": "x"}]}'])
def test_a_checkpoint_that_cannot_be_read_counts_no_rounds(tmp_path: Path, text: str) -> None:
    assert rounds_done(tmp_path) == 0
    (tmp_path / "state.json").write_text(text)
    assert rounds_done(tmp_path) == 0


def test_rounds_are_counted_by_the_last_ones_number(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"history": [{"round": 0}, {"round": 1}, {"round": 4}]}))
    assert rounds_done(tmp_path) == 4


@pytest.fixture
def nobody() -> str:
    """An address that nobody listens at."""
    return f"127.0.0.1:{lease_port()}"


def test_a_superlink_that_is_not_there_is_named_with_what_starts_it(nobody: str) -> None:
    with Control(nobody) as control, pytest.raises(CoordinatorUnreachable, match=f"{nobody}.*coordinator start"):
        control.runs()


def test_a_run_without_a_start_waits_a_while_and_says_so(
    tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(tmp_path)
    (tmp_path / "server.toml").write_text(f"superlink_port = {nobody.rpartition(':')[2]}\n")
    monkeypatch.setattr(running, "NOT_STARTED", 1.5)
    told: list[str] = []
    with pytest.raises(CoordinatorUnreachable):
        running.run(Home.open(tmp_path), lambda event: told.append(event.kind))
    assert told == ["unreachable"]

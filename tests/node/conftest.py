"""For tests that end real processes: a place to end them in, and the scripts that do it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.fork_server import run as forked
from switchboard import Switchboard

_MEMORY = "/dev/shm"  # noqa: S108 (a private folder is made in it)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process loses none of it, and flushing it costs nothing."""
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def script() -> Callable[..., str]:
    """Runs a script that lies beside the tests, and returns what it prints."""

    def run(name: str, *arguments: object) -> str:
        command = [sys.executable, str(Path(__file__).parent / name), *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = forked(command, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switchboard]:
    """A real SuperLink behind the real front; tests may kill either, and leave both running."""
    with Switchboard(tmp_path_factory.mktemp("board")) as board:
        board.start("superlink", "front")
        yield board


@pytest.fixture(autouse=True)
def whole_board(request: pytest.FixtureRequest) -> None:
    """Where a test that failed left the board in pieces, the next finds it whole."""
    if "board" in request.fixturenames:
        request.getfixturevalue("board").mend()

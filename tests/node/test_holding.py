"""One process a state folder, also where the other was killed, or asks only."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from partbook.errors import AlreadyRunning, ConfigError
from partbook.node.holding import only_one, running

HOLD = """
import sys
from pathlib import Path
from partbook.node.holding import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(state: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_which_one_is_there_until_that_is_gone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with hold(state) as process:
        try:
            assert running(state) == process.pid
            with pytest.raises(AlreadyRunning, match=f"Process {process.pid} works in"), only_one(state):
                pass
            assert running(state) == process.pid, "who was refused leaves the other's mark alone"
        finally:
            process.send_signal(signal.SIGKILL)
    assert running(state) is None
    with only_one(state):
        assert running(state) == os.getpid()
        assert stat.S_IMODE((state / "lock").stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert running(state) is None
    with hold(state) as process:
        process.communicate("")


def test_whoever_only_asks_keeps_nobody_out(tmp_path: Path) -> None:
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            running(tmp_path)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(50):
            with only_one(tmp_path):
                pass
    finally:
        over.set()
        thread.join()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"state: .*file/state cannot be used"), only_one(tmp_path / "file" / "state"):
        pass


@pytest.mark.parametrize("text", ["", "nonsense"])
def test_a_lock_file_that_nobody_holds_means_nothing(tmp_path: Path, text: str) -> None:
    assert running(tmp_path) is None
    (tmp_path / "lock").write_text(text)
    assert running(tmp_path) is None
    with only_one(tmp_path):
        assert running(tmp_path) == os.getpid()

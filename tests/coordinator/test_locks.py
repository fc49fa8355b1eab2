import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import until

from partbook.coordinator.locks import holder, is_taken, only_one, taken_over
from partbook.errors import AlreadyRunning, ConfigError

HOLD = """
import os, sys, time
from pathlib import Path
from partbook.coordinator.locks import only_one, taken_over
if sys.argv[1] == "one":
    with only_one(Path(sys.argv[2]), "tests"):
        print("held", flush=True); time.sleep(600)
assert taken_over(Path(sys.argv[2]), 5)
if os.fork() == 0:  # a worker that outlives its parent
    time.sleep(600)
print("held", flush=True); time.sleep(600)
"""


@pytest.fixture
def hold(tmp_path: Path):
    """Another process that holds a lock."""
    processes = []

    def begin(kind: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", HOLD, kind, str(tmp_path / "lock")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        return process

    yield begin
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_second_process_is_refused_and_told_which_one_holds_it(
    tmp_path: Path, hold: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    process = hold("one")
    assert holder(tmp_path / "lock") == process.pid
    with pytest.raises(AlreadyRunning, match=str(process.pid)), only_one(tmp_path / "lock", "tests"):
        pass


def test_a_lock_ends_with_its_process_however_it_ends(
    tmp_path: Path, hold: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    process = hold("one")
    process.kill()
    process.wait()
    assert holder(tmp_path / "lock") is None
    with only_one(tmp_path / "lock", "tests"):
        pass


def test_nobody_holds_a_lock_that_was_never_made(tmp_path: Path) -> None:
    assert holder(tmp_path / "lock") is None
    assert not is_taken(tmp_path / "lock")


def test_a_serverapps_lock_is_not_held_on_by_workers_that_outlive_it(
    tmp_path: Path, hold: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    process = hold("app")
    assert is_taken(tmp_path / "lock")
    assert not taken_over(tmp_path / "lock", 0.2)
    process.kill()
    process.wait()
    until(lambda: not is_taken(tmp_path / "lock"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="lock"), only_one(tmp_path / "file" / "lock", "tests"):
        pass

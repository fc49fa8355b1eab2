"""The mark that pauses a node, without a node; with one, see `test_node_process`."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from partbook.errors import AlreadyRunning, NodePaused, VaultError
from partbook.node import pausing

STUBBORN = """
import signal, sys, time
from pathlib import Path
from partbook.node.holding import only_one
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "stubborn" else lambda *_: sys.exit(0))
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


def test_a_node_is_paused_until_it_is_resumed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    pausing.must_not_be_paused(state, "Alto")
    assert not pausing.resume(state)
    pausing.pause(state, "a dispute")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert str(pausing.paused(state)).endswith(": a dispute")
    with pytest.raises(NodePaused, match=r"^Alto is paused and trains for no plan until its engineer resumes it\.$"):
        pausing.must_not_be_paused(state, "Alto")
    pausing.pause(state, "")
    assert "dispute" not in str(pausing.paused(state))
    assert pausing.resume(state)
    pausing.must_not_be_paused(state, "Alto")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b'{"since": 3}'])
def test_a_mark_that_cannot_be_read_counts(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "paused").write_bytes(text)
    with pytest.raises(NodePaused):
        pausing.must_not_be_paused(tmp_path, "Alto")
    assert pausing.resume(tmp_path)


def test_a_mark_that_cannot_be_written_is_no_pause_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(VaultError, match="NOT paused: stop it"):
        pausing.pause(tmp_path / "state", "")


@pytest.mark.parametrize("manner", ["obedient", "stubborn"])
def test_a_running_node_is_ended_or_named(tmp_path: Path, manner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pausing.stop_running(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(tmp_path), manner], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        if manner == "obedient":
            assert pausing.stop_running(tmp_path)
            assert process.wait(60) == 0
        else:
            monkeypatch.setattr(pausing, "PATIENCE", 0.3)
            with pytest.raises(AlreadyRunning, match=f"Process {process.pid} has not ended after 0.3 s"):
                pausing.stop_running(tmp_path)
    finally:
        process.kill()
        process.communicate()

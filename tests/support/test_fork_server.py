"""A forked process is what a started one would be: a child of its own, with what it was given and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from partbook.coordinator.supervisor import die_with_parent
from support.fork_server import Forked, resolved, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

TELL = """
import json, os, signal, sys
print(json.dumps({
    "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "group": os.getpgid(0), "folder": os.getcwd(),
    "environment": dict(os.environ), "argv": sys.argv, "path": sys.path[0], "torch": "torch" in sys.modules,
    "files": sorted(int(name) for name in os.listdir("/proc/self/fd")), "name": __name__,
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "shown": open("/proc/self/cmdline").read().strip("\\0").split("\\0"),
}))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(TELL)
    return path


def told(script: Path, *words: str, **options: object) -> dict[str, object]:
    done = run([sys.executable, str(script), *words], check=True, **options)
    assert not done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_it_is_a_child_of_its_own_with_the_command_line_environment_and_folder_that_it_was_given(
    script: Path, tmp_path: Path
) -> None:
    found = told(script, "one", "zwei", env={"ONE": "1"}, cwd=tmp_path)
    assert found["torch"], "its imports are done"
    assert found["parent"] == os.getpid()
    assert found["argv"] == [str(script), "one", "zwei"]
    assert found["shown"] == [sys.executable, str(script), "one", "zwei"]
    assert found["environment"] == {"ONE": "1"}
    assert found["folder"] == str(tmp_path)
    assert found["path"] == str(script.parent)
    assert found["name"] == "__main__"
    assert found["interrupt"], "Ctrl-C ends it"
    assert found["group"] == os.getpgid(0), "and reaches it"
    assert told(script)["pid"] != found["pid"]


def test_it_has_a_session_of_its_own_where_that_is_asked_for(script: Path) -> None:
    found = told(script, start_new_session=True)
    assert found["session"] == found["group"] == found["pid"]


def test_it_has_no_file_but_those_that_it_was_given(script: Path) -> None:
    with socket.socket() as held:
        assert max(told(script)["files"][:-1]) <= 2, "the last one lists the files"
        kept = told(script, pass_fds=[held.fileno()])["files"]
        assert held.fileno() in kept


@pytest.mark.parametrize(("code", "left"), [("raise SystemExit(7)", 7), ("1 / 0", 1), ("", 0)])
def test_its_exit_code_and_its_traceback_are_its_own(code: str, left: int, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(code)
    done = run([sys.executable, str(tmp_path / "script.py")])
    assert done.returncode == left
    assert ("ZeroDivisionError" in done.stderr) == (code == "1 / 0")


def test_what_is_to_be_done_at_its_end_is_done_and_what_was_printed_is_there(tmp_path: Path) -> None:
    code = "import atexit\nprint('begun')\natexit.register(print, 'ended')"
    (tmp_path / "script.py").write_text(code)
    assert run([sys.executable, str(tmp_path / "script.py")]).stdout == "begun\nended\n"


def test_it_is_killed_as_any_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(600)")
    with Forked([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL


def test_it_dies_with_its_parent_where_its_parent_says_so(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text("import time\ntime.sleep(600)")
    child = [sys.executable, str(tmp_path / "child.py")]
    assert resolved(child, os.environ) is not None
    with Forked(child, preexec_fn=partial(die_with_parent, os.getpid())) as process:
        time.sleep(0.2)
        assert process.poll() is None, "its parent lives"
        process.kill()
    with Forked(child, preexec_fn=partial(die_with_parent, 1)) as process:
        assert process.wait(60) == -signal.SIGKILL, "that parent is gone"


def test_a_folder_that_is_not_there_is_said_to_the_caller(script: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run([sys.executable, str(script)], cwd="/nowhere")


def test_programs_that_are_not_partbooks_are_started_as_ever() -> None:
    assert resolved(["sleep", "1"], os.environ) is None
    assert resolved([sys.executable, "-c", "pass"], os.environ) is None
    assert resolved([sys.executable, "-m", "pip"], os.environ) is None
    assert run([sys.executable, "-c", "import sys; print('torch' in sys.modules)"]).stdout == "False\n"


def test_starters_in_shell_and_console_scripts_are_seen_through(tmp_path: Path) -> None:
    starter = tmp_path / "flwr-serverapp"
    starter.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m partbook.coordinator.serverapp lock log "$@"\n')
    starter.chmod(0o700)
    found = resolved(["flwr-serverapp", "--insecure"], {"PATH": str(tmp_path)})
    assert found is not None
    assert (found.kind, found.name) == ("module", "partbook.coordinator.serverapp")
    assert found.arguments == ("lock", "log", "--insecure")
    beside = resolved(["flower-superexec"], {"PATH": str(Path(sys.executable).parent)})
    assert beside is not None
    assert beside.starts_others

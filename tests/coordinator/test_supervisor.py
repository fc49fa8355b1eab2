import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import runs, until

from partbook.coordinator import supervisor as module
from partbook.coordinator.supervisor import Service, Supervisor, refuse_taken
from partbook.errors import ConfigError, ServiceFailed
from partbook.simulation.ports import lease_port

pytestmark = pytest.mark.timeout(300)  # real processes

LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"


@pytest.fixture
def port() -> int:
    return lease_port()


def service(folder: Path, name: str, *command: str, address: tuple[str, int] | None = None) -> Service:
    return Service(name, command, os.environ, folder, folder / f"{name}.log", address)


def recorded(folder: Path) -> dict[str, Any]:
    path = folder / "services.json"
    return json.loads(path.read_text())["services"] if path.exists() else {}


class Kept:
    """A supervisor in a thread; the kernel would kill its children with that thread, which is all that differs."""

    def __init__(self, folder: Path, *services: Service) -> None:
        self.folder, self.stop, self.ready = folder, threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.supervisor = Supervisor(services, folder / "services.json")
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run(self.stop, on_ready=self.ready.set)
        except ServiceFailed as error:
            self.error = error

    def end(self) -> None:
        self.stop.set()
        self.thread.join()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[list[Kept]]:
    found: list[Kept] = []
    yield found
    for each in found:
        each.end()


def test_a_child_that_is_killed_is_started_again(tmp_path: Path, kept: list[Kept]) -> None:
    kept.append(Kept(tmp_path, service(tmp_path, "a", "sleep", "600"), service(tmp_path, "b", "sleep", "600")))
    until(kept[0].ready.is_set)
    before = recorded(tmp_path)
    os.kill(before["a"]["pid"], signal.SIGKILL)
    until(lambda: recorded(tmp_path)["a"]["starts"] == 2)
    after = recorded(tmp_path)
    assert runs(after["a"]["pid"])
    assert after["b"] == before["b"]
    kept[0].end()
    assert not runs(after["a"]["pid"])
    assert not runs(after["b"]["pid"])
    assert not (tmp_path / "services.json").exists()


def test_the_second_waits_until_the_first_listens(tmp_path: Path, kept: list[Kept], port: int) -> None:
    first = service(tmp_path, "first", sys.executable, "-c", LISTEN, str(port), address=("0.0.0.0", port))  # noqa: S104
    second = service(tmp_path, "second", "sh", "-c", "echo begun; exec sleep 600")
    kept.append(Kept(tmp_path, first, second))
    until(kept[0].ready.is_set)
    found = recorded(tmp_path)
    assert found["first"]["ready"]
    assert found["second"]["since"] >= found["first"]["since"]
    until(lambda: "begun" in (tmp_path / "second.log").read_text())


def test_one_that_cannot_be_kept_up_is_named_with_its_log_and_takes_the_others_down(
    tmp_path: Path, kept: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEATHS", 3)
    good = service(tmp_path, "good", "sleep", "600")
    kept.append(Kept(tmp_path, good, service(tmp_path, "bad", "sh", "-c", "echo no database; exit 3")))
    kept[0].thread.join(120)
    message = str(kept[0].error)
    assert "bad" in message
    assert "exit code 3" in message
    assert "bad.log" in message
    assert "no database" in message
    assert (tmp_path / "bad.log").read_text() == "no database\n" * 3


def test_a_program_that_is_not_there_is_named(tmp_path: Path, kept: list[Kept]) -> None:
    kept.append(Kept(tmp_path, service(tmp_path, "ghost", "/does/not/exist")))
    kept[0].thread.join(120)
    assert "ghost" in str(kept[0].error)


def test_a_child_that_does_not_end_by_itself_is_killed(
    tmp_path: Path, kept: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TO_END", 0.2)
    kept.append(
        Kept(tmp_path, service(tmp_path, "deaf", "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"))
    )
    until(lambda: "deaf" in recorded(tmp_path) and "deaf" in (tmp_path / "deaf.log").read_text())
    pid = recorded(tmp_path)["deaf"]["pid"]
    kept[0].end()
    assert not runs(pid)


def test_a_log_that_grows_is_put_aside_and_its_writer_goes_on(
    tmp_path: Path, kept: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_LOG", 1000)
    kept.append(Kept(tmp_path, service(tmp_path, "loud", "sh", "-c", "while :; do echo something; sleep 0.01; done")))
    until(lambda: (tmp_path / "loud.log.1").exists())
    until(lambda: 0 < (tmp_path / "loud.log").stat().st_size < 1000)
    assert (tmp_path / "loud.log").read_text().startswith("something")


SUPERVISE = """
import os, sys, threading
from pathlib import Path
from partbook.coordinator.supervisor import Service, Supervisor, stopping
folder = Path(sys.argv[1])
one = Service("one", ["sleep", "600"], os.environ, folder, folder / "one.log")
with stopping() as stop:
    Supervisor([one], folder / "services.json").run(stop)
print("ended")
"""


@pytest.fixture
def supervising(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", SUPERVISE, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    yield process
    process.kill()
    process.communicate()
    for about in recorded(tmp_path).values():
        if runs(about["pid"]):
            os.kill(about["pid"], signal.SIGKILL)


def test_no_child_outlives_a_supervisor_that_is_killed(tmp_path: Path, supervising: subprocess.Popen[bytes]) -> None:
    until(lambda: "one" in recorded(tmp_path))
    pid = recorded(tmp_path)["one"]["pid"]
    assert runs(pid)
    supervising.kill()
    supervising.wait()
    until(lambda: not runs(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_children(
    tmp_path: Path, supervising: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    until(lambda: "one" in recorded(tmp_path))
    pid = recorded(tmp_path)["one"]["pid"]
    supervising.send_signal(number)
    assert supervising.communicate(timeout=120)[0] == b"ended\n"
    assert supervising.returncode == 0
    assert not runs(pid)


def test_a_port_that_somebody_has_is_named_with_its_key(port: int) -> None:
    refuse_taken("127.0.0.1", port, "listen")
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigError, match=f"superlink_port: .*{port}"):
        refuse_taken("127.0.0.1", port, "superlink_port", 0.2)

"""Leases of ports: between real processes, which are what takes ports from each other."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from partbook.errors import ServiceFailed
from partbook.simulation import ports
from partbook.simulation.ports import LOWEST, lease_port

# All leases that can be had of the ports it is given, and then it lives until its input ends.
HOLDER = """
import json, sys
from partbook.errors import ServiceFailed
from partbook.simulation import ports
ports._candidates = lambda first, last: json.loads(sys.argv[1])
found = []
try:
    while len(found) < int(sys.argv[2]):
        found.append(ports.lease_port())
except ServiceFailed:
    pass
print(json.dumps(found), flush=True)
sys.stdin.read()
"""


class Holder:
    """A process that leases as many of some ports as it can get, at most so many."""

    def __init__(self, among: list[int], most: int = 1000) -> None:
        command = [sys.executable, "-c", HOLDER, json.dumps(among), str(most)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def leases(self) -> list[int]:
        assert self.process.stdout is not None
        found: list[int] = json.loads(self.process.stdout.readline())
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def holders() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def holder(stack: ExitStack, among: list[int], most: int = 1000) -> Holder:
    made = Holder(among, most)
    stack.callback(made.kill)
    return made


def some(count: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ports that nobody has: leased here, and let go of."""
    with monkeypatch.context() as patch:
        patch.setattr(ports, "_held", [])
        found = [lease_port() for _ in range(count)]
        for lease in ports._held:
            lease.close()
    return found


def test_processes_that_lease_at_once_never_get_the_same_port(
    holders: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    among = some(24, monkeypatch)
    rivals = [holder(holders, among) for _ in range(4)]
    leased = [port for each in rivals for port in each.leases()]
    assert len(leased) == len(set(leased))
    assert set(leased) <= set(among)
    assert len(leased) >= len(among) // 2, "another suite on this machine may have taken a few meanwhile"


def test_a_lease_lasts_as_long_as_its_process_and_no_longer(
    holders: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = among = some(1, monkeypatch)
    first = holder(holders, among)
    assert first.leases() == [port]
    assert holder(holders, among).leases() == []
    first.kill()
    assert holder(holders, among).leases() == [port]


def test_a_leased_port_is_refused_until_somebody_listens_again_and_again() -> None:
    port = lease_port()
    for _ in range(3):
        with socket.socket() as caller:
            assert caller.connect_ex(("127.0.0.1", port)) != 0
        with (
            socket.create_server(("127.0.0.1", port)) as listener,
            socket.create_connection(("127.0.0.1", port)),
        ):
            listener.accept()[0].close()


@pytest.mark.parametrize("address", ["127.0.0.1", ""])
def test_a_port_that_somebody_listens_on_is_not_leased(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = some(2, monkeypatch)
    monkeypatch.setattr(ports, "_candidates", lambda first, last: [taken, free])
    monkeypatch.setattr(ports, "_held", [])
    with socket.create_server((address, taken)):
        assert lease_port() == free
        with pytest.raises(ServiceFailed, match="None of 2 ports"):
            lease_port()
    assert lease_port() == taken
    for lease in ports._held:
        lease.close()


def test_leases_lie_outside_the_ports_that_the_kernel_hands_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, last = ports._ephemeral()
    assert not first <= lease_port() <= last
    (tmp_path / "range").write_text("20000\t30000\n")
    monkeypatch.setattr(ports, "_EPHEMERAL", tmp_path / "range")
    assert ports._ephemeral() == (20_000, 30_000)
    assert not set(ports._candidates(20_000, 30_000)) & {*range(20_000, 30_001)}
    # Where the kernel hands out nearly all there are, a probe must do.
    assert ports._candidates(1024, 65_535) == [*range(LOWEST, 65_536)]


@pytest.mark.parametrize("text", [None, "", "many few"])
def test_a_system_that_does_not_say_has_the_usual_range(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "range"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(ports, "_EPHEMERAL", path)
    assert ports._ephemeral() == (49_152, 65_535)

"""A real SuperLink behind the real front, each a process that can be killed; the test itself plays the ServerApp."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import tomli_w
from flwr.app import Message, RecordDict
from flwr.common.serde import run_from_proto
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from support.fork_server import Forked

from partbook.coordinator import superlink
from partbook.coordinator.control import Control
from partbook.coordinator.home import Home, init
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR
from partbook.identity.roster import DOMAIN, Roster
from partbook.identity.tls import Leaf, client_context, renewed
from partbook.simulation.parties import CUSTODIAN, Parties, enrol
from partbook.simulation.ports import lease_port

FEDERATION = "switchboard"
MEMBERS = ("Alto", "Bass", "Tenor")
PATIENCE = 90.0  # seconds for anything at all; only there so that a test ends


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that nobody needs any more, and its children. A killed one takes along what coverage has seen."""
    with contextlib.suppress(ProcessLookupError):
        if "COVERAGE_PROCESS_CONFIG" in os.environ:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)


def until(condition: Callable[[], object], what: str = "it", seconds: float = PATIENCE) -> None:
    """Return once a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


@dataclass
class Switchboard:
    """Processes and keys; leaving the `with` kills what still runs."""

    folder: Path
    members: tuple[str, ...] = MEMBERS
    parties: Parties = field(init=False)
    home: Home = field(init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys = {member: self.folder / member / "keys" for member in self.members}
        self.parties = enrol(self.folder / "office", FEDERATION, keys)
        folder = self.folder / "home"
        init(
            folder,
            roster=self.parties.roster,
            key=self.parties.coordinator,
            seal_key=self.parties.seal_key,
            hosts=("localhost", "127.0.0.1"),
        )
        settings = {
            "listen": f"127.0.0.1:{lease_port()}",
            "hosts": ["localhost", "127.0.0.1"],
            "superlink_port": lease_port(),
            "metrics_port": 0,
        }
        (folder / "server.toml").write_text(tomli_w.dumps(settings))
        self.home = Home.open(folder)
        superlink.prepare(self.home)
        renewed(self.home.tls, self.key(COORDINATOR), COORDINATOR, hosts=self.home.server.hosts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.processes):
            end(self.processes.pop(name))

    @property
    def address(self) -> str:
        """Of the front."""
        return f"localhost:{self.home.server.port}"

    @cached_property
    def roster(self) -> Roster:
        """The first."""
        return Roster.read(self.parties.roster)

    def key(self, name: str) -> IdentityKey:
        """A party's identity key."""
        if name == COORDINATOR:
            return IdentityKey.load(self.parties.coordinator)
        if name == CUSTODIAN:
            return IdentityKey.load(self.parties.custodian.identity)
        return IdentityKey.load(self.parties.folders[name] / "identity.pem")

    def leaf(self, name: str) -> Leaf:
        """A party's leaf, the same each time."""
        return renewed(self.folder / name / "tls", self.key(name), name)

    def context(self, name: str) -> ssl.SSLContext:
        """For a party's connections."""
        self.leaf(name)
        return client_context(self.roster, self.folder / name / "tls")

    def client(self, name: str) -> httpx.Client:
        """A party that says what it likes."""
        return httpx.Client(
            base_url=f"https://{self.address}",
            verify=self.context(name),
            trust_env=False,
            timeout=30.0,
            headers={"content-type": PROTOBUF_MEDIA_TYPE},
        )

    def fleet(self, name: str, address: str = "") -> FleetHttpClient:
        """The same by Flower's own client, which signs the time; with an address, straight to the SuperLink."""
        leaf = self.leaf(name)
        signing = NodeAuthHttpInterceptor(leaf.private_key, leaf.private_key.public_key())
        url = f"http://{address}" if address else f"https://{self.address}"
        return FleetHttpClient(url, verify=self.context(name), interceptors=[signing])

    def install(self, roster: Roster, *signers: IdentityKey) -> None:
        """Put another roster in the coordinator's place, signed by everybody in it."""
        known = {self.key(name).public.pem: self.key(name) for name in (*self.members, CUSTODIAN, COORDINATOR)}
        known |= {key.public.pem: key for key in signers}
        signatures = {
            name: known[roster.identity_of(name).pem].sign(roster.canonical, DOMAIN) for name in roster.parties
        }
        replace(roster, signatures=signatures).write(self.parties.roster)

    def start(self, *names: str) -> None:
        """Start `superlink` and `front`, and wait until they listen."""
        commands = {
            "superlink": (superlink.superlink(self.home), self.home.server.superlink_port),
            "front": (
                [sys.executable, "-P", "-m", "partbook.cli", "coordinator", "front", "--home", str(self.home.folder)],
                self.home.server.port,
            ),
        }
        for name in names:
            command, _ = commands[name]
            with self.log(name).open("ab") as log:
                self.processes[name] = Forked(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.home.link,
                    env={**superlink.surroundings(self.home), "OMP_NUM_THREADS": "1"},
                    start_new_session=True,
                )
        for name in names:
            process, port = self.processes[name], commands[name][1]

            def listens(process: subprocess.Popen[bytes] = process, port: int = port, name: str = name) -> bool:
                assert process.poll() is None, self.log(name).read_text()[-2000:]
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            until(listens, f"{name} listens")

    def mend(self) -> None:
        """Start what a test that failed has left killed."""
        self.start(*(name for name in ("superlink", "front") if not self.runs(name)))

    def runs(self, name: str) -> bool:
        """Whether a process was started and has not ended."""
        return name in self.processes and self.processes[name].poll() is None

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a process and its children."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """SIGHUP to the front, and wait until it says what it made of it."""
        before = self.said("front").count("roster")
        self.processes["front"].send_signal(signal.SIGHUP)
        until(lambda: self.said("front").count("roster") > before, "the front reads the roster")

    def log(self, name: str) -> Path:
        """What a process printed."""
        return self.home.logs / f"{name}.log"

    def said(self, name: str) -> str:
        """The same, read."""
        return self.log(name).read_text(errors="replace")

    @contextlib.contextmanager
    def serverapp(self, fab: bytes | None = None) -> Iterator[ServerApp]:
        """Submit a run, and play its ServerApp."""
        with Control(self.home.server.superlink) as control:
            run = control.submit(fab if fab is not None else superlink.bundle(), self.home.federation_file)
            played = ServerApp(self.home, run)
            try:
                yield played
            finally:
                played.close()
                control.stop(run)


class ServerApp:
    """The other end of the grid: takes the run's task as SuperExec does, and keeps it alive."""

    def __init__(self, home: Home, run: int) -> None:
        secret = (home.link / "superexec.secret").read_bytes()
        signing = SuperExecAuthHttpInterceptor(
            master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
        )
        client = RuntimeHttpClient.from_server_address(
            home.server.superlink, True, None, [RuntimeVersionHttpInterceptor(component_name="SuperExec"), signing]
        )
        answer: Any = None

        def acquired() -> bool:
            nonlocal answer
            answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            return bool(answer.token)

        until(acquired, "the task is handed out")
        client.close()
        assert answer.task.run_id == run
        self.run = run
        self.grid = HttpGrid(home.server.superlink, insecure=True, token=answer.token)
        given = self.grid._runtime_client.PullTaskInput(PullTaskInputRequest())
        self.grid.set_run(run_from_proto(given.run))
        self._identity = (given.task_id, run, given.context.node_id)
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def _beat(self) -> None:
        while not self._over.wait(5.0):
            with contextlib.suppress(httpx.HTTPError):
                self.grid._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())

    def take_part(self) -> None:
        """Have Flower make messages in this task's name."""
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = self._identity

    def ask(self, node: int, kind: str, content: RecordDict) -> str:
        """Send a message; returns its number."""
        self.take_part()
        (identifier,) = self.grid.push_messages([Message(content, node, kind)])
        return str(identifier)

    def answers(self, identifiers: Sequence[str], seconds: float = PATIENCE) -> dict[str, Message]:
        """What came back, by the message it answers."""
        found: dict[str, Message] = {}

        def all_there() -> bool:
            for message in self.grid.pull_messages([name for name in identifiers if name not in found]):
                found[message.metadata.reply_to_message_id] = message
            return len(found) == len(identifiers)

        until(all_there, "all answers are there", seconds)
        return found

    def close(self) -> None:
        """Fall silent."""
        self._over.set()
        self._beating.join(PATIENCE)
        self.grid.close()

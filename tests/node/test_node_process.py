"""`partbook node start` as a process of its own: a hostile bundle, one host alone, pausing, leaving."""

import json
import os
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import tomli_w
from flwr.cli.build import build_fab_from_files
from support.fork_server import Forked
from support.fork_server import run as forked
from switchboard import ServerApp, Switchboard, end, until
from trio import MEMBERS, Trio
from typer.testing import CliRunner

from partbook.identity.message import COORDINATOR
from partbook.node import pausing
from partbook.node.cli import app as cli
from partbook.node.holding import running
from partbook.plan import exchanges as e
from partbook.plan import wire
from partbook.plan.greeting import Greeter
from partbook.plan.rounds import RoundPlan
from partbook.simulation.parties import ANYTHING

pytestmark = pytest.mark.timeout(400)  # real processes, each of which imports torch and Flower

PYPROJECT = b"""
[project]
name = "partbook"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "partbook"

[tool.flwr.app.components]
serverapp = "partbook.coordinator.app:app"
clientapp = "partbook.node.app:app"

[tool.flwr.app.config]
federation = ""
"""
EVIL = b"""
from pathlib import Path
Path(MARKER).write_text(__name__)
"""


class NodeProcess:
    """The node of a label of the board."""

    def __init__(self, board: Switchboard, trio: Trio, folder: Path, member: str) -> None:
        self.member, self.folder, self.board = member, folder, board
        self.config, self.log, self.calls = folder / "node.toml", folder / "node.log", folder / "calls"
        policy = folder / "policy.toml"
        ANYTHING.write(policy)
        keys = board.parties.folders[member]
        self.config.write_text(
            tomli_w.dumps(
                {
                    "member": member,
                    "coordinator": board.address,
                    "vault": str(trio.folder / member / "vault"),
                    "ledger": "ledger.sqlite",
                    "roster": str(board.parties.roster),
                    "identity": str(keys / "identity.pem"),
                    "receiving": str(keys / "receiving.pem"),
                    "policy": "policy.toml",
                    "base": str(trio.base),
                }
            )
        )
        self.process: subprocess.Popen[bytes] | None = None
        self._earlier = self._numbers()

    def start(self) -> None:
        hooked = [sys.executable, str(Path(__file__).with_name("hooked.py")), str(self.calls)]
        with self.log.open("ab") as log:
            self.process = Forked(
                [*hooked, "node", "start", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def online(self) -> int:
        """Wait until it is; returns the node's number at the coordinator."""
        assert self.process is not None
        process = self.process

        def said() -> bool:
            assert process.poll() is None, self.log.read_text()[-3000:]
            return "online at" in self.log.read_text()

        until(said, f"{self.member} is online", 180)
        (number,) = self._numbers() - self._earlier
        return number

    def _numbers(self) -> set[int]:
        """Of all nodes that the member had at this coordinator; other tests' too."""
        path = self.board.home.tls / "nodes.json"
        return set(map(int, json.loads(path.read_text()).get(self.member, []))) if path.exists() else set()

    def command(self, *arguments: str) -> str:
        """What `partbook node …` prints; in this process, which has imported it all."""
        done = CliRunner().invoke(cli, [*arguments, "--config", str(self.config)])
        assert done.exit_code == 0, done.output
        return done.output

    @property
    def fit(self) -> bool:
        return self.process is not None and self.process.poll() is None and not pausing.paused(self.folder / "state")

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            end(self.process)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[NodeProcess]]:
    """All that were started for these tests: one, unless a test failed or runs in another order."""
    started: list[NodeProcess] = []
    yield started
    for each in started:
        each.end()


@pytest.fixture
def node(
    nodes: list[NodeProcess], board: Switchboard, trio: Trio, tmp_path_factory: pytest.TempPathFactory
) -> NodeProcess:
    """One that runs and trains."""
    assert MEMBERS == ("Alto", "Bass", "Tenor")
    if not nodes or not nodes[-1].fit:
        for each in nodes:
            each.end()
        nodes.append(NodeProcess(board, trio, tmp_path_factory.mktemp("node"), "Alto"))
        nodes[-1].start()
    return nodes[-1]


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hostile bundle would leave behind."""
    return tmp_path_factory.mktemp("hostile") / "marker"


@pytest.fixture(scope="module")
def app(board: Switchboard, marker: Path) -> Iterator[ServerApp]:
    """A run whose bundle holds a `partbook` of its own, whose import leaves a mark."""
    evil = EVIL.replace(b"MARKER", repr(str(marker)).encode())
    files = {"pyproject.toml": PYPROJECT}
    files |= {f"partbook/{name}.py": evil for name in ("__init__", "node/__init__", "node/app", "node/label")}
    files |= {"flwr/__init__.py": evil, "sitecustomize.py": evil}
    fab, _ = build_fab_from_files(files)
    assert "partbook/node/app.py" in zipfile.ZipFile(BytesIO(fab)).namelist()
    with board.serverapp(fab) as app:
        yield app


def plan(board: Switchboard, trio: Trio) -> bytes:
    values = {"federation": board.roster.federation, "roster": board.roster.hash, "nonce": secrets.token_hex(16)}
    fresh: RoundPlan = trio.plan(**values)
    return e.write_plan(board.key(COORDINATOR), fresh)


def test_a_bundle_with_a_partbook_of_its_own_is_never_asked_for(
    board: Switchboard, node: NodeProcess, app: ServerApp, marker: Path
) -> None:
    number = node.online()
    nonce = secrets.token_hex(16)
    greeter = Greeter(board.key(COORDINATOR), board.roster)
    asked = app.ask(number, wire.HELLO, wire.pack([greeter.question(nonce)]))
    (answer,), _ = wire.unpack(app.answers([asked])[asked].content)
    assert greeter.read(answer, nonce).party == "Alto"
    assert not marker.exists()
    log = board.said("front")
    assert "/v1/fleet/get-fab" not in log
    assert "/v1/fleet/get-run" not in log
    with board.client("Alto") as client:
        assert client.post("/v1/fleet/get-fab").status_code == 404
    assert "/v1/fleet/get-fab" in board.said("front"), "the front would have said so"


def test_a_second_process_on_one_state_folder_is_told_which_one_is_there(node: NodeProcess) -> None:
    node.online()
    assert node.process is not None
    second = forked([sys.executable, "-m", "partbook.cli", "node", "start", "--config", str(node.config)], timeout=180)
    assert second.returncode == 2
    assert f"Process {node.process.pid} works in {node.folder / 'state'} already" in second.stderr


def test_a_paused_node_says_so_in_one_sentence_and_trains_again_when_it_is_told_to(
    board: Switchboard, trio: Trio, node: NodeProcess, app: ServerApp
) -> None:
    number = node.online()
    assert f"node resume --config {node.config}" in node.command("pause", "--why", "a dispute over track 7")
    asked = app.ask(number, wire.TRAIN, wire.pack([plan(board, trio)], [trio.start.tobytes()]))
    refusal = dict(app.answers([asked])[asked].content["refusal"])  # type: ignore[call-overload]
    assert refusal["error"] == "NodePaused"
    assert refusal["reason"] == "Alto is paused and trains for no plan until its engineer resumes it."
    assert "dispute" not in str(refusal), "the reason is the engineer's own"
    said = json.loads(node.command("running", "--json"))
    assert node.process is not None
    assert said["process"] == node.process.pid
    assert said["paused"].endswith(": a dispute over track 7")
    assert said["certificate_until"].endswith("+00:00")
    assert "takes part again" in node.command("resume")
    assert "not paused" in node.command("resume")
    asked = app.ask(number, wire.TRAIN, wire.pack([plan(board, trio)], [trio.start.tobytes()]))
    answer = app.answers([asked])[asked]
    assert "signed" in answer.content, dict(answer.content)


def test_leaving_ends_the_process_destroys_what_was_not_handed_over_and_takes_back_what_it_cost(
    board: Switchboard, node: NodeProcess, app: ServerApp
) -> None:
    number = node.online()
    state = node.folder / "state"
    assert running(state) is not None
    said = node.command("leave", "--yes")
    assert "Alto has left. The running node was ended." in said
    assert node.process is not None
    assert node.process.wait(60) == 0
    assert running(state) is None
    assert "left the federation" in str(pausing.paused(state))
    assert not list(state.glob("vector*"))
    until(lambda: number not in set(app.grid.get_node_ids()), "the coordinator knows that it is gone")


def test_a_node_talks_to_one_host_and_no_other(
    board: Switchboard, nodes: list[NodeProcess], request: pytest.FixtureRequest
) -> None:
    """All that the processes of these tests connected to or looked up, from their start to their end."""
    if not nodes:
        request.getfixturevalue("node").online()
    for node in nodes:
        if node.process is not None and node.process.poll() is None:
            node.process.terminate()
            assert node.process.wait(60) == 0
    host, _, port = board.address.partition(":")
    calls = {call for node in nodes for call in node.calls.read_text().splitlines()}
    allowed = {
        f"socket.getaddrinfo {(host, int(port))!r}",
        f"socket.connect {('127.0.0.1', int(port))!r}",
        f"socket.connect {('::1', int(port), 0, 0)!r}",
    }
    assert calls
    assert calls <= allowed, calls - allowed

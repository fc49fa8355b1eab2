"""The installed ClientApp under Flower's own SuperNode, as a researcher may run it: unsafe for labels, and working."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fork_server import Forked
from switchboard import ServerApp, Switchboard, until
from trio import Trio

from partbook.identity.message import COORDINATOR
from partbook.node.app import flower_config
from partbook.node.label import NodeConfig
from partbook.plan import exchanges as e
from partbook.plan import wire
from partbook.plan.greeting import Greeter
from partbook.simulation.parties import ANYTHING
from partbook.simulation.ports import lease_port

pytestmark = pytest.mark.timeout(600)  # real processes, each of which imports torch and Flower

PATIENCE = 180.0  # a stock SuperNode looks for messages every few seconds, and starts a process for each


@pytest.fixture
def app(board: Switchboard) -> Iterator[ServerApp]:
    with board.serverapp() as app:
        yield app


@pytest.fixture
def supernode(board: Switchboard, trio: Trio, tmp_path: Path) -> Iterator[int]:
    """A stock SuperNode beside the SuperLink, with a label's configuration; its number there."""
    keys = board.parties.folders["Alto"]
    policy = tmp_path / "policy.toml"
    ANYTHING.write(policy)
    config = NodeConfig(
        "Alto",
        trio.folder / "Alto" / "vault",
        board.parties.roster,
        keys / "identity.pem",
        receiving=keys / "receiving.pem",
        policy=policy,
        ledger=tmp_path / "ledger.sqlite",
        state=tmp_path / "state",
        base=trio.base,
    )
    given = " ".join(f'{name}="{value}"' for name, value in flower_config(config).items())
    beside = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [
        str(beside / "flower-supernode"),
        "--insecure",
        *("--superlink", board.home.server.superlink),
        *("--port", str(lease_port())),
        *("--node-config", given),
    ]
    log = tmp_path / "supernode.log"
    with log.open("wb") as file:
        process = Forked(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, cwd=tmp_path,
            start_new_session=True,
        )  # fmt: skip
    board.processes["supernode"] = process
    try:
        yield process.pid
    finally:
        print(log.read_text(errors="replace")[-3000:])
        board.kill("supernode")


def test_the_installed_app_greets_and_trains_under_a_stock_supernode(
    board: Switchboard, trio: Trio, app: ServerApp, supernode: int
) -> None:
    before = set(app.grid.get_node_ids())
    until(lambda: set(app.grid.get_node_ids()) - before, "the SuperNode is online", PATIENCE)
    (node,) = set(app.grid.get_node_ids()) - before
    greeter, nonce = Greeter(board.key(COORDINATOR), board.roster), secrets.token_hex(16)
    hello = app.ask(node, wire.HELLO, wire.pack([greeter.question(nonce)]))
    (answer,), _ = wire.unpack(app.answers([hello], PATIENCE)[hello].content)
    assert greeter.read(answer, nonce).party == "Alto"

    values = {"federation": board.roster.federation, "roster": board.roster.hash, "nonce": secrets.token_hex(16)}
    plan = e.write_plan(board.key(COORDINATOR), trio.plan(**values))
    trained = app.ask(node, wire.TRAIN, wire.pack([plan], [trio.start.tobytes()]))
    reply = app.answers([trained], PATIENCE)[trained]
    wire.raise_refusal(reply.content, "Alto")
    (ready,), blobs = wire.unpack(reply.content)
    assert ready
    assert not blobs, "what was learnt stays until masks are agreed on"

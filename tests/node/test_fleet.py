"""The line to the coordinator, against the real SuperLink behind the real front."""

import ast
import contextlib
import importlib
import logging
import os
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Message
from flwr.common.constant import ErrorCode
from switchboard import Switchboard, until

from partbook.errors import (
    AlreadyConnected,
    CertificateRefused,
    CoordinatorUnreachable,
    FlowerChanged,
    WrongClock,
)
from partbook.identity.keys import IdentityKey
from partbook.identity.tls import client_context, renewed, server_context
from partbook.node import contract, fleet, pinned
from partbook.node.fleet import Incoming, Link, Stopped
from partbook.node.timing import PartyTiming
from partbook.plan import wire
from partbook.simulation.ports import lease_port

pytestmark = pytest.mark.timeout(300)  # a SuperLink and a front start in the first test, and tests kill them

# Hastier than a file may be: no node here is killed with the SuperLink still counting on its heartbeat.
HASTY = PartyTiming(longest_wait=1).model_copy(update={"refused_for": 0.5, "noticed": 0.1})


@pytest.fixture
def alto(board: Switchboard) -> Iterator[Link]:
    with Link(board.address, board.context("Alto"), board.leaf("Alto"), timing=PartyTiming(longest_wait=1)) as link:
        link.connect()
        yield link


def next_one(link: Link) -> Incoming:
    found: list[Incoming] = []

    def came() -> bool:
        incoming = link.receive()
        if incoming is not None:
            found.append(incoming)
        return bool(found)

    until(came, "a message comes")
    return found[0]


# What of Flower is used.


def names_of_flower(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("flwr"):
            found |= {f"{node.module}:{alias.name}" for alias in node.names}
    return found


def test_every_name_of_flowers_that_the_link_imports_stands_in_the_contract() -> None:
    assert names_of_flower(Path(fleet.__file__)) <= set(contract.USED)
    public = {"flwr.app", "flwr.clientapp"}
    others = {name for name in names_of_flower(Path(pinned.__file__)) if name.split(":")[0] not in public}
    assert others == {"flwr.common.constant:ErrorCode"}


def test_the_installed_flower_is_the_one_that_is_spoken() -> None:
    contract.contract()


def test_another_version_of_flower_is_refused_by_name(board: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "version", lambda _: "1.42.0")
    with pytest.raises(FlowerChanged, match=r"flwr 1\.42\.0 is installed; this Partbook speaks 1\.41\.0"):
        Link(board.address, board.context("Alto"), board.leaf("Alto"))


@pytest.mark.parametrize("name", contract.USED)
def test_each_name_that_is_missing_is_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, attribute = name.partition(":")
    monkeypatch.delattr(importlib.import_module(module), attribute)
    with pytest.raises(FlowerChanged, match=f"{module}.{attribute} is not what it was"):
        contract.contract()


def test_a_parameter_a_field_a_member_or_a_method_that_moved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, part in (
        ("flwr.proto.fleet_pb2:ActivateNodeRequest", "moved"),
        ("flwr.app.message:make_message", "moved"),
        ("flwr.supercore.error.base:ApiErrorCode", "MOVED"),
        ("flwr.supernode.fleet_http_client:FleetHttpClient", ".Moved"),
    ):
        with monkeypatch.context() as patched:
            patched.setitem(contract.USED, name, (*contract.USED[name], part))
            with pytest.raises(FlowerChanged, match=r"(?i)moved"):
                contract.contract()
    module = importlib.import_module("flwr.supernode.fleet_http_client")

    class Renamed(module.FleetHttpClient):  # type: ignore[misc, name-defined]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._http, self._client = self._client, None

        def close(self) -> None:
            self._http.close()

    monkeypatch.setattr(module, "FleetHttpClient", Renamed)
    with pytest.raises(FlowerChanged, match=r"FleetHttpClient\._client"):
        contract._client_is_httpx()


# Messages.


def test_messages_come_whole_and_large_answers_go_back_in_chunks(
    board: Switchboard, alto: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, pushed = os.urandom(12 * 2**20), []
    push = alto._client.PushObject

    def counted(request: Any) -> Any:
        pushed.append(request.ByteSize())
        return push(request)

    monkeypatch.setattr(alto._client, "PushObject", counted)
    with board.serverapp() as app:
        asked = app.ask(alto.node_id, wire.APPLY, wire.pack([b"question"], [blob]))
        incoming = next_one(alto)
        assert incoming.kind == wire.APPLY
        assert not incoming.message.has_content() or not incoming.message.content
        message = alto.fetch(incoming)
        assert wire.unpack(message.content, blobs=1) == ([b"question"], [blob])
        assert alto.receive() is None
        alto.reply(Message(wire.pack([b"answer"], [blob[::-1]]), reply_to=message))
        answer = app.answers([asked])[asked]
        assert wire.unpack(answer.content, blobs=1) == ([b"answer"], [blob[::-1]])
        assert sum(size > 2**20 for size in pushed) >= 3
        assert max(pushed) < 6 * 2**20


def test_an_answer_whose_line_broke_when_it_was_announced_comes_whole_all_the_same(
    board: Switchboard, alto: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce, announced = alto._client.PushMessages, []

    def cut(request: Any) -> Any:
        response = announce(request)
        announced.append(response)
        if len(announced) == 1:
            time.sleep(1.0)  # the ServerApp could fetch the head meanwhile, and wait for its objects
            raise httpx.ReadError("cut")
        return response

    monkeypatch.setattr(alto._client, "PushMessages", cut)
    with board.serverapp() as app, ThreadPoolExecutor(1) as aside:
        asked = app.ask(alto.node_id, wire.APPLY, wire.pack([b"question"]))
        message = alto.fetch(next_one(alto))
        waiting = aside.submit(app.answers, [asked])
        alto.reply(Message(wire.pack([b"answer"]), reply_to=message))
        assert wire.unpack(waiting.result()[asked].content)[0] == [b"answer"]
        first, second = announced
        assert set(second.objects_to_push) == set(first.objects_to_push)
        assert second.session_id != first.session_id
        # What is there already is not wanted again.
        alto.reply(Message(wire.pack([b"answer"]), reply_to=message))
        assert not announced[-1].objects_to_push


def test_a_node_that_dies_while_it_answers_is_gone_and_nobody_waits_for_the_rest_of_its_answer(
    board: Switchboard, alto: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(request: Any) -> Any:
        raise Stopped

    with board.serverapp() as app:
        asked = app.ask(alto.node_id, wire.APPLY, wire.pack([b"question"]))
        message = alto.fetch(next_one(alto))
        monkeypatch.setattr(alto._client, "PushObject", dies)
        with pytest.raises(Stopped):
            alto.reply(Message(wire.pack([b"answer"]), reply_to=message))
        assert list(app.grid.pull_messages([asked])) == [], "half an answer is none"
        alto.close()
        answer = app.answers([asked])[asked]
        assert answer.error.code == ErrorCode.NODE_UNAVAILABLE


def test_a_message_whose_run_ends_before_it_was_fetched_and_an_answer_that_comes_too_late_end_nothing(
    board: Switchboard, alto: Link, caplog: pytest.LogCaptureFixture
) -> None:
    with board.serverapp() as app:
        app.ask(alto.node_id, wire.HELLO, wire.pack([b"one"]))
        app.ask(alto.node_id, wire.HELLO, wire.pack([b"two"]))
        unfetched = next_one(alto)
        fetched = alto.fetch(next_one(alto))
    with pytest.raises(LookupError):
        alto.fetch(unfetched)
    with caplog.at_level(logging.INFO):
        alto.reply(Message(wire.pack([b"late"]), reply_to=fetched))
    assert [r.levelname for r in caplog.records if r.name == fleet.__name__] == ["INFO"]
    with board.serverapp() as app:
        asked = app.ask(alto.node_id, wire.HELLO, wire.pack([b"three"]))
        message = alto.fetch(next_one(alto))
        alto.reply(Message(wire.pack([b"here"]), reply_to=message))
        assert wire.unpack(app.answers([asked])[asked].content) == ([b"here"], [])


# Falling away, and coming back.


def test_a_superlink_that_is_killed_and_a_front_that_is_are_waited_for_and_the_node_stays_itself(
    board: Switchboard, alto: Link, caplog: pytest.LogCaptureFixture
) -> None:
    number = alto.node_id
    with board.serverapp() as app:
        for name in ("superlink", "front"):
            board.kill(name)
            found: list[Incoming] = []
            waiting = threading.Thread(target=lambda found=found: found.append(next_one(alto)))
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                waiting.start()
                until(
                    lambda: fleet.__name__ in [r.name for r in caplog.records if r.levelno == logging.WARNING],
                    "the link notices",
                )
            board.start(name)
            asked = app.ask(number, wire.HELLO, wire.pack([name.encode()]))
            waiting.join(90)
            message = alto.fetch(found[0])
            assert wire.unpack(message.content) == ([name.encode()], [])
            alto.reply(Message(wire.pack([b"here"]), reply_to=message))
            assert asked in app.answers([asked])
        assert alto.node_id == number


def test_heartbeats_keep_a_node_online(board: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.random, "uniform", lambda *_: 0.02)

    def online_until(node: int) -> float:
        with contextlib.closing(sqlite3.connect(board.home.link / "superlink.sqlite", timeout=30)) as database:
            signed = node - 2**64 if node >= 2**63 else node
            return float(database.execute("SELECT online_until FROM node WHERE node_id = ?", (signed,)).fetchone()[0])

    with Link(board.address, board.context("Tenor"), board.leaf("Tenor")) as link:
        first = online_until(link.connect())
        until(lambda: online_until(link.node_id) > first + 1.0, "a heartbeat arrives")


def test_a_node_that_said_goodbye_is_back_at_once_with_its_number(board: Switchboard) -> None:
    numbers = []
    for _ in range(2):
        with Link(board.address, board.context("Tenor"), board.leaf("Tenor")) as link:
            numbers.append(link.connect())
    assert numbers[0] == numbers[1]


def test_of_two_processes_with_one_key_the_second_is_told(board: Switchboard, alto: Link) -> None:
    with (
        Link(board.address, board.context("Alto"), board.leaf("Alto"), timing=HASTY) as second,
        pytest.raises(AlreadyConnected, match="two nodes with one key would keep two ledgers"),
    ):
        second.connect()
    assert alto.receive() is None, "the first is still online"


def test_an_earlier_life_that_is_surely_over_is_said_goodbye_for(board: Switchboard) -> None:
    killed = Link(board.address, board.context("Tenor"), board.leaf("Tenor"))
    number = killed.connect()
    killed._over.set()
    with Link(board.address, board.context("Tenor"), board.leaf("Tenor"), earlier=number, timing=HASTY) as link:
        assert link.connect() == number
    killed._client.close()


def test_waiting_ends_when_it_is_told_to(board: Switchboard) -> None:
    stop = threading.Event()
    stop.set()
    with (
        Link(f"localhost:{lease_port()}", board.context("Alto"), board.leaf("Alto"), stop=stop) as link,
        pytest.raises(Stopped),
    ):
        link.connect()


# Whom it does not talk to.


def test_nobody_there_is_said_after_a_while(board: Switchboard) -> None:
    with (
        Link(f"localhost:{lease_port()}", board.context("Alto"), board.leaf("Alto"), patience=0.3) as link,
        pytest.raises(CoordinatorUnreachable, match=r"Nobody answered .* for 0.3 s"),
    ):
        link.connect()


def test_another_coordinator_is_not_trusted_and_a_stranger_is_not_let_in(board: Switchboard, tmp_path: Path) -> None:
    foreign = replace(board.roster, coordinator=IdentityKey.generate().public, signatures={})
    stranger = IdentityKey.generate()
    leaf = renewed(tmp_path, stranger, "Alto")
    for context in (client_context(foreign, tmp_path), client_context(board.roster, tmp_path)):
        with Link(board.address, context, leaf) as link, pytest.raises(CertificateRefused, match="partbook doctor"):
            link.connect()


def test_a_handshake_that_is_cut_off_says_nothing_of_trust(board: Switchboard) -> None:
    """As where a load balancer has nobody behind it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def cut() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=cut, daemon=True)
        thread.start()
        address = f"localhost:{listener.getsockname()[1]}"
        with (
            Link(address, board.context("Alto"), board.leaf("Alto"), patience=0.5) as link,
            pytest.raises(CoordinatorUnreachable),
        ):
            link.connect()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)


def test_a_node_that_left_the_roster_is_told_so_and_ends(board: Switchboard, alto: Link) -> None:
    first = board.roster
    newcomer = IdentityKey.generate()
    member = replace(first.member("Alto"), name="Discant", identity=newcomer.public)
    members = tuple(sorted((*(m for m in first.members if m.name != "Alto"), member), key=lambda m: m.name))
    board.install(replace(first, version=2, members=members), newcomer)
    try:
        board.hang_up()
        with pytest.raises(CertificateRefused, match="no party of the roster"):
            alto.receive()
    finally:
        board.install(first)
        board.hang_up()
    assert alto.receive() is None


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_that_is_minutes_off_is_named(
    minutes: int, board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datetime
    import time

    from flwr.supernode import node_auth_http_interceptor as signing

    way = "ahead of" if minutes > 0 else "behind"
    off, true, now = 60.0 * minutes, time.time, signing.now
    monkeypatch.setattr(time, "time", lambda: true() + off)
    monkeypatch.setattr(signing, "now", lambda: now() + datetime.timedelta(seconds=off))
    with (
        Link(board.address, board.context("Bass"), board.leaf("Bass")) as link,
        pytest.raises(WrongClock, match=rf"(59|60)[0-9] s {way} the coordinator's"),
    ):
        link.connect()


class Trap:
    """Listens, and knows whether anybody came."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.port: int = self._listener.getsockname()[1]

    def caught(self) -> bool:
        try:
            self._listener.accept()[0].close()
        except TimeoutError:
            return False
        return True


def test_proxies_of_the_environment_are_not_used(board: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = Trap()
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for spelt in (name, name.upper()):
            monkeypatch.setenv(spelt, f"http://127.0.0.1:{trap.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Link(board.address, board.context("Tenor"), board.leaf("Tenor"), patience=0.0) as link:
        link.connect()
        assert link.receive() is None
    assert not trap.caught()


def test_redirects_are_not_followed(board: Switchboard) -> None:
    trap = Trap()

    class Redirect(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            self.send_response(308)
            self.send_header("Location", f"https://127.0.0.1:{trap.port}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Redirect) as server:
        context: ssl.SSLContext = server_context(board.roster, board.home.tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            with (
                Link(f"localhost:{server.server_port}", board.context("Alto"), board.leaf("Alto")) as link,
                pytest.raises(CertificateRefused, match="308"),
            ):
                link.connect()
        finally:
            server.shutdown()
            thread.join()
    assert not trap.caught()


# Last: it costs the SuperLink its memory.


def test_a_superlink_that_lost_its_database_meets_its_nodes_anew(board: Switchboard, alto: Link) -> None:
    number = alto.node_id
    board.kill("superlink")
    for path in board.home.link.glob("superlink.sqlite*"):
        path.unlink()
    board.start("superlink")
    assert alto.receive() is None
    assert alto.node_id != number

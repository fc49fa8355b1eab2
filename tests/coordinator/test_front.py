"""The front before the real SuperLink, each a process of its own: whoever is to be kept out tries to get in."""

import contextlib
import http.client
import inspect
import json
import re
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.node_pb2 import Node
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import get_object_tree, no_object_id_recompute
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from google.protobuf.message import Message as Protobuf
from switchboard import Switchboard, until

from partbook.coordinator.front import LARGEST, PATHS, PREFIX, REQUESTS, Bindings, Refused, checked
from partbook.identity.keys import IdentityKey
from partbook.identity.parties import Member
from partbook.identity.receiving import ReceivingKey
from partbook.identity.tls import Leaf, anchor, client_context, issue, renewed
from partbook.node.fleet import Link
from partbook.plan import wire

pytestmark = pytest.mark.timeout(300)  # a SuperLink and a front start in the first test, and tests kill them

HEARTBEAT = 10.0


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switchboard]:
    with Switchboard(tmp_path_factory.mktemp("front")) as board:
        board.start("superlink", "front")
        yield board


@pytest.fixture(autouse=True)
def whole_board(request: pytest.FixtureRequest) -> None:
    """Where a test that failed left the board in pieces, the next finds it whole."""
    if "board" in request.fixturenames:
        request.getfixturevalue("board").mend()


@pytest.fixture(scope="module")
def nodes(board: Switchboard) -> Iterator[dict[str, int]]:
    """Alto and Bass, online by the real link."""
    with contextlib.ExitStack() as stack:
        found = {}
        for member in ("Alto", "Bass"):
            link = stack.enter_context(Link(board.address, board.context(member), board.leaf(member)))
            found[member] = link.connect()
        yield found


def knock(board: Switchboard, leaf: Leaf | None, folder: Path) -> bytes:
    """What somebody with this certificate, or with none, gets to read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=anchor("coordinator", board.roster.coordinator).decode())
    if leaf is not None:
        (folder / "both.pem").write_bytes(leaf.key + leaf.certificate)
        context.load_cert_chain(folder / "both.pem")
    with (
        socket.create_connection(("127.0.0.1", board.home.server.port), 30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as line,
    ):
        line.sendall(f"POST {PATHS[0]} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        return line.recv(4096)


def asked(board: Switchboard, target: str, *, method: str = "POST", party: str = "Alto", body: bytes = b"") -> int:
    """The status of a request whose target is sent as it is spelt here: no client's library tidies it up."""
    line = http.client.HTTPSConnection("localhost", board.home.server.port, context=board.context(party), timeout=30)
    with contextlib.closing(line):
        line.putrequest(method, target, skip_host=True)
        line.putheader("Host", "localhost")
        line.putheader("Content-Type", PROTOBUF_MEDIA_TYPE)
        line.putheader("Content-Length", str(len(body)))
        line.endheaders(body)
        return line.getresponse().status


def about(node: int, name: str) -> Protobuf:
    """A request of each kind that acts as a node."""
    request = REQUESTS[name]()
    if hasattr(request, "node_id"):
        request.node_id = node
    else:
        request.node.node_id = node  # type: ignore[attr-defined]
    return request


ACTING = tuple(name for name in REQUESTS if name not in ("register-node", "activate-node"))


# Who the client is.


def test_without_a_certificate_of_the_roster_not_a_byte_is_answered(board: Switchboard, tmp_path: Path) -> None:
    stranger = IdentityKey.generate()
    past = datetime.now(UTC) - timedelta(days=60)
    for leaf in (
        None,
        issue(stranger, "Stranger"),
        issue(stranger, "Alto"),
        issue(board.key("Alto"), "Alto", now=past),
        issue(board.key("coordinator"), "coordinator"),
        issue(board.key("Alto"), "Alto", hosts=("localhost",)),
    ):
        try:
            said = knock(board, leaf, tmp_path)
        except (ssl.SSLError, ConnectionError):
            said = b""
        assert said == b""
    assert knock(board, board.leaf("Alto"), tmp_path).startswith(b"HTTP/1.1 403")


def test_who_speaks_no_tls_is_not_answered(board: Switchboard) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"http://127.0.0.1:{board.home.server.port}{PATHS[0]}", trust_env=False, timeout=30)


# Where it wants to go.


def flowers_routes() -> list[str]:
    """Every path that Flower's own clients ask for."""
    sources = map(inspect.getsource, (ControlHttpClient, RuntimeHttpClient, FleetHttpClient))
    return sorted({path for source in sources for path in re.findall(r'"(/v1/[a-z/-]+)"', source)})


def test_of_all_routes_of_the_superlink_the_fleets_alone_are_open(board: Switchboard) -> None:
    routes = flowers_routes()
    assert set(PATHS) < set(routes)
    assert len(routes) > 40
    closed = [route for route in routes if route not in PATHS]
    assert {"/v1/fleet/get-run", "/v1/fleet/get-fab", "/v1/runtime/acquire-task", "/v1/control/start-run"} <= {*closed}
    with board.client("Alto") as client:
        for route in [*closed, "/", "/health", "/docs", "/openapi.json", "/metrics", "/v1/fleet", "/v1/fleet/"]:
            for method in ("POST", "GET"):
                answer = client.request(method, route)
                assert answer.status_code == 404, route
                assert answer.text == "There is nothing here."
        for path in PATHS:
            assert client.post(path, content=b"\xff").status_code == 400, "it is open, and reads what it is told"


@pytest.mark.parametrize(
    "target",
    [
        "//v1/fleet/pull-messages",
        "/v1//fleet/pull-messages",
        "/v1/fleet/../fleet/pull-messages",
        "/v1/fleet/./pull-messages",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/..%2fcontrol/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/pull%2dmessages",
        "/v1%2ffleet/pull-messages",
        "/%761/fleet/pull-messages",
        "/V1/fleet/pull-messages",
        "/v1/fleet/Pull-Messages",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages%00",
        "/v1/fleet/pull-messages%20",
        "/v1/fleet/pull-messages;x",
        "/v1/fleet/pull-messages?x=1",
        "/v1/fleet/pull-messages#x",
        "/v1\\fleet\\pull-messages",
        "http://localhost/v1/fleet/pull-messages",
        "http://127.0.0.1/v1/control/start-run",
        "*",
    ],
)
def test_a_path_that_is_spelt_another_way_leads_nowhere(board: Switchboard, target: str) -> None:
    assert asked(board, target) in (400, 404)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "PRI"])
def test_only_post_is_answered(board: Switchboard, method: str) -> None:
    assert asked(board, PATHS[0], method=method) in (400, 405)


# In whose name it speaks.


def test_a_member_comes_online_with_its_own_key_only(board: Switchboard) -> None:
    for key in (board.leaf("Bass").public_key, board.leaf("Alto").public_key + b"\n", b""):
        for name, request in (
            ("register-node", RegisterNodeFleetRequest(public_key=key)),
            ("activate-node", ActivateNodeRequest(public_key=key, heartbeat_interval=HEARTBEAT)),
        ):
            with board.client("Alto") as client:
                answer = client.post(PREFIX + name, content=request.SerializeToString())
            assert (answer.status_code, answer.text) == (
                403,
                "Alto may come online with its own certificate's key only.",
            )


@pytest.mark.parametrize("name", ACTING)
def test_a_member_acts_as_its_own_node_only(board: Switchboard, nodes: dict[str, int], name: str) -> None:
    with board.client("Bass") as client:
        for node in (nodes["Alto"], 0, nodes["Bass"] ^ 1):
            answer = client.post(PREFIX + name, content=about(node, name).SerializeToString())
            assert (answer.status_code, answer.text) == (403, f"Node {node} is not Bass's here; activate it first.")
    with board.client("Custodian") as client:
        answer = client.post(PREFIX + name, content=about(nodes["Alto"], name).SerializeToString())
        assert answer.status_code == 403


def test_flowers_own_signature_is_still_looked_at_behind_the_front(board: Switchboard, nodes: dict[str, int]) -> None:
    """A certificate alone makes nobody a node: who took the front's place still lacks the node's key."""
    with board.client("Alto") as client:
        content = about(nodes["Alto"], "pull-messages").SerializeToString()
        assert client.post(PREFIX + "pull-messages", content=content).status_code == 401


def reply_to(identifier: str, board: Switchboard, run: int, content: bytes, **changed: int) -> PushMessagesRequest:
    """An answer to a message that was not sent to whoever gives it."""
    asked = MessageProto()
    asked.metadata.run_id, asked.metadata.message_id = run, identifier
    asked.metadata.src_node_id, asked.metadata.dst_node_id = 1, changed["src"]
    asked.metadata.message_type, asked.metadata.ttl = wire.HELLO, 3600.0
    asked.metadata.created_at = datetime.now(UTC).timestamp()
    asked.content.SetInParent()
    reply = Message(wire.pack([content]), reply_to=message_from_proto(asked))
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        tree = get_object_tree(reply)
        head = message_to_proto(remove_content_from_message(reply))
    return PushMessagesRequest(node=Node(node_id=changed["node"]), messages_list=[head], message_object_trees=[tree])


def test_a_reply_in_another_nodes_name_never_arrives(board: Switchboard, nodes: dict[str, int]) -> None:
    alto, bass = nodes["Alto"], nodes["Bass"]
    with board.serverapp() as app:
        first, second = (app.ask(alto, wire.HELLO, wire.pack([text])) for text in (b"one", b"two"))
        through = board.fleet("Bass")
        for node, why in ((bass, "in its own name only"), (alto, "activate it first")):
            with pytest.raises(httpx.HTTPStatusError) as refused:
                through.PushMessages(reply_to(first, board, app.run, b"spoofed", src=alto, node=node))
            assert refused.value.response.status_code == 403
            assert why in refused.value.response.text
        through.close()
        # Without the front the SuperLink would have taken it: it looks at who asks, not at who is said to answer.
        straight = board.fleet("Bass", board.home.server.superlink)
        answer = straight.PushMessages(reply_to(second, board, app.run, b"spoofed", src=alto, node=bass))
        assert answer.objects_to_push, "Flower has mended this; the front's check is a second one now"
        straight.close()
        # And what is Alto's to answer, Alto answers.
        own = board.fleet("Alto")
        taken = own.PushMessages(reply_to(first, board, app.run, b"true", src=alto, node=alto))
        assert taken.objects_to_push
        own.close()


# What passes on.


@contextlib.contextmanager
def recorder(port: int) -> Iterator[list[dict[str, str]]]:
    """Stands where the SuperLink was, and writes down the headers that come."""
    seen: list[dict[str, str]] = []

    class Write(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(307)
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.send_header("set-cookie", "a=b")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Reusing(HTTPServer):
        allow_reuse_address = True

    with Reusing(("127.0.0.1", port), Write) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


def test_too_large_a_body_is_refused(board: Switchboard) -> None:
    with board.client("Alto") as client:
        request = RegisterNodeFleetRequest(public_key=b"x" * LARGEST).SerializeToString()
        assert client.post(PATHS[0], content=request).status_code == 413

        def endless() -> Iterator[bytes]:
            for _ in range(20):
                yield bytes(2**20)

        assert client.post(PATHS[0], content=endless()).status_code == 413, "without a length as well"


def test_while_the_superlink_is_away_the_front_says_so_and_no_foreign_header_passes_to_it(
    board: Switchboard, nodes: dict[str, int]
) -> None:
    board.kill("superlink")
    request = about(nodes["Alto"], "pull-messages").SerializeToString()
    with board.client("Alto") as client:
        answer = client.post(PREFIX + "pull-messages", content=request)
        assert (answer.status_code, "restarted" in answer.text) == (502, True)
        with recorder(board.home.server.superlink_port) as seen:
            headers = {
                "content-type": PROTOBUF_MEDIA_TYPE,
                "flwr-public-key": "k",
                "flwr-signature": "s",
                "flwr-timestamp": "t",
                "flwr-task-token": "stolen",
                "flwr-superexec-ts": "1",
                "flwr-superexec-nonce": "2",
                "flwr-superexec-body-sha256": "3",
                "flwr-superexec-signature": "4",
                "authorization": "Bearer x",
                "cookie": "c=d",
                "x-forwarded-for": "127.0.0.1",
                "forwarded": "for=127.0.0.1",
                "host": "127.0.0.1",
            }
            answer = client.post(PREFIX + "pull-messages", content=request, headers=headers)
            assert answer.status_code == 307
            assert "location" not in answer.headers
            assert "set-cookie" not in answer.headers
    (passed,) = seen
    assert {name for name in passed if name.startswith("flwr")} == {
        "flwr-public-key",
        "flwr-signature",
        "flwr-timestamp",
    }
    assert set(passed) - {name for name in passed if name.startswith("flwr")} <= {
        *("host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length")
    }
    board.start("superlink")
    own = board.fleet("Alto")
    until(lambda: own.PullMessages(PullMessagesRequest(node=Node(node_id=nodes["Alto"]))) is not None)
    own.close()


def test_a_front_that_is_started_again_forgets_no_node(board: Switchboard, nodes: dict[str, int]) -> None:
    board.kill("front")
    kept = board.home.tls / "nodes.json"
    assert json.loads(kept.read_text())["Alto"] == [nodes["Alto"]]
    assert board.home.tls.stat().st_mode & 0o077 == 0
    board.start("front")
    own = board.fleet("Alto")
    assert own.SendNodeHeartbeat(
        SendNodeHeartbeatRequest(node=Node(node_id=nodes["Alto"]), heartbeat_interval=HEARTBEAT)
    ).success
    own.close()
    board.kill("front", signal.SIGTERM)
    board.start("front")


def test_a_new_roster_lets_in_who_was_added_and_keeps_out_who_was_removed_open_lines_too(
    board: Switchboard, nodes: dict[str, int], tmp_path: Path
) -> None:
    discant = IdentityKey.generate()
    first = board.roster
    member = Member("Discant", discant.public, ReceivingKey.generate().public)
    members = tuple(sorted((*(m for m in first.members if m.name != "Bass"), member), key=lambda m: m.name))
    newer = replace(first, version=first.version + 1, members=members)
    renewed(tmp_path, discant, "Discant")
    key = Leaf.load(tmp_path).public_key
    request = RegisterNodeFleetRequest(public_key=key).SerializeToString()

    def discants() -> httpx.Client:
        context = client_context(newer, tmp_path)
        headers = {"content-type": PROTOBUF_MEDIA_TYPE}
        return httpx.Client(
            base_url=f"https://{board.address}", verify=context, trust_env=False, timeout=30, headers=headers
        )

    with discants() as client, pytest.raises(httpx.TransportError):
        client.post(PREFIX + "register-node", content=request)
    with board.client("Bass") as open_line:
        body = about(nodes["Bass"], "pull-messages").SerializeToString()
        assert open_line.post(PREFIX + "pull-messages", content=body).status_code == 401, "the SuperLink answered"
        try:
            board.install(newer, discant)
            board.hang_up()
            refused = open_line.post(PREFIX + "pull-messages", content=body)
            assert refused.status_code == 403
            assert "no party of the roster" in refused.text
            with board.client("Bass") as another:
                assert another.post(PREFIX + "pull-messages", content=body).status_code == 403
            with discants() as client:
                assert client.post(PREFIX + "register-node", content=request).status_code == 401, "it gets through"
        finally:
            board.install(first)
            board.hang_up()
        assert open_line.post(PREFIX + "pull-messages", content=body).status_code == 401


def test_a_broken_roster_changes_nothing(board: Switchboard) -> None:
    whole = board.parties.roster.read_text()
    try:
        board.parties.roster.write_text(whole.replace("version = 1", "version = 9"))
        board.hang_up()
    finally:
        board.parties.roster.write_text(whole)
    for member in board.members:
        with board.client(member) as client:
            assert client.post(PATHS[0], content=b"\xff").status_code == 400, "the one before it stays in force"


# The decision by itself.

MINE, OTHER, KEY = 7, 8, b"my key"
GOOD: dict[str, Protobuf] = {
    "register-node": RegisterNodeFleetRequest(public_key=KEY),
    "activate-node": ActivateNodeRequest(public_key=KEY, heartbeat_interval=HEARTBEAT),
    "deactivate-node": DeactivateNodeRequest(node_id=MINE),
    "unregister-node": UnregisterNodeFleetRequest(node_id=MINE),
    "send-node-heartbeat": SendNodeHeartbeatRequest(node=Node(node_id=MINE), heartbeat_interval=HEARTBEAT),
    "pull-messages": PullMessagesRequest(node=Node(node_id=MINE)),
    "push-messages": PushMessagesRequest(node=Node(node_id=MINE)),
    "push-object": PushObjectRequest(node=Node(node_id=MINE), object_id="x"),
    "pull-object": PullObjectRequest(node=Node(node_id=MINE), object_id="x"),
    "confirm-message-received": ConfirmMessageReceivedRequest(node=Node(node_id=MINE)),
}


def decided(name: str, body: bytes, nodes: set[int] | None = None) -> int:
    try:
        checked(PREFIX + name, body, "Alto", KEY, {MINE} if nodes is None else nodes)
    except Refused as refused:
        return refused.status
    return 200


@pytest.mark.parametrize("name", REQUESTS)
def test_every_path_takes_its_own_request_and_no_other_partys(name: str) -> None:
    assert decided(name, GOOD[name].SerializeToString()) == 200
    assert decided(name, b"") == 403, "an empty request says nothing of the client"
    assert decided(name, b"\xff\xff") == 400
    if name in ACTING:
        assert decided(name, about(OTHER, name).SerializeToString()) == 403
        assert decided(name, about(MINE, name).SerializeToString(), nodes=set()) == 403
        assert decided(name, about(0, name).SerializeToString()) == 403
        # Protocol buffers merge what comes twice: the last one counts, here and in the SuperLink.
        twice = about(MINE, name).SerializeToString() + about(OTHER, name).SerializeToString()
        assert decided(name, twice) == 403
    else:
        other = type(GOOD[name])(public_key=b"another's")  # type: ignore[call-arg]
        assert decided(name, other.SerializeToString()) == 403
        assert decided(name, GOOD[name].SerializeToString() + other.SerializeToString()) == 403


def test_every_message_in_a_push_names_its_sender() -> None:
    def push(*senders: int) -> bytes:
        request = PushMessagesRequest(node=Node(node_id=MINE))
        for sender in senders:
            request.messages_list.add().metadata.src_node_id = sender
        return request.SerializeToString()

    assert decided("push-messages", push(MINE)) == 200
    assert decided("push-messages", push(MINE, MINE)) == 200
    for senders in ((OTHER,), (0,), (MINE, OTHER), (OTHER, MINE)):
        assert decided("push-messages", push(*senders)) == 403


@pytest.mark.parametrize("text", ["", "[]", "{", '{"Alto": 3}', '{"Alto": ["x"]}', "\x00"])
def test_bindings_that_cannot_be_read_are_learnt_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "nodes.json"
    path.write_text(text)
    bindings = Bindings.load(path)
    assert bindings.nodes == {}
    bindings.add("Alto", 2**63)
    assert Bindings.load(path).nodes == {"Alto": {2**63}}


def test_bindings_that_cannot_be_written_still_count(tmp_path: Path) -> None:
    bindings = Bindings(tmp_path / "missing" / "nodes.json")
    bindings.add("Alto", 1)
    assert bindings.nodes == {"Alto": {1}}

"""The front: the one door to the SuperLink, for parties of the roster and for the fleet's paths alone.

Behind it, the SuperLink listens on loopback and trusts whoever speaks to it: with its other paths one could start runs,
register nodes and take over a ServerApp's task. So a request passes only if

    TLS    the client's certificate was issued by an identity key of the roster           (`partbook.identity.tls`)
    path   it is one of `PATHS`, spelt exactly so, and asked for by POST
    self   it speaks for the client itself: the key it registers is its certificate's, the node it acts as is one that
           its own activation was answered with, and the answers it pushes name that node as their sender

The last is what a proxy of another make cannot do. It is not what safety rests on (every message is signed from end to
end), but it keeps a member from taking or spoiling what is meant for another.

SIGHUP has the roster and the certificate read anew: who was added is let in, who was removed is refused from then on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx
import uvicorn
from cryptography import x509
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf
from uvicorn.protocols.http.h11_impl import H11Protocol

from partbook.coordinator.disk import replace_file
from partbook.errors import CertificateRefused
from partbook.identity.roster import Roster
from partbook.identity.tls import anchors, party_of, public_key_of, server_context
from partbook.logs import configure

PREFIX: Final = "/v1/fleet/"
REQUESTS: Final[dict[str, type[Protobuf]]] = {
    "register-node": RegisterNodeFleetRequest,
    "activate-node": ActivateNodeRequest,
    "deactivate-node": DeactivateNodeRequest,
    "unregister-node": UnregisterNodeFleetRequest,
    "send-node-heartbeat": SendNodeHeartbeatRequest,
    "pull-messages": PullMessagesRequest,
    "push-messages": PushMessagesRequest,
    "push-object": PushObjectRequest,
    "pull-object": PullObjectRequest,
    "confirm-message-received": ConfirmMessageReceivedRequest,
}
PATHS: Final = tuple(PREFIX + name for name in REQUESTS)
WAITING: Final = PREFIX + "pull-messages"
# Flower's signature of the time by the node's key is among them; none that opens another of the SuperLink's doors is.
HEADERS: Final = {
    name.lower().encode()
    for name in (
        "content-type",
        "accept",
        FLEET_HTTP_PUBLIC_KEY_HEADER,
        FLEET_HTTP_SIGNATURE_HEADER,
        TIMESTAMP_HEADER,
        "prefer",
    )
}
LARGEST: Final = 16 * 2**20  # bytes of a request; objects come in chunks of 5 MiB
BACKEND_TIMEOUT: Final = 60.0
REACHES: Final = 600.0  # seconds for which an idle connection is kept

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that does not pass: an HTTP status, and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True)
class Bindings:
    """Which of Flower's nodes belong to which party; kept in a file, so that a restart forgets none.

    Attributes:
        path: the file.
        nodes: by party.
    """

    path: Path
    nodes: dict[str, set[int]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Bindings:
        """What was kept; nothing where the file is missing or broken: nodes then come online anew."""
        try:
            found = json.loads(path.read_text())
            return cls(path, {str(party): set(map(int, nodes)) for party, nodes in found.items()})
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s is broken (%s); nodes will come online anew", path, error)
            return cls(path)

    def add(self, party: str, node: int) -> None:
        """This node is this party's. A disk that is full costs it a moment after the next restart, no more."""
        if node not in self.nodes.setdefault(party, set()):
            self.nodes[party].add(node)
            kept = {name: sorted(nodes) for name, nodes in sorted(self.nodes.items())}
            try:
                replace_file(self.path, json.dumps(kept).encode())
            except OSError as error:
                log.error("%s cannot be written (%s); after a restart nodes come online anew", self.path, error)


def checked(path: str, body: bytes, party: str, public_key: bytes, nodes: set[int]) -> None:
    """Return if a request speaks for the client alone.

    Args:
        path: one of `PATHS`.
        body: of the request.
        party: whose certificate the client presented.
        public_key: PEM, the certificate's.
        nodes: what the party's activations were answered with.

    Raises:
        Refused: it does not.
    """
    request = REQUESTS[path.removeprefix(PREFIX)]()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise Refused(400, "The body is no request of this path.") from error
    if isinstance(request, RegisterNodeFleetRequest | ActivateNodeRequest):
        if request.public_key != public_key:
            raise Refused(403, f"{party} may come online with its own certificate's key only.")
        return
    node = request.node_id if hasattr(request, "node_id") else request.node.node_id
    if node not in nodes:
        raise Refused(403, f"Node {node} is not {party}'s here; activate it first.")
    if isinstance(request, PushMessagesRequest):
        for message in request.messages_list:
            if message.metadata.src_node_id != node:
                raise Refused(403, f"{party} may answer in its own name only.")


class Front:
    """The ASGI application."""

    def __init__(self, superlink: str, roster: Roster, bindings: Bindings) -> None:
        """Forward to `superlink` (`host:port`, plain HTTP on loopback)."""
        self.roster = roster
        self._bindings = bindings
        self._backend = httpx.AsyncClient(
            base_url=f"http://{superlink}",
            trust_env=False,
            follow_redirects=False,
            timeout=BACKEND_TIMEOUT,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),  # a node that waits has one
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        party = "somebody"
        try:
            certificate: bytes | None = scope.get("state", {}).get("certificate")
            if scope["type"] != "http" or certificate is None:
                raise Refused(403, "A client certificate is needed.")
            try:
                party = party_of(certificate, self.roster)
            except CertificateRefused as error:
                raise Refused(403, str(error)) from error
            leaf = x509.load_der_x509_certificate(certificate)
            if datetime.now(UTC) >= leaf.not_valid_after_utc:
                # TLS looked when the connection was made, and a connection may outlive the certificate.
                raise Refused(403, f"{party}'s certificate is over; connect with the next one.")
            path = scope["path"]
            raw = scope.get("raw_path", path.encode())
            if path not in PATHS or raw != path.encode() or scope["query_string"]:
                raise Refused(404, "There is nothing here.")
            if scope["method"] != "POST":
                raise Refused(405, "Only POST is answered.")
            body = await _read(receive)
            nodes = self._bindings.nodes.get(party, set())
            checked(path, body, party, public_key_of(leaf), nodes)
            await self._forward(path, body, party, scope, receive, send)
        except Refused as refusal:
            log.warning("refused %s's %s %s: %s", party, scope.get("method"), str(scope.get("path"))[:100], refusal)
            await _answer(send, refusal.status, str(refusal).encode(), b"text/plain; charset=utf-8")

    async def _forward(self, path: str, body: bytes, party: str, scope: Scope, receive: Receive, send: Send) -> None:
        passed = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in HEADERS}
        # The SuperLink keeps a question for messages a while; of whom has gone meanwhile it must not answer any.
        asking = asyncio.ensure_future(self._backend.post(path, content=body, headers=passed))
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({asking, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and path == WAITING:
                asking.cancel()
                return
            response = await asking
        except httpx.TransportError as error:
            raise Refused(502, "The SuperLink does not answer; it is being restarted. Try again.") from error
        finally:
            gone.cancel()
        if path.endswith("/activate-node") and response.status_code == httpx.codes.OK:
            answer = ActivateNodeResponse()
            answer.ParseFromString(response.content)
            self._bindings.add(party, answer.node_id)
            log.info("%s is online as node %d", party, answer.node_id)
        kind = response.headers.get("content-type", "application/octet-stream").encode()
        applied = response.headers.get("preference-applied")
        more = [] if applied is None else [(b"preference-applied", applied.encode())]
        await _answer(send, response.status_code, response.content, kind, more)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._backend.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


class _Protocol(H11Protocol):
    """Hands the client's certificate to the application."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("ssl_object")
        certificate = None if connection is None else connection.getpeercert(binary_form=True)
        self.app_state = {**self.app_state, "certificate": certificate}


def serve(listen: tuple[str, int], superlink: str, roster_path: Path, tls_folder: Path) -> None:
    """Be the front until SIGTERM or Ctrl-C.

    Args:
        listen: host and port.
        superlink: `host:port` of the SuperLink.
        roster_path: the roster; read anew at SIGHUP.
        tls_folder: holds the front's leaf; the bindings are kept there too.

    Raises:
        UnsignedRoster, ConfigError, UnusableKey, ExpiredCertificate: what it needs cannot be used.
    """
    configure("coordinator", "front", as_json=True)
    roster = Roster.read(roster_path)
    context = server_context(roster, tls_folder)
    front = Front(superlink, roster, Bindings.load(tls_folder / "nodes.json"))

    def reload() -> None:
        try:
            found = Roster.read(roster_path)
            # A store of anchors only grows; whoever was removed is refused by `party_of`.
            context.load_verify_locations(cadata=anchors(found).decode())
            front.roster = found
            log.info("roster version %d is in force", found.version)
        except Exception:
            log.exception("the new roster is not used; the one before it stays in force")
        try:
            context.load_cert_chain(tls_folder / "front.cert.pem", tls_folder / "front.key.pem")
        except Exception:
            log.exception("the new certificate is not used")

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
            await super().startup(sockets)

    def certified(_config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        return context

    host, port = listen
    Server(
        uvicorn.Config(
            front,
            host=host,
            port=port,
            http=_Protocol,
            ws="none",
            ssl_context_factory=certified,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            interface="asgi3",
            lifespan="on",
            timeout_keep_alive=int(REACHES),
            timeout_graceful_shutdown=5,
        )
    ).run()


async def _read(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The request broke off.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST:
            raise Refused(413, f"A request has at most {LARGEST} bytes.")
        if not message.get("more_body", False):
            return b"".join(parts)


async def _answer(send: Send, status: int, body: bytes, kind: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

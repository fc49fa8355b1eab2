"""A party's line to the coordinator: Flower's fleet interface, over one host, one port, one pair of certificates.

Flower's own SuperNode installs and imports what the SuperLink sends it. This link speaks the same HTTP interface and
never asks for a bundle: it takes messages, and answers them. It goes nowhere else: no proxy out of the environment, no
redirect, no name but the coordinator's.

What is used of Flower here is not public. `partbook.node.contract` lists it; where something of it is not what it was,
the link refuses to start (`FlowerChanged`) instead of failing in the middle of a round.

    register     once for each key; "in use" means that it was done before
    activate     refused while an earlier life of this node still counts as online: up to two heartbeats
    heartbeat    every few seconds, by itself
    pull, push   messages without contents, then the objects they are made of, in chunks of 5 MiB
    deactivate   when it ends in good order
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx

from partbook.errors import AlreadyConnected, CertificateRefused, CoordinatorUnreachable, FlowerChanged, WrongClock
from partbook.identity.tls import Leaf
from partbook.node.contract import FLOWER, contract
from partbook.node.timing import HEARTBEAT, PartyTiming
from partbook.plan.greeting import CLOCKS_APART

try:
    from flwr.app import Message, RecordDict
    from flwr.app.message import make_message, remove_content_from_message
    from flwr.common.serde import message_from_proto, message_to_proto
    from flwr.proto.fleet_pb2 import (
        ActivateNodeRequest,
        DeactivateNodeRequest,
        PullMessagesRequest,
        PushMessagesRequest,
        RegisterNodeFleetRequest,
    )
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PushObjectRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.error import FlowerError
    from flwr.supercore.error.base import ApiErrorCode
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        iterate_object_tree,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
except ImportError as error:
    raise FlowerChanged(
        f"The installed Flower lacks what the link to the coordinator is made of ({error}); install flwr=={FLOWER}."
    ) from error

FIRST_WAIT: Final = 0.25  # seconds before the second try
WAIT: Final = 2  # seconds for which a coordinator may keep the question for messages (RFC 7240, section 4.3)
SILENCES: Final = 4  # connections in a row that end after TLS without an answer, while coming online

T = TypeVar("T")
log = logging.getLogger(__name__)


_UNKNOWN: Final = (httpx.codes.FORBIDDEN, httpx.codes.UNAUTHORIZED)


class Stopped(Exception):
    """The link was told to end while it waited; nobody's mistake."""


class _Unknown(Exception):
    """The SuperLink, or the front before it, does not know this node any more."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message whose content was not fetched yet.

    Attributes:
        message: Flower's, with its metadata alone.
        tree: of the objects it is made of.
    """

    message: Message
    tree: ObjectTree

    @property
    def kind(self) -> str:
        """Its message type."""
        kind: str = self.message.metadata.message_type
        return kind


class Link:
    """A line that is kept up: a call is tried again, after growing pauses, until it goes through or `stop` is set."""

    def __init__(
        self,
        address: str,
        context: ssl.SSLContext,
        leaf: Leaf,
        *,
        stop: threading.Event | None = None,
        patience: float = float("inf"),
        earlier: int | None = None,
        timing: PartyTiming = PartyTiming(),  # noqa: B008 (frozen)
    ) -> None:
        """Nothing is sent yet.

        Args:
            address: `host:port` of the coordinator.
            context: trusts the coordinator alone, presents this party's certificate.
            leaf: its TLS key, by which Flower knows the node, and which signs the time for Flower's own check.
            stop: ends every wait.
            patience: seconds for which an unreachable coordinator is tried before `connect` gives up.
            earlier: number of a life of this node that is surely over, and may not have said so.
            timing: how long it waits for what.
        """
        contract()
        self._address, self._public_key = address, leaf.public_key
        self._stop = stop or threading.Event()
        self._patience, self._earlier, self._timing = patience, earlier, timing
        signing = NodeAuthHttpInterceptor(leaf.private_key, leaf.private_key.public_key())
        self._client = FleetHttpClient(
            f"https://{address}", verify=context, timeout=timing.call_timeout, interceptors=[signing]
        )
        # Flower's client would follow redirects and proxies, to wherever these lead.
        self._client._client.close()
        self._client._client = httpx.Client(
            verify=context,
            timeout=timing.call_timeout,
            follow_redirects=False,
            trust_env=False,
            headers={"Prefer": f"wait={WAIT}"},
            event_hooks={"response": [self._note]},
        )
        self.kept_waiting = False
        self._node: Node | None = None
        self._beating: threading.Thread | None = None
        self._over = threading.Event()
        self._reviving = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def node_id(self) -> int:
        """Flower's number of this node."""
        assert self._node is not None, "connect first"
        number: int = self._node.node_id
        return number

    def connect(self) -> int:
        """Come online; returns the node's number.

        Raises:
            WrongClock: the two clocks are more than five minutes apart.
            CertificateRefused: one of the two sides does not trust the other.
            AlreadyConnected: another process is online with this key.
            CoordinatorUnreachable: nobody answered for `patience` seconds.
            Stopped: it was told to stop.
        """
        self._enter()
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._beating.start()
        return self.node_id

    def receive(self) -> Incoming | None:
        """The next message, without its content; None where there is none now.

        A coordinator that can waits a while for one; `kept_waiting` says whether the last time it did, or would have.

        Raises:
            LinkError: the coordinator takes this node in no more, or answers with an error of its own.
            Stopped: it was told to stop.
        """
        try:
            response = self._as_node(lambda node: self._client.PullMessages(PullMessagesRequest(node=node)))
        except httpx.HTTPStatusError as error:
            raise CoordinatorUnreachable(
                f"The coordinator at {self._address} does not hand out messages ({_reason(error.response)}); its log "
                "says why. Start the node again once that is mended."
            ) from error
        if not response.messages_list:
            return None
        try:
            return Incoming(message_from_proto(response.messages_list[0]), response.message_object_trees[0])
        except Exception as error:  # Flower's reader names no end to what it raises over foreign bytes
            log.warning("a message came that is none (%s); it was dropped", type(error).__name__)
            return None

    def _note(self, response: httpx.Response) -> None:
        if response.request.url.path.endswith("/pull-messages"):
            self.kept_waiting = "preference-applied" in response.headers

    def fetch(self, incoming: Incoming) -> Message:
        """The message with its content; the SuperLink may forget it then.

        Raises:
            LookupError: the SuperLink has lost a part of it, or its run is over; if it still matters, it is sent again.
            Stopped: it was told to stop.
            Exception: whatever Flower's reader raises over bytes that are no message's.
        """
        try:
            return self._fetch(incoming)
        except httpx.HTTPStatusError as error:
            raise LookupError(_reason(error.response)) from error

    def _fetch(self, incoming: Incoming) -> Message:
        metadata = incoming.message.metadata
        run, identifier = metadata.run_id, metadata.message_id
        # The root object says again what came with the message; only its one child, the content, is read.
        if len(incoming.tree.children) != 1:
            raise LookupError(identifier)
        (root,) = incoming.tree.children
        contents = {tree.object_id: self._object(run, tree.object_id) for tree in iterate_object_tree(root)}
        # It must have arrived all the same: what is confirmed is deleted, and a ServerApp that still sends an object
        # of a message that is gone ends its run.
        self._object(run, identifier)
        request = ConfirmMessageReceivedRequest(run_id=run, message_object_id=identifier)

        def confirm(node: Node) -> object:
            request.node.CopyFrom(node)
            return self._client.ConfirmMessageReceived(request)

        self._as_node(confirm)
        content = inflate_object_from_contents(root.object_id, contents)
        if not isinstance(content, RecordDict):
            raise LookupError(identifier)
        return make_message(metadata, content)

    def reply(self, message: Message) -> None:
        """Send an answer, object by object. Of a run that is over, nobody wants it: it is dropped."""
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            objects, tree = get_all_nested_objects(message), get_object_tree(message)
            head = message_to_proto(remove_content_from_message(message))
        run = message.metadata.run_id
        try:
            response = self._as_node(
                lambda node: self._client.PushMessages(
                    PushMessagesRequest(node=node, messages_list=[head], message_object_trees=[tree])
                )
            )
            wanted = set(response.objects_to_push)
            for identifier in [name for name in objects if name in wanted]:
                content = objects.pop(identifier).deflate()
                self._push(run, response.session_id, identifier, content)
        except httpx.HTTPStatusError as error:
            over = _code(error.response) == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED
            level = logging.INFO if over else logging.WARNING
            log.log(level, "an answer was not taken (%s); nobody waits for it", _reason(error.response))

    def close(self) -> None:
        """Go offline, as far as the coordinator can be told; nothing is raised."""
        self._over.set()
        if self._beating is not None:
            self._beating.join(timeout=2 * HEARTBEAT)
        if self._node is not None:
            try:
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))
            except Exception as error:
                log.info("could not say goodbye (%s)", type(error).__name__)
            self._node = None
        self._client.close()

    def _enter(self) -> None:
        try:
            self._call(lambda: self._client.RegisterNode(RegisterNodeFleetRequest(public_key=self._public_key)))
        except httpx.HTTPStatusError as error:
            if _code(error.response) != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise _refused(error) from error
        self._bury()
        refused_since, wait = time.monotonic(), FIRST_WAIT
        while True:
            try:
                answer = self._call(
                    lambda: self._client.ActivateNode(
                        ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=HEARTBEAT)
                    )
                )
                self._node = Node(node_id=answer.node_id)
                return
            except httpx.HTTPStatusError as error:
                if _code(error.response) != ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
                    raise _refused(error) from error
                if time.monotonic() - refused_since > self._timing.refused_for:
                    raise AlreadyConnected(
                        f"The coordinator at {self._address} says that a node with this key has been online for "
                        f"{self._timing.refused_for:.0f} s. If this label's node runs on another machine, stop one "
                        "of the two: two nodes with one key would keep two ledgers."
                    ) from error
                log.info("an earlier life of this node still counts as online; trying again in %.1f s", wait)
            self._pause(wait)
            wait = min(2 * wait, self._timing.longest_wait / 4)

    def _bury(self) -> None:
        """Say goodbye for the earlier life, and give the coordinator a moment to notice what it was asked in vain."""
        earlier, self._earlier = self._earlier, None
        if earlier is None:
            return
        try:
            self._call(lambda: self._client.DeactivateNode(DeactivateNodeRequest(node_id=earlier)))
            self._pause(self._timing.noticed)
        except httpx.HTTPStatusError as error:
            log.debug("the earlier life was over already (%s)", _reason(error.response))

    def _as_node(self, work: Callable[[Node], T]) -> T:
        """`work` with the node's number, which is asked for anew where it is not known any more."""
        for _ in range(3):
            node = self._node
            assert node is not None, "connect first"
            try:
                return self._call(lambda node=node: work(node), known=True)  # type: ignore[misc]
            except _Unknown:
                self._revive(node)
        raise CoordinatorUnreachable(
            f"The coordinator at {self._address} takes this node in and then does not know it; look at its log."
        )

    def _revive(self, before: Node) -> None:
        with self._reviving:
            if self._node == before:
                log.warning("the coordinator does not know this node any more; coming online anew")
                self._enter()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT * random.uniform(0.6, 0.8)):  # noqa: S311 — spreads load, protects nothing
            node = self._node
            if node is None:
                continue
            try:
                request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT)
                known = self._client.SendNodeHeartbeat(request).success
            except httpx.HTTPStatusError as error:
                known = error.response.status_code not in _UNKNOWN
            except (httpx.TransportError, ValueError):
                continue  # the calls of the main loop say so, and wait
            try:
                if not known:
                    self._revive(node)
            except Stopped:
                return
            except Exception as error:
                log.warning("could not come online again: %s", error)

    def _object(self, run: int, identifier: str) -> bytes:
        wait = 0.05
        while True:
            response = self._as_node(
                lambda node: self._client.PullObject(PullObjectRequest(node=node, run_id=run, object_id=identifier))
            )
            if not response.object_found:
                raise LookupError(identifier)
            if response.object_available:
                content: bytes = response.object_content
                return content
            self._pause(wait)  # the coordinator is still sending it
            wait = min(2 * wait, 2.0)

    def _push(self, run: int, session: str, identifier: str, content: bytes) -> None:
        self._as_node(
            lambda node: self._client.PushObject(
                PushObjectRequest(
                    node=node, run_id=run, object_id=identifier, object_content=content, session_id=session
                )
            )
        )

    def _call(self, work: Callable[[], T], *, known: bool = False) -> T:
        """One call, tried again while the coordinator cannot be reached."""
        began, wait, told, silences = time.monotonic(), FIRST_WAIT, False, 0
        while True:
            try:
                result = work()
                if told:
                    log.info("the coordinator answers again, after %.0f s", time.monotonic() - began)
                return result
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                # 403 is the front's word, 401 the SuperLink's own, as where its database was lost.
                if known and status in _UNKNOWN and _code(error.response) is None:
                    raise _Unknown from error
                if status not in (
                    httpx.codes.BAD_GATEWAY,
                    httpx.codes.SERVICE_UNAVAILABLE,
                    httpx.codes.GATEWAY_TIMEOUT,
                ):
                    raise
                why = _reason(error.response)
            except httpx.TransportError as error:
                if _is_trust(error) and self._node is None:
                    raise CertificateRefused(
                        f"The coordinator at {self._address} and this machine do not accept each other's certificates "
                        f"({error}). Compare roster versions, clocks and host names: `partbook doctor` checks them."
                    ) from error
                # A front of Python's that takes no certificate ends the connection without its alert being sent.
                silences = silences + 1 if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) else 0
                if silences >= SILENCES and self._node is None:
                    raise CertificateRefused(
                        f"The coordinator at {self._address} ends every connection without a word, as it does where it "
                        "does not take a party's certificate. Compare roster versions and clocks: `partbook doctor` "
                        "checks them."
                    ) from error
                why = f"{type(error).__name__}: {error}"
            except ValueError as error:
                why = str(error)  # an answer, and not one of the SuperLink's
            if self._node is None and time.monotonic() - began > self._patience:
                raise CoordinatorUnreachable(
                    f"Nobody answered at {self._address} for {self._patience:g} s ({why}). Check the address, the "
                    "firewall, and whether the coordinator runs."
                )
            if not told:
                log.warning("the coordinator at %s does not answer (%s); trying until it does", self._address, why)
                told = True
            self._pause(wait * random.uniform(0.8, 1.2))  # noqa: S311 — spreads load, protects nothing
            wait = min(2 * wait, self._timing.longest_wait)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


def _code(response: httpx.Response) -> int | None:
    """Flower's error code, where the answer holds one."""
    found = FlowerError.from_json(response.text)
    return None if found is None else int(found.code)


def _reason(response: httpx.Response) -> str:
    found = FlowerError.from_json(response.text)
    return f"{response.status_code} {(found.message if found else response.text)[:200]}".strip()


def _refused(error: httpx.HTTPStatusError) -> CertificateRefused | WrongClock:
    apart = _clocks_apart(error.response)
    if error.response.status_code == httpx.codes.UNAUTHORIZED and apart is not None and abs(apart) > CLOCKS_APART:
        return WrongClock(
            f"This machine's clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the coordinator's, "
            "which takes no such node in; set it by NTP, on both machines."
        )
    return CertificateRefused(
        f"The coordinator does not take this node in ({_reason(error.response)}). Compare roster versions with it; its "
        "log names the reason."
    )


def _clocks_apart(response: httpx.Response) -> float | None:
    """Seconds by which this clock is ahead of the one that answered, by the answer's Date (RFC 9110, section 6.6.1)."""
    try:
        return time.time() - parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None


def _is_trust(error: httpx.TransportError) -> bool:
    """Whether TLS failed for what one side showed the other; a handshake that is cut off says nothing of that."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
        cause = cause.__cause__ or cause.__context__
    return False

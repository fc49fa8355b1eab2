"""A Flower Grid inside one process: the deployment's ServerApp and ClientApp, without a SuperLink between them.

Every message is turned into Flower's protobuf bytes and back on its way, so nothing is shared by reference, sizes
are the wire's, and an observer sees exactly what a network would carry. Nodes work in a small thread pool; torch
releases the interpreter while it computes.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as WireMessage
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID: Final = 1
COORDINATOR_ID: Final = 1  # Flower's SuperLink node id
NODE_FAILED: Final = 2  # Flower's error code for an exception in a ClientApp
NODE_AWAY: Final = 5  # and for a node that does not answer any more

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Crossing:
    """One message as it crossed between the coordinator and a node.

    Attributes:
        node_id: the node at the other end.
        inbound: True if it came from the node.
        kind: the message type.
        data: its protobuf bytes.
        seconds: how long the node worked on its answer; 0 for what goes to it.
    """

    node_id: int
    inbound: bool
    kind: str
    data: bytes
    seconds: float = 0.0


class InProcessGrid(Grid):
    """Nodes, each with its own Context, behind Flower's Grid interface."""

    def __init__(
        self,
        app: ClientApp,
        nodes: Mapping[int, UserConfig],
        *,
        others: Mapping[int, ClientApp] | None = None,
        workers: int = 2,
        on_crossing: Callable[[Crossing], None] = lambda _: None,
        lost: Callable[[int, str], bool] = lambda _node, _kind: False,
    ) -> None:
        """Make the nodes.

        Args:
            app: what every node runs.
            nodes: node configuration by node id (> 1).
            others: what nodes run that do not run `app`, by node id.
            workers: how many nodes work at a time.
            on_crossing: told every message, in both directions, from any thread.
            lost: whether a message of this kind to this node never arrives, as if the node were down.
        """
        self._observe, self._lost = on_crossing, lost
        self._apps = dict.fromkeys(nodes, app) | dict(others or {})
        self._contexts = {i: Context(RUN_ID, i, dict(config), RecordDict(), {}) for i, config in nodes.items()}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="node")
        self._replies: dict[str, Future[bytes]] = {}
        self._one_at_a_time = {i: threading.Lock() for i in nodes}
        self._run = Run.create_empty(RUN_ID)
        # Flower stamps messages with the identity of the process' task; here the coordinator's is the only one.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, COORDINATOR_ID

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def set_run(self, run: Run) -> None:
        """Take over Flower's run information."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's run information."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes; they are always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to their nodes; returns ids by which to pull the answers."""
        ids = []
        for message in messages:
            identifier = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = identifier
            data = message_to_proto(message).SerializeToString()
            self._replies[identifier] = self._pool.submit(self._deliver, message.metadata.dst_node_id, data)
            ids.append(identifier)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answers that have come in, each given out once."""
        done = [i for i in message_ids if i in self._replies and self._replies[i].done()]
        return [_read(self._replies.pop(i).result()) for i in done]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then wait for the answers or the timeout (seconds)."""
        waiting = set(self.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
            time.sleep(0.01)
        return replies

    def _deliver(self, node_id: int, data: bytes) -> bytes:
        message = _read(data)
        if self._lost(node_id, message.metadata.message_type):
            return _sent(Message(Error(NODE_AWAY, "the node is unavailable"), reply_to=message))
        self._observe(Crossing(node_id, False, message.metadata.message_type, data))
        with self._one_at_a_time[node_id]:
            began = time.perf_counter()
            try:
                reply = self._apps[node_id](message, self._contexts[node_id])
            except Exception as error:  # as Flower's own runtime does: the node's failure must not be the run's
                log.exception("node %d failed on %s", node_id, message.metadata.message_type)
                reply = Message(Error(NODE_FAILED, type(error).__name__), reply_to=message)
            seconds = time.perf_counter() - began
        answer = _sent(reply)
        self._observe(Crossing(node_id, True, reply.metadata.message_type, answer, seconds))
        return answer


def _sent(reply: Message) -> bytes:
    reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    data: bytes = message_to_proto(reply).SerializeToString()
    return data


def _read(data: bytes) -> Message:
    return message_from_proto(WireMessage.FromString(data))

"""Who a request to the SuperLink is from or for, where that decides who is woken (`partbook.coordinator.waiting`).

A message's head names the node it goes to. Its objects follow one by one, and name the session that the SuperLink
opened for that head; so sessions are remembered until others have taken their place. Whatever is not known, after a
restart or of another Flower, is for everybody: to wake too many costs time alone.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

FLEET_PULL: Final = "/v1/fleet/pull-messages"
APP_PUSH: Final = "/v1/runtime/push-messages"
APP_PUSH_OBJECT: Final = "/v1/runtime/push-object"

SESSIONS: Final = 256
"""That are remembered. A ServerApp sends one message's objects before the next head."""


class Addressees:
    """What requests of flwr 1.41.0 say about nodes."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, frozenset[int]] = OrderedDict()

    def asker(self, path: str, body: bytes) -> int | None:
        """The node that asks for messages; None where that is a ServerApp, or cannot be read."""
        from flwr.proto.fleet_pb2 import PullMessagesRequest
        from google.protobuf.message import DecodeError

        if path != FLEET_PULL:
            return None
        try:
            return int(PullMessagesRequest.FromString(body).node.node_id)
        except DecodeError:
            return None

    def addressed(self, path: str, body: bytes, answer: bytes) -> frozenset[int] | None:
        """The nodes for which something came; None where it may be anybody."""
        from flwr.proto.message_pb2 import PushObjectRequest
        from flwr.proto.runtime_pb2 import PushAppMessagesRequest, PushAppMessagesResponse
        from google.protobuf.message import DecodeError

        try:
            if path == APP_PUSH_OBJECT:
                return self._sessions.get(PushObjectRequest.FromString(body).session_id)
            if path == APP_PUSH:
                heads = PushAppMessagesRequest.FromString(body).messages_list
                nodes = frozenset(head.metadata.dst_node_id for head in heads)
                session = PushAppMessagesResponse.FromString(answer).session_id
                if session:
                    self._sessions[session] = nodes
                while len(self._sessions) > SESSIONS:
                    self._sessions.popitem(last=False)
                return nodes
        except DecodeError:
            pass
        return None

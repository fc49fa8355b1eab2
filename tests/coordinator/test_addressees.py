"""Who requests of the installed Flower are from and for."""

from __future__ import annotations

from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesRequest, PushAppMessagesResponse

from partbook.coordinator.addressees import APP_PUSH, APP_PUSH_OBJECT, FLEET_PULL, SESSIONS, Addressees


def heads(*nodes: int) -> bytes:
    messages = [Message(metadata=Metadata(dst_node_id=node)) for node in nodes]
    return PushAppMessagesRequest(messages_list=messages).SerializeToString()


def opened(session: str) -> bytes:
    return PushAppMessagesResponse(message_ids=["m"], session_id=session).SerializeToString()


def an_object(session: str) -> bytes:
    return PushObjectRequest(object_id="o", object_content=b"c", session_id=session).SerializeToString()


def test_a_node_says_which_it_is_and_a_serverapp_is_none() -> None:
    known = Addressees()
    asked = PullMessagesRequest(node=Node(node_id=2**63 + 5)).SerializeToString()
    assert known.asker(FLEET_PULL, asked) == 2**63 + 5
    assert known.asker("/v1/runtime/pull-messages", asked) is None
    assert known.asker(FLEET_PULL, b"\xff") is None


def test_objects_are_for_those_that_their_head_went_to() -> None:
    known = Addressees()
    assert known.addressed(APP_PUSH, heads(4, 7), opened("first")) == {4, 7}
    assert known.addressed(APP_PUSH, heads(9), opened("second")) == {9}
    assert known.addressed(APP_PUSH_OBJECT, an_object("first"), b"") == {4, 7}
    assert known.addressed(APP_PUSH_OBJECT, an_object("second"), b"") == {9}


def test_what_is_not_known_is_for_everybody() -> None:
    known = Addressees()
    assert known.addressed(APP_PUSH, heads(4), opened("")) == {4}
    for session in ("", "of another process"):
        assert known.addressed(APP_PUSH_OBJECT, an_object(session), b"") is None
    assert known.addressed(APP_PUSH, b"\xff", b"") is None
    assert known.addressed("/v1/fleet/push-object", an_object(""), b"") is None


def test_only_so_many_sessions_are_remembered() -> None:
    known = Addressees()
    for number in range(SESSIONS + 1):
        known.addressed(APP_PUSH, heads(number), opened(f"s{number}"))
    assert known.addressed(APP_PUSH_OBJECT, an_object("s0"), b"") is None
    assert known.addressed(APP_PUSH_OBJECT, an_object("s1"), b"") == {1}

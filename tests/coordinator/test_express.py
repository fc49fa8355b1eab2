"""Requests that go around Flower's layers, against Flower's own application with a database of its own."""

from __future__ import annotations

import logging
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import GetNodesRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from starlette.testclient import TestClient

from partbook.coordinator.express import FLEET, RUNTIME, Express, answers_of

pytestmark = pytest.mark.timeout(300)  # a SuperLink's application starts in the first test


class Link:
    """A SuperLink's application, a client that goes through all layers, and one that takes the express."""

    def __init__(self, app: Any) -> None:
        self.answers = answers_of(app)
        self.declined: list[str] = []

        def noted(path: str, answer: Any) -> Any:
            def answered(scope: Any, body: bytes) -> Any:
                found = answer(scope, body)
                if found is None:
                    self.declined.append(path)
                return found

            return answered

        self.slow = TestClient(app)
        express: Any = Express(app, {path: noted(path, answer) for path, answer in self.answers.items()})
        self.fast = TestClient(express)
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.public = public_key_to_bytes(self.key.public_key())

    def headers(self, **changed: str) -> dict[str, str]:
        timestamp = now().isoformat()
        signature = sign_message(self.key, timestamp.encode())
        return {
            "content-type": "application/protobuf",
            TIMESTAMP_HEADER: timestamp,
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self.public).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
            **changed,
        }

    def online(self) -> Node:
        for path, request in (
            ("register-node", RegisterNodeFleetRequest(public_key=self.public)),
            ("activate-node", ActivateNodeRequest(public_key=self.public, heartbeat_interval=10)),
        ):
            answer = self.slow.post(f"/v1/fleet/{path}", content=request.SerializeToString(), headers=self.headers())
            assert answer.status_code == 200, answer.text
        return Node(node_id=ActivateNodeResponse.FromString(answer.content).node_id)


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Link:
    from flwr.superlink.main import create_app

    monkeypatch.setenv("FLWR_DATABASE", str(tmp_path / "superlink.sqlite"))
    return Link(create_app())


def test_the_installed_flower_has_every_endpoint_that_is_called(link: Link) -> None:
    assert set(link.answers) == {*FLEET, *RUNTIME}


def test_the_answer_is_that_of_the_whole_application(link: Link) -> None:
    node = link.online()
    for path, request, kind in (
        ("pull-messages", PullMessagesRequest(node=node), PullMessagesResponse),
        (
            "send-node-heartbeat",
            SendNodeHeartbeatRequest(node=node, heartbeat_interval=10),
            SendNodeHeartbeatResponse,
        ),
    ):
        said = [
            client.post(f"/v1/fleet/{path}", content=request.SerializeToString(), headers=link.headers())
            for client in (link.slow, link.fast)
        ]
        assert [answer.status_code for answer in said] == [200, 200]
        assert said[0].content == said[1].content
        assert dict(said[0].headers) == dict(said[1].headers)
        assert kind.FromString(said[1].content) is not None
    assert link.declined == []


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({FLEET_HTTP_SIGNATURE_HEADER: b64encode(b"forged").decode()}, 401),
        ({FLEET_HTTP_PUBLIC_KEY_HEADER: ""}, 401),
        ({TIMESTAMP_HEADER: "2020-01-01T00:00:00+00:00"}, 401),
        ({"content-type": "application/json"}, 415),
    ],
)
def test_what_flower_refuses_is_refused_in_its_words(link: Link, changed: dict[str, str], status: int) -> None:
    request = PullMessagesRequest(node=link.online()).SerializeToString()
    said = [
        client.post("/v1/fleet/pull-messages", content=request, headers=link.headers(**changed))
        for client in (link.slow, link.fast)
    ]
    assert [answer.status_code for answer in said] == [status, status]
    assert said[0].content == said[1].content
    assert link.declined == ["/v1/fleet/pull-messages"]


def test_a_node_cannot_speak_for_another(link: Link) -> None:
    other = Node(node_id=link.online().node_id + 1)
    request = PullMessagesRequest(node=other).SerializeToString()
    assert link.fast.post("/v1/fleet/pull-messages", content=request, headers=link.headers()).status_code == 401


def test_without_a_tasks_token_nobody_is_a_server_app(link: Link) -> None:
    request = GetNodesRequest().SerializeToString()
    for headers in ({}, {"flwr-task-token": "made up"}):
        said = [
            client.post("/v1/runtime/get-nodes", content=request, headers=link.headers(**headers))
            for client in (link.slow, link.fast)
        ]
        assert said[0].status_code == said[1].status_code >= 400
        assert said[0].content == said[1].content


def test_bytes_that_are_no_message_and_runs_that_are_none_get_flowers_error(link: Link) -> None:
    node = link.online()
    pushed = PushObjectRequest(node=node, run_id=7, object_id="x", object_content=b"y").SerializeToString()
    for path, content in (("pull-messages", b"\xff\xff"), ("push-object", pushed)):
        said = [
            client.post(f"/v1/fleet/{path}", content=content, headers=link.headers())
            for client in (link.slow, link.fast)
        ]
        assert said[0].status_code == said[1].status_code >= 400
        assert said[0].content == said[1].content


def test_a_request_that_fails_half_way_leaves_nothing_behind(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    state = link.slow.app.state.linkstate_factory.state()  # type: ignore[attr-defined]
    node = link.online()
    before = state.get_node_info(node_ids=[node.node_id])[0].online_until
    acknowledge, failed = state.acknowledge_node_heartbeat, []

    def half(*values: Any) -> bool:
        done: bool = acknowledge(*values)
        if not failed:
            failed.append(state.get_node_info(node_ids=[node.node_id])[0].online_until)
            raise OSError("the disk is full")
        return done

    monkeypatch.setattr(state, "acknowledge_node_heartbeat", half)
    request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=1000).SerializeToString()
    seen: list[float] = []
    original = link.slow.app.state.linkstate_factory.state  # type: ignore[attr-defined]

    def looked() -> Any:
        if failed and not seen:
            seen.append(state.get_node_info(node_ids=[node.node_id])[0].online_until)
        return original()

    monkeypatch.setattr(link.slow.app.state.linkstate_factory, "state", looked)  # type: ignore[attr-defined]
    said = link.fast.post("/v1/fleet/send-node-heartbeat", content=request, headers=link.headers())
    assert said.status_code == 200
    assert link.declined == ["/v1/fleet/send-node-heartbeat"]
    assert failed[0] > before
    assert seen == [before]


def test_another_flower_passes_all_layers(
    link: Link, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flwr.superlink.routers.fleet import router

    def changed(request: Any, state: Any, something: Any) -> None:
        raise AssertionError("it is not to be called")

    monkeypatch.setattr(router, "fleet_push_object", changed)
    with caplog.at_level(logging.WARNING):
        assert set(answers_of(link.slow.app)) == {*FLEET, *RUNTIME} - {"/v1/fleet/push-object"}
    assert ["/v1/fleet/push-object" in record.args for record in caplog.records if record.args] == [True]


def test_paths_and_methods_that_are_not_on_the_list_go_to_the_application(link: Link) -> None:
    for method, path in (("GET", "/v1/fleet/pull-messages"), ("POST", "/v1/fleet/get-fab"), ("GET", "/nowhere")):
        said = [client.request(method, path, headers=link.headers()) for client in (link.slow, link.fast)]
        assert said[0].status_code == said[1].status_code
    assert link.declined == []

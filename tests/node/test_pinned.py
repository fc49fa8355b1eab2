"""The pinned node's loop, on a real line to a real SuperLink; the test plays the ServerApp."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from switchboard import ServerApp, Switchboard, until

from partbook.node.fleet import Link
from partbook.node.pinned import serve
from partbook.plan import wire

pytestmark = pytest.mark.timeout(300)  # a SuperLink and a front start in the first test, and tests kill them

EVERYTHING = frozenset(wire.KINDS)


class Node:
    """A node in a thread, whose app answers what the test tells it to."""

    def __init__(self, board: Switchboard, allowed: frozenset[str] = EVERYTHING) -> None:
        self.stop = threading.Event()
        self.link = Link(board.address, board.context("Bass"), board.leaf("Bass"), stop=self.stop)
        self.events: list[tuple[str, str]] = []
        self.seen: list[Context] = []
        self.working, self.go_on = threading.Event(), threading.Event()
        self.asked: list[str] = []
        pull, self.pulled = self.link._client.PullObject, 0

        def counted(request: Any) -> Any:
            self.pulled += 1
            return pull(request)

        self.link._client.PullObject = counted
        self.failed: list[BaseException] = []
        app = ClientApp()

        @app.query("hello")
        def hello(message: Message, context: Context) -> Message:
            self.seen.append(context)
            return Message(wire.pack([b"here"]), reply_to=message)

        @app.train()
        def train(message: Message, context: Context) -> Message:
            self.working.set()
            assert self.go_on.wait(90)
            return Message(wire.pack([b"ready"]), reply_to=message)

        @app.query("reveal")
        def reveal(message: Message, context: Context) -> Message:
            raise RuntimeError("shares are nobody's business")

        self.app, self.allowed = app, allowed
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            serve(
                self.link,
                self.app,
                {"member": "Bass"},
                self.allowed,
                self.stop,
                on_event=lambda event, kind: self.events.append((event, kind)),
            )
        except BaseException as error:
            self.failed.append(error)

    def __enter__(self) -> "Node":
        self.link.connect()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.go_on.set()
        self.thread.join(90)
        self.link.close()
        assert not self.thread.is_alive()
        assert not self.failed, self.failed


@pytest.fixture
def node(board: Switchboard) -> Iterator[Node]:
    with Node(board) as node:
        yield node


@pytest.fixture(scope="module")
def app(board: Switchboard) -> Iterator[ServerApp]:
    with board.serverapp() as app:
        yield app


def said(app: ServerApp, identifier: str) -> bytes:
    return wire.unpack(app.answers([identifier])[identifier].content)[0][0]


def refusal(app: ServerApp, identifier: str) -> dict[str, Any]:
    return dict(app.answers([identifier])[identifier].content["refusal"])  # type: ignore[call-overload]


def test_the_app_answers_with_this_machines_configuration_and_none_of_the_runs(node: Node, app: ServerApp) -> None:
    assert said(app, app.ask(node.link.node_id, wire.HELLO, wire.pack([b"?"]))) == b"here"
    (context,) = node.seen
    assert (dict(context.node_config), dict(context.run_config), dict(context.state)) == ({"member": "Bass"}, {}, {})
    assert node.events == [(event, wire.HELLO) for event in ("received", "answering", "answered")]


@pytest.mark.parametrize("kind", ["query", "evaluate", "train.steal", "query.exec"])
def test_a_message_of_an_unknown_type_is_refused_unread(node: Node, app: ServerApp, kind: str) -> None:
    content = wire.pack([b"read me"], [bytes(1000)])
    found = refusal(app, app.ask(node.link.node_id, kind, content))
    assert found["error"] == "UnknownMessage"
    assert found["reason"] == f"This party takes no message of type '{kind}'; it was not read."
    assert node.pulled == 0
    assert ("refused", kind) in node.events


def test_what_is_not_on_a_partys_own_list_is_unknown_to_it(board: Switchboard, app: ServerApp) -> None:
    with Node(board, wire.TO_CUSTODIANS) as node:
        assert refusal(app, app.ask(node.link.node_id, wire.TRAIN, wire.pack([b"?"])))["error"] == "UnknownMessage"
        assert node.pulled == 0
        assert said(app, app.ask(node.link.node_id, wire.HELLO, wire.pack([b"?"]))) == b"here"


def test_an_app_that_fails_says_the_kind_of_error_alone_and_goes_on(node: Node, app: ServerApp) -> None:
    asked = app.ask(node.link.node_id, wire.REVEAL, wire.pack([b"?"]))
    answer = app.answers([asked])[asked]
    assert answer.has_error()
    assert (answer.error.code, answer.error.reason) == (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "RuntimeError")
    assert said(app, app.ask(node.link.node_id, wire.HELLO, wire.pack([b"?"]))) == b"here"


def test_greetings_are_answered_while_work_is_under_way_and_work_is_done_one_by_one(node: Node, app: ServerApp) -> None:
    work = [app.ask(node.link.node_id, wire.TRAIN, wire.pack([text])) for text in (b"one", b"two")]
    assert node.working.wait(90)
    assert said(app, app.ask(node.link.node_id, wire.HELLO, wire.pack([b"?"]))) == b"here"
    assert ("answered", wire.TRAIN) not in node.events
    node.go_on.set()
    assert {identifier: wire.unpack(answer.content)[0] for identifier, answer in app.answers(work).items()} == {
        identifier: [b"ready"] for identifier in work
    }


def test_whoever_stops_a_node_lets_it_finish_the_message_in_hand(node: Node, app: ServerApp) -> None:
    asked = app.ask(node.link.node_id, wire.TRAIN, wire.pack([b"?"]))
    assert node.working.wait(90)
    node.stop.set()
    time.sleep(0.1)
    assert node.thread.is_alive()
    node.go_on.set()
    node.thread.join(90)
    assert said(app, asked) == b"ready"


def test_a_message_that_cannot_be_read_costs_itself_alone(node: Node, app: ServerApp) -> None:
    garbled, whole = iter([b"no object", b""]), node.link._object

    def tampered(run: int, identifier: str) -> bytes:
        return next(garbled, None) or whole(run, identifier)

    node.link._object = tampered  # type: ignore[method-assign]
    asked = app.ask(node.link.node_id, wire.HELLO, wire.pack([b"?"]))
    answer = app.answers([asked])[asked]
    assert answer.has_error()
    assert answer.error.reason == "the message cannot be read"
    assert said(app, app.ask(node.link.node_id, wire.HELLO, wire.pack([b"?"]))) == b"here"


def test_a_run_that_ends_while_its_message_is_answered_or_fetched_does_not_end_the_node(
    board: Switchboard, node: Node
) -> None:
    with board.serverapp() as app:
        app.ask(node.link.node_id, wire.TRAIN, wire.pack([b"?"]))
        assert node.working.wait(90)
        app.ask(node.link.node_id, wire.TRAIN, wire.pack([b"fetched too late"]))
        until(lambda: node.events.count(("received", wire.TRAIN)) == 2)
    node.go_on.set()
    with board.serverapp() as app:
        assert said(app, app.ask(node.link.node_id, wire.HELLO, wire.pack([b"?"]))) == b"here"
        assert said(app, app.ask(node.link.node_id, wire.TRAIN, wire.pack([b"?"]))) == b"ready"


def test_the_loop_ends_when_a_certificate_is_due(board: Switchboard) -> None:
    node = Node(board)
    with contextlib.closing(node.link):
        node.link.connect()
        ended: Callable[[], None] = lambda: serve(  # noqa: E731
            node.link, node.app, {}, EVERYTHING, node.stop, until=time.time() + 0.5
        )
        ended()
    assert not node.events

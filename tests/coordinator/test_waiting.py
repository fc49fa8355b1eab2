"""Long polls around an application that counts how often it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from partbook.coordinator.waiting import LongPolls

PULL, PUSH = "/v1/fleet/pull-messages", "/v1/runtime/push-messages"
APP_PULL, APP_PUSH = "/v1/runtime/pull-messages", "/v1/fleet/push-object"


class Mailbox:
    """Hands out what lies there, one message a question."""

    def __init__(self) -> None:
        self.letters: list[bytes] = []
        self.looks = 0
        self.status = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        assert event["type"] == "http.request"
        assert event["body"].startswith(b"who")
        body = b""
        if scope["path"].endswith("pull-messages"):
            self.looks += 1
            body = self.letters.pop(0) if self.letters else b""
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"kind", b"x")]})
        await send({"type": "http.response.body", "body": body})


class Numbers:
    """Bodies end with the number of the node that asks, or of the one that something is for; or with nothing."""

    def asker(self, path: str, body: bytes) -> int | None:
        return int(body[3:]) if path == PULL else None

    def addressed(self, path: str, body: bytes, answer: bytes) -> frozenset[int] | None:
        return frozenset({int(body[3:])}) if body[3:] else None


class Client:
    """One request; `hang_up` ends the connection."""

    def __init__(
        self, app: LongPolls, path: str, *, wait: bytes | None = b"wait=1", node: int = 1, body: bytes | None = None
    ) -> None:
        headers = [] if wait is None else [(b"prefer", wait)]
        self.scope = {"type": "http", "path": path, "headers": headers}
        self.app, self.sent, self.gone = app, list[dict[str, Any]](), asyncio.Event()
        self.body = (b"who%d" % node if path == PULL else b"who") if body is None else body
        self._told = False

    async def receive(self) -> dict[str, Any]:
        if not self._told:
            self._told = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Any) -> None:
        self.sent.append(event)

    async def ask(self) -> bytes:
        await self.app(self.scope, self.receive, self.send)
        return b"".join(event.get("body", b"") for event in self.sent)

    def hang_up(self) -> None:
        self.gone.set()

    @property
    def applied(self) -> bool:
        return (b"preference-applied", b"wait=1") in self.sent[0]["headers"]


@pytest.fixture
def box() -> Mailbox:
    return Mailbox()


def play(box: Mailbox, scene: Callable[[LongPolls], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(LongPolls(box, lambda _, body: not body, Numbers())), 20))  # type: ignore[arg-type]


@pytest.mark.parametrize(("pull", "push"), [(PULL, PUSH), (APP_PULL, APP_PUSH)])
def test_a_question_is_answered_as_soon_as_something_came(box: Mailbox, pull: str, push: str) -> None:
    async def scene(app: LongPolls) -> None:
        asked = Client(app, pull, wait=b"wait=15")
        answer = asyncio.ensure_future(asked.ask())
        await asyncio.sleep(0.05)
        assert not answer.done()
        assert box.looks == 1
        box.letters.append(b"train")
        await Client(app, push).ask()
        began = time.monotonic()
        assert await answer == b"train"
        assert time.monotonic() - began < 10, "not only at the end of the wait"
        assert box.looks == 2
        assert (b"kind", b"x") in asked.sent[0]["headers"]

    play(box, scene)


def test_a_question_in_vain_costs_one_look_and_ends_when_it_said(box: Mailbox) -> None:
    async def scene(app: LongPolls) -> None:
        for expected in (2, 3, 4):
            asked, began = Client(app, PULL), time.monotonic()
            assert await asked.ask() == b""
            assert time.monotonic() - began >= 0.99
            assert asked.applied
            assert box.looks == expected

    play(box, scene)


def test_what_lies_there_already_is_handed_out_one_by_one_at_once(box: Mailbox) -> None:
    async def scene(app: LongPolls) -> None:
        await Client(app, PULL).ask()
        box.letters += [b"hello", b"train"]
        await Client(app, PUSH).ask()
        began = time.monotonic()
        assert [await Client(app, PULL, wait=b"wait=15").ask() for _ in range(2)] == [b"hello", b"train"]
        assert time.monotonic() - began < 10

    play(box, scene)


def test_nothing_is_handed_to_a_node_that_is_gone(box: Mailbox) -> None:
    async def scene(app: LongPolls) -> None:
        dead = Client(app, PULL)
        asked = asyncio.ensure_future(dead.ask())
        await asyncio.sleep(0.05)
        dead.hang_up()
        box.letters.append(b"train")
        await Client(app, PUSH).ask()
        assert await asked == b""
        assert dead.sent == []
        assert box.letters == [b"train"]
        assert await Client(app, PULL).ask() == b"train"

    play(box, scene)


def test_who_does_not_ask_to_wait_and_who_is_refused_are_answered_at_once(box: Mailbox) -> None:
    async def scene(app: LongPolls) -> None:
        began = time.monotonic()
        for wait in (None, b"respond-async", b"wait=0", b"wait=x"):
            asked = Client(app, PULL, wait=wait)
            assert await asked.ask() == b""
            assert len(asked.sent[0]["headers"]) == 1
        assert time.monotonic() - began < 0.9, "a second or more is what askers are kept for elsewhere"
        box.status, began = 401, time.monotonic()
        await Client(app, PULL, wait=b"wait=15").ask()
        assert time.monotonic() - began < 10

    play(box, scene)


def test_a_node_that_nothing_came_for_is_not_woken(box: Mailbox) -> None:
    async def scene(app: LongPolls) -> None:
        other = asyncio.ensure_future(Client(app, PULL, node=2).ask())
        meant = asyncio.ensure_future(Client(app, PULL, node=1).ask())
        await asyncio.sleep(0.05)
        assert box.looks == 2
        box.letters.append(b"train")
        await Client(app, PUSH, body=b"who1").ask()
        assert await meant == b"train"
        assert (box.looks, other.done()) == (3, False)
        box.letters.append(b"to all")
        await Client(app, PUSH).ask()
        assert await other == b"to all"

    play(box, scene)


def test_what_came_while_a_node_was_away_is_there_when_it_asks(box: Mailbox) -> None:
    async def scene(app: LongPolls) -> None:
        assert await Client(app, PULL).ask() == b""
        box.letters.append(b"train")
        await Client(app, PUSH, body=b"who1").ask()
        assert await Client(app, PULL).ask() == b"train"

    play(box, scene)


def test_who_is_refused_is_not_remembered(box: Mailbox) -> None:
    async def scene(app: LongPolls) -> None:
        box.status = 401
        for node in range(100):
            await Client(app, PULL, node=node).ask()
        assert not app._bells["/v1/runtime/"]._of

    play(box, scene)

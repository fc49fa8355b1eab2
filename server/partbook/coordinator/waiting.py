"""Long polls in the SuperLink's process: whoever asks for messages is answered when there are some.

Flower's parties ask again and again, and a SuperLink spends its one core on saying "nothing yet". Here it keeps the
question instead, and looks when something has come (RFC 6202, section 2.1):

    a node asks for messages     kept as long as it says (`Prefer: wait=2`, RFC 7240, section 4.3), until a ServerApp
                                 has sent something for it
    a ServerApp asks for answers kept for half a second, until a node has sent something

The SuperLink's own code still decides what is handed to whom; it is only asked later. A question whose asker is gone
is dropped before anything is handed to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from partbook.coordinator.asgi import Asgi, Event, Receive, Scope, Send, again, whole_body

PULLS: Final = {"/v1/fleet/pull-messages": "/v1/runtime/", "/v1/runtime/pull-messages": "/v1/fleet/"}
"""Who asks for messages, and where they come from."""

APP_WAITS: Final = 0.5  # seconds; a ServerApp looks for nodes that are back in between
LONGEST: Final = 10.0  # seconds that a node's question is kept
RINGS: Final = ("/runtime/push-messages", "/runtime/push-object", "/fleet/push-object")
"""What comes. A node's answer is one once its last object is there (`sparing.hold_back_unfinished`)."""

QUIET: Final = 0.02  # seconds after the last object of what came: a message is its objects, sent one by one
_WAIT: Final = re.compile(rb"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])")


class Knows(Protocol):
    """Reads requests and answers; see `partbook.coordinator.addressees`."""

    def asker(self, path: str, body: bytes) -> int | None:
        """The node that asks; None for a ServerApp, which hears all that nodes send."""

    def addressed(self, path: str, body: bytes, answer: bytes) -> frozenset[int] | None:
        """The nodes for which something came; None where it may be anybody."""


class LongPolls:
    """An ASGI application around the SuperLink's."""

    def __init__(self, app: Asgi, empty: Callable[[str, bytes], bool], knows: Knows) -> None:
        """Around `app`.

        Args:
            app: the SuperLink's.
            empty: says of a path's answer that it holds no message.
            knows: who asks, and for whom something came. Whoever is not meant is not woken: of thirty nodes that wait,
                all would otherwise ask again for each message to one.
        """
        self._app, self._empty, self._knows = app, empty, knows
        self._bells = {"/v1/runtime/": _Bells(), "/v1/fleet/": _Bells()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope["path"] if scope["type"] == "http" else ""
        wait = _asked_to_wait(path, scope) if path in PULLS else 0.0
        bells = next((bells for beginning, bells in self._bells.items() if path.startswith(beginning)), None)
        if wait:
            await self._kept(path, wait, scope, receive, send)
        elif bells is not None and path.endswith(RINGS):
            await self._passed(path, bells, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _passed(self, path: str, bells: _Bells, scope: Scope, receive: Receive, send: Send) -> None:
        """Something comes: the SuperLink's answer goes back as it is made, then whoever is meant is woken."""
        body = await whole_body(receive)
        if body is None:
            return
        answer = _Answer()

        async def seen(event: Event) -> None:
            await answer.keep(event)
            await send(event)

        try:
            await self._app(scope, again(body, receive), seen)
        finally:
            bells.ring(self._knows.addressed(path, body, answer.body))

    async def _kept(self, path: str, wait: float, scope: Scope, receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        if body is None:
            return
        asker = self._knows.asker(path, body)
        gone = asyncio.ensure_future(receive())
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        try:
            with self._bells[PULLS[path]].of(asker) as bell:
                if asker is not None and bell.looked == bell.rung:
                    await bell.rings(bell.rung, until, gone)
                while not gone.done():
                    rung = bell.rung
                    answer = await _asked(self._app, scope, body, gone)
                    nothing = answer.status == 200 and self._empty(path, answer.body)
                    bell.looked = rung if nothing else None
                    if not nothing or loop.time() >= until:
                        await answer.pass_on(send, wait)
                        return
                    await bell.rings(rung, until, gone)
        finally:
            gone.cancel()


class _Bell:
    """Rings when something has come for one asker."""

    def __init__(self) -> None:
        self.rung, self._last = 0, 0.0
        self.looked: int | None = None  # how often it had rung when there was nothing
        self.waiting = 0
        self._next = asyncio.Event()

    def ring(self) -> None:
        self.rung, self._last = self.rung + 1, asyncio.get_running_loop().time()
        self._next.set()
        self._next = asyncio.Event()

    async def rings(self, rung: int, until: float, gone: asyncio.Future[Event]) -> None:
        """Wait until it has rung more often than `rung` and is silent again, the time has come, or `gone` is done."""
        loop = asyncio.get_running_loop()
        if self.rung == rung:
            ringing: asyncio.Future[Any] = asyncio.ensure_future(self._next.wait())
            either: list[asyncio.Future[Any]] = [ringing, gone]
            left = max(0.0, until - loop.time())
            await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            ringing.cancel()
        while not gone.done() and loop.time() < min(until, self._last + QUIET):
            await asyncio.sleep(QUIET / 2)


class _Bells:
    """One for each that asks; kept of those alone to whom the SuperLink has said "nothing yet"."""

    def __init__(self) -> None:
        self._of: dict[int | None, _Bell] = {}

    def ring(self, nodes: frozenset[int] | None) -> None:
        """For these, or for all where nobody knows."""
        for asker in tuple(self._of) if nodes is None else (*nodes, None):
            if (bell := self._of.get(asker)) is not None:
                bell.ring()

    @contextmanager
    def of(self, asker: int | None) -> Iterator[_Bell]:
        bell = self._of.setdefault(asker, _Bell())
        bell.waiting += 1
        try:
            yield bell
        finally:
            bell.waiting -= 1
            if not bell.waiting and bell.looked is None:
                del self._of[asker]


class _Answer:
    """What the SuperLink answers, kept."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def keep(self, event: Event) -> None:
        self.events.append(event)

    @property
    def status(self) -> int:
        return next((int(event["status"]) for event in self.events if event["type"] == "http.response.start"), 500)

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.events if event["type"] == "http.response.body")

    async def pass_on(self, send: Send, waited: float) -> None:
        for event in self.events:
            if event["type"] == "http.response.start":
                applied = (b"preference-applied", b"wait=%d" % waited)
                event = {**event, "headers": [*event.get("headers", ()), applied]}
            await send(event)


async def _asked(app: Asgi, scope: Scope, body: bytes, gone: asyncio.Future[Event]) -> _Answer:
    answer = _Answer()
    await app({**scope}, again(body, lambda: asyncio.shield(gone)), answer.keep)
    return answer


def _asked_to_wait(path: str, scope: Scope) -> float:
    if path.startswith("/v1/runtime/"):
        return APP_WAITS
    found = next((_WAIT.search(value) for name, value in scope["headers"] if name == b"prefer"), None)
    return 0.0 if found is None else min(LONGEST, float(found.group(1)))

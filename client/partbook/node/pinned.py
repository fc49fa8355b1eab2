"""The pinned node: one installed ClientApp on a line to the coordinator, and nothing that the coordinator could change.

    while not told to stop
        1  take the next message, without its content
        2  refuse its type, if it is not on the list        (nothing of it is read)
        3  fetch its content, let the app answer, send the answer

Whatever the coordinator's bundle holds is never asked for: the app is the one this process imported when it started,
its configuration is the file on this machine, and Flower's run configuration is empty.

Work is done one message at a time; greetings are answered beside it, so that a node in training still says that it is
there. What a party keeps of an exchange is its own business and on its disk (`LabelNode`, `Custodian`); this loop keeps
nothing, and can be killed anywhere.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from partbook.errors import LinkError, UnknownMessage
from partbook.identity.keys import IdentityKey
from partbook.identity.passphrase import passphrase_of
from partbook.identity.roster import Roster
from partbook.identity.tls import client_context, renewed
from partbook.node.earlier import forget, recall, remember
from partbook.node.fleet import Incoming, Link, Stopped
from partbook.node.holding import only_one
from partbook.plan import wire

if TYPE_CHECKING:
    from partbook.node.settings import PartySettings

RENEW_BEFORE: Final = 86_400.0  # seconds before its certificate ends at which a party comes back with a new one
BUSY: Final = 0.05  # seconds between two looks for messages right after one came
IDLE: Final = 0.5  # the same when none has come for long
LAG: Final = 0.1  # a pause is at most this part of the time that was waited already, between these two
EASE: Final = 1.0  # and at least so many times as long as a look takes: a coordinator with much to do is asked less
EASED: Final = 2.0  # seconds, and no longer; a look may have hung in a cut line

Watcher = Callable[[str, str], None]  # told an event and the message type it is about

log = logging.getLogger(__name__)


def serve(
    link: Link,
    app: ClientApp,
    config: Mapping[str, str | int | float | bool],
    allowed: frozenset[str],
    stop: threading.Event,
    *,
    until: float = float("inf"),
    on_event: Watcher = lambda _event, _kind: None,
) -> None:
    """Answer messages until `stop` is set or a time has come; the message in hand is finished.

    Args:
        link: connected.
        app: answers them.
        config: its node configuration.
        allowed: message types that are read at all.
        stop: ends the loop.
        until: Unix time, seconds.
        on_event: told `received`, `answering`, `answered`, `refused` and `unreadable`.
    """
    worker = ThreadPoolExecutor(1, thread_name_prefix="work")
    working: list[Future[None]] = []
    last = time.monotonic()
    try:
        while not stop.is_set() and time.time() < until:
            began = time.monotonic()
            incoming = link.receive()
            took = time.monotonic() - began
            if incoming is not None:
                on_event("received", incoming.kind)
                job = _answering(link, app, config, allowed, incoming, on_event)
                if incoming.kind == wire.TRAIN or (incoming.kind in allowed and incoming.kind != wire.HELLO):
                    working.append(worker.submit(job))
                else:
                    job()
                last = time.monotonic()
            if working:
                # Nothing but a greeting is expected now; the end of the work is what is waited for.
                wait_for(working, IDLE)
                before, working = len(working), _still(working)
                if len(working) < before:
                    last = time.monotonic()
            if not working and not link.kept_waiting:
                stop.wait(max(BUSY, min(IDLE, LAG * (time.monotonic() - last)), min(EASED, EASE * took)))
    except Stopped:
        pass
    finally:
        # What was taken from the coordinator is answered; what still waits behind it will be asked again.
        worker.shutdown(wait=True, cancel_futures=True)


def run_party(
    settings: PartySettings,
    name: str,
    app: ClientApp,
    config: Mapping[str, str | int | float | bool],
    allowed: frozenset[str],
    *,
    prepare: Callable[[], object],
    on_event: Watcher = lambda _event, _kind: None,
) -> None:
    """Be a party until told to stop: hold its state, renew its certificate, keep up its line, answer.

    Args:
        settings: its file.
        name: its name in the roster.
        app: answers its messages.
        config: the app's node configuration.
        allowed: message types it takes.
        prepare: opens what the app works with; what is wrong there is said before anything goes out.
        on_event: see `serve`.

    Raises:
        AlreadyRunning: another process works in the same state folder.
        LinkError: see `Link.connect`.
        PartbookError: what `prepare` raises.
    """
    settings.unlock()
    with only_one(settings.state), stopping() as stop:
        roster, identity = Roster.read(settings.roster), load_identity(settings.identity)
        prepare()
        log.info("%s of %s, roster version %d, is ready", name, roster.federation, roster.version)
        while not stop.is_set():
            leaf = renewed(settings.tls, identity, name)
            context = client_context(roster, settings.tls)
            due = leaf.expires.timestamp() - RENEW_BEFORE
            earlier = recall(settings.state)
            link = Link(settings.coordinator, context, leaf, stop=stop, earlier=earlier, timing=settings.timing)
            with contextlib.suppress(Stopped), link:
                remember(settings.state, link.connect())
                log.info("online at %s", settings.coordinator)
                serve(link, app, config, allowed, stop, until=due, on_event=on_event)
            forget(settings.state)
        log.info("%s has stopped", name)


def load_identity(path: Path) -> IdentityKey:
    """A party's identity key; its passphrase comes from the environment or the terminal."""
    return IdentityKey.load(path, passphrase_of(path))


def _still(working: list[Future[None]]) -> list[Future[None]]:
    for done in [future for future in working if future.done()]:
        if not done.cancelled():
            done.result()
    return [future for future in working if not future.done()]


def _answering(
    link: Link,
    app: ClientApp,
    config: Mapping[str, str | int | float | bool],
    allowed: frozenset[str],
    incoming: Incoming,
    on_event: Watcher,
) -> Callable[[], None]:
    kind, metadata = incoming.kind, incoming.message.metadata

    def work() -> None:
        if kind not in allowed:
            log.warning("a message of type %r came, which this party never takes; it was not read", kind[:80])
            refusal = UnknownMessage(f"This party takes no message of type {kind[:80]!r}; it was not read.")
            link.reply(Message(wire.pack_refusal(refusal), reply_to=incoming.message))
            on_event("refused", kind)
            return
        try:
            message = link.fetch(incoming)
        except LookupError as error:
            log.warning("a message of type %r was lost on its way, or its run is over (%s)", kind, error)
            return
        except Stopped:
            return
        except LinkError:
            raise
        except Exception:  # Flower's reader names no end to what it raises over foreign bytes
            log.exception("a message of type %r cannot be read", kind)
            unreadable = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "the message cannot be read")
            link.reply(Message(unreadable, reply_to=incoming.message))
            on_event("unreadable", kind)
            return
        context = Context(metadata.run_id, link.node_id, dict(config), RecordDict(), {})
        try:
            reply = app(message, context)
        except Exception as error:  # as Flower's own runtime does: one message's failure must not be the node's
            log.exception("failed on %s", kind)
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__), reply_to=message)
        on_event("answering", kind)
        with contextlib.suppress(Stopped):
            link.reply(reply)
            on_event("answered", kind)

    return work


@contextlib.contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and the first Ctrl-C set; a second Ctrl-C ends the process at once."""
    event = threading.Event()

    def stop(number: int, _: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        log.info("finishing the message in hand, then stopping")
        event.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

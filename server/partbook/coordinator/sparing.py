"""The SuperLink's process: Flower's own `flower-superlink`, relieved of work that it does for nobody here.

And of one fault: see `hold_back_unfinished`.

Every request passes nine layers of middleware, each with a task, a queue and locks of its own: half of what a request
costs. Most of them look at the path, see that the request is none of theirs, and hand it on. Here they hand it on
before that (measured: 12 ms of CPU time become 6.5, and a SuperLink has one core).

What each layer is for stays as it is; only requests that it would have passed on unchanged go around it. And most
questions for messages need not be asked at all, because the first one is kept until there are some
(`partbook.coordinator.waiting`). With another Flower, whose layers are others, nothing is done, and everything is
slower.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from partbook.coordinator.addressees import Addressees
from partbook.coordinator.express import Express, answers_of
from partbook.coordinator.waiting import LongPolls

Scope: TypeAlias = MutableMapping[str, Any]
Asgi: TypeAlias = Callable[..., Awaitable[None]]

CONTROL: Final = "/v1/control/"
FLEET: Final = "/v1/fleet/"

SELDOM: Final = 0.5  # seconds between two looks for expired tokens

LAYERS: Final[dict[str, tuple[str, ...]]] = {
    "ControlSensitiveResponseMiddleware": (CONTROL,),
    "ControlAuthenticationMiddleware": (CONTROL,),
    "ControlLicenseMiddleware": (CONTROL,),
    "ControlEventLogMiddleware": (CONTROL,),
    "NodeAuthMiddleware": (FLEET,),
    # Event logs and traces are kept only where Flower is told to, by what `superlink.surroundings` takes away.
    "FleetEventLogMiddleware": (),
    "RuntimeTracingMiddleware": (),
}
"""Beginnings of the paths that each layer of flwr 1.41.0 does anything about."""


def spare(layer: Any, paths: tuple[str, ...]) -> None:
    """Have requests go around a class of middleware that does nothing about paths but those that begin so."""
    through: Asgi = layer.__call__

    async def around(self: Any, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(paths):
            await self.app(scope, receive, send)
        else:
            await through(self, scope, receive, send)

    layer.__call__ = around


def hold_back_unfinished(state: Any, sessions: Any, models: Any) -> None:
    """Have answers handed to the ServerApp only once all their objects are there.

    Flower hands out an announced answer at once, and the ServerApp then waits for its objects, up to three minutes and
    for nothing else. Where a node dies between the two, or its line does (announced again, an answer whose head has
    been fetched is turned down), all others are late with it. Of a node that is gone, what it left unfinished is
    dropped, so that the ServerApp is told that it is gone.

    Args:
        state: Flower's class of the SuperLink's state in SQL.
        sessions: its table of answers whose objects are still being sent.
        models: its module of tables of messages and nodes.
    """
    from sqlalchemy import false, select, update

    hand_out = state.get_message_res
    answers = models.MessageRes

    def whole(self: Any, message_ids: set[str], run_id: int) -> list[Any]:
        if not message_ids:
            return []
        with self.session() as session:
            # A write that changes nothing, and so the lock for writing: what is announced from here on waits until
            # what there is has been handed out.
            session.execute(update(answers).where(false()).values(delivered_at=""))
            question = (
                select(answers.reply_to_message_id, sessions.session_id, models.Node.online_until)
                .join(sessions, sessions.root_object_id == answers.message_id)
                .join(models.Node, models.Node.node_id == answers.src_node_id)
                .where(answers.reply_to_message_id.in_(message_ids), answers.delivered_at == "")
            )
            unfinished = session.execute(question).all()
            now = time.time()
            for _, session_id, online_until in unfinished:
                if online_until is None or online_until <= now:
                    self._cleanup_push_session(session_id, cleanup_messages=True)
            waiting = {asked for asked, _, until in unfinished if until is not None and until > now}
            found: list[Any] = hand_out(self, message_ids - waiting, run_id)
            return found

    state.get_message_res = whole


def seldom(owner: Any, name: str, every: float) -> None:
    """Do a method's work at most so often, in seconds: in between, calls return at once.

    Flower looks for task tokens that have expired, with two statements that write, whenever it is asked how a run
    stands, and it is asked for every object. The token itself is looked at each time all the same.
    """
    work = getattr(owner, name)
    last = -every

    def sometimes(self: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every:
            last = now
            work(self)

    setattr(owner, name, sometimes)


def holds_nothing(path: str, answer: bytes) -> bool:
    """Whether an answer to a question for messages has none."""
    from flwr.proto.fleet_pb2 import PullMessagesResponse
    from flwr.proto.runtime_pb2 import PullAppMessagesResponse
    from google.protobuf.message import DecodeError

    kind = PullMessagesResponse if path.startswith(FLEET) else PullAppMessagesResponse
    try:
        return not kind.FromString(answer).messages_list
    except DecodeError:
        return False


def main() -> None:
    """Be `flower-superlink`."""
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
    from flwr.supercore.corestate.sql_corestate import SqlCoreState
    from flwr.supercore.state.schema import linkstate_models
    from flwr.supercore.state.schema.corestate_models import ObjectPushSessionRoot
    from flwr.superlink import main as superlink

    layers = {name: getattr(superlink, name, None) for name in LAYERS}
    if all(isinstance(layer, type) for layer in layers.values()):
        for name, layer in layers.items():
            spare(layer, LAYERS[name])
        if all(hasattr(SqlLinkState, name) for name in ("get_message_res", "_cleanup_push_session")):
            hold_back_unfinished(SqlLinkState, ObjectPushSessionRoot, linkstate_models)
        made: Any = superlink.create_app
        patched: Any = superlink

        def create_app(*values: Any, **named: Any) -> LongPolls:
            app = made(*values, **named)
            return LongPolls(Express(app, answers_of(app)), holds_nothing, Addressees())

        patched.create_app = create_app
        if hasattr(SqlCoreState, "_cleanup_expired_task_tokens"):
            seldom(SqlCoreState, "_cleanup_expired_task_tokens", SELDOM)
    from flwr.superlink.cli import flower_superlink

    sys.argv[0] = "flower-superlink"
    flower_superlink()


if __name__ == "__main__":
    main()

"""The SuperLink's process: Flower's own `flower-superlink`, relieved of work that it does for nobody here.

And of one fault: see `finish_what_was_begun`.

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
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from partbook.coordinator.waiting import LongPolls

Scope: TypeAlias = MutableMapping[str, Any]
Asgi: TypeAlias = Callable[..., Awaitable[None]]

CONTROL: Final = "/v1/control/"
FLEET: Final = "/v1/fleet/"

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


def finish_what_was_begun(state: Any, roots: Any) -> None:
    """Have an answer that is announced again take up its objects, when the ServerApp has read its head already.

    A node whose line breaks while it announces an answer does so again. Flower then says that it wants nothing of it
    if the ServerApp has fetched the head meanwhile, and the ServerApp waits three minutes for objects that nobody
    sends. They are wanted as long as a session for the same root is open; what is complete, or unknown, stays refused.

    Args:
        state: Flower's class of the SuperLink's state in SQL.
        roots: its table of roots whose objects are being sent.
    """
    from sqlalchemy import select

    store = state.store_message_and_object_tree

    def stored(self: Any, message: Any, tree: Any, session_id: str) -> tuple[bool, list[str]]:
        taken, missing = store(self, message, tree, session_id)
        if not taken and message.metadata.reply_to_message_id:
            with self.session() as session:
                found = session.scalar(select(roots.session_id).where(roots.root_object_id == tree.object_id))
                if found is not None:
                    return True, self.preregister_object_tree(tree, session_id)
        return taken, missing

    state.store_message_and_object_tree = stored


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
    from flwr.supercore.state.schema.corestate_models import ObjectPushSessionRoot
    from flwr.superlink import main as superlink

    layers = {name: getattr(superlink, name, None) for name in LAYERS}
    if all(isinstance(layer, type) for layer in layers.values()):
        for name, layer in layers.items():
            spare(layer, LAYERS[name])
        if all(hasattr(SqlLinkState, name) for name in ("store_message_and_object_tree", "preregister_object_tree")):
            finish_what_was_begun(SqlLinkState, ObjectPushSessionRoot)
        made: Any = superlink.create_app
        patched: Any = superlink
        patched.create_app = lambda *values, **named: LongPolls(made(*values, **named), holds_nothing)
    from flwr.superlink.cli import flower_superlink

    sys.argv[0] = "flower-superlink"
    flower_superlink()


if __name__ == "__main__":
    main()

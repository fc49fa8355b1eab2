"""The SuperLink's busiest requests, answered without the web framework around them.

A round is some 170 requests a party: messages and the objects they are made of, one request each. In Flower 1.41
each passes nine layers of middleware, a router, dependencies and two thread pools, and each of its SQL statements is a
transaction of its own, for whose lock parallel requests wait in naps: 16 ms of a SuperLink's one core (measured), of
which little is the work. Here the twelve paths that make up a round go straight to Flower's own endpoints:

    1  parse the protobuf message      as Flower's translation layer does, by its code
    2  authenticate                    a node by its signature, a ServerApp by its task's token, by Flower's code
    3  call the endpoint               Flower's, in one transaction, one request at a time
    4  serialise                       by Flower's code

What is out of the ordinary anywhere, from a missing header to a run that is over, rolls that transaction back, and the
request goes through Flower's application as if it had not been here: so every refusal is Flower's, word for word. All
other paths go there in the first place.

One thread does it all. SQLite has one writer anyway, and whoever waits for it in a queue does not wait in naps.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

from partbook.coordinator.asgi import Asgi, Receive, Scope, Send, again, whole_body

Answer: TypeAlias = Callable[[Scope, bytes], Any]

FLEET: Final[dict[str, str]] = {
    "/v1/fleet/pull-messages": "fleet_pull_messages",
    "/v1/fleet/push-messages": "fleet_push_messages",
    "/v1/fleet/pull-object": "fleet_pull_object",
    "/v1/fleet/push-object": "fleet_push_object",
    "/v1/fleet/confirm-message-received": "fleet_confirm_message_received",
    "/v1/fleet/send-node-heartbeat": "fleet_send_node_heartbeat",
}
RUNTIME: Final[dict[str, str]] = {
    "/v1/runtime/pull-messages": "pull_messages",
    "/v1/runtime/push-messages": "push_messages",
    "/v1/runtime/pull-object": "pull_object",
    "/v1/runtime/push-object": "push_object",
    "/v1/runtime/confirm-message-received": "confirm_message_received",
    "/v1/runtime/get-nodes": "get_nodes",
}
"""Paths and the endpoints of flwr 1.41.0 that answer them."""

_FLEET: Final = "flwr.superlink.routers.fleet.router"
_RUNTIME: Final = "flwr.supercore.routers.runtime.router"  # a package's attribute of that name hides the module

log = logging.getLogger(__name__)


class Express:
    """An ASGI application before the SuperLink's."""

    def __init__(self, app: Asgi, answers: dict[str, Answer]) -> None:
        """Before `app`.

        Args:
            app: answers what is not answered here.
            answers: by path; from a request's scope and body to a Starlette response, or None where nothing was done
                and `app` is to answer.
        """
        self._app, self._answers = app, answers
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="express")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        answer = self._answers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if answer is None:
            await self._app(scope, receive, send)
            return
        body = await whole_body(receive)
        if body is None:
            return
        found = await asyncio.get_running_loop().run_in_executor(self._worker, answer, scope, body)
        if found is None:
            await self._app(scope, again(body, receive), send)
            return
        await send({"type": "http.response.start", "status": found.status_code, "headers": found.raw_headers})
        await send({"type": "http.response.body", "body": found.body})


def answers_of(superlink: Any) -> dict[str, Answer]:
    """What `Express` answers for a SuperLink's application; nothing where Flower is not as it was in 1.41.0.

    Args:
        superlink: Flower's FastAPI application, with its state.
    """
    try:
        from flwr.supercore.constant import TASK_TOKEN_HEADER
        from flwr.supercore.dependencies.runtime import get_task
        from flwr.supercore.dependencies.version import VersionDependency
        from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES, ProtobufTranslationMiddleware
        from flwr.superlink.routers.fleet.node_auth import authenticate_node
        from starlette.requests import Request

        fleet, runtime = map(importlib.import_module, (_FLEET, _RUNTIME))
    except ImportError as error:
        log.warning("Flower is another (%s): every request passes all of its layers", error)
        return {}
    read, parse = ProtobufTranslationMiddleware._check_request_media_type, ProtobufTranslationMiddleware._parse_request
    written: Callable[[Any, Any], Any] = ProtobufTranslationMiddleware._response_for
    version = VersionDependency(component_name="SuperLink", connection_name="Caller <-> SuperLink Runtime API")

    def of(path: str, work: Callable[[Any, Any, Any], Any]) -> Answer:
        kind = PROTOBUF_REQUEST_TYPES["POST", path]

        def answer(scope: Scope, body: bytes) -> Any:
            request = Request({**scope, "app": superlink, "state": dict(scope.get("state", {}))})
            try:
                read(request)
                message = request.state.protobuf_request = parse(body, kind)
                state = superlink.state.linkstate_factory.state()
                with state.session():
                    found = work(request, message, state)
                return written(found, None)
            except Exception as error:  # whatever it is, Flower's own application says it
                log.debug("%s goes through all layers (%s)", path, type(error).__name__)
                return None

        return answer

    def for_node(endpoint: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
        def work(request: Any, message: Any, state: Any) -> Any:
            authenticate_node(request)
            return endpoint(request=message, state=state)

        return work

    def for_app(endpoint: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
        def work(request: Any, message: Any, state: Any) -> Any:
            version(request)
            task = get_task(request, request.headers.get(TASK_TOKEN_HEADER), state)
            return endpoint(request=message, state=state, handlers=superlink.state.runtime_handlers, task=task)

        return work

    found: dict[str, Answer] = {}
    for paths, module, wrapped, takes in (
        (FLEET, fleet, for_node, ["request", "state"]),
        (RUNTIME, runtime, for_app, ["request", "state", "handlers", "task"]),
    ):
        for path, name in paths.items():
            endpoint = getattr(module, name, None)
            if endpoint is None or list(inspect.signature(endpoint).parameters) != takes:
                log.warning("Flower's endpoint of %s is another: it passes all layers", path)
                continue
            found[path] = of(path, wrapped(endpoint))
    return found

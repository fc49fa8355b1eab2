import asyncio
import inspect
from typing import Any

import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from partbook.coordinator.sparing import CONTROL, FLEET, LAYERS, seldom, spare


@pytest.mark.parametrize("name", LAYERS)
def test_the_installed_flower_has_the_layer_that_is_gone_around(name: str) -> None:
    from flwr.superlink import main as superlink

    layer = getattr(superlink, name)
    assert issubclass(layer, BaseHTTPMiddleware)
    assert name in inspect.getsource(superlink._get_middleware)


@pytest.mark.parametrize("name", [name for name, paths in LAYERS.items() if paths])
def test_a_layer_that_is_gone_around_looks_at_its_paths_itself(name: str) -> None:
    from flwr.superlink import main as superlink

    text = inspect.getsource(inspect.getmodule(getattr(superlink, name)) or superlink)
    assert LAYERS[name][0] in text


def test_what_is_kept_only_on_demand_is_never_demanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from partbook.coordinator import superlink
    from partbook.coordinator.home import Home, init

    monkeypatch.setenv("FLWR_TRACING_ENABLED", "1")
    monkeypatch.setenv("FLWR_ENABLE_EVENT_LOG", "1")
    init(tmp_path / "home")
    home = Home.open(tmp_path / "home")
    assert not {"FLWR_TRACING_ENABLED", "FLWR_ENABLE_EVENT_LOG"} & set(superlink.surroundings(home))
    assert "--enable-event-log" not in superlink.superlink(home)


@pytest.mark.parametrize(
    ("path", "seen"),
    [("/v1/fleet/pull-messages", True), ("/v1/runtime/pull-messages", False), ("/v1/control/list-runs", False)],
)
def test_a_layer_sees_requests_to_its_paths_alone(path: str, seen: bool) -> None:
    class Layer(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            response.headers["x-seen"] = "yes"
            return response

    spare(Layer, (FLEET,))
    assert ((b"x-seen", b"yes") in _headers(Layer(_inner), path)) is seen


def test_a_layer_without_paths_sees_nothing() -> None:
    class Layer(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            raise AssertionError("it was to be gone around")

    spare(Layer, ())
    for path in (FLEET, CONTROL, "/"):
        assert _headers(Layer(_inner), path)


async def _inner(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("well")(scope, receive, send)


def _headers(app: Any, path: str) -> list[tuple[bytes, bytes]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))
    return list(sent[0]["headers"])


def test_what_is_done_seldom_is_done_at_once_and_then_not_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, done = [100.0], list[float]()

    class State:
        def tidy(self) -> None:
            done.append(clock[0])

    monkeypatch.setattr("partbook.coordinator.sparing.time.monotonic", lambda: clock[0])
    seldom(State, "tidy", 0.5)
    state = State()
    for at in (100.0, 100.2, 100.49, 100.5, 100.9, 101.1):
        clock[0] = at
        state.tidy()
    assert done == [100.0, 100.5, 101.1]


def test_the_installed_flower_looks_at_a_token_itself_and_tidies_up_apart_from_that() -> None:
    from flwr.supercore.corestate.sql_corestate import SqlCoreState

    assert list(inspect.signature(SqlCoreState._cleanup_expired_task_tokens).parameters) == ["self"]
    assert "active_until < current" in inspect.getsource(SqlCoreState.get_task_by_token)

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from quartet import Quartet, Standing

NEXT = pytest.StashKey[pytest.Item | None]()
WENT_THROUGH = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Let a test know which one this worker runs after it."""
    item.stash[NEXT] = nextitem


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Let a fixture know whether its test went through: it did not fail."""
    report = yield
    if report.when == "call":
        item.stash[WENT_THROUGH] = not report.failed
    return report


@pytest.fixture
def successor(request: pytest.FixtureRequest) -> str | None:
    """The next case of the same test, where it runs next: it may go on with the round of this one."""
    here, following = request.node, request.node.stash[NEXT]
    if getattr(following, "function", None) is not here.function:
        return None
    places = {name: place + 1 for name, place in here.callspec.params.items()}
    return following.nodeid if following.callspec.params == places else None


@pytest.fixture
def quartet(standing: Standing, request: pytest.FixtureRequest) -> Iterator[Quartet]:
    """The module's federation, whole; one in which a test failed is not handed on."""
    yield standing.quartet(request.node.nodeid)
    if not request.node.stash.get(WENT_THROUGH, False):
        standing.end()

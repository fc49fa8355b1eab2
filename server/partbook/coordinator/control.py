"""Flower's Control API on loopback, as far as a run needs it: submit one, look at them, stop one.

The client and its messages are Flower's own; `partbook.coordinator.running` decides what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from partbook.errors import CoordinatorUnreachable, FlowerChanged, RunFailed

T = TypeVar("T")

TIMEOUT: Final = 10.0  # seconds for an answer


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as the SuperLink knows it.

    Attributes:
        id: Flower's.
        status: `pending`, `starting`, `running` or `finished`.
        ending: `completed`, `failed` or `stopped`, once it is finished.
        details: what Flower says about it.
    """

    id: int
    status: str
    ending: str = ""
    details: str = ""

    @property
    def alive(self) -> bool:
        """Whether it is still to end."""
        return self.status != "finished"


class Control:
    """A SuperLink's Control API."""

    def __init__(self, address: str) -> None:
        """Connect to `host:port` when first asked.

        Raises:
            FlowerChanged: the installed Flower has another interface.
        """
        self._address = address
        with _pinned():
            from flwr.proto import control_pb2
            from flwr.supercore.control.control_http_client import ControlHttpClient
            from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

            self._messages: Any = control_pb2
            self._client: Any = ControlHttpClient(
                f"http://{address}",
                interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
                timeout=TIMEOUT,
            )

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def submit(self, bundle: bytes, federation: Path) -> int:
        """Start a run of a bundle, with `federation` in its run configuration; returns its id.

        Raises:
            CoordinatorUnreachable: nobody answers.
            RunFailed: the SuperLink refuses.
        """
        with _pinned():
            import hashlib

            from flwr.common.serde import fab_to_proto, user_config_to_proto
            from flwr.supercore.fab import Fab

            fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
            request = self._messages.StartRunRequest(
                fab=fab_to_proto(fab), override_config=user_config_to_proto({"federation": str(federation)})
            )
        answer = self._ask(lambda: self._client.StartRun(request))
        if not answer.HasField("run_id"):
            raise RunFailed("The SuperLink started no run, and did not say why; its log may.")
        return int(answer.run_id)

    def runs(self) -> list[Run]:
        """The newest twenty, newest first.

        Raises:
            CoordinatorUnreachable: nobody answers.
        """
        found = self._ask(lambda: self._client.ListRuns(self._messages.ListRunsRequest(limit=20))).run_dict.values()
        return [_run(each) for each in sorted(found, key=lambda each: str(each.pending_at), reverse=True)]

    def run(self, identifier: int) -> Run | None:
        """One of them, or None where there is none of that id.

        Raises:
            CoordinatorUnreachable: nobody answers.
        """
        try:
            request = self._messages.ListRunsRequest(run_id=identifier)
            return _run(self._ask(lambda: self._client.ListRuns(request)).run_dict[identifier])
        except RunFailed:
            return next((run for run in self.runs() if run.id == identifier), None)

    def stop(self, identifier: int) -> None:
        """End a run; one that is over already is left as it is.

        Raises:
            CoordinatorUnreachable: nobody answers.
        """
        found = self.run(identifier)
        if found is not None and found.alive:
            self._ask(lambda: self._client.StopRun(self._messages.StopRunRequest(run_id=identifier)))

    def _ask(self, call: Callable[[], T]) -> T:
        import httpx

        try:
            return call()
        except httpx.TransportError as error:
            raise CoordinatorUnreachable(
                f"The SuperLink does not answer at {self._address} ({type(error).__name__}); "
                "is `partbook coordinator start` running?"
            ) from error
        except httpx.HTTPStatusError as error:
            if error.response.status_code >= 500:
                raise CoordinatorUnreachable(
                    f"The SuperLink at {self._address} answers {error.response.status_code}; its log says why."
                ) from error
            raise RunFailed(
                f"The SuperLink refuses ({error.response.status_code}): {error.response.text[:300]}"
            ) from error


def _run(found: Any) -> Run:
    return Run(int(found.run_id), found.status.status, found.status.sub_status, found.status.details)


@contextmanager
def _pinned() -> Iterator[None]:
    try:
        yield
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise FlowerChanged(
            f"The installed Flower's Control API is not 1.41.0's ({error}); install flwr==1.41.0."
        ) from error

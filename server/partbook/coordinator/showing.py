"""What the coordinator's operator sees: which processes run, and where the rounds are."""

from __future__ import annotations

import contextlib
import json
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

from partbook.coordinator.home import Home
from partbook.coordinator.locks import holder, is_taken
from partbook.errors import PartbookError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from partbook.coordinator.running import Event


def processes(home: Home) -> dict[str, Any]:
    """Which of the coordinator's processes run: `services.json`, where `start` holds HOME."""
    started = holder(home.start_lock)
    try:
        services = json.loads(home.services.read_text())["services"] if started else {}
    except (OSError, ValueError, KeyError):
        services = {}
    return {
        "started": started is not None,
        "pid": started,
        "run": holder(home.run_lock),
        "serverapp": is_taken(home.app_lock),
        "services": services,
    }


def described(home: Home) -> dict[str, Any]:
    """The same, and where the rounds are, for JSON."""
    from partbook.coordinator.standing import read_status

    status = read_status(home.state)
    return {**processes(home), "rounds": status.about(time.time())}


def pictured(home: Home) -> RenderableType:
    """The same, for a terminal."""
    from rich.console import Group
    from rich.text import Text

    from partbook.coordinator.standing import read_status
    from partbook.coordinator.status_table import table

    return Group(Text(line(home)), table(read_status(home.state)))


def line(home: Home) -> str:
    """The processes, in a line."""
    found = processes(home)
    if not found["started"]:
        return "Not started: partbook coordinator start"
    parts = [
        f"{name} {'up' if about['ready'] else 'not ready'}"
        + (f" (started {about['starts']} times)" if about["starts"] > 1 else "")
        for name, about in found["services"].items()
    ]
    parts.append("ServerApp up" if found["serverapp"] else "no ServerApp")
    return ", ".join(parts)


class Shown:
    """A live table while a run is followed, or lines where nobody sits at a terminal."""

    def __init__(self, home: Home, *, quiet: bool) -> None:
        """Where `quiet`, only what happens to the run is said, on standard error."""
        from rich.console import Console

        self._home, self._quiet = home, quiet
        self._console = Console(stderr=True)
        self._live: Any = None
        self._last, self._looked = "", 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live is not None:
            self.each()
            self._live.stop()

    def tell(self, event: Event) -> None:
        """Say what happened."""
        if self._live is not None:
            self._console.print(event.text, highlight=False)
        else:
            typer.echo(event.text, err=True)

    def each(self) -> None:
        """Show where the rounds are, if that is due."""
        now = time.monotonic()
        if self._quiet or now - self._looked < 1.0:
            return
        self._looked = now
        # A status that cannot be read is no reason to stop following the run.
        with contextlib.suppress(PartbookError):
            self._show()

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(pictured(self._home), refresh=True)
            return
        from partbook.coordinator.standing import read_status

        status = read_status(self._home.state)
        text = f"round {status.round} of {status.rounds}: {status.stage}" if status.known else ""
        if text and text != self._last:
            typer.echo(text, err=True)
            self._last = text

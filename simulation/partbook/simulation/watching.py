"""How far a long run is, as a person reads it: one bar a stage on a terminal, one line a stage in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class RichWatcher:
    """Draws stages with rich; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[what]}"),
            console=console,
        )
        self._task: TaskID | None = None
        self._name, self._began = "", time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()
        self._progress.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a new bar."""
        self._finish()
        self._name, self._began = name, time.monotonic()
        self._task = self._progress.add_task(escape(name), total=total, what="")

    def step(self, what: str) -> None:
        """Move the bar on by one."""
        if self._task is not None:
            self._progress.update(self._task, advance=1, what=escape(what[:48]))

    def now(self, what: str) -> None:
        """Say what is being done."""
        if self._task is not None:
            self._progress.update(self._task, what=escape(what[:48]))

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False)

    def _finish(self) -> None:
        if self._task is None:
            return
        self._progress.update(self._task, what="")
        self._task = None
        if not self._console.is_terminal:
            self._console.print(f"{self._name}: {time.monotonic() - self._began:.0f} s", markup=False)

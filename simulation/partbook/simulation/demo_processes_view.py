"""A federation of processes, as a person watches it, and what came of it at the end; both fit 80 columns."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from partbook.coordinator.running import rounds_done
from partbook.coordinator.standing import Status, median, read_status
from partbook.coordinator.status_table import size, spell, table
from partbook.errors import PartbookError
from partbook.simulation.demo_processes import NAMES, Part, Process, ProcessesResult, Ran
from partbook.simulation.parties import CUSTODIAN
from partbook.simulation.results import EXCHANGES

WIDE: Final = 6  # rounds that have a column each


class ProcessesWatcher:
    """Draws it, anew at each look, on a terminal; one line a stage and a round in a log. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._stage, self._began = "", time.monotonic()
        self._rounds: dict[Path, int] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(broken=error is not None)
        if self._live is not None:
            self._live.update("", refresh=True)
            self._live.stop()

    def stage(self, text: str) -> None:
        """See `demo_processes.Watcher`."""
        self._finish()
        self._stage, self._began = text, time.monotonic()
        if self._live is not None:
            self._live.update(self._head(), refresh=True)

    def now(self, state: Path, processes: list[Process]) -> None:
        """See `demo_processes.Watcher`."""
        if self._live is not None:
            # A status that cannot be read this time can be the next.
            with contextlib.suppress(PartbookError):
                self._live.update(Group(self._head(), picture(state, processes)), refresh=True)
            return
        done = rounds_done(state)
        if done > self._rounds.setdefault(state, done):
            self._rounds[state] = done
            self._console.print(f"  round {done} is done after {time.monotonic() - self._began:.0f} s", highlight=False)

    def note(self, text: str) -> None:
        """See `demo_processes.Watcher`."""
        self._console.print(f"[yellow]{text}[/yellow]", highlight=False)

    def _head(self) -> Text:
        return Text.assemble(("▸ ", "cyan"), (self._stage, "bold"), (f"  {_took(self._began)}", "dim"))

    def _finish(self, *, broken: bool = False) -> None:
        if self._stage:
            sign = ("✗ ", "red") if broken else ("✓ ", "green")
            self._console.print(Text.assemble(sign, self._stage, (f"  {_took(self._began)}", "dim")))
            self._stage = ""


def picture(state: Path, processes: Sequence[Process]) -> RenderableType:
    """What runs, what exchanges take, and where the rounds are."""
    status = read_status(state)
    both = Table.grid(padding=(0, 3, 0, 0))
    both.add_row(_running(processes), _exchanges(status) if status.recent else "")
    # A terminal of 24 lines shows the beginning: what runs is what this demo is about.
    if status.known:
        return Group(both, Text(""), table(status))
    done = rounds_done(state)
    return Group(both, Text(f"{done} round{'s' * (done > 1)} done" if done else ""))


def _running(processes: Sequence[Process]) -> Table:
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    grid.add_column("Process", no_wrap=True, overflow="ellipsis", max_width=16)
    for name in ("PID", "Memory", "Most"):
        grid.add_column(name, justify="right", no_wrap=True)
    for one in processes:
        there = ("–", "–") if one.pid is None else (str(one.pid), size(one.resident))
        grid.add_row(
            Text(_PROCESSES.get(one.name, one.name), style="dim" if one.pid is None else ""),
            *there,
            size(one.peak) if one.peak else "–",
        )
    return grid


def _exchanges(status: Status) -> Table:
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    grid.add_column("Exchange", no_wrap=True)
    for name in ("Last", "Usual"):
        grid.add_column(name, justify="right", no_wrap=True)
    for kind, text in EXCHANGES.items():
        if seconds := status.recent.get(kind):
            style = "cyan" if status.exchange == kind else ""
            grid.add_row(Text(text, style=style), spell(seconds[-1]), spell(median(seconds)))
    return grid


_PROCESSES: Final = {
    "coordinator": "supervisor",
    "superlink": "SuperLink",
    "superexec": "SuperExec",
    "serverapp": "ServerApp",
    "run": "coordinator run",
    "release": "signing",
    "reference": "all in one",
    CUSTODIAN: "custodian",
}


def report(result: ProcessesResult) -> RenderableType:
    """What came of it, for a person."""
    worst = max(result.spent.values())
    yes = {True: ("yes", "bold green"), False: ("NO", "bold red")}
    outsiders = float(result.noised.release.about["privacy"]["epsilon_outsiders"])
    others = "everybody else" if outsiders < result.stated else "all but labels that would take their noise out again"
    said = [
        _line("ε stated", f"{result.stated:.3f} at δ = {result.delta:g}, by the coordinator in its release;"),
        _line("", f"{outsiders:.3f} against {others}"),
        _line("ε by ledger", f"{worst:.3f} at most; within statement and policies: ", yes[result.covered]),
        _line("Release", result.noised.release.id),
        _line("Check", "without noise, the processes' adapter and that of one process are"),
        _line("", "equal bit for bit: ", yes[result.equal]),
    ]
    out = result.out
    places = [
        (result.noised.release.path, "the release"),
        (out / "noised", "a folder a party; what they said is in logs/"),
        (out / "check", "the same without noise, and in reference/ beside it in one process"),
    ]
    look = [Text.assemble(str(where), (f"  {what}", "dim")) for where, what in places]
    return Group(
        _seconds(result), Text(""), _parties(result), Text(""), _memory(result), Text(""), *said, Text(""),
        Text("Look", style="bold"), *look,
    )  # fmt: skip


def _seconds(result: ProcessesResult) -> Table:
    history = result.noised.history
    each = [f"{record.round}" for record in history] if len(history) <= WIDE else []
    found = Table(title="Seconds an exchange takes", title_justify="left", title_style="bold", box=None, pad_edge=False)
    found.add_column("Round", no_wrap=True)
    for name in (*each, "Median", *(() if each else ("Longest",)), "No noise"):
        found.add_column(name, justify="right")
    plain = result.check.history
    kinds = [kind for kind in EXCHANGES if any(kind in record.exchanges for record in (*history, *plain))]
    for kind in kinds:
        ours = [record.exchanges.get(kind) for record in history]
        theirs = [seconds for record in plain if (seconds := record.exchanges.get(kind)) is not None]
        found.add_row(EXCHANGES[kind], *_figures(ours, bool(each)), f"{median(theirs):.2f}" if theirs else "–")
    whole = [record.seconds for record in plain]
    found.add_row(
        "The whole round", *_figures([record.seconds for record in history], bool(each)), f"{median(whole):.2f}",
        style="bold",
    )  # fmt: skip
    return found


def _figures(seconds: Sequence[float | None], each: bool) -> list[str]:
    known = [one for one in seconds if one is not None]
    middle = f"{median(known):.2f}" if known else "–"
    if each:
        return [*("–" if one is None else f"{one:.2f}" for one in seconds), middle]
    return [middle, f"{max(known):.2f}" if known else "–"]


def _parties(result: ProcessesResult) -> Table:
    found = Table(
        title="A round costs each party", title_justify="left", title_style="bold", box=None, pad_edge=False
    )  # fmt: skip
    found.add_column("Party")
    for name in ("Recordings", "It is sent", "It answers", "ε by its ledger", "of"):
        found.add_column(name, justify="right")
    for name in result.noised.sent:
        budget = (f"{result.spent[name]:.3f}", f"{result.allowed[name]:.3f}") if name in result.spent else ("", "")
        found.add_row(
            name,
            str(result.recordings.get(name, "")),
            size(round(result.noised.sent[name])),
            size(round(result.noised.received[name])),
            *budget,
        )
    return found


def _memory(result: ProcessesResult) -> Table:
    found = Table(title="Most memory (VmHWM)", title_justify="left", title_style="bold", box=None, pad_edge=False)
    found.add_column("Process")
    for name in ("With noise", "Without"):
        found.add_column(name, justify="right")
    for name in dict.fromkeys([*result.noised.memory, *result.check.memory]):
        peaks = [ran.memory.get(name, 0) for ran in (result.noised, result.check)]
        found.add_row(_PROCESSES.get(name, name), *(size(peak) if peak else "–" for peak in peaks))
    found.add_row("all in one, to be compared", "", size(result.reference_memory))
    return found


def _line(name: str, text: str, *more: tuple[str, str]) -> Text:
    return Text.assemble((f"{name:<12}", "bold"), text, *more)


def about(result: ProcessesResult) -> dict[str, Any]:
    """What came of it, for programs."""
    parts: Mapping[Part, Ran] = {"noised": result.noised, "check": result.check}
    return {
        "equal_bit_for_bit": result.equal,
        "epsilon": {
            "delta": result.delta,
            "stated": {
                who: result.noised.release.about["privacy"][f"epsilon_{who}"] for who in ("colluders", "outsiders")
            },
            "by_ledger": dict(result.spent),
            "allowed": dict(result.allowed),
            "covered": result.covered,
        },
        "recordings": dict(result.recordings),
        **{part: {"federation": NAMES[part], **_ran(ran)} for part, ran in parts.items()},
        "reference": {"seconds": result.reference_seconds, "memory": result.reference_memory},
        "folder": str(result.out),
    }


def _ran(ran: Ran) -> dict[str, Any]:
    return {
        "release": {"id": ran.release.id, "folder": str(ran.release.path)},
        "rounds": [
            {
                "round": record.round,
                "seconds": round(record.seconds, 3),
                "exchanges": {kind: round(seconds, 4) for kind, seconds in record.exchanges.items()},
                "members": record.members,
                "model": record.adapter_hash,
            }
            for record in ran.history
        ],
        "seconds_until_online": round(ran.online, 1),
        "bytes_per_round": {
            name: {"sent": round(ran.sent[name]), "received": round(ran.received[name])} for name in ran.sent
        },
        "memory": dict(ran.memory),
    }


def _took(began: float) -> str:
    return spell(time.monotonic() - began)

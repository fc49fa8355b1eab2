"""`Status` as a person reads it: one page that fits 80 columns, and says so where nothing is known."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from partbook.coordinator.standing import PartyStanding, Status

_BAR: Final = 16  # columns
_DOING: Final = {
    "waiting": "waiting for parties",
    "train": "members train",
    "query.advertise": "keys",
    "query.share": "shares",
    "query.contribute": "contributions",
    "query.proceed": "contributions, next part",
    "query.confirm": "confirming who is in",
    "query.reveal": "taking off the masks",
    "query.open": "the custodian opens the sum",
    "query.apply": "labels take the step",
    "query.endorse": "labels endorse the model",
    "query.publish": "labels hand the model over",
    "score": "scoring on public recordings",
    "done": "between rounds",
}


def table(status: Status, now: float | None = None) -> RenderableType:
    """The page.

    Args:
        status: what `read_status` found.
        now: Unix time; the clock's where None.
    """
    now = time.time() if now is None else now
    if not status.known:
        return Text.assemble(
            ("Nothing is known yet. ", "bold"),
            "No run has begun in this folder; `partbook coordinator run` begins one.",
        )
    parts: list[RenderableType] = [_head(status), Padding(_figures(status, now), (0, 0, 1, 0))]
    parts.append(_parties(status, now) if status.parties else Text("No party is known yet.", style="dim"))
    parts += _refusals(status)
    parts.append(_foot(status, now))
    return Group(*parts)


def spell(seconds: float) -> str:
    """A duration in one or two units, such as `4.2 s`, `12 min` or `3 h 20 min`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def size(count: int) -> str:
    """Bytes in decimal units, as networks count."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.5 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.5 else f"{amount:.1f} {unit}"


def _head(status: Status) -> Rule:
    name = status.federation or "a federation without a name yet"
    text = Text.assemble((name, "bold"), (f" · {status.mode} rounds" if status.mode else "", "dim"))
    return Rule(text, align="left", style="dim")


def _figures(status: Status, now: float) -> Table:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_row("Rounds", _rounds(status, now))
    grid.add_row("Now", _now(status, now))
    grid.add_row("Privacy", _privacy(status))
    grid.add_row("Validation", _validation(status))
    grid.add_row("Traffic", f"{size(status.sent)} out, {size(status.received)} in")
    return grid


def _rounds(status: Status, now: float) -> RenderableType:
    if not status.rounds:
        return Text("how many there will be is not known yet", style="dim")
    said = Text(f"{status.finished} of {status.rounds}")
    eta, usual = status.eta(now), status.round_seconds
    if usual is not None:
        said.append(f", {spell(usual)} each", style="dim")
    if status.complete:
        said.append(" ✓", style="green")
    elif eta is not None:
        said.append(f", about {spell(eta)} to go")
    elif not status.stale:
        said.append(", time to go not known yet")
    if status.given_up:
        said.append(f", {status.given_up} given up", style="yellow")
    line = Table.grid(padding=(0, 2))
    line.add_row(ProgressBar(status.rounds, status.finished, width=_BAR, complete_style="cyan"), said)
    return line


def _now(status: Status, now: float) -> Text:
    if status.complete and status.exchange is None:
        return Text("all rounds are done")
    kind = status.exchange or status.stage
    said = Text(f"round {status.round}: " if status.round else "")
    said.append(_DOING.get(kind, kind))
    if status.exchange is not None and status.exchange_since is not None and not status.stale:
        said.append(f" for {spell(now - status.exchange_since)}")
        usual = status.seconds.get(status.exchange)
        said.append(f", usually {spell(usual)}" if usual is not None else "", style="dim")
    return said


def _privacy(status: Status) -> Text:
    spending = status.privacy
    if spending is None:
        return Text("nothing is spent yet" if not status.finished else "not known", style="dim")
    if spending.colluders is None:
        return Text("no bound: these rounds add no noise", style="yellow")
    said = Text.assemble(("ε ", ""), (f"{spending.colluders:.3g}", "bold"), " so far")
    if spending.planned_colluders is not None and not status.complete:
        said.append(f", {spending.planned_colluders:.3g} after all rounds")
    if spending.outsiders is not None:
        said.append(f"; to outsiders {spending.outsiders:.3g}")
    said.append(f" (δ {spending.delta:g})", style="dim")
    return said


def _validation(status: Status) -> Text:
    if not status.validation:
        unseen = "the model is seen when labels release it" if status.mode == "sealed" else "none so far"
        return Text(unseen, style="dim")
    scores = ", ".join(f"{label} {value:.3f}" for label, value in sorted(status.validation.items()))
    return Text.assemble(scores, (f" nats a token after round {status.validation_round}", "dim"))


def _parties(status: Status, now: float) -> Table:
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
    grid.add_column("Party", ratio=3, overflow="ellipsis", no_wrap=True)
    grid.add_column("Node", ratio=3, no_wrap=True)
    grid.add_column("This exchange", ratio=4, no_wrap=True)
    grid.add_column("Out ≈", justify="right", no_wrap=True)
    grid.add_column("In", justify="right", no_wrap=True)
    for name, party in sorted(status.parties.items()):
        grid.add_row(
            Text(name),
            _presence(party, status, now),
            _answer(name, party, status, now),
            size(party.sent),
            size(party.received),
        )
    return grid


def _presence(party: PartyStanding, status: Status, now: float) -> Text:
    nobody_looks = status.stale or now - status.written > 60
    if nobody_looks or party.since is None:
        return Text("○ not known", style="dim")
    for_ = spell(now - party.since)
    return Text.assemble(("● ", "green"), "here ", (for_, "dim")) if party.here else Text(f"○ away {for_}", style="red")


def _answer(name: str, party: PartyStanding, status: Status, now: float) -> Text:
    if party.refusal is not None:
        return Text("declined", style="red")
    if name in status.dropped and status.stage == "done":
        return Text("lost in the last round", style="yellow")
    if status.stale or status.exchange is None:
        return Text("–", style="dim")
    if party.took is not None:
        return Text(f"answered in {spell(party.took)}", style="green")
    if party.asked is None:
        return Text("–", style="dim")
    waited = spell(now - (party.asked_at or now))
    if status.late(name, now):
        return Text(f"late, asked {waited} ago", style="bold yellow")
    return Text(f"asked {waited} ago")


def _refusals(status: Status) -> list[RenderableType]:
    said = {name: party.refusal for name, party in status.parties.items() if party.refusal} | dict(status.strangers)
    if not said:
        return []
    lines: list[RenderableType] = [Text("")]
    lines += [Text.assemble((f"{name}: ", "red"), why) for name, why in sorted(said.items())]
    return lines


def _foot(status: Status, now: float) -> RenderableType:
    age = spell(now - status.written)
    if status.silent is None:
        return Padding(Text(f"As of {age} ago.", style="dim"), (1, 0, 0, 0))
    told = Text.assemble(
        ("This is how things were ", "bold red"),
        (f"{age} ago: {status.silent}. ", "red"),
        "`partbook coordinator run` goes on from the checkpoint.",
    )
    return Padding(told, (1, 0, 0, 0))

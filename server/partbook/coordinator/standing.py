"""Where a federation stands, as its coordinator knows it: the values of `state/status.json`.

The file is written by `partbook.coordinator.status` in the process that runs the rounds and read by anybody on the
machine: the live table, the metrics, a script. It holds names, times, sizes and public figures. Nothing in it is
secret, and it says nothing about a label beyond what the coordinator sees of it anyway: whether its node is online,
when it answers, how many bytes come, and what it declines with.

Starting up reads no model and no Flower: whoever looks every second must not wait for them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from partbook.errors import AlteredFile

FILE: Final = "status.json"
FORMAT: Final = 1
HEARTBEAT: Final = 15.0  # seconds after which the file is written though nothing happened
SILENT: Final = 4 * HEARTBEAT  # seconds without a writing, after which nobody can be said to be at work
LATE: Final = 2.0  # times the usual duration of an exchange, after which an answer is late
LATE_FROM: Final = 5.0  # seconds before which nothing is late


@dataclass(frozen=True, slots=True)
class PartyStanding:
    """One party, as the coordinator sees it. Times are Unix time in seconds.

    Attributes:
        here: whether it has a node online that proved who it is.
        since: when that last changed; None where it was never looked at.
        asked: message kind that it was asked and has not answered yet.
        asked_at: since when.
        took: seconds in which it answered in the exchange in hand.
        refusal: what it declined with, or failed with, in this round.
        sent: bytes that went out to it: its even share of each exchange that it was asked in.
        received: bytes that its answers held.
    """

    here: bool = False
    since: float | None = None
    asked: str | None = None
    asked_at: float | None = None
    took: float | None = None
    refusal: str | None = None
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class Spending:
    """What the rounds have cost every recording, by `partbook.coordinator.privacy`; None stands for no bound at all.

    Attributes:
        delta: δ at which both ε are counted.
        rounds: how many are counted, those that were given up among them.
        colluders, outsiders: ε so far, against the members the noise is calibrated to withstand, and everybody else.
        planned_colluders, planned_outsiders: ε after all rounds, if those still to come cost what the last one did.
    """

    delta: float
    rounds: int
    colluders: float | None
    outsiders: float | None
    planned_colluders: float | None
    planned_outsiders: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """Everything in the file. Times are Unix time in seconds; whatever is not known yet is None or empty.

    Attributes:
        federation: its name.
        mode: `masked` or `sealed`.
        round: number of the round in hand, or of the last one.
        rounds: how many there are to be in all.
        finished: how many are done; fewer than `round` where some were given up.
        stage: a message kind, `score` or `done`.
        exchange: message kind of the exchange in hand, while answers are awaited.
        exchange_since, round_since: when they began.
        parties: by name.
        strangers: what nodes that proved to be nobody answered the greeting with, by node.
        sent, received: bytes of content out and in, over all runs of this state folder.
        refusals: how many answers were refusals or failures, over all runs.
        given_up: rounds given up after contributions had left.
        recent: seconds of the last exchanges, by message kind, the newest last.
        recent_rounds: seconds of the last rounds.
        validation: nats per token on public recordings, by label.
        validation_round: after which round.
        update_norm: L2 norm of the last average update; None in sealed rounds.
        dropped: by member that the last round lost, the message kind at which.
        privacy: what the rounds cost.
        written: when the file was.
        pid, host, process: of whoever wrote it: process id, host name, and the process's start by the kernel's count.
        silent: why nobody seems to be at work; None while somebody is, or where all is done.
    """

    federation: str = ""
    mode: str | None = None
    round: int = 0
    rounds: int = 0
    finished: int = 0
    stage: str = ""
    exchange: str | None = None
    exchange_since: float | None = None
    round_since: float | None = None
    parties: Mapping[str, PartyStanding] = field(default_factory=dict)
    strangers: Mapping[str, str] = field(default_factory=dict)
    sent: int = 0
    received: int = 0
    refusals: int = 0
    given_up: int = 0
    recent: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    recent_rounds: tuple[float, ...] = ()
    validation: Mapping[str, float] = field(default_factory=dict)
    validation_round: int | None = None
    update_norm: float | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    privacy: Spending | None = None
    written: float = 0.0
    pid: int = 0
    host: str = ""
    process: str = ""
    silent: str | None = None

    @property
    def known(self) -> bool:
        """Whether any run has written anything yet."""
        return self.written > 0

    @property
    def complete(self) -> bool:
        """Whether all rounds are done."""
        return 0 < self.rounds <= self.finished

    @property
    def stale(self) -> bool:
        """Whether it says how things were, and not how they are."""
        return self.silent is not None

    @property
    def seconds(self) -> dict[str, float]:
        """Median seconds of recent exchanges, by message kind."""
        return {kind: median(values) for kind, values in self.recent.items() if values}

    @property
    def round_seconds(self) -> float | None:
        """Median seconds of recent rounds."""
        return median(self.recent_rounds) if self.recent_rounds else None

    def eta(self, now: float) -> float | None:
        """Seconds until all rounds are done, if they go on as the recent ones did; None where that is not known."""
        left = self.rounds - self.finished
        if left <= 0:
            return 0.0 if self.complete else None
        usual = self.round_seconds
        if usual is None or self.stale:
            return None
        gone = 0.0 if self.round_since is None else max(0.0, now - self.round_since)
        return max(0.0, usual - gone) + (left - 1) * usual

    def late(self, party: str, now: float) -> bool:
        """Whether a party's answer has been awaited for twice as long as that exchange usually takes in all."""
        standing = self.parties[party]
        if standing.asked is None or standing.asked_at is None or self.stale:
            return False
        usual = self.seconds.get(standing.asked)
        return usual is not None and now - standing.asked_at > max(LATE_FROM, LATE * usual)

    def about(self, now: float) -> dict[str, Any]:
        """For `--json`: the file's values, and what follows from them at `now`."""
        values: dict[str, Any] = json.loads(self.to_json())
        late = sorted(name for name in self.parties if self.late(name, now))
        usual = {"seconds": self.seconds, "round_seconds": self.round_seconds, "eta_seconds": self.eta(now)}
        return values | usual | {"late": late, "complete": self.complete, "stale": self.stale, "silent": self.silent}

    def to_json(self) -> bytes:
        """The file's bytes."""
        values = _STATUS.dump_python(self, mode="json", exclude={"silent"})
        return (json.dumps({"format": FORMAT, **values}, indent=1, allow_nan=False) + "\n").encode()


_STATUS: Final = TypeAdapter(Status)


def read_status(state: Path) -> Status:
    """What `state/status.json` says, and whether anybody is still at work on it.

    Args:
        state: `FederationConfig.state`. Before the first run there is no file in it; nothing is known then.

    Raises:
        AlteredFile: the file is not what Partbook writes.
    """
    path = state / FILE
    try:
        found = json.loads(path.read_bytes())
        if found.pop("format") != FORMAT:
            raise ValueError("it is of another version of Partbook")
        status = _STATUS.validate_python(found)
    except FileNotFoundError:
        return Status()
    except OSError as error:
        raise AlteredFile(f"{path} cannot be read ({error.strerror}); look as a user who may read it.") from error
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise AlteredFile(
            f"{path} is not what Partbook writes ({why}); delete it, the next run makes it anew."
        ) from error
    return replace(_with_release(status, state), silent=_silent(status, time.time()))


def whoami() -> tuple[int, str, str]:
    """Process id, host name, and what tells this process from a later one of the same id."""
    return os.getpid(), socket.gethostname(), _start_of(os.getpid()) or ""


def median(values: tuple[float, ...] | list[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _silent(status: Status, now: float) -> str | None:
    if status.complete:
        return None
    if status.host == socket.gethostname() and _start_of(status.pid) != (status.process or None):
        return f"process {status.pid}, which ran the rounds, has ended"
    if now - status.written > SILENT:
        return f"process {status.pid} on {status.host} has written nothing for {now - status.written:.0f} s"
    return None


def _start_of(pid: int) -> str | None:
    """Start time of a process in the kernel's ticks, so that a later process of the same id is not taken for it."""
    try:
        # proc_pid_stat(5): the 22nd field; the 2nd, in brackets, may hold spaces and brackets itself.
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else rest[18]
    except OSError:
        return None


def _with_release(status: Status, state: Path) -> Status:
    """Sealed rounds are scored when the labels release the model, after the last of them: the checkpoint knows."""
    try:
        last = json.loads((state / "state.json").read_bytes())["history"][-1]
        number, scores = int(last["round"]), {str(k): float(v) for k, v in last["validation"].items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return status
    if not scores or (status.validation_round is not None and status.validation_round > number):
        return status
    return replace(status, validation=scores, validation_round=number)

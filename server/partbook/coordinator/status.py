"""Keeps `state/status.json` for whoever wants to know where the rounds are, and the curves and the log beside it.

    watch = StatusWriter.of(config)          in the process that runs the rounds
    status = read_status(config.state)       anywhere else
    console.print(table(status))

A background thread writes, at most twice a second, so that no exchange ever waits for it; at the end of a round the
file is written before the next begins. What cannot be written is said in the log once, and stops no round. What ε the
rounds so far come to is worked out in that thread too, and at once after the last round.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from partbook.coordinator.standing import (
    FILE,
    HEARTBEAT,
    PartyStanding,
    Spending,
    Status,
    read_status,
    whoami,
)
from partbook.coordinator.status_table import table
from partbook.errors import PartbookError

if TYPE_CHECKING:
    from partbook.coordinator.board import Board
    from partbook.coordinator.checkpoints import RoundRecord
    from partbook.coordinator.rounds import Progress
    from partbook.plan.federation import FederationConfig

__all__ = ["DELTA", "PartyStanding", "Spending", "Status", "StatusWriter", "read_status", "table"]

DELTA: Final = 1e-6  # what a label's policy counts at unless told otherwise
EVERY: Final = 0.5  # seconds between two writings
RECENT: Final = 20  # exchanges of a kind, and rounds, whose median is called usual
STRANGERS: Final = 8  # nodes of nobody that are listed; anybody could bring more
TEXT: Final = 600  # characters of a refusal

_HELLO: Final = "query.hello"  # `partbook.plan.wire` would load Flower

log = logging.getLogger(__name__)


class StatusWriter:
    """A `Watch` that keeps `status.json`. It may be told from several threads."""

    def __init__(
        self,
        state: Path,
        *,
        federation: str = "",
        mode: str | None = None,
        rounds: int = 0,
        parties: Sequence[str] = (),
        delta: float = DELTA,
        board: bool = True,
    ) -> None:
        """Take up the totals of earlier runs in this folder, and begin to write.

        Args:
            state: `FederationConfig.state`; made where it is missing.
            federation: its name; that of the checkpoint where not given.
            mode: `masked` or `sealed`.
            rounds: how many there are to be; the first progress says so too.
            parties: all that are waited for, so that those that never came are listed too.
            delta: δ of the statement about privacy.
            board: draw TensorBoard's curves into `state/board`.
        """
        state.mkdir(parents=True, exist_ok=True)
        self._state, self._delta = state, delta
        self._mutex, self._writing, self._pricing = threading.RLock(), threading.Lock(), threading.Lock()
        self._history = _history(state)
        before = _earlier(state, federation or _federation(state))
        pid, host, process = whoami()
        finished = max(0, len(self._history) - 1)
        self._now = Status(
            federation=before.federation,
            mode=mode,
            round=self._history[-1].round if self._history else 0,
            rounds=rounds or before.rounds,
            finished=finished,
            stage="waiting",
            parties={name: PartyStanding() for name in parties},
            sent=before.sent,
            received=before.received,
            refusals=before.refusals,
            recent=before.recent,
            recent_rounds=tuple(record.seconds for record in self._history[1:][-RECENT:]),
            privacy=before.privacy,
            pid=pid,
            host=host,
            process=process,
        )
        for name, standing in before.parties.items():
            known = PartyStanding(sent=standing.sent, received=standing.received)
            self._now = replace(self._now, parties={**self._now.parties, name: known})
        self._recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        for kind, values in before.recent.items():
            self._recent[kind].extend(values)
        for record in self._history:
            self._take_record(record)
        self._board = _board(state) if board else None
        self._due, self._unwritable = bool(self._history), ""
        self._dirty, self._over = threading.Event(), threading.Event()
        self._dirty.set()
        self._thread = threading.Thread(target=self._keep, name="status", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # what a run ended with is told, also where nobody closes

    @classmethod
    def of(cls, config: FederationConfig) -> Self:
        """For the rounds of a configuration.

        Raises:
            ConfigError, UnsignedRoster: the roster cannot be used.
        """
        from partbook.identity.roster import Roster

        roster = Roster.read(config.roster)
        parties = [member.name for member in roster.members]
        if config.mode == "sealed" and roster.custodian is not None:
            parties.append(roster.custodian.name)
        return cls(config.state, federation=roster.federation, mode=config.mode, rounds=config.rounds, parties=parties)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is known, and stop. Closing twice is fine."""
        atexit.unregister(self.close)
        self._over.set()
        self._dirty.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=30)
        self._take_release()
        self._write()
        if self._board is not None:
            self._board.close()

    # ------------------------------------------------------------------ what a Watch is told

    def progress(self, progress: Progress) -> None:
        """See `Watch`."""
        now, record = time.time(), progress.record
        with self._mutex:
            values = self._now
            if progress.stage == "train" or progress.round != values.round:
                values = replace(
                    values,
                    round_since=now,
                    strangers={},
                    parties={name: replace(p, refusal=None) for name, p in values.parties.items()},
                )
            self._now = replace(values, round=progress.round, rounds=progress.rounds, stage=progress.stage)
            self._ended(now)
            if record is not None:
                self._history = (*(r for r in self._history if r.round < record.round), record)
                self._take_record(record)
                self._due = True
                self._now = replace(self._now, round_since=None)
            last = self._now.complete
        log.debug(
            "round %d of %d: %s", progress.round, progress.rounds, progress.stage, extra={"round": progress.round}
        )
        if record is not None:
            self._done(record, progress.rounds, last)
        self._dirty.set()

    def here(self, parties: Sequence[str]) -> None:
        """See `Watch`."""
        now = time.time()
        with self._mutex:
            known = dict(self._now.parties)
            for name in {*known, *parties}:
                standing = known.get(name, PartyStanding())
                if standing.since is None or standing.here != (name in parties):
                    known[name] = replace(standing, here=name in parties, since=now)
            self._now = replace(self._now, parties=known)
        self._dirty.set()

    def asked(self, kind: str, parties: Sequence[str], sent: int) -> None:
        """See `Watch`."""
        now = time.time()
        with self._mutex:
            self._ended(now)
            known = dict(self._now.parties)
            share = sent // max(1, len(parties))
            for name in parties:
                before = known.get(name, PartyStanding())
                known[name] = replace(before, asked=kind, asked_at=now, took=None, sent=before.sent + share)
            self._now = replace(self._now, parties=known, exchange=kind, exchange_since=now, sent=self._now.sent + sent)
        log.debug("asking %d parties for %s", len(parties), kind, extra={"kind": kind, "bytes": sent})
        self._dirty.set()

    def answered(self, kind: str, party: str, seconds: float, received: int, refusal: str | None) -> None:
        """See `Watch`."""
        text = None if refusal is None else printable(refusal)
        with self._mutex:
            now = self._now
            if kind == _HELLO and party not in now.parties:
                strangers = {name: why for name, why in now.strangers.items() if name != party}
                latest = list({**strangers, party: text or ""}.items())[-STRANGERS:]
                self._now = replace(now, strangers=dict(latest), refusals=now.refusals + (text is not None))
            else:
                before = now.parties.get(party, PartyStanding())
                after = replace(before, asked=None, asked_at=None, took=seconds, received=before.received + received)
                if text is not None:
                    after = replace(after, refusal=text)
                self._now = replace(
                    now,
                    parties={**now.parties, party: after},
                    received=now.received + received,
                    refusals=now.refusals + (text is not None),
                )
                if not any(standing.asked for standing in self._now.parties.values()):
                    self._ended(time.time())
            number = self._now.round
        about = {"peer": party, "kind": kind, "round": number, "seconds": round(seconds, 3)}
        if text is not None:
            log.warning("%s on %s: %s", party, kind, text, extra=about)
        else:
            log.debug("%s answered %s", party, kind, extra={**about, "bytes": received})
        self._dirty.set()

    # ------------------------------------------------------------------ inside

    def _ended(self, now: float) -> None:
        """Whatever exchange there was is over."""
        kind, since = self._now.exchange, self._now.exchange_since
        if kind is None or since is None:
            return
        self._recent[kind].append(round(now - since, 4))
        idle = {name: replace(p, asked=None, asked_at=None, took=None) for name, p in self._now.parties.items()}
        recent = {name: tuple(values) for name, values in self._recent.items()}
        self._now = replace(self._now, parties=idle, exchange=None, exchange_since=None, recent=recent)

    def _take_record(self, record: RoundRecord) -> None:
        seconds = tuple(found.seconds for found in self._history[1:][-RECENT:])
        scored = {"validation": record.validation, "validation_round": record.round} if record.validation else {}
        self._now = replace(
            self._now,
            finished=len(self._history) - 1,
            recent_rounds=seconds,
            update_norm=record.update_norm,
            dropped=record.dropped,
            **scored,  # type: ignore[arg-type]
        )

    def _take_release(self) -> None:
        """Sealed rounds are scored once the labels release the model, after the last `progress`."""
        kept = _history(self._state)
        with self._mutex:
            if kept == self._history or len(kept) != len(self._history):
                return
            self._history = kept
            self._take_record(kept[-1])
        self._price()

    def _done(self, record: RoundRecord, rounds: int, last: bool) -> None:
        about = {"round": record.round, "seconds": round(record.seconds, 3), "validation": record.validation}
        lost = f", without {', '.join(sorted(record.dropped))}" if record.dropped else ""
        log.info("round %d of %d is done in %.1f s%s", record.round, rounds, record.seconds, lost, extra=about)
        if last:
            self._price()
        self._write()

    def _keep(self) -> None:
        while not self._over.is_set():
            self._dirty.wait(HEARTBEAT)
            self._dirty.clear()
            if self._due:
                self._price()
            self._write()
            self._over.wait(EVERY)

    def _price(self) -> None:
        """Say anew what the rounds cost, and draw the curves as far as they have come."""
        with self._pricing:
            with self._mutex:
                self._due, history = False, self._history
            spending = self._spent(history)
            lost = 0 if spending is None else spending.rounds - sum(1 for record in history if record.round)
            with self._mutex:
                self._now = replace(self._now, privacy=spending, given_up=lost)
            if self._board is not None:
                self._board.draw(history, self._spent)

    def _spent(self, history: Sequence[RoundRecord]) -> Spending | None:
        try:
            return spent(self._state, history, self._now.rounds, self._delta)
        except (PartbookError, KeyError) as error:
            log.warning("what the rounds cost cannot be said (%s: %s)", type(error).__name__, error)
            return None

    def _write(self) -> None:
        with self._writing:
            with self._mutex:
                self._now = replace(self._now, written=time.time())
                blob = self._now.to_json()
            path = self._state / FILE
            temporary = path.with_suffix(".json.part")
            try:
                temporary.write_bytes(blob)
                temporary.replace(path)
                self._unwritable = ""
            except OSError as error:
                why = error.strerror or type(error).__name__
                if why != self._unwritable:
                    log.warning("%s cannot be written (%s); the rounds go on without it", path, why)
                self._unwritable = why
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)


def spent(state: Path, history: Sequence[RoundRecord], rounds: int, delta: float) -> Spending | None:
    """What the rounds of a history cost, with those given up up to then; None where no contribution has left yet.

    Args:
        state: `FederationConfig.state`, where those given up are listed.
        history: records, of round 0 first.
        rounds: how many there are to be.
        delta: δ.

    Raises:
        AlteredFile, CorruptMessage: a record of what a round cost is broken.
        ConfigError: δ is not between 0 and 1.
        UnsupportedEvent: there is no theorem for what a round did.
    """
    from partbook.coordinator.checkpoints import Checkpoints
    from partbook.coordinator.privacy import statement

    done = [record for record in history if record.round]
    newest = history[-1].round if history else 0
    lost = [(number, cost) for number, cost in Checkpoints(state, "", "").lost() if number <= newest + 1]
    if not done and not lost:
        return None
    last = done[-1] if done else None
    left = max(0, rounds - len(done)) if last else 0
    now = statement(done, lost, delta)
    then = statement([*done, *[last] * left], lost, delta) if last else now
    return Spending(
        delta,
        now.rounds,
        *(value if math.isfinite(value) else None for value in (now.colluders, now.outsiders)),
        *(value if math.isfinite(value) else None for value in (then.colluders, then.outsiders)),
    )


def printable(text: str) -> str:
    """A text from elsewhere, without anything that would move a terminal's cursor, and not too long."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:TEXT]


def _history(state: Path) -> tuple[RoundRecord, ...]:
    """The checkpoint's records; none where there is none, or a broken one: what is wrong, the rounds themselves say."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((state / "state.json").read_bytes())["history"]

        from partbook.coordinator.checkpoints import RoundRecord

        return tuple(RoundRecord(**{**record, "members": tuple(record["members"])}) for record in found)
    return ()


def _federation(state: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((state / "state.json").read_bytes())["federation"])
    return ""


def _earlier(state: Path, federation: str) -> Status:
    with contextlib.suppress(PartbookError):
        found = read_status(state)
        if found.federation == federation:
            return found
    return Status(federation=federation)


def _board(state: Path) -> Board | None:
    try:
        from partbook.coordinator.board import Board

        return Board(state / "board")
    except (ImportError, OSError) as error:
        log.warning("no curves are drawn: %s", error)
        return None

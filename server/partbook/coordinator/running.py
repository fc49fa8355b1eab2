"""One federation's run from the outside: submit it, follow it, and go on when it ends before its rounds are done.

    while the rounds are not done
        1  attach   to the run that is alive, or submit one: never a second beside it
        2  follow   until the SuperLink says how it ended, or its ServerApp is seen to be gone
        3  judge    done: return
                    killed: the next run at once, which goes on from the checkpoint
                    aborted by name, as by too few members: the next one after a pause
                    a wrong configuration, broken files, a broken protocol: end with that error

What a run leaves behind lies in the state folder: `state.json`, whose rounds are counted, and `failure.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from partbook.coordinator.control import Control, Run
from partbook.coordinator.failure import clear_failure, read_failure
from partbook.coordinator.home import Home
from partbook.coordinator.locks import holder, is_taken, only_one
from partbook.coordinator.superlink import bundle
from partbook.errors import CoordinatorUnreachable, CorruptMessage, LinkError, PartbookError, RoundError, RunFailed

T = TypeVar("T")

LOOK_EVERY: Final = 0.5  # seconds
UNREACHABLE: Final = 600.0  # seconds without a SuperLink, after which nobody is waited for any more
NOT_STARTED: Final = 20.0  # the same where no `start` holds HOME
SLOWEST: Final = 60.0  # seconds, the longest pause before the run after one that was killed

_RAISED: Final = "ServerApp failed with exception"  # Flower's words

# What may be otherwise next time: parties come back, and a round that was given up is planned anew.
PASSING: Final = (RoundError, CorruptMessage, LinkError)


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person may want to read.

    Attributes:
        kind: `submitted`, `attached`, `gone`, `ended`, `again`, `unreachable`, `back`, `stopped` or `done`.
        text: a sentence.
        run: Flower's id.
    """

    kind: str
    text: str
    run: int | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """How it went.

    Attributes:
        rounds: finished, in all.
        runs: Flower's ids of the runs it took, in order.
        complete: whether all rounds are done; else somebody stopped the last run by hand.
    """

    rounds: int
    runs: tuple[int, ...]
    complete: bool = True


@dataclass(slots=True)
class Stubbornness:
    """How often is enough. Counts runs in a row that ended without a finished round.

    Attributes:
        attempts: that are enough.
        wait: seconds after a round that was aborted by name.
        at_once: seconds after a run that was killed; doubled for each that follows without a round.
    """

    attempts: int
    wait: float
    at_once: float
    _rounds: int = field(default=-1)
    _tries: int = field(default=0)

    def pause(self, error: PartbookError | None, rounds: int) -> float:
        """Seconds until the next run.

        Args:
            error: what ended the last one; None where it was killed.
            rounds: finished in all so far.

        Raises:
            PartbookError: `error`, where it would only come again.
            RunFailed: this was the last attempt; the message says what each would have ended with.
        """
        if error is not None and not isinstance(error, PASSING):
            raise error
        self._tries = self._tries + 1 if rounds == self._rounds else 1
        self._rounds = rounds
        if self._tries >= self.attempts:
            why = f"{type(error).__name__}: {error}" if error is not None else "its process was killed each time"
            often = "A run ended" if self._tries == 1 else f"{self._tries} runs in a row ended"
            raise RunFailed(f"{often} without a finished round after round {rounds}; the last: {why}") from error
        if error is not None:
            return self.wait
        return min(SLOWEST, self.at_once * 2.0 ** (self._tries - 1))


def run(
    home: Home,
    tell: Callable[[Event], None] = lambda _: None,
    each: Callable[[], None] = lambda: None,
    fab: bytes | None = None,
) -> Done:
    """Run the rounds that are still to do.

    Args:
        home: whose.
        tell: told what happens.
        each: called twice a second.
        fab: another bundle than `superlink.bundle`'s.

    Raises:
        AlreadyRunning: another `run` follows this federation.
        CoordinatorUnreachable: the SuperLink does not answer for long.
        RunFailed: it was tried often enough.
        PartbookError: what the run ended with, where it would only come again.
    """
    with (
        only_one(home.run_lock, f"runs `partbook coordinator run --home {home.folder}`"),
        Control(home.server.superlink) as control,
    ):
        stubborn = Stubbornness(home.server.attempts, home.server.wait, home.server.timing.at_once)
        follower = _Follower(home, control, fab if fab is not None else bundle(), tell, each)
        while True:
            ended = follower.follow(follower.begin())
            rounds = rounds_done(home.state)
            if ended.ending == "completed":
                tell(Event("done", f"All rounds are done: {rounds}.", ended.id))
                return Done(rounds, tuple(follower.seen))
            error = _what_ended(ended, home.state)
            if ended.ending == "stopped" and error is None and ended.id not in follower.stopped:
                tell(Event("stopped", f"Run {ended.id} was stopped by hand after round {rounds}.", ended.id))
                return Done(rounds, tuple(follower.seen), complete=False)
            why = f"{type(error).__name__}: {error}" if error is not None else "its process was killed"
            tell(Event("ended", f"Run {ended.id} ended after round {rounds}: {why}", ended.id))
            pause = stubborn.pause(error, rounds)
            tell(Event("again", f"The next run goes on from round {rounds}, in {pause:g} s.", ended.id))
            follower.rest(pause)


def _what_ended(ended: Run, state: Path) -> PartbookError | None:
    """The error that the ServerApp ended with; None where it was killed."""
    found = read_failure(state)
    if found is None and ended.details.startswith(_RAISED):
        # It never came so far as to write it down itself: the app could not be loaded, or not read its configuration.
        return RunFailed(f"{ended.details}; the ServerApp's log says where.")
    return found


def stop(home: Home) -> list[int]:
    """End the runs that are alive; returns their ids.

    Raises:
        CoordinatorUnreachable: the SuperLink does not answer.
    """
    with Control(home.server.superlink) as control:
        alive = [found.id for found in control.runs() if found.alive]
        for identifier in alive:
            control.stop(identifier)
        return alive


def rounds_done(state: Path) -> int:
    """Finished rounds, as `state.json` says; 0 where there is none that can be read."""
    try:
        return int(json.loads((state / "state.json").read_text())["history"][-1]["round"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0


class _Follower:
    def __init__(
        self, home: Home, control: Control, fab: bytes, tell: Callable[[Event], None], each: Callable[[], None]
    ) -> None:
        self._home, self._control, self._fab, self._tell, self._each = home, control, fab, tell, each
        self._met = False
        self.seen: list[int] = []
        self.stopped: set[int] = set()

    def begin(self) -> int:
        """The run that is alive, or a new one."""

        def attach_or_submit() -> tuple[str, int]:
            # Asked anew at each try: a SuperLink may have taken a run, and died before it could say so.
            alive = [found.id for found in self._control.runs() if found.alive]
            if alive:
                return "attached", alive[0]
            clear_failure(self._home.state)
            return "submitted", self._control.submit(self._fab, self._home.federation_file)

        kind, identifier = self._patiently(attach_or_submit)
        what = "is under way" if kind == "attached" else "is submitted"
        self._tell(Event(kind, f"Run {identifier} {what}.", identifier))
        self.seen.append(identifier)
        return identifier

    def follow(self, identifier: int) -> Run:
        """Wait for its end; see to it where its ServerApp is gone."""
        missed: float | None = None
        while True:
            found = self._patiently(lambda: self._control.run(identifier))
            if found is None:
                return Run(identifier, "finished", "failed", "The SuperLink does not know it any more.")
            if not found.alive:
                return found
            if found.status != "running" or is_taken(self._home.app_lock):
                missed = None
            elif missed is None:
                missed = time.monotonic()
            elif time.monotonic() - missed > self._home.server.timing.gone_after:
                self._tell(Event("gone", f"The ServerApp of run {identifier} is gone; the run is ended.", identifier))
                self.stopped.add(identifier)
                self._patiently(lambda: self._control.stop(identifier))
            self.rest(LOOK_EVERY)

    def rest(self, seconds: float) -> None:
        """Wait, and let whoever shows something show it."""
        until = time.monotonic() + seconds
        while True:
            self._each()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(LOOK_EVERY, left))

    def _patiently(self, call: Callable[[], T]) -> T:
        """Ask, through restarts of the SuperLink."""
        began, told = time.monotonic(), False
        while True:
            try:
                answer = call()
            except CoordinatorUnreachable as error:
                waited = time.monotonic() - began
                expected = self._met or holder(self._home.start_lock) is not None
                if waited > (UNREACHABLE if expected else NOT_STARTED):
                    raise
                if not told and waited > 1.0:
                    told = True
                    self._tell(Event("unreachable", f"{error} Waiting for it."))
                self.rest(LOOK_EVERY)
            else:
                self._met = True
                if told:
                    self._tell(Event("back", f"The SuperLink is back after {time.monotonic() - began:.0f} s."))
                return answer

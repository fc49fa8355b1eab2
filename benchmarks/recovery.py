"""How long a federation of processes needs to go on after each of them was killed, or cut off for a minute.

A coordinator, three labels and a custodian play rounds; every second one is left alone. In the others a process gets
SIGKILL once the coordinator is in an exchange that needs it; labels, custodian and supervisor are started again at
once (systemd would wait `RestartSec`), the supervisor's children it starts itself. Measured are the seconds from the
kill until the next exchange has its outcome on the disk, and until the round is done, the latter against the same
stretch of the undisturbed round before it.

A label that is killed counts as online at the SuperLink for up to 20 s, twice Flower's shortest heartbeat; until then
its new life is not taken in.

python -m benchmarks.recovery [--victims NAME …] [--cut SECONDS]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.claims import Claim, report
from benchmarks.ensemble import CUSTODIAN, Ensemble, end_in_order

if TYPE_CHECKING:
    from cutting import Cable

LABEL: Final = "Label 01"
CUT: Final = "cable"  # of that label
VICTIMS: Final = (LABEL, CUSTODIAN, "serverapp", "superlink", "superexec", "front", "coordinator", CUT)
LIMIT: Final = 45.0  # seconds more than undisturbed


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a kill cost.

    Attributes:
        victim: what was killed, or cut off.
        exchange: seconds from then to the end of the next exchange.
        round: to the end of the round.
        undisturbed: the same stretch of the round before, which nothing befell.
    """

    victim: str
    exchange: float
    round: float
    undisturbed: float

    @property
    def more(self) -> float:
        """Seconds that it took longer."""
        return max(0.0, self.round - self.undisturbed)


def recoveries(ensemble: Ensemble, cable: Cable, victims: tuple[str, ...], cut: float) -> list[Recovery]:
    """One for each victim; everybody is up."""
    federation, found = ensemble.federation, list[Recovery]()
    ensemble.aim(2 * len(victims) + 1)
    federation.start_run()
    federation.until("the first round is done", lambda: federation.rounds_done() >= 1)
    for victim in victims:
        exchange = "query.open" if victim == CUSTODIAN else "query.share"
        undisturbed, _ = _stretch(ensemble, exchange, lambda: None)

        def strike(victim: str = victim) -> None:
            if victim == CUT:
                threading.Thread(target=_cut, args=(cable, cut), daemon=True).start()
                return
            federation.kill(victim)
            if victim in ensemble.parties:
                ensemble.start(victim, wait=False)
            elif victim == "coordinator":
                federation.start_coordinator()

        to_round, to_exchange = _stretch(ensemble, exchange, strike)
        found.append(Recovery(victim, to_exchange, to_round, undisturbed))
        say(
            f"{victim:12} next exchange {to_exchange:6.1f} s, round {to_round:6.1f} s, undisturbed {undisturbed:6.1f} s"
        )
    federation.finish_run()
    return found


def _stretch(ensemble: Ensemble, exchange: str, strike: Callable[[], None]) -> tuple[float, float]:
    """Seconds from `exchange`, where `strike` comes, to the end of its round; and to the next outcome on the disk."""
    federation = ensemble.federation
    done = federation.rounds_done()
    federation.until(f"{exchange} is reached", lambda: federation.status().get("exchange") == exchange)
    began, before, next_exchange = time.monotonic(), _outcome(federation.state), None
    strike()
    deadline = began + 600
    while federation.rounds_done() == done:
        if next_exchange is None and _outcome(federation.state) > before:
            next_exchange = time.monotonic() - began
        if time.monotonic() > deadline:
            raise SystemExit(f"The round did not end. {federation.last_words(*federation.processes)}")
        time.sleep(0.02)
    ended = time.monotonic() - began
    return ended, ended if next_exchange is None else next_exchange


def _outcome(state: Path) -> int:
    """When an exchange's outcome was last written down."""
    found = 0
    for path in (
        state / "attempt",
        state / "state.json",
        state / "sums" / "reached.json",
        *state.glob("sums/*.opened"),
    ):
        try:
            found = max(found, path.stat().st_mtime_ns)
        except OSError:
            continue  # not there yet, or no more
    return found


def _cut(cable: Cable, seconds: float) -> None:
    with cable.cut():
        time.sleep(seconds)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    """Measure, print, and close with the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--cut", type=float, default=60.0, help="seconds")
    chosen = parser.parse_args(arguments)
    end_in_order()
    with tempfile.TemporaryDirectory(prefix="recovery-") as scratch:
        ensemble = Ensemble.of(Path(scratch), 3, patience=180.0)
        from cutting import Cable

        federation = ensemble.federation
        cable = Cable(federation.port)
        federation.through = {LABEL: cable.port}
        with federation:
            ensemble.up(say, attempts=20)
            found = recoveries(ensemble, cable, tuple(chosen.victims), chosen.cut)
            rounds = ensemble.history()
        cable.close()
    usual = statistics.median(one["seconds"] for one in rounds)
    say(f"{len(rounds)} rounds are done; one takes {usual:.1f} s (median, with the disturbed ones)")
    claims = []
    for one in found:
        limit = LIMIT + (chosen.cut if one.victim == CUT else 0.0)
        what = f"a cut of {chosen.cut:g} s" if one.victim == CUT else f"kill -9 of {one.victim}"
        claims.append(
            Claim(f"round longer after {what}", "s", one.more, limit, "limit", 1.0, at_least=False)
        )  # fmt: skip
        claims.append(
            Claim(f"next exchange after {what}", "s", one.exchange, limit, "limit", 1.0, at_least=False)
        )  # fmt: skip
    return 0 if report("recovery", claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

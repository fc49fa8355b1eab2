"""The ServerApp's process: Flower's own `flwr-serverapp`, in a place where it can be looked after.

SuperExec starts it, discards its output, and forgets it. Started through this module it

    writes to a log file
    holds a lock while it lives, so that `run` sees within a second that it is gone, where Flower waits a minute for a
        heartbeat; and so that never two of them work in one state folder
    is killed with SuperExec, whichever way that ends: a run's state is on the disk, and the next run goes on from it

The lock and the log come first on the command line; Flower's own arguments follow.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from partbook.coordinator.locks import taken_over
from partbook.coordinator.supervisor import die_with_parent

LARGEST_LOG: Final = 10_000_000  # bytes; a larger one is put aside before the next run
ASK_AGAIN: Final = 0.05  # seconds until an object is asked for again that its sender is still sending
WAIT_FOR_EARLIER: Final = 60.0  # seconds that an earlier ServerApp is given to end


def main(arguments: list[str]) -> None:
    """Be `flwr-serverapp`."""
    lock, log, *rest = arguments
    die_with_parent(os.getppid())
    _write_to(Path(log))
    if not taken_over(Path(lock), WAIT_FOR_EARLIER):
        print(f"An earlier ServerApp still holds {lock} after {WAIT_FOR_EARLIER:g} s; this one ends.", file=sys.stderr)
        sys.exit(1)
    sys.argv = ["flwr-serverapp", *rest]
    _be_quick()
    from flwr.superlink.cli import flwr_serverapp

    flwr_serverapp()


def _be_quick() -> None:
    """An answer is announced before its objects are there, and Flower would look again after a second, one by one."""
    from flwr.supercore.inflatable.inflatable_utils import pull_objects

    defaults = pull_objects.__kwdefaults__ or {}
    if "initial_backoff" in defaults:  # else it is another Flower, and slower
        defaults["initial_backoff"] = ASK_AGAIN


def _write_to(log: Path) -> None:
    if log.exists() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


if __name__ == "__main__":
    main(sys.argv[1:])

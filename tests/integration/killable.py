"""`partbook …`, in a process that a test can hurt at an exact moment.

    python killable.py ORDERS node start --config …

ORDERS is a file; while it is missing nothing happens. It holds `<what> <message type> <event>`, an event of
`partbook.node.pinned.serve`; when that comes, the file is removed and

    kill    the process gets SIGKILL
    full    the file system of the state folder is filled to the last byte

With `clock N` (read at the start) the process believes that it is N seconds later than it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any


def main() -> None:
    orders = Path(sys.argv[1])
    sys.argv = ["partbook", *sys.argv[2:]]
    if orders.exists() and orders.read_text().startswith("clock "):
        shift_clock(float(orders.read_text().split()[1]))

    from partbook.node import pinned

    serve = pinned.serve

    def watched(*args: Any, **options: Any) -> None:
        options["on_event"] = lambda event, kind: obey(orders, event, kind)
        serve(*args, **options)

    pinned.serve = watched

    from partbook.cli import main as command

    command()


def obey(orders: Path, event: str, kind: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        what, wanted, when = orders.read_text().split()
        if (wanted, when) == (kind, event):
            orders.unlink()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            fill(orders.parent / "state")


def fill(folder: Path) -> None:
    """Leave no byte free."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (65_536, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def shift_clock(seconds: float) -> None:
    true = time.time
    time.time = lambda: true() + seconds

    from flwr.supercore import date
    from flwr.supernode import node_auth_http_interceptor

    now = date.now

    def later() -> datetime:
        return now() + timedelta(seconds=seconds)

    date.now = later
    node_auth_http_interceptor.now = later


if __name__ == "__main__":
    main()

"""`partbook`, which writes down every address that its process connects to or looks up, in the file named first."""

from __future__ import annotations

import sys


def main() -> None:
    """Hook, then be `partbook` with the rest of the command line."""
    log = sys.argv.pop(1)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
            where = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[:2]
            with open(log, "a") as file:
                file.write(f"{event} {where!r}\n")

    sys.addaudithook(hook)
    from partbook.cli import main as partbook

    partbook()


if __name__ == "__main__":
    main()

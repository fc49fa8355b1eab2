"""TCP ports for processes that listen on this machine, end, and come back on the same port.

Whoever owns its listener binds port 0. A process that is killed and started again cannot: between its lives the port
must be refused, not wait in the backlog of a socket that somebody holds open for it, and nobody else may take it. Such
a port is leased: it lies outside the range from which the kernel draws ports for connections and for port 0, and the
*UDP* port of the same number is bound for as long as the process that asked lives. UDP ports are numbered by
themselves, so TCP clients are refused while nobody listens; and the kernel lets go of a lease however its holder ends.
It holds between all users of the machine and between containers that share its network.
"""

from __future__ import annotations

import random
import socket
import threading
from pathlib import Path
from typing import Final

from partbook.errors import ServiceFailed

LOWEST: Final = 10_240  # below it lie services with a name
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_IANA: Final = (49_152, 65_535)  # RFC 6335, section 6: what systems use that do not say

_held: Final[list[socket.socket]] = []
_lock: Final = threading.Lock()


def lease_port() -> int:
    """A TCP port of this machine on which nobody listens and that no other process leases while this one lives.

    Raises:
        ServiceFailed: there is none.
    """
    ports = _candidates(*_ephemeral())
    # At random: what still calls for a process that died on a port shall not reach the next suite's.
    for port in random.SystemRandom().sample(ports, len(ports)):
        with _lock:
            if (lease := _bound(port, socket.SOCK_DGRAM)) is None:
                continue
            if (listener := _bound(port, socket.SOCK_STREAM)) is None:
                lease.close()
                continue
            listener.close()
            _held.append(lease)
            return port
    raise ServiceFailed(f"None of {len(ports)} ports of this machine is free; end what listens on them.")


def _ephemeral() -> tuple[int, int]:
    """First and last port that the kernel hands out by itself."""
    try:
        first, last = map(int, _EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        return _IANA
    return first, last


def _candidates(first: int, last: int) -> list[int]:
    """Ports that the kernel does not hand out; where it hands out nearly all of them, all: the probe must do then."""
    everything = range(LOWEST, 65_536)
    apart = [port for port in everything if not first <= port <= last]
    return apart if len(apart) >= 1000 else [*everything]


def _bound(port: int, kind: socket.SocketKind) -> socket.socket | None:
    """A socket on a port of every address of this machine, or None where somebody has one of them."""
    found = socket.socket(socket.AF_INET, kind)
    try:
        if kind == socket.SOCK_STREAM:
            # As servers do: connections of an earlier life that wait for their end do not keep a port taken.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(("", port))
    except OSError:
        found.close()
        return None
    return found

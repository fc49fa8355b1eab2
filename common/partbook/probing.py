"""Can the coordinator be reached from here, is it the right one, does it let us in, and what time is it there?

The same three steps that a party's link takes, one after another, so that the first which fails can be named: a TCP
connection, a TLS handshake in which only the roster's coordinator counts, and one HTTP request. The request goes to a
path that no front passes on; any answer to it is a good one. No proxy, no redirect.

In TLS 1.3 the client's handshake ends before the server has looked at its certificate (RFC 8446, section 4.4): a
refusal shows at the first read.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from partbook.doctor import Check, clock, is_encrypted
from partbook.errors import PartbookError

if TYPE_CHECKING:
    from partbook.identity.roster import Roster

PATH: Final = "/v1/fleet/doctor"  # known to nobody
TIMEOUT: Final = 8.0  # seconds for each step


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of an attempt; steps that were not taken are None.

    Attributes:
        connected: whether a TCP connection stood.
        secured: whether the other side proved to be the coordinator.
        status: the HTTP answer's.
        ahead: seconds by which this machine's clock is ahead of the date in the answer; None where it has none.
        why: what ended the attempt before an answer came.
    """

    connected: bool = False
    secured: bool | None = None
    status: int | None = None
    ahead: float | None = None
    why: str = ""


def probe(host: str, port: int, context: ssl.SSLContext, *, name: str | None = None) -> Probe:
    """Take the three steps.

    Args:
        host, port: where.
        context: for TLS.
        name: that the certificate must be for; `host` where None.
    """
    try:
        plain = socket.create_connection((host, port), timeout=TIMEOUT)
    except OSError as error:
        return Probe(why=error.strerror or str(error) or type(error).__name__)
    with contextlib.closing(plain):
        try:
            line = context.wrap_socket(plain, server_hostname=name or host)
        except (OSError, ValueError) as error:
            return Probe(connected=True, secured=False, why=_reason(error))
        with contextlib.closing(line):
            try:
                return _asked(line, name or host)
            except (OSError, http.client.HTTPException) as error:
                return Probe(connected=True, secured=True, why=_reason(error))


def reach(address: str, roster: Roster | None, tls: Path, identity: Path, name: str) -> list[Check]:
    """A party's way to the coordinator, and the two clocks.

    Args:
        address: `host:port`.
        roster: the pinned one.
        tls: folder of the party's TLS key; where it holds none yet, one is made for this look alone.
        identity: file of the identity key, for that.
        name: the party's.
    """
    host, port = split(address)
    if roster is None:
        return [Check("coordinator", "warn", f"{address} not tried: there is no roster to know it by"), clock(None)]
    try:
        with _presentable(roster, tls, identity, name) as context:
            if context is None:
                remedy = "Set PARTBOOK_KEY_PASSPHRASE, or start the party once: it makes its certificate then."
                what = f"{address} not tried: there is no certificate yet, and the identity key is encrypted"
                return [Check("coordinator", "warn", what, remedy), clock(None)]
            found = probe(host, port, context)
    except (PartbookError, OSError) as error:
        what = f"{address} not tried: this party has no key to show ({type(error).__name__})"
        return [Check("coordinator", "warn", what, "Mend the keys first."), clock(None, "no key to show")]
    return [told(address, found), clock(found.ahead, "" if found.status else "the coordinator did not answer")]


def told(address: str, found: Probe) -> Check:
    """What an attempt means."""
    if not found.connected:
        remedy = "Check the address, the firewall (outbound, this one port), and whether the coordinator runs."
        return Check("coordinator", "fail", f"nobody takes connections at {address} ({found.why})", remedy)
    if not found.secured:
        remedy = (
            "Compare roster versions, this machine's clock, and the name in `coordinator` with `hosts` in server.toml; "
            "something between may also be breaking up TLS."
        )
        return Check("coordinator", "fail", f"{address} does not prove to be the coordinator ({found.why})", remedy)
    if found.status is None:
        remedy = "Compare roster versions with the coordinator: its front lets in whom its roster lists."
        return Check("coordinator", "fail", f"{address} does not let this party in ({found.why})", remedy)
    if found.status in (502, 503, 504):
        remedy = "Tell its operator: `partbook doctor` there says more."
        return Check("coordinator", "warn", f"{address} answers that it is not ready ({found.status})", remedy)
    return Check("coordinator", "ok", f"{address} proves to be the coordinator, and lets this party in")


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, the host without the brackets of an IPv6 address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _asked(line: ssl.SSLSocket, host: str) -> Probe:
    # Not http.client's own connection: it would open another socket.
    line.sendall(f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    answer = http.client.HTTPResponse(line, method="POST")
    answer.begin()
    said, now = answer.getheader("Date"), time.time()
    ahead = None
    with contextlib.suppress(TypeError, ValueError):
        if said is not None:
            # The header holds whole seconds: its time lies in the half second after, on average.
            ahead = now - parsedate_to_datetime(said).timestamp() - 0.5
    return Probe(connected=True, secured=True, status=answer.status, ahead=ahead)


@contextlib.contextmanager
def _presentable(roster: Roster, tls: Path, identity: Path, name: str) -> Iterator[ssl.SSLContext | None]:
    """A context with this party's leaf, or one of ten minutes where it has none or an old one; None without its key."""
    from partbook.errors import UnusableKey
    from partbook.identity.keys import IdentityKey
    from partbook.identity.passphrase import given_passphrase
    from partbook.identity.tls import client_context, issue

    with tempfile.TemporaryDirectory(prefix="partbook-doctor-") as folder:
        try:
            context = client_context(roster, tls)
        except UnusableKey:
            locked = is_encrypted(identity)
            if locked and given_passphrase() is None:
                yield None
                return
            key = IdentityKey.load(identity, given_passphrase() if locked else None)
            issue(key, name, days=10 / 1440).save(Path(folder))
            context = client_context(roster, Path(folder))
        yield context


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or "its certificate is not the coordinator's"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, TimeoutError):
        return f"no answer in {TIMEOUT:g} s"
    if isinstance(error, http.client.HTTPException):
        return "it closed the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__

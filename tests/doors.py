"""A front to knock at: real TLS with the roster's certificates, and an HTTP server that knows no path."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR
from partbook.identity.roster import Roster
from partbook.identity.tls import issue, server_context


@contextlib.contextmanager
def front(
    roster: Roster,
    key: IdentityKey,
    folder: Path,
    *,
    ahead: float = 0.0,
    status: int = 404,
    demand: bool = True,
    name: str = COORDINATOR,
) -> Iterator[int]:
    """Listen on a free port of 127.0.0.1, and answer every request; gives the port.

    `ahead` is what its clock is ahead by; without `demand` it lets in anybody; `name` is whom it says to be.
    """
    issue(key, name, hosts=("localhost", "127.0.0.1")).save(folder)
    context = server_context(roster, folder)
    if not demand:
        context.verify_mode = ssl.CERT_NONE

    class Answer(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: object, client_address: object) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(request, server_side=True) as line:  # type: ignore[arg-type]
                self.RequestHandlerClass(line, client_address, self)  # type: ignore[arg-type]

    server = Quiet(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

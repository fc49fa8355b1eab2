"""`partbook coordinator start`: which processes there are, and what is renewed while they run."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from partbook.coordinator import superlink
from partbook.coordinator.disk import replace_file
from partbook.coordinator.home import Home, missing
from partbook.coordinator.locks import only_one
from partbook.coordinator.supervisor import Service, Supervisor, refuse_taken
from partbook.errors import ConfigError, PartbookError
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR

RENEW_EVERY: Final = 3600.0  # seconds between two looks at the certificate
LEAVING: Final = 5.0  # seconds that processes of a supervisor that was killed are given to be gone

log = logging.getLogger(__name__)


class Start:
    """The coordinator's processes, from start to end."""

    def __init__(self, home: Home) -> None:
        """Check what can be checked before anything is started.

        Raises:
            ConfigError: a file is missing or does not fit, or a port is taken.
            UnsignedRoster: not everybody signed the roster.
            UnusableKey, InsecureKeyFile: the coordinator's key cannot be used.
        """
        self._home = home
        gone = missing(home)
        if gone:
            path, how = next(iter(gone.items()))
            raise ConfigError(f"{home.federation_file}: {path} is not there; it comes from: {how}.")
        self._key = IdentityKey.load(home.federation.key)
        if self._key.public != home.roster().coordinator:
            raise ConfigError(f"key: {home.federation.key} is not the coordinator's key in {home.federation.roster}.")
        self._hangup, self._looked = threading.Event(), time.monotonic()

    def run(self, stop: threading.Event, on_ready: Callable[[], None] = lambda: None) -> None:
        """Keep everything up until `stop` is set; SIGHUP has the roster and the certificate read anew.

        Raises:
            AlreadyRunning: another `start` works in this HOME.
            ConfigError: a port is taken.
            ServiceFailed: a process cannot be kept up.
        """
        home, server = self._home, self._home.server
        with (
            only_one(home.start_lock, f"runs `partbook coordinator start --home {home.folder}`"),
            contextlib.ExitStack() as stack,
        ):
            refuse_taken("127.0.0.1", server.superlink_port, "superlink_port", LEAVING)
            if server.front == "embedded":
                refuse_taken(server.host, server.port, "listen", LEAVING)
            superlink.prepare(home)
            self._certify()
            if server.metrics_port:
                from partbook.coordinator.metrics import serve_metrics

                refuse_taken("127.0.0.1", server.metrics_port, "metrics_port", LEAVING)
                stack.callback(serve_metrics(home.state, server.metrics_port).close)
            stack.enter_context(self._hung_up())
            supervisor = Supervisor(services(home), home.services)
            supervisor.run(stop, lambda: self._renew(supervisor), on_ready)

    @contextlib.contextmanager
    def _hung_up(self) -> Iterator[None]:
        before = signal.signal(signal.SIGHUP, lambda *_: self._hangup.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)

    def _renew(self, supervisor: Supervisor) -> None:
        """Look at the roster and the certificate each hour, and when told to."""
        if not self._hangup.is_set() and time.monotonic() - self._looked < RENEW_EVERY:
            return
        if self._hangup.is_set():
            log.info("the roster and the certificate are read anew")
        self._hangup.clear()
        self._looked = time.monotonic()
        try:
            self._certify()
        except (PartbookError, OSError) as error:
            # What runs goes on with what it has: a roster that is being written is no reason to end a round.
            log.error("the roster or the certificate cannot be renewed: %s: %s", type(error).__name__, error)
            return
        supervisor.signal("front", signal.SIGHUP)

    def _certify(self) -> None:
        """Write whom the front lets in, and renew its certificate where that is due."""
        from partbook.identity.tls import anchors, renewed

        home = self._home
        home.tls.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A proxy that is not ours reads the same files.
        replace_file(home.tls / "members.pem", anchors(home.roster()))
        renewed(home.tls, self._key, COORDINATOR, hosts=home.server.hosts)


def services(home: Home) -> list[Service]:
    """What `start` keeps up, in the order in which it is started."""
    environment, work = superlink.surroundings(home), home.link
    found = [
        Service(
            "superlink",
            superlink.superlink(home),
            environment,
            work,
            home.logs / "superlink.log",
            ("127.0.0.1", home.server.superlink_port),
        ),
        Service("superexec", superlink.superexec(home), environment, work, home.logs / "superexec.log"),
    ]
    if home.server.front == "embedded":
        command = [sys.executable, "-P", "-m", "partbook.cli", "coordinator", "front", "--home", str(home.folder)]
        address = (home.server.host, home.server.port)
        found.append(Service("front", command, environment, work, home.logs / "front.log", address))
    return found

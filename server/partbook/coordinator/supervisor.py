"""Processes that are kept up: started, watched, started again, and ended with the one that watches them.

Each child is in a session of its own, so a Ctrl-C at the terminal reaches the supervisor alone, which ends its children
in order. The kernel kills them when the supervisor dies in any other way (`PR_SET_PDEATHSIG`, prctl(2)): none is left
behind that holds a port or a database.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from partbook.coordinator.disk import replace_file
from partbook.errors import ConfigError, ServiceFailed

LOOK_EVERY: Final = 0.1  # seconds
READY_IN: Final = 90.0  # seconds until a child must listen
DEATHS: Final = 5  # so many in `WITHIN` seconds, and it is given up
WITHIN: Final = 120.0
SLOWEST: Final = 10.0  # seconds, the longest pause before a child is started again
TO_END: Final = 8.0  # seconds that a child is given to end by itself
LARGEST_LOG: Final = 10_000_000  # bytes; what is older is kept once, and then thrown away

_PR_SET_PDEATHSIG: Final = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A process to keep up.

    Attributes:
        name: for people.
        command: its command line.
        environment: all of it.
        folder: where it works.
        log: takes what it prints.
        address: host and port that it listens on once it is ready; None where it listens on none.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    address: tuple[str, int] | None = None


@dataclass(slots=True)
class _Child:
    service: Service
    process: subprocess.Popen[bytes] | None = None
    since: float = 0.0  # time.time
    starts: int = 0
    deaths: list[float] = field(default_factory=list)
    due: float = 0.0  # time.monotonic of the next start
    ready: bool = False


class Supervisor:
    """Keeps services up until told to stop."""

    def __init__(self, services: Sequence[Service], record: Path) -> None:
        """Nothing is started yet; `record` is a JSON file that says what runs."""
        self._children = [_Child(service) for service in services]
        self._record = record

    def run(
        self,
        stop: threading.Event,
        each: Callable[[], None] = lambda: None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the services, each when the one before it is ready, and keep them up until `stop` is set.

        Args:
            stop: ends it.
            each: called every tenth of a second.
            on_ready: called once, when all have been ready.

        Raises:
            ServiceFailed: one died too often; the message names it and its log.
        """
        try:
            for child in self._children:
                if stop.is_set():
                    break
                self._start(child)
                while not self._is_ready(child) and not stop.wait(LOOK_EVERY):
                    self._look(child)
            if not stop.is_set():
                on_ready()
            while not stop.wait(LOOK_EVERY):
                for child in self._children:
                    self._look(child)
                each()
        finally:
            self._end()

    def signal(self, name: str, number: int) -> None:
        """Send a service a signal."""
        for child in self._children:
            if child.service.name == name and child.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.send_signal(number)

    def _start(self, child: _Child) -> None:
        service, parent = child.service, os.getpid()
        _trim(service.log)
        with service.log.open("ab") as output:
            try:
                child.process = subprocess.Popen(  # noqa: S603 (our own command lines)
                    service.command,
                    env=dict(service.environment),
                    cwd=service.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=functools.partial(die_with_parent, parent),
                )
            except OSError as error:
                raise ServiceFailed(
                    f"{service.name} cannot be started ({error}); is Partbook installed whole?"
                ) from error
        child.since, child.ready = time.time(), service.address is None
        child.starts += 1
        self._write()
        log.info("%s started as process %d", service.name, child.process.pid)

    def _look(self, child: _Child) -> None:
        """Start it again if it died and its pause is over."""
        now = time.monotonic()
        if child.process is None:
            if now >= child.due:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            _trim(child.service.log)
            if not child.ready:
                if time.time() - child.since > READY_IN:
                    child.process.kill()
                self._is_ready(child)
            return
        child.process, child.ready = None, False
        child.deaths = [when for when in child.deaths if now - when < WITHIN] + [now]
        if len(child.deaths) >= DEATHS:
            raise ServiceFailed(
                f"{child.service.name} ended {DEATHS} times within {WITHIN:g} s, at last {_ending(code)}; "
                f"{child.service.log} says why: {_last_line(child.service.log)}"
            )
        pause = min(SLOWEST, 0.1 * 3 ** (len(child.deaths) - 1))
        child.due = now + pause
        self._write()
        log.warning("%s ended %s; it is started again in %.1f s", child.service.name, _ending(code), pause)

    def _is_ready(self, child: _Child) -> bool:
        if not child.ready and child.process is not None and child.service.address is not None:
            child.ready = listens(*child.service.address)
            if child.ready:
                log.info("%s is ready after %.1f s", child.service.name, time.time() - child.since)
                self._write()
        return child.ready

    def _end(self) -> None:
        # The last one first: nobody is left talking to a process that is gone.
        for child in reversed(self._children):
            self._terminate(child)
        with contextlib.suppress(OSError):
            self._record.unlink(missing_ok=True)

    def _terminate(self, child: _Child) -> None:
        process = child.process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(TO_END)
        except subprocess.TimeoutExpired:
            log.warning("%s does not end; it is killed", child.service.name)
            process.kill()
            process.wait()
        child.process = None

    def _write(self) -> None:
        services = {
            child.service.name: {
                "pid": child.process.pid if child.process is not None else None,
                "ready": child.ready,
                "starts": child.starts,
                "since": round(child.since, 1),
            }
            for child in self._children
        }
        about = {"pid": os.getpid(), "services": services}
        with contextlib.suppress(OSError):  # a full disk does not stop what runs
            replace_file(self._record, (json.dumps(about, indent=1) + "\n").encode())


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that made it ends. Linux; elsewhere nothing happens."""
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGKILL)


_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@contextlib.contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and the first Ctrl-C set; a second Ctrl-C ends the process at once."""
    event = threading.Event()

    def ask(number: int, _: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listens(host: str, port: int) -> bool:
    """Whether somebody listens there; an address that means all of them is looked for on loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (looked for, not bound)
    with contextlib.suppress(OSError), socket.create_connection((host, port), 0.5):
        return True
    return False


def refuse_taken(host: str, port: int, key: str, seconds: float = 0.0) -> None:
    """Return once a port is free to listen on; waits so long for whoever is just leaving it.

    Raises:
        ConfigError: it is not; the message names `key`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                return
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(LOOK_EVERY)
                continue
            raise ConfigError(
                f"{key}: nobody can listen on {host}:{port} ({error.strerror}); "
                "end what does, or choose another in server.toml."
            ) from error


def _trim(path: Path) -> None:
    """Put a log aside once it is large; its writer appends, and goes on at the beginning."""
    import shutil

    with contextlib.suppress(OSError):
        if path.stat().st_size > LARGEST_LOG:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)


def _ending(code: int) -> str:
    return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "(it cannot be read)"
    return lines[-1][:300] if lines else "(it is empty)"

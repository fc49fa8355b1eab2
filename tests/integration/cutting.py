"""A TCP proxy on loopback whose cable can be pulled: bytes stop, connections hang, as with a network that is gone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Cable:
    """Forwards connections to a port of this machine, until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._whole = threading.Event()
        self._whole.set()
        self._over = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where to connect to."""
        port: int = self._listener.getsockname()[1]
        return port

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """No byte passes in here; what hung breaks when the cable is whole again, as after any long cut."""
        self._whole.clear()
        try:
            yield
        finally:
            self.snap()
            self._whole.set()

    def snap(self) -> None:
        """Break every connection."""
        opened, self._open = self._open, []
        for end in opened:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Let go of everything."""
        self._over = True
        self._listener.close()
        self.snap()
        self._whole.set()

    def _accept(self) -> None:
        while not self._over:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                continue
            for end in (near, far):
                # Else the kernel holds small pieces back for up to 40 ms each, which no cable does.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._whole.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

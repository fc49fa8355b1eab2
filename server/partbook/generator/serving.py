"""A running server: the service, standard health and reflection, transport security, and a graceful end."""

from __future__ import annotations

import ipaddress
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from partbook.errors import ConfigError
from partbook.generator.release import Release, load_generator
from partbook.generator.service import SERVICE, GeneratorService
from partbook.generator.v1 import generator_pb2_grpc as stubs

LARGEST_MESSAGE: Final = 4 * 2**20  # bytes, either way
GRACE: Final = 10.0  # seconds that pieces being written are given at the end
_SPARE_THREADS: Final = 8  # so that Describe, health and refusals answer while every place is taken


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the server's certificate chain and its key."""

    certificate: Path
    key: Path


class GeneratorServer:
    """Serves a release until stopped.

    Raises (on construction):
        ConfigError: the address is taken or malformed, or a TLS file cannot be used.
        AlteredFile: the release does not load.
    """

    def __init__(self, release: Release, address: str, *, tls: TlsFiles | None = None, most_at_once: int = 2) -> None:
        host = _host(address)
        self._server = grpc.server(
            ThreadPoolExecutor(most_at_once + _SPARE_THREADS, thread_name_prefix="generator"),
            options=[
                ("grpc.max_receive_message_length", LARGEST_MESSAGE),
                ("grpc.max_send_message_length", LARGEST_MESSAGE),
                ("grpc.so_reuseport", 0),  # else a second server would silently share the port
            ],
        )
        port = _bind(self._server, address, tls)  # before the seconds that loading takes
        self.address = f"{host}:{port}"
        service = GeneratorService(release, load_generator(release), most_at_once=most_at_once)
        self._health = health.HealthServicer()
        stubs.add_GeneratorServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace: float = GRACE) -> None:
        """Take no more calls; cancel running ones after `grace` seconds; return when all is over."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace).wait()

    def serve_until_signal(self, announce: Callable[[], None]) -> None:
        """Start, announce it, and stop at SIGTERM or SIGINT; a second signal cancels running pieces."""
        asked, hurried = threading.Event(), threading.Event()

        def on_signal(number: int, frame: FrameType | None) -> None:
            (hurried if asked.is_set() else asked).set()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.start()
            announce()
            # A signal that comes just before this thread begins to wait without end would wake nobody.
            while not asked.wait(0.1):
                pass
            stopping = threading.Thread(target=self.stop)
            stopping.start()
            while stopping.is_alive():
                stopping.join(0.1)
                if hurried.is_set():
                    self._server.stop(0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def is_loopback(address: str) -> bool:
    """Whether an address can be reached from this machine only."""
    host = _host(address).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(address: str) -> str:
    host, separator, port = address.rpartition(":")
    if not (separator and host and port.isdecimal() and int(port) < 65_536):
        raise ConfigError(f"{address!r} is not an address; write host:port, such as 127.0.0.1:50051 or [::1]:0.")
    return host


def _bind(server: grpc.Server, address: str, tls: TlsFiles | None) -> int:
    try:
        if tls is None:
            return int(server.add_insecure_port(address))
        pair = (_pem(tls.key), _pem(tls.certificate))
        return int(server.add_secure_port(address, grpc.ssl_server_credentials([pair])))
    except (RuntimeError, ValueError) as error:
        cause = "is it taken?" if tls is None else "is it taken, or do the TLS certificate and key not belong together?"
        raise ConfigError(f"The server cannot listen on {address}: {cause}") from error


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The TLS file {path} cannot be read: {error.strerror}.") from error

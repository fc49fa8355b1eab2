"""What can be wrong with a coordinator's folder before anything is started, each with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from partbook.coordinator.home import Home, missing
from partbook.coordinator.locks import holder
from partbook.coordinator.supervisor import refuse_taken
from partbook.errors import ConfigError, PartbookError
from partbook.identity.keys import IdentityKey


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: was looked at.
        good: whether it is as it should be.
        text: how it is, or what to do.
    """

    what: str
    good: bool
    text: str


def findings(folder: Path) -> list[Finding]:
    """Look at everything; what cannot be looked at without an earlier thing is left out."""
    try:
        home = Home.open(folder)
    except ConfigError as error:
        return [Finding("configuration", False, str(error))]
    rounds = f"{home.federation.rounds} {home.federation.mode} rounds"
    return [Finding("configuration", True, f"{rounds}, front {home.server.front}"), *_looked_at(home)]


def _looked_at(home: Home) -> Iterator[Finding]:
    gone = missing(home)
    for path, how in gone.items():
        yield Finding(path.name, False, f"{path} is not there; it comes from: {how}.")
    if home.federation.key not in gone:
        yield _tried("key", lambda: _key(home))
    if home.federation.roster not in gone:
        yield _tried("roster", lambda: _roster(home))
        if not gone and home.federation.mode == "sealed":
            yield _tried("seal", lambda: _seal(home))
    yield _tried("state", lambda: _writable(home.state))
    started = holder(home.start_lock)
    if started is not None:
        yield Finding("ports", True, f"`start` runs as process {started}")
        return
    server = home.server
    if server.front == "embedded":
        yield _tried("listen", lambda: _free(server.host, server.port, "listen"))
    yield _tried("superlink_port", lambda: _free("127.0.0.1", server.superlink_port, "superlink_port"))
    if server.metrics_port:
        yield _tried("metrics_port", lambda: _free("127.0.0.1", server.metrics_port, "metrics_port"))


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except PartbookError as error:
        return Finding(what, False, f"{type(error).__name__}: {error}")


def _key(home: Home) -> str:
    return IdentityKey.load(home.federation.key).public.fingerprint


def _roster(home: Home) -> str:
    roster = home.roster()
    if not missing(home) and IdentityKey.load(home.federation.key).public != roster.coordinator:
        raise ConfigError(f"key: {home.federation.key} is not the coordinator's key in {home.federation.roster}.")
    if home.federation.mode == "sealed" and roster.custodian is None:
        raise ConfigError(f"mode: sealed rounds need a custodian, and {home.federation.roster} names none.")
    members = ", ".join(member.name for member in roster.members)
    return f"version {roster.version} of {roster.federation!r}, signed by all: {members}"


def _seal(home: Home) -> str:
    from partbook.sealing.parameters import SealPublic

    custodian, path = home.roster().custodian, home.federation.seal_key
    assert custodian is not None, "the roster was looked at before"
    assert path is not None, "the configuration was validated"
    return f"{custodian.name}'s, {SealPublic.read(path, custodian.seal_key).key_id[:16]}…"


def _writable(folder: Path) -> str:
    import shutil
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ConfigError(f"state: {folder} cannot be written to ({error.strerror}); change its owner.") from error
    if free < 1 << 30:
        raise ConfigError(f"state: {folder} has {free / 1e9:.1f} GB left; make room: each round keeps its checkpoint.")
    return f"{folder}, {free / 1e9:.0f} GB free"


def _free(host: str, port: int, key: str) -> str:
    refuse_taken(host, port, key)
    return f"{host}:{port} is free"

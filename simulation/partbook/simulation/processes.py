"""A whole federation as real processes on this machine: SuperLink, SuperExec, front and ServerApp, nodes, a custodian.

What runs is what a coordinator operator, label engineers and a custodian would start, by the same commands and out of
the same files; TLS with client certificates on loopback, all keys real. Only the ceremony is shortened: one hand makes
all keys (`partbook.simulation.parties`).

    folder/office/            roster and keys, as `enrol` makes them
    folder/coordinator/       the coordinator's HOME
    folder/<member>/          node.toml, state/, tls/, log
    folder/Custodian/         custodian.toml, …
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import tomli_w

from partbook.coordinator.timing import ServerTiming
from partbook.errors import ConfigError, RunFailed, ServiceFailed
from partbook.node.label import NodeConfig
from partbook.node.policy import Policy
from partbook.node.timing import PartyTiming
from partbook.plan.federation import FederationConfig
from partbook.simulation.parties import ANYTHING, Parties, enrol
from partbook.simulation.ports import lease_port
from partbook.threads import one_thread_each

COORDINATOR: Final = "coordinator"
READY: Final = 180.0  # seconds within which a process must say that it is there
_ENVIRONMENT: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


@dataclass(frozen=True, slots=True)
class Site:
    """What one label brings.

    Attributes:
        vault: its vault.
        policy: what it allows.
        base: folder of its base model.
        ledger: file that counts what its recordings spend; inside the vault, as a label has it, where None.
        journal: whether it keeps one.
        seed: for runs that can be repeated.
    """

    vault: Path
    policy: Policy = ANYTHING
    base: Path | None = None
    ledger: Path | None = None
    journal: bool = False
    seed: int | None = None


@dataclass(slots=True)
class ProcessFederation:
    """Starts, watches, kills and ends the processes of a federation; leaving the `with` ends them all.

    Attributes:
        folder: everything lies below it.
        name: of the federation.
        sites: what each label brings.
        port: of the front.
        parties: the keys.
        processes: what was started here and not yet ended, by name; the coordinator's own children are its business.
        through: port that a party connects to instead of the front's, by name: a test's proxy.
        command: what starts a node, in place of `python -m partbook.cli node start`.
        popen: what starts a process, in place of `subprocess.Popen`; for all federations of this process.
        server_timing, party_timing: `[timing]` of the coordinator, and of all parties; written where it is not the
            product's own.
    """

    popen: ClassVar[type[subprocess.Popen[bytes]]] = subprocess.Popen

    folder: Path
    name: str
    sites: Mapping[str, Site]
    port: int = 0
    parties: Parties = field(init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    through: dict[str, int] = field(default_factory=dict)
    command: dict[str, Sequence[str]] = field(default_factory=dict)
    environment: dict[str, dict[str, str]] = field(default_factory=dict)
    server_timing: ServerTiming = field(default_factory=ServerTiming)
    party_timing: PartyTiming = field(default_factory=PartyTiming)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        keys = {member: self.folder / member / "keys" for member in self.sites}
        self.parties = enrol(self.folder / "office", self.name, keys)
        self.port = self.port or lease_port()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def home(self) -> Path:
        """The coordinator's HOME."""
        return self.folder / COORDINATOR

    @property
    def state(self) -> Path:
        """The coordinator's checkpoints and status."""
        return self.home / "state"

    def configure(self, config: FederationConfig, *, attempts: int = 5, wait: float = 1.0) -> None:
        """Write every party's files. Roster, keys, seal and state of `config` are filled in here."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        config.model_copy(
            update={
                "roster": self.parties.roster,
                "key": self.parties.coordinator,
                "seal_key": self.parties.seal_key if config.mode == "sealed" else None,
                "state": self.state,
            }
        ).write(self.home / "federation.toml")
        server = {
            "listen": f"127.0.0.1:{self.port}",
            "hosts": ["localhost", "127.0.0.1"],
            "superlink_port": lease_port(),
            "metrics_port": lease_port(),
            "attempts": attempts,
            "wait": wait,
            **_table(self.server_timing),
        }
        (self.home / "server.toml").write_text(tomli_w.dumps(server))
        for member in self.sites:
            self._write_node(member)
        office = self.folder / self.parties.custodian.name
        office.mkdir(exist_ok=True, mode=0o700)
        custodian = self.parties.custodian
        self._write(
            office / "custodian.toml",
            {"name": custodian.name, "secret": str(custodian.secret), "record": str(custodian.record)},
            custodian.name,
            custodian.identity,
        )

    def node_config(self, member: str) -> NodeConfig:
        """The label's, as its process has it."""
        from partbook.node.settings import NodeSettings

        return NodeSettings.read(self.folder / member / "node.toml").node

    def start_coordinator(self) -> None:
        """Start the coordinator's processes, and wait until they listen.

        Raises:
            ServiceFailed: they do not.
        """
        process = self._start(COORDINATOR, ["coordinator", "start", "--home", str(self.home), "--json"])
        self._until(
            lambda: self._services() if self._said(COORDINATOR, b'"ready": true') else None, process, COORDINATOR
        )

    def start_node(self, member: str, *, wait: bool = True) -> None:
        """Start a label's node; `wait` until it is online."""
        arguments = ["node", "start", "--config", str(self.folder / member / "node.toml"), "--json-logs"]
        self._start_party(member, arguments, wait=wait)

    def start_custodian(self, *, wait: bool = True) -> None:
        """Start the custodian."""
        name = self.parties.custodian.name
        arguments = ["custodian", "start", "--config", str(self.folder / name / "custodian.toml"), "--json-logs"]
        self._start_party(name, arguments, wait=wait)

    def start(self, *, sealed: bool = True) -> None:
        """Start everybody: the coordinator first, then all parties at once."""
        self.start_coordinator()
        parties = [*self.sites, *([self.parties.custodian.name] if sealed else [])]
        for party in parties:
            if party in self.sites:
                self.start_node(party, wait=False)
            else:
                self.start_custodian(wait=False)
        for party in parties:
            self.await_online(party)

    def await_online(self, party: str) -> None:
        """Wait until a party's process says that it is online."""
        self._until(lambda: self._said(party, b"online at") or None, self.processes[party], party)

    def run(self, *, timeout: float = 3600.0) -> dict[str, Any]:
        """Run the rounds that are still to do; returns what `coordinator run --json` prints.

        Raises:
            RunFailed: they ended early; the message is the command's last words.
        """
        self.start_run()
        return self.finish_run(timeout=timeout)

    def start_run(self) -> None:
        """Start `coordinator run`, and do not wait."""
        self._start("run", ["coordinator", "run", "--home", str(self.home), "--json"])

    def finish_run(self, *, timeout: float = 3600.0) -> dict[str, Any]:
        """Wait for it. See `run`."""
        return self.finished("run", timeout=timeout)

    def start_release(self, out: Path, *, delta: float, name: str, sources: Sequence[str] = ()) -> None:
        """Start `coordinator release`, which makes the folder `out`; `finished("release")` waits for it."""
        arguments = ["coordinator", "release", "--home", str(self.home), "--out", str(out), "--json"]
        arguments += ["--delta", repr(delta), "--name", name]
        for source in sources:
            arguments += ["--source", source]
        self._start("release", arguments)

    def start_reference(self, out: Path) -> None:
        """Start the same rounds in one process (`partbook.simulation.reference`); `finished("reference")` waits."""
        self.command["reference"] = [sys.executable, "-m", "partbook.simulation.reference"]
        self._start("reference", ["--federation", str(self.folder), "--out", str(out.resolve())])

    def finished(self, name: str, *, timeout: float = 3600.0) -> dict[str, Any]:
        """Wait for a process that ends by itself; returns the JSON object that it printed last.

        Raises:
            RunFailed: it did not end well; the message is its last words.
        """
        process = self.processes[name]
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"`{name}` has not ended after {timeout:g} s: {self.last_words(name)}") from None
        finally:
            if process.poll() is not None:
                del self.processes[name]
        if code:
            raise RunFailed(f"`{name}` ended with {code}: {self.last_words(name)}")
        lines = [line for line in self.log(name).read_text().splitlines() if line.startswith("{")]
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def pid(self, what: str) -> int | None:
        """The process number of a party, of "coordinator" (the supervisor), or of one of its children: "superlink",
        "superexec", "front", "serverapp"; None where it does not run."""
        if what in self.processes:
            return self.processes[what].pid
        if what == "serverapp":
            from partbook.coordinator.locks import is_taken

            lock = self.home / "link" / "serverapp.lock"
            return int(lock.read_text().strip() or 0) or None if lock.exists() and is_taken(lock) else None
        services = self._services() or {}
        found = services.get(what, {}).get("pid")
        return int(found) if found else None

    def kill(self, what: str) -> None:
        """`kill -9`."""
        process = self.pid(what)
        if process is None:
            raise ConfigError(f"{what} does not run, so it cannot be killed.")
        os.kill(process, signal.SIGKILL)
        if what in self.processes:
            self.processes.pop(what).wait()

    def stop(self, what: str, *, timeout: float = 120.0) -> int:
        """End a process in good order; returns its exit code."""
        process = self.processes.pop(what)
        process.terminate()
        return process.wait(timeout)

    def end(self) -> None:
        """End everything, gently if it goes. Another Ctrl-C meanwhile does not leave processes behind."""
        with _uninterrupted():
            self._end()

    def _end(self) -> None:
        parties = [name for name in self.processes if name != COORDINATOR]
        for name in parties:
            self.processes[name].terminate()
        for name in [*parties, COORDINATOR]:
            process = self.processes.pop(name, None)
            if process is None:
                continue
            if name == COORDINATOR:
                process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def status(self) -> dict[str, Any]:
        """`state/status.json`, or nothing."""
        try:
            found: dict[str, Any] = json.loads((self.state / "status.json").read_text())
            return found
        except (OSError, ValueError):
            return {}

    def rounds_done(self) -> int:
        """How many rounds are finished and kept."""
        try:
            return len(json.loads((self.state / "state.json").read_text())["history"]) - 1
        except (OSError, ValueError):
            return 0

    def until(self, what: str, happened: Callable[[], bool], *, timeout: float = 300.0) -> None:
        """Wait for something.

        Raises:
            RunFailed: it did not happen.
        """
        deadline = time.monotonic() + timeout
        while not happened():
            if time.monotonic() > deadline:
                raise RunFailed(f"It did not happen in {timeout:g} s that {what}. {self.last_words(*self.processes)}")
            time.sleep(0.05)

    def log(self, name: str) -> Path:
        """What a process printed."""
        return self.folder / "logs" / f"{name}.log"

    def last_words(self, *names: str) -> str:
        """The end of what processes printed."""
        found = []
        for name in names:
            if self.log(name).exists():
                found.append(f"{name}: {self.log(name).read_text(errors='replace')[-800:]}")
        return "\n".join(found)

    def _start_party(self, party: str, arguments: Sequence[str], *, wait: bool) -> None:
        self._start(party, arguments)
        if wait:
            self.await_online(party)

    def _start(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        if name in self.processes:
            raise ConfigError(f"{name} was started already.")
        path = self.log(name)
        path.parent.mkdir(exist_ok=True)
        command = [*(self.command.get(name) or [sys.executable, "-m", "partbook.cli"]), *arguments]
        environment = {**os.environ, **_ENVIRONMENT, **one_thread_each(), **self.environment.get(name, {})}
        with path.open("wb") as log:
            self.processes[name] = self.popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        return self.processes[name]

    def _until(self, happened: Callable[[], object | None], process: subprocess.Popen[bytes], name: str) -> None:
        deadline = time.monotonic() + READY
        while happened() is None:
            if process.poll() is not None or time.monotonic() > deadline:
                state = "ended" if process.poll() is not None else f"is not ready after {READY:g} s"
                raise ServiceFailed(f"{name} {state}: {self.last_words(name)}")
            time.sleep(0.05)

    def _said(self, name: str, words: bytes) -> bool | None:
        return words in self.log(name).read_bytes() or None

    def _services(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.home / "link" / "services.json").read_text())["services"]
            return found
        except (OSError, ValueError, KeyError):
            return None

    def _write_node(self, member: str) -> None:
        site, folder = self.sites[member], self.folder / member
        (folder / "state").mkdir(parents=True, exist_ok=True, mode=0o700)
        policy = folder / "policy.toml"
        if not policy.exists():
            site.policy.write(policy)
        keys = self.parties.folders[member]
        values: dict[str, Any] = {
            "member": member,
            "vault": str(site.vault.resolve()),
            "receiving": str(keys / "receiving.pem"),
            "seal_key": str(self.parties.seal_key),
            "policy": str(policy),
        }
        if site.base is not None:
            values["base"] = str(site.base)
        if site.ledger is not None:
            values["ledger"] = str(site.ledger.resolve())
        if site.journal:
            values["journal"] = str(folder / "journal.jsonl")
        if site.seed is not None:
            values["seed"] = site.seed
        self._write(folder / "node.toml", values, member, keys / "identity.pem")

    def _write(self, path: Path, values: Mapping[str, Any], party: str, identity: Path) -> None:
        common = {
            "coordinator": f"localhost:{self.through.get(party, self.port)}",
            "roster": str(self.parties.roster),
            "identity": str(identity),
            "state": str(path.parent / "state"),
            "tls": str(path.parent / "tls"),
        }
        path.write_text(tomli_w.dumps({**values, **common, **_table(self.party_timing)}))


def _table(timing: ServerTiming | PartyTiming) -> dict[str, dict[str, float]]:
    changed = timing.model_dump(exclude_defaults=True)
    return {"timing": changed} if changed else {}


@contextmanager
def _uninterrupted() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def memory_of(process: int) -> dict[str, int]:
    """Resident bytes of a process, now and at most (`VmRSS`, `VmHWM` of /proc)."""
    found = {}
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(rest.split()[0]) * 1024
    return found


def same_adapters(folders: Iterable[Path]) -> bool:
    """Whether the adapters in coordinators' state folders are the same, bit for bit."""
    from safetensors.numpy import load_file

    first, *others = [load_file(folder / "adapter.safetensors") for folder in folders]
    return all(
        first.keys() == other.keys() and all(first[name].tobytes() == other[name].tobytes() for name in first)
        for other in others
    )

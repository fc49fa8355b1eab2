"""Is the coordinator's machine fit, and are its doors where they should be? Nothing is changed."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from partbook import doctor
from partbook.coordinator.home import Home, missing
from partbook.doctor import Check, attempt
from partbook.identity.message import COORDINATOR
from partbook.probing import Probe, probe

if TYPE_CHECKING:
    from partbook.identity.roster import Roster

EXTRA: Final = "coordinator"
_NEEDED: Final = (
    *("flwr", "torch", "tenseal", "cryptography"),
    *("httpx", "uvicorn", "prometheus-client", "tensorboardX"),
)
_LISTENS: Final = "0A"  # proc_net_tcp: TCP_LISTEN


def examine(path: Path) -> list[Check]:
    """Every check of the coordinator whose HOME this is.

    Raises:
        ConfigError: `federation.toml` or `server.toml` is missing, or a key in it is wrong.
    """
    home = Home.open(path)
    start = f"partbook coordinator start --home {home.folder}"
    paper, roster = doctor.roster(home.federation.roster)
    checks = [*doctor.versions(_NEEDED, EXTRA), *doctor.environment(os.environ, outbound=False)]
    checks += [doctor.disk("disk of the state", home.state), doctor.disk("disk of the link", home.link)]
    checks += [_papers(home), *_keys(home), paper, doctor.identity(home.federation.key, COORDINATOR, roster)]
    if home.federation.seal_key is not None and home.federation.mode == "sealed":
        checks.append(_seal(home.federation.seal_key, roster))
    checks += [_base(home), _process(home, start), *_doors(home)]
    if home.server.front == "embedded":
        checks.append(doctor.certificate(home.tls, COORDINATOR, roster, start))
    return [*checks, _front(home, roster, start)]


def loopback_only(name: str, port: int, listeners: Sequence[tuple[str, int]] | None) -> Check:
    """Whether whoever listens at a port can be reached from this machine alone.

    Args:
        name: of the service.
        port: its.
        listeners: (address, port) of everything on this machine that listens; None where that is not known.
    """
    if listeners is None:
        remedy = f"See for yourself: ss -ltn 'sport = :{port}' must show 127.0.0.1 alone."
        return Check(name, "warn", f"this system does not say who listens at port {port}", remedy)
    addresses = sorted({address for address, found in listeners if found == port})
    outside = [address for address in addresses if not address.startswith("127.") and address != "::1"]
    if outside:
        remedy = "Stop it: whoever reaches that port can start runs and play the coordinator."
        return Check(name, "fail", f"port {port} listens on {', '.join(outside)}, beyond this machine", remedy)
    if not addresses:
        return Check(name, "ok", f"nothing listens at port {port} now")
    return Check(name, "ok", f"port {port} on {', '.join(addresses)} alone")


def listening(tables: Sequence[Path] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))) -> list[tuple[str, int]] | None:
    """Addresses and ports that anything on this machine listens at, by the kernel's tables; None without these."""
    found: list[tuple[str, int]] = []
    read = False
    for table in tables:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        read = True
        for line in lines:
            local, state = line.split()[1], line.split()[3]
            if state == _LISTENS:
                address, _, port = local.partition(":")
                found.append((_address(address), int(port, 16)))
    return found if read else None


def shut(answer: Probe, where: str, start: str) -> Check:
    """What came of knocking at the front as the right coordinator's guest, but without a certificate."""
    if not answer.connected:
        return Check("front", "warn", f"nothing listens at {where} ({answer.why})", f"Start it: {start}")
    if not answer.secured:
        remedy = "Let `hosts` name what nodes call this machine; with a proxy, give it this HOME's tls/ files."
        return Check("front", "fail", f"{where} does not prove to be this coordinator ({answer.why})", remedy)
    if answer.status is not None and answer.status not in (400, 401, 403, 495, 496):
        remedy = "Have the proxy demand client certificates (deploy/proxy/), or use the embedded front."
        return Check("front", "fail", f"{where} answers {answer.status} to somebody without a certificate", remedy)
    return Check("front", "ok", f"{where} proves to be this coordinator, and turns away who shows no certificate")


def _papers(home: Home) -> Check:
    gone = missing(home)
    if not gone:
        return Check("home", "ok", f"{home.folder}, {home.federation.mode} rounds, {home.federation.rounds} in all")
    path, how = next(iter(gone.items()))
    return Check("home", "fail", f"{', '.join(str(each) for each in gone)} missing", f"{path.name} comes from: {how}")


def _keys(home: Home) -> list[Check]:
    made = f"partbook keys new coordinator --out '{home.federation.key.parent}'"
    found = [doctor.secret_file("identity key", home.federation.key, f"Make it on this machine: {made}")]
    secret = home.link / "superexec.secret"
    if secret.exists():
        found.append(doctor.secret_file("superexec secret", secret, ""))
    return found


def _seal(path: Path, roster: Roster | None) -> Check:
    from partbook.sealing.parameters import SealPublic

    custodian = None if roster is None else roster.custodian

    def look() -> Check | str:
        if roster is not None and custodian is None:
            remedy = "Set mode to 'masked', or take a custodian into the roster."
            return Check("seal key", "fail", "rounds are sealed, and the roster names no custodian", remedy)
        SealPublic.read(path, None if custodian is None else custodian.seal_key)
        return "the custodian's, as the roster lists it" if custodian else "readable; no roster to compare it with"

    return attempt("seal key", look, "Ask the custodian for its public file.")


def _base(home: Home) -> Check:
    from partbook.model.checkpoint import BASE, base_manifest

    def look() -> str:
        digest: str = base_manifest(home.federation.base or BASE)["files"]["model.safetensors"]
        return f"whole, {digest[:12]}…"

    return attempt("base model", look, "Install Partbook again, or restore the folder that `base` names.")


def _process(home: Home, start: str) -> Check:
    from partbook.coordinator.showing import processes

    found = processes(home)
    if not found["started"]:
        return Check("processes", "ok", f"not started; start them with: {start}")
    down = sorted(name for name, about in found["services"].items() if not about.get("ready"))
    if down:
        return Check("processes", "warn", f"{', '.join(down)} not ready", f"See {home.logs} if that lasts.")
    return Check("processes", "ok", f"{', '.join(sorted(found['services']))} up, by process {found['pid']}")


def _doors(home: Home) -> list[Check]:
    found = listening()
    doors = [loopback_only("superlink", home.server.superlink_port, found)]
    if home.server.metrics_port:
        doors.append(loopback_only("metrics", home.server.metrics_port, found))
    return doors


def _front(home: Home, roster: Roster | None, start: str) -> Check:
    from partbook.identity.tls import anchor

    if roster is None:
        return Check("front", "warn", "not tried: there is no roster to know it by")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=anchor(COORDINATOR, roster.coordinator).decode())
    host = home.server.host
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (what everything listens on, not ours)
    answer = probe(here, home.server.port, context, name=home.server.hosts[0])
    return shut(answer, f"{here}:{home.server.port}", start)


def _address(text: str) -> str:
    """An address of /proc/net/tcp: words of 32 bits in the machine's own order."""
    import sys

    words = [int(text[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(text), 8)]
    raw = b"".join(words)
    if len(raw) == 16 and raw.startswith(b"\x00" * 10 + b"\xff\xff"):
        raw = raw[12:]
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)

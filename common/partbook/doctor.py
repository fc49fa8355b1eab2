"""Is this machine fit for its part? Each check says what it found, and what to do where that is not right.

A `Check` is a value; most checks are pure functions from what was found to a verdict, with a thin edge that looks.
Nothing here changes anything on the machine, and nothing secret is in a check's text.

    ok      as it should be
    warn    works, but somebody should know; or could not be found out
    fail    will not work, or is not safe

The roles put their own together: `partbook.node.doctor`, `partbook.custodian.doctor`, `partbook.coordinator.doctor`.
How the coordinator is reached is in `partbook.probing`.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from partbook.errors import PartbookError

if TYPE_CHECKING:
    from partbook.identity.roster import Roster

Verdict = Literal["ok", "warn", "fail"]
WORST: Final[tuple[Verdict, ...]] = ("fail", "warn", "ok")

PINNED: Final[dict[str, str | None]] = {"flwr": "1.41.0", "torch": "2.13.0", "tenseal": "0.3.18"}
LEAST_PYTHON: Final = (3, 11)
LITTLE_DISK: Final = 2_000_000_000  # bytes under which somebody should know
NO_DISK: Final = 200_000_000  # bytes under which a round may not be kept
APART: Final = 300  # seconds between clocks at which nodes refuse: `partbook.plan.greeting.CLOCKS_APART`
NOTICED: Final = 30  # seconds at which somebody should know
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CODE: Final = ("PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH")
_ON: Final = {"FLWR_TELEMETRY_ENABLED": ("1", "true", "yes", "on")}


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found.

    Attributes:
        name: of what was looked at, a few words.
        verdict: `ok`, `warn` or `fail`.
        what: what was found, one sentence.
        remedy: what to do; empty where all is well.
    """

    name: str
    verdict: Verdict
    what: str
    remedy: str = ""

    def about(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """The worst of them; `ok` where there are none."""
    found = {check.verdict for check in checks}
    return next((verdict for verdict in WORST if verdict in found), "ok")


def attempt(name: str, work: Callable[[], Check | str], remedy: str = "") -> Check:
    """A check of something that raises where it is not right; its text is the finding where it returns one.

    Args:
        name: the check's.
        work: looks; a returned text means that all is well.
        remedy: what to do where it raises; the error's own message says so too.
    """
    try:
        found = work()
    except PartbookError as error:
        return Check(name, "fail", f"{type(error).__name__}: {error}", remedy)
    except OSError as error:
        what = f"{error.filename or name} cannot be used: {error.strerror or error}."
        return Check(name, "fail", what, remedy or "Run this as the user that runs the party.")
    except ImportError as error:
        return Check(name, "fail", f"The package {error.name!r} is missing or broken.", _install())
    return found if isinstance(found, Check) else Check(name, "ok", found)


# ---------------------------------------------------------------------- software


def versions(needed: Sequence[str], extra: str) -> list[Check]:
    """Python, Partbook, and the packages a role needs, held against what Partbook was tested with.

    Args:
        needed: distributions.
        extra: of `partbook`, that brings them.
    """
    found = {name: _version(name) for name in ("partbook", *needed)}
    return [python(sys.version_info[:3]), *(package(name, version, extra) for name, version in found.items())]


def python(version: tuple[int, ...]) -> Check:
    """The interpreter."""
    text = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if version[:2] < LEAST_PYTHON:
        return Check("python", "fail", text, f"Install Python {'.'.join(map(str, LEAST_PYTHON))} or later.")
    return Check("python", "ok", text)


def package(name: str, version: str | None, extra: str) -> Check:
    """One installed distribution; None for a missing one."""
    if version is None:
        return Check(name, "fail", "not installed", _install(extra))
    pinned = PINNED.get(name)
    # A build for one device calls itself 2.13.0+cpu, and is that version.
    if pinned is not None and version.partition("+")[0] != pinned:
        return Check(name, "fail", f"{version}, and {pinned} is needed", f"pip install '{name}=={pinned}'")
    return Check(name, "ok", version)


def environment(variables: Mapping[str, str], *, outbound: bool = True) -> list[Check]:
    """What the environment may do behind one's back; `outbound` where this machine connects to the coordinator."""
    proxies = sorted(name for name in variables if outbound and name.upper() in _PROXIES and variables[name])
    code = sorted(name for name in _CODE if variables.get(name))
    on = sorted(name for name, values in _ON.items() if variables.get(name, "").strip().lower() in values)
    found = []
    if proxies:
        found.append(
            Check(
                "proxy",
                "warn",
                f"{', '.join(proxies)} set; parties pass no proxy and connect to the coordinator directly",
                "Let this machine reach the coordinator's port, or have the network route it.",
            )
        )
    if code:
        found.append(
            Check(
                "code path",
                "warn",
                f"{', '.join(code)} set: code from there runs in place of what was installed",
                f"Unset {'it' if len(code) == 1 else 'them'} for the process that takes part.",
            )
        )
    if on:
        found.append(
            Check(
                "telemetry", "warn", f"{', '.join(on)} switched on", f"Unset {on[0]}; Partbook sends nobody anything."
            )
        )
    return found or [Check("environment", "ok", "no proxy, no foreign code path, no telemetry")]


# ---------------------------------------------------------------------- machine


def disk(name: str, folder: Path, *, need: int = 0) -> Check:
    """Room where something is kept.

    Args:
        name: what lies there.
        folder: need not exist yet.
        need: bytes that will be wanted beyond the least.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        usage = shutil.disk_usage(there)
    except OSError as error:
        return Check(name, "fail", f"{there} cannot be looked at: {error.strerror}", "Mount the disk.")
    if not os.access(there, os.W_OK):
        return Check(name, "fail", f"{there} cannot be written in", "Give it to the user that runs the party.")
    return room(name, usage.free, str(folder), need)


def room(name: str, free: int, where: str, need: int = 0) -> Check:
    """So many free bytes."""
    text = f"{_size(free)} free for {where}"
    if free < NO_DISK + need:
        return Check(
            name, "fail", text, f"Free {_size(NO_DISK + need)} at least: a full disk stops the round it is in."
        )
    if free < LITTLE_DISK + need:
        return Check(name, "warn", text, "Make room before it is full; a full disk stops the round it is in.")
    return Check(name, "ok", text)


def gpu(devices: Sequence[str] | None = None) -> Check:
    """What trains: each GPU with its memory, or this machine's processors, with what they do."""
    try:
        import torch
    except ImportError:
        return Check("gpu", "fail", "torch is not installed", _install("node"))
    if not torch.cuda.is_available():
        wanted = [name for name in devices or () if name.startswith("cuda")]
        return processors(os.cpu_count() or 1, torch.get_num_threads(), _memory(), _speed(torch), wanted)
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append((torch.cuda.get_device_name(index), free, total))
    return graphics(found, devices)


def graphics(found: Sequence[tuple[str, int, int]], devices: Sequence[str] | None = None) -> Check:
    """GPUs, as (name, free bytes, all bytes), against those the configuration names."""
    text = "; ".join(
        f"cuda:{i} {name}, {_size(free)} of {_size(total)} free" for i, (name, free, total) in enumerate(found)
    )
    unknown = [
        name for name in devices or () if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= len(found)
    ]
    if unknown:
        return Check("gpu", "fail", f"{', '.join(unknown)} named, and there is {text}", "Name others under `devices`.")
    if any(free < LITTLE_DISK for _, free, _ in found):
        return Check("gpu", "warn", text, "Something else holds its memory; see nvidia-smi.")
    return Check("gpu", "ok", text)


def processors(cores: int, threads: int, memory: int | None, gigaflops: float, wanted: Sequence[str] = ()) -> Check:
    """A machine without GPU."""
    room_ = "" if memory is None else f", {_size(memory)} of memory"
    text = f"no GPU: trains on {threads} of {cores} cores at {gigaflops:.0f} Gflop/s{room_}"
    if wanted:
        return Check("gpu", "fail", f"{', '.join(wanted)} named, and {text}", "Install the driver, or mend `devices`.")
    remedy = "The shipped base model trains on that, slowly; a larger one needs a GPU."
    return Check("gpu", "warn", text, remedy)


def clock(ahead: float | None, why: str = "") -> Check:
    """This machine's clock against the coordinator's.

    Args:
        ahead: seconds; None where it is not known.
        why: why not.
    """
    if ahead is None:
        remedy = "Keep it right by NTP (`timedatectl`); compare again once the coordinator answers."
        return Check("clock", "warn", f"not known: {why or 'the coordinator did not say its time'}", remedy)
    way = "ahead of" if ahead > 0 else "behind"
    text = f"{abs(ahead):.0f} s {way} the coordinator's" if abs(ahead) >= 1.5 else "agrees with the coordinator's"
    if abs(ahead) > APART:
        return Check("clock", "fail", text, "Set it by NTP on both machines: over 300 s apart, rounds are refused.")
    if abs(ahead) > NOTICED:
        return Check("clock", "warn", text, "Set it by NTP (`timedatectl set-ntp true`) on both machines.")
    return Check("clock", "ok", text)


# ---------------------------------------------------------------------- keys and papers


def secret_file(name: str, path: Path, remedy: str) -> Check:
    """A file that its owner alone may read.

    Args:
        name: the check's.
        path: the file.
        remedy: how it comes to be, where it is missing.
    """
    try:
        about, folder = path.stat(), path.parent.stat()
    except FileNotFoundError:
        return Check(name, "fail", f"{path} is missing", remedy)
    except OSError as error:
        return Check(name, "fail", f"{path}: {error.strerror}", "Run this as the user that runs the party.")
    return permissions(name, path, about, folder, os.geteuid())


def permissions(name: str, path: Path, about: os.stat_result, folder: os.stat_result, user: int) -> Check:
    """What `stat` says of a secret file and its folder, to the user who looks."""
    mode = stat.S_IMODE(about.st_mode)
    if not stat.S_ISREG(about.st_mode):
        return Check(name, "fail", f"{path} is no plain file", "Name the key's own file.")
    if mode & 0o077:
        remedy = f"chmod 600 '{path}'; make a new one if anybody could have copied it."
        return Check(name, "fail", f"{path} has mode {mode:04o}: others may use it", remedy)
    if folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX:
        remedy = f"chmod go-w '{path.parent}'"
        return Check(name, "fail", f"others may put another file in its place in {path.parent}", remedy)
    if about.st_uid != user:
        remedy = "Run this, and the party, as the user who owns the key."
        return Check(name, "warn", f"{path} belongs to user {about.st_uid}, and this is user {user}", remedy)
    return Check(name, "ok", f"{path.name}, its owner's alone")


def certificate(folder: Path, name: str, roster: Roster | None, restart: str) -> Check:
    """The TLS certificate of this party in `folder`; `restart` is the command that makes a new one."""
    from partbook.identity.tls import Leaf, party_of

    def look() -> Check:
        if not any(folder.glob("*.cert.pem")):
            return Check("certificate", "ok", f"none in {folder} yet; it is made at the first start")
        leaf = Leaf.load(folder)
        if roster is not None:
            import ssl

            owner = party_of(ssl.PEM_cert_to_DER_cert(leaf.certificate.decode("ascii")), roster)
            if owner != name:
                return Check(
                    "certificate", "fail", f"it is {owner}'s, and this is {name}", f"Remove {folder}; {restart}."
                )
        return lifetime(leaf.begins, leaf.expires, datetime.now(UTC), restart)

    return attempt("certificate", look, f"Remove {folder} and {restart}: it is made anew.")


def lifetime(begins: datetime, expires: datetime, now: datetime, restart: str) -> Check:
    """How long a certificate lasts. A process that runs renews it with a third of its life left."""
    until = f"good until {expires:%d %B %Y, %H:%M} UTC"
    if now < begins:
        return Check(
            "certificate", "fail", f"valid from {begins:%d %B %Y, %H:%M} UTC on only", "Set this machine's clock."
        )
    if now >= expires:
        return Check(
            "certificate", "fail", f"over since {expires:%d %B %Y, %H:%M} UTC", f"Run {restart}: it renews it."
        )
    if expires - now < max((expires - begins) / 3 - timedelta(days=1), timedelta()):
        return Check("certificate", "warn", f"{until}, and should have been renewed", f"Run {restart}: it renews it.")
    return Check("certificate", "ok", until)


def roster(path: Path) -> tuple[Check, Roster | None]:
    """The pinned roster, signed by everybody in it."""
    from partbook.identity.roster import Roster

    found: list[Roster] = []

    def look() -> str:
        found.append(Roster.read(path))
        parties = len(found[0].parties)
        return f"{found[0].federation}, version {found[0].version}, signed by all {parties} parties"

    check = attempt("roster", look, "Ask the coordinator for the signed roster, and compare its fingerprint by voice.")
    return check, found[0] if found else None


def identity(path: Path, name: str, listed: Roster | None) -> Check:
    """Whether the identity key is the one that the roster lists for this party."""
    from partbook.errors import InsecureKeyFile
    from partbook.identity.keys import IdentityKey
    from partbook.identity.passphrase import given_passphrase

    def look() -> Check | str:
        if listed is None:
            return Check("identity", "warn", "not compared: there is no roster to compare with")
        expected = listed.identity_of(name)
        try:
            locked = is_encrypted(path)
            if locked and given_passphrase() is None:
                remedy = "Set PARTBOOK_KEY_PASSPHRASE to have it compared."
                return Check("identity", "warn", f"{path} is encrypted; it was not opened", remedy)
            key = IdentityKey.load(path, given_passphrase() if locked else None)
        except (OSError, InsecureKeyFile):
            return Check("identity", "warn", "not compared: the key's file has to be mended first")
        if key.public != expected:
            remedy = "Name the right key file, or the roster that lists this one."
            return Check("identity", "fail", f"the roster lists another key for {name!r} than {path}", remedy)
        return f"the key that the roster lists for {name!r}"

    return attempt("identity", look)


def is_encrypted(path: Path) -> bool:
    """Whether a PEM key wants a passphrase.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return b"ENCRYPTED" in file.read(64)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _install(extra: str = "node") -> str:
    return f"pip install 'partbook[{extra}]'"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _speed(torch: Any) -> float:
    """Billions of floating-point operations a second of this machine's matrix product, in a fifth of a second."""
    import time

    side = 384
    a, b = torch.ones(side, side), torch.ones(side, side)
    a @ b
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() - began < 0.2:
        a @ b
        rounds += 1
    return float(rounds * 2 * side**3 / (time.perf_counter() - began) / 1e9)

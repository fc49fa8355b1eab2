"""The systemd units, as systemd itself reads them, and as hard as they claim to be."""

import ctypes
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import DEPLOY, parse

from partbook.custodian.settings import CustodianSettings
from partbook.node.settings import NodeSettings

FOLDER = DEPLOY / "systemd"
UNITS = sorted(path.stem for path in FOLDER.glob("*.service"))
DROP_INS = sorted(FOLDER.glob("*.service.d/*.conf"))
# What `systemd-analyze security` (252) says at most, of 10: lower is safer, and 9.2 is a unit that says nothing.
EXPOSURE = {"partbook-node": 1.6, "partbook-custodian": 1.2, "partbook-coordinator": 1.3, "partbook-rounds": 1.1}
NOT_WRITABLE_AND_EXECUTABLE = 65  # PR_SET_MDWE: what MemoryDenyWriteExecute= asks of the kernel


def read(path: Path) -> dict[str, dict[str, list[str]]]:
    """Sections of keys, each with all its values in order."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match.group(1)
            found[section] = {}
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, f"{path.name}: {line}"
            found[section].setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def as_installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units with a program that is here, since systemd wants to find it."""
    folder = tmp_path_factory.mktemp("units")
    for name in UNITS:
        text = (FOLDER / f"{name}.service").read_text()
        (folder / f"{name}.service").write_text(text.replace("/opt/partbook/bin/partbook", sys.executable))
    for path in DROP_INS:
        (folder / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    return folder


def test_there_is_a_unit_for_every_process() -> None:
    assert set(UNITS) == set(EXPOSURE)


@pytest.mark.parametrize("name", UNITS)
def test_it_starts_the_installed_command_which_exists(name: str) -> None:
    (line,) = read(FOLDER / f"{name}.service")["Service"]["ExecStart"]
    program, *words = shlex.split(line)
    assert program == "/opt/partbook/bin/partbook"
    parse(words)
    assert "prefix=${1:-/opt/partbook}" in (DEPLOY / "install.sh").read_text()


@pytest.mark.parametrize("name", UNITS)
def test_its_account_and_its_folders_are_made(name: str) -> None:
    service = read(FOLDER / f"{name}.service")["Service"]
    made = re.findall(r"^u (\S+) ", (FOLDER / "partbook.sysusers.conf").read_text(), re.MULTILINE)
    assert service["User"] == service["Group"] == made
    assert service["StateDirectory"] == service["CacheDirectory"] == ["partbook"]
    environment = dict(word.split("=", 1) for line in service["Environment"] for word in line.split())
    assert environment["HOME"] == service["WorkingDirectory"][0] == "/var/lib/partbook"
    assert environment["NUMBA_CACHE_DIR"].startswith("%C/partbook/")


@pytest.mark.parametrize("name", UNITS)
def test_units_keep_to_themselves(name: str) -> None:
    service = read(FOLDER / f"{name}.service")["Service"]
    for key in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "RestrictNamespaces", "ProtectKernelTunables"):
        assert service[key] == ["yes"], key
    assert service["ProtectSystem"] == ["strict"]
    assert service["CapabilityBoundingSet"] == [""]
    assert service["UMask"] == ["0077"]
    assert "@system-service" in service["SystemCallFilter"]
    assert set(service["RestrictAddressFamilies"][0].split()) <= {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"}
    assert service["Restart"] == ["on-failure"]


def test_only_the_node_sees_devices_and_those_are_graphics_cards() -> None:
    for name in UNITS:
        service = read(FOLDER / f"{name}.service")["Service"]
        assert service["DevicePolicy"] == ["closed"]
        if name == "partbook-node":
            assert service["DeviceAllow"] == ["char-nvidia* rw"]
        else:
            assert service["PrivateDevices"] == ["yes"]


def test_rounds_are_not_begun_again_after_an_error_that_a_person_must_mend() -> None:
    service = read(FOLDER / "partbook-rounds.service")
    assert service["Service"]["RestartPreventExitStatus"] == ["2"]
    assert service["Unit"]["Requires"] == ["partbook-coordinator.service"]


@pytest.mark.parametrize("path", DROP_INS, ids=lambda path: path.parent.name)
def test_a_party_is_let_out_to_one_host(path: Path) -> None:
    service = read(path)["Service"]
    assert service["IPAddressDeny"] == ["any"]
    assert service["IPAddressAllow"] == ["192.0.2.10", "localhost"], "an address that is nobody's, to be replaced"
    assert (FOLDER / path.parent.name.removesuffix(".d")).exists()


@pytest.mark.parametrize("name", UNITS)
def test_the_configuration_that_is_shipped_lets_it_write_only_where_it_may(name: str) -> None:
    config = DEPLOY / "config"
    writes = {
        "partbook-node": lambda: NodeSettings.read(config / "node.toml"),
        "partbook-custodian": lambda: CustodianSettings.read(config / "custodian.toml"),
    }.get(name)
    if writes is not None:
        settings = writes()
        for path in (settings.state, settings.tls, getattr(settings, "record", settings.state)):
            assert path.is_relative_to("/var/lib/partbook")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_reads_it_without_a_complaint(name: str, as_installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", f"{as_installed}/{name}.service"],
        env={"SYSTEMD_UNIT_PATH": f"{as_installed}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert name not in done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_it_is_as_closed_as_the_page_says(name: str, as_installed: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"{as_installed}/{name}.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found.group(1)) <= EXPOSURE[name]
    page = (DEPLOY.parent / "docs" / "deploy.md").read_text()
    assert re.search(rf"`{name}.service`.*\b{EXPOSURE[name]}\b", page)


def without_writable_code(program: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in a process whose memory is never both written to and executed."""
    head = "import ctypes\n" + (f"assert ctypes.CDLL(None).prctl({NOT_WRITABLE_AND_EXECUTABLE}, 1, 0, 0, 0) == 0\n")
    return subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True, check=False)


def kernel_has_it() -> bool:
    return ctypes.CDLL(None).prctl(NOT_WRITABLE_AND_EXECUTABLE + 1, 0, 0, 0, 0) >= 0


def test_writable_code_is_denied_just_where_nothing_needs_it() -> None:
    denied = {n: "MemoryDenyWriteExecute" in read(FOLDER / f"{n}.service")["Service"] for n in UNITS}
    assert denied == {
        "partbook-custodian": True,
        "partbook-node": False,
        "partbook-coordinator": False,
        "partbook-rounds": False,
    }
    if not kernel_has_it():
        return  # before Linux 6.3 it cannot be asked for from here
    opening = without_writable_code(
        "from partbook.custodian import app, opening\n"
        "import tenseal as ts\n"
        "context = ts.context(ts.SCHEME_TYPE.BFV, 4096, 1032193)\n"
        "assert ts.bfv_vector(context, [1, 2]).decrypt() == [1, 2]"
    )
    assert opening.returncode == 0, opening.stderr
    compiling = without_writable_code("import numba\nnumba.njit(lambda x: x + 1)(1)")
    assert "executable memory" in compiling.stderr

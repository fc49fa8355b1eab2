"""The coordinator's machine, looked at: its papers, its doors, and its front from outside."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from doors import front
from trio import Trio

from partbook.coordinator.doctor import examine, listening, loopback_only, shut
from partbook.coordinator.home import init
from partbook.doctor import Check
from partbook.probing import Probe
from partbook.simulation.ports import lease_port


def settle(trio: Trio, home: Path, port: int = 1) -> Path:
    """A HOME with the trio's papers, and ports that nobody uses."""
    (home / "keys").mkdir(parents=True, mode=0o700)
    shutil.copy(trio.parties.coordinator, home / "keys" / "coordinator.pem")
    shutil.copy(trio.parties.roster, home / "roster.toml")
    shutil.copy(trio.parties.seal_key, home / "Custodian.seal.public")
    init(home, roster=home / "roster.toml", key=home / "keys" / "coordinator.pem", listen=f"127.0.0.1:{port}")
    text = (home / "server.toml").read_text()
    for name in ("superlink_port = 9444", "metrics_port = 9445"):
        assert name in text
        text = text.replace(name, f"{name.split()[0]} = {lease_port()}")
    (home / "server.toml").write_text(text)
    return home


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def test_a_machine_that_is_fit_has_nothing_to_mend(trio: Trio, tmp_path: Path) -> None:
    with front(trio.roster, trio.key, tmp_path / "front") as port:
        home = settle(trio, tmp_path / "home", port)
        before = sorted(home.glob("**/*"))
        found = by_name(examine(home))
    assert {name: check.what for name, check in found.items() if check.verdict == "fail"} == {}
    assert "turns away who shows no certificate" in found["front"].what
    assert "not started" in found["processes"].what
    assert set(found) >= {"home", "superlink", "metrics", "roster", "identity", "seal key", "certificate", "base model"}
    assert sorted(home.glob("**/*")) == before, "nothing is changed"


def test_a_front_that_lets_anybody_in_fails(trio: Trio, tmp_path: Path) -> None:
    with front(trio.roster, trio.key, tmp_path / "front", demand=False) as port:
        check = by_name(examine(settle(trio, tmp_path / "home", port)))["front"]
    assert check.verdict == "fail"
    assert "without a certificate" in check.what


def test_a_front_with_another_key_fails_and_none_is_a_warning(trio: Trio, tmp_path: Path) -> None:
    with front(trio.roster, trio.member_key("Alto"), tmp_path / "front") as port:
        check = by_name(examine(settle(trio, tmp_path / "home", port)))["front"]
    assert (check.verdict, "does not prove to be this coordinator" in check.what) == ("fail", True)
    assert shut(Probe(), "x", "start").verdict == "warn"
    assert shut(Probe(True, True, 400, 0.0), "x", "start").verdict == "ok", "as nginx turns away"


def test_missing_papers_are_named_with_where_they_come_from(trio: Trio, tmp_path: Path) -> None:
    home = settle(trio, tmp_path / "home")
    (home / "Custodian.seal.public").unlink()
    (home / "keys" / "coordinator.pem").unlink()
    found = by_name(examine(home))
    assert found["home"].verdict == "fail"
    assert {"identity key", "seal key"} <= {name for name, c in found.items() if c.verdict == "fail"}


@pytest.fixture
def door() -> Iterator[socket.socket]:
    with socket.socket() as opened:
        yield opened


@pytest.mark.parametrize(("address", "verdict"), [("127.0.0.1", "ok"), ("0.0.0.0", "fail")])  # noqa: S104
def test_a_superlink_that_listens_beyond_this_machine_is_found(
    trio: Trio, tmp_path: Path, door: socket.socket, address: str, verdict: str
) -> None:
    home = settle(trio, tmp_path / "home")
    door.bind((address, 0))
    door.listen()
    text = (home / "server.toml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("superlink_port"))
    (home / "server.toml").write_text(text.replace(line, f"superlink_port = {door.getsockname()[1]}"))
    check = by_name(examine(home))["superlink"]
    if listening() is None:  # a system without /proc/net/tcp
        assert check.verdict == "warn"
    else:
        assert (check.verdict, address in check.what) == (verdict, True)


def test_the_kernels_table_is_read(tmp_path: Path) -> None:
    lines = "  sl  local_address rem_address st\n"
    four = "   0: 0100007F:24E4 00000000:0000 0A x\n   1: 00000000:24E5 00000000:0000 0A x\n"
    four += "   2: 0100007F:9999 0100007F:1 01 x\n"
    six = "   0: 00000000000000000000000001000000:24E6 0:0 0A x\n   1: 0000000000000000FFFF00000100007F:24E7 0:0 0A x\n"
    (tmp_path / "tcp").write_text(lines + four)
    (tmp_path / "tcp6").write_text(lines + six)
    assert listening((tmp_path / "tcp", tmp_path / "tcp6")) == [
        ("127.0.0.1", 9444),
        ("0.0.0.0", 9445),  # noqa: S104
        ("::1", 9446),
        ("127.0.0.1", 9447),
    ]
    assert listening((tmp_path / "gone",)) is None
    assert loopback_only("superlink", 9444, None).verdict == "warn"
    assert loopback_only("superlink", 9444, [("::1", 9444), ("::", 9445)]).verdict == "ok"
    assert loopback_only("superlink", 9445, [("::1", 9444), ("::", 9445)]).verdict == "fail"

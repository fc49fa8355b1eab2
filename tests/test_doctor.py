"""The doctor's verdicts, from what was found; its probe, against real TLS; its command line."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from doors import front
from rich.console import Console
from trio import Trio

from partbook import doctor, doctor_cli
from partbook.doctor import Check
from partbook.errors import ConfigError, UnusableKey
from partbook.identity.keys import IdentityKey
from partbook.identity.tls import issue
from partbook.probing import Probe, reach, split, told

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def verdicts(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.verdict for check in checks}


def reached(trio: Trio, tmp_path: Path, port: int, member: str = "Alto", host: str = "127.0.0.1") -> list[Check]:
    return reach(f"{host}:{port}", trio.roster, tmp_path / "tls", trio.parties.folders[member] / "identity.pem", member)


# ---------------------------------------------------------------------- verdicts


def test_the_worst_check_is_the_verdict() -> None:
    checks = [Check("a", "ok", ""), Check("b", "warn", ""), Check("c", "fail", "")]
    assert [doctor.verdict_of(checks[:n]) for n in range(4)] == ["ok", "ok", "warn", "fail"]


def test_what_raises_is_a_failure_with_its_own_words() -> None:
    def broken() -> str:
        raise UnusableKey("The key k is missing; make one.")

    def vanished() -> str:
        return Path("/nowhere/k").read_text()

    assert doctor.attempt("key", broken) == Check("key", "fail", "UnusableKey: The key k is missing; make one.")
    assert "No such file" in doctor.attempt("key", vanished).what
    assert doctor.attempt("key", lambda: "fine") == Check("key", "ok", "fine")


@pytest.mark.parametrize(
    ("name", "version", "verdict"),
    [
        ("flwr", "1.41.0", "ok"),
        ("flwr", "1.42.0", "fail"),
        ("torch", "2.13.0+cu129", "ok"),
        ("torch", "2.12.0", "fail"),
        ("cryptography", "50.0.2", "ok"),
        ("tenseal", None, "fail"),
    ],
)
def test_pinned_packages_are_held_to_their_pins(name: str, version: str | None, verdict: str) -> None:
    check = doctor.package(name, version, "node")
    assert check.verdict == verdict
    assert check.remedy.startswith("pip install '") == (verdict == "fail")


def test_the_pins_are_those_of_the_wheel() -> None:
    pins = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert all(f"{name}=={version}" in pins for name, version in doctor.PINNED.items())


def test_an_old_python_fails() -> None:
    assert doctor.python((3, 10, 4)).verdict == "fail"
    assert doctor.python((3, 11, 0)).verdict == "ok"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, {"environment": "ok"}),
        ({"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "*"}, {"proxy": "warn"}),
        ({"https_proxy": ""}, {"environment": "ok"}),
        ({"PYTHONPATH": "/opt/x", "FLWR_TELEMETRY_ENABLED": "1"}, {"code path": "warn", "telemetry": "warn"}),
        ({"FLWR_TELEMETRY_ENABLED": "0"}, {"environment": "ok"}),
    ],
)
def test_the_environment_is_looked_through(variables: dict[str, str], named: dict[str, str]) -> None:
    found = doctor.environment(variables)
    assert verdicts(found) == named
    assert "proxy" not in verdicts(doctor.environment(variables, outbound=False))
    assert all("3128" not in check.what for check in found), "a proxy's address may hold a password"


@pytest.mark.parametrize(
    ("free", "verdict"), [(10**12, "ok"), (1_999_999_999, "warn"), (199_999_999, "fail"), (0, "fail")]
)
def test_room_on_the_disk(free: int, verdict: str) -> None:
    assert doctor.room("disk", free, "/state").verdict == verdict


def test_a_folder_that_is_not_there_yet_is_on_its_parents_disk(tmp_path: Path) -> None:
    assert doctor.disk("disk", tmp_path / "a" / "b").verdict in ("ok", "warn")
    assert str(tmp_path / "a" / "b") in doctor.disk("disk", tmp_path / "a" / "b").what


def test_gpus_are_named_with_their_memory() -> None:
    card = ("NVIDIA H200", 139 * 10**9, 150 * 10**9)
    assert doctor.graphics([card]) == Check("gpu", "ok", "cuda:0 NVIDIA H200, 139.0 GB of 150.0 GB free")
    assert doctor.graphics([card], ["cuda:0"]).verdict == "ok"
    assert doctor.graphics([card], ["cuda:1"]).verdict == "fail"
    assert doctor.graphics([("NVIDIA H200", 10**9, 150 * 10**9)]).verdict == "warn"


def test_a_machine_without_gpu_is_told_what_its_processors_do() -> None:
    check = doctor.processors(8, 4, 16 * 10**9, 123.4)
    assert (check.verdict, check.what) == ("warn", "no GPU: trains on 4 of 8 cores at 123 Gflop/s, 16.0 GB of memory")
    assert doctor.processors(8, 4, None, 1.0, ["cuda:0"]).verdict == "fail"
    assert doctor.gpu().name == "gpu"


@pytest.mark.parametrize(
    ("ahead", "verdict"), [(0.4, "ok"), (-29.0, "ok"), (31.0, "warn"), (-301.0, "fail"), (None, "warn")]
)
def test_clocks(ahead: float | None, verdict: str) -> None:
    check = doctor.clock(ahead)
    assert check.verdict == verdict
    assert ("not known" in check.what) == (ahead is None)


@pytest.mark.parametrize(
    ("age", "verdict"), [(-1.0, "fail"), (1.0, "ok"), (20.5, "ok"), (22.0, "warn"), (29.9, "warn"), (30.1, "fail")]
)
def test_a_certificate_that_should_have_been_renewed_is_noticed(age: float, verdict: str) -> None:
    begins, life = NOW - timedelta(days=age), timedelta(days=30)
    check = doctor.lifetime(begins, begins + life, NOW, "partbook node start")
    assert check.verdict == verdict
    assert bool(check.remedy) == (verdict != "ok")


def test_a_secret_that_others_may_read_or_replace_fails(tmp_path: Path) -> None:
    key = tmp_path / "keys" / "k.pem"
    assert doctor.secret_file("key", key, "make it") == Check("key", "fail", f"{key} is missing", "make it")
    key.parent.mkdir(mode=0o700)
    key.write_text("x")
    key.chmod(0o640)
    assert "0640" in doctor.secret_file("key", key, "").what
    key.chmod(0o600)
    assert doctor.secret_file("key", key, "").verdict == "ok"
    key.parent.chmod(0o777)
    assert "in its place" in doctor.secret_file("key", key, "").what
    key.parent.chmod(0o1777)
    assert doctor.secret_file("key", key, "").verdict == "ok"
    other = doctor.permissions("key", key, key.stat(), key.parent.stat(), os.geteuid() + 1)
    assert other.verdict == "warn"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600, "the doctor mends nothing by itself"


def test_an_unsigned_roster_fails_and_the_signed_one_says_who(trio: Trio, tmp_path: Path) -> None:
    from dataclasses import replace

    check, roster = doctor.roster(trio.parties.roster)
    assert (check.verdict, roster) == ("ok", trio.roster)
    assert "signed by all 5 parties" in check.what
    replace(trio.roster, signatures={}).write(tmp_path / "roster.toml")
    check, roster = doctor.roster(tmp_path / "roster.toml")
    assert (check.verdict, roster) == ("fail", None)
    assert "UnsignedRoster" in check.what


def test_a_key_that_the_roster_does_not_list_fails(trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARTBOOK_KEY_PASSPHRASE", raising=False)
    key = trio.parties.folders["Alto"] / "identity.pem"
    assert doctor.identity(key, "Alto", trio.roster).verdict == "ok"
    assert doctor.identity(key, "Bass", trio.roster).verdict == "fail"
    assert "ForgedMember" in doctor.identity(key, "Viola", trio.roster).what
    IdentityKey.load(key).save(tmp_path / "locked.pem", b"open sesame")
    assert doctor.identity(tmp_path / "locked.pem", "Alto", trio.roster).verdict == "warn"
    monkeypatch.setenv("PARTBOOK_KEY_PASSPHRASE", "open sesame")
    assert doctor.identity(tmp_path / "locked.pem", "Alto", trio.roster).verdict == "ok"


def test_a_certificate_folder_is_read_as_the_party_will(trio: Trio, tmp_path: Path) -> None:
    assert "first start" in doctor.certificate(tmp_path, "Alto", trio.roster, "x").what
    issue(trio.member_key("Alto"), "Alto").save(tmp_path)
    assert doctor.certificate(tmp_path, "Alto", trio.roster, "x").verdict == "ok"
    assert doctor.certificate(tmp_path, "Bass", trio.roster, "x").verdict == "fail"
    issue(IdentityKey.generate(), "Alto").save(tmp_path)
    assert "CertificateRefused" in doctor.certificate(tmp_path, "Alto", trio.roster, "x").what
    issue(trio.member_key("Alto"), "Alto", now=datetime.now(UTC) - timedelta(days=40)).save(tmp_path)
    assert "over since" in doctor.certificate(tmp_path, "Alto", trio.roster, "x").what


# ---------------------------------------------------------------------- the way to the coordinator


def test_the_right_coordinator_lets_a_party_in_and_says_its_time(trio: Trio, tmp_path: Path) -> None:
    with front(trio.roster, trio.key, tmp_path / "front") as port:
        assert verdicts(reached(trio, tmp_path, port)) == {"coordinator": "ok", "clock": "ok"}
        assert verdicts(reached(trio, tmp_path, port, host="localhost")) == {"coordinator": "ok", "clock": "ok"}
    assert not (tmp_path / "tls").exists(), "nothing is changed"


def test_a_clock_ten_minutes_off_is_measured_through_the_front(trio: Trio, tmp_path: Path) -> None:
    with front(trio.roster, trio.key, tmp_path / "front", ahead=600.0) as port:
        _, clock = reached(trio, tmp_path, port)
    assert clock.verdict == "fail"
    assert "behind" in clock.what
    assert 598 <= int(clock.what.split(" s ")[0]) <= 602


def test_nobody_there_somebody_else_there_and_not_let_in_are_told_apart(trio: Trio, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody, clock = reached(trio, tmp_path, taken.getsockname()[1])
    assert "nobody takes connections" in nobody.what
    assert (clock.verdict, "not known" in clock.what) == ("warn", True)
    with front(trio.roster, IdentityKey.generate(), tmp_path / "other") as port:
        assert "does not prove to be the coordinator" in reached(trio, tmp_path, port)[0].what
    with front(trio.roster, trio.member_key("Bass"), tmp_path / "bass", name="Bass") as port:
        assert "does not prove to be the coordinator" in reached(trio, tmp_path, port)[0].what
    stranger = tmp_path / "stranger.pem"
    IdentityKey.generate().save(stranger)
    with front(trio.roster, trio.key, tmp_path / "front") as port:
        (check, _) = reach(f"127.0.0.1:{port}", trio.roster, tmp_path / "tls", stranger, "Alto")
    assert check.verdict == "fail"
    assert "does not let this party in" in check.what


def test_a_front_whose_superlink_is_away_is_a_warning(trio: Trio, tmp_path: Path) -> None:
    with front(trio.roster, trio.key, tmp_path / "front", status=503) as port:
        assert reached(trio, tmp_path, port)[0].verdict == "warn"


def test_no_proxy_of_the_environment_is_passed(trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with front(trio.roster, trio.key, tmp_path / "front") as port:
        assert reached(trio, tmp_path, port)[0].verdict == "ok"


def test_without_roster_or_passphrase_it_is_said_what_was_not_tried(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARTBOOK_KEY_PASSPHRASE", raising=False)
    key = tmp_path / "k.pem"
    assert verdicts(reach("127.0.0.1:1", None, tmp_path, key, "Alto")) == {"coordinator": "warn", "clock": "warn"}
    assert "no key to show" in reach("127.0.0.1:1", trio.roster, tmp_path, key, "Alto")[0].what
    trio.member_key("Alto").save(key, b"open sesame")
    assert reach("127.0.0.1:1", trio.roster, tmp_path, key, "Alto")[0].verdict == "warn"


def test_every_end_of_an_attempt_has_its_own_words() -> None:
    ends = [Probe(), Probe(True, False), Probe(True, True), Probe(True, True, 502), Probe(True, True, 404, 0.0)]
    found = [told("host:1", end) for end in ends]
    assert [check.verdict for check in found] == ["fail", "fail", "fail", "warn", "ok"]
    assert len({check.what for check in found}) == len(ends)
    assert all(check.remedy for check in found[:-1])


@pytest.mark.parametrize(("address", "parts"), [("a.example:9443", ("a.example", 9443)), ("[::1]:9443", ("::1", 9443))])
def test_addresses_are_split(address: str, parts: tuple[str, int]) -> None:
    assert split(address) == parts


# ---------------------------------------------------------------------- the command


def test_the_path_says_the_role(tmp_path: Path) -> None:
    for name, text, role in (("n.toml", 'member = "A"', "node"), ("c.toml", 'secret = "s"', "custodian")):
        (tmp_path / name).write_text(text)
        assert doctor_cli.role_of(tmp_path / name) == role
    with pytest.raises(ConfigError, match=r"holds no federation\.toml"):
        doctor_cli.role_of(tmp_path)
    (tmp_path / "server.toml").write_text('listen = "127.0.0.1:1"')
    assert doctor_cli.role_of(tmp_path) == "coordinator"
    with pytest.raises(ConfigError, match="name its folder"):
        doctor_cli.role_of(tmp_path / "server.toml")
    (tmp_path / "x.toml").write_text("")
    with pytest.raises(ConfigError, match="neither"):
        doctor_cli.role_of(tmp_path / "x.toml")
    (tmp_path / "x.toml").write_text("=")
    with pytest.raises(ConfigError, match="is not TOML"):
        doctor_cli.role_of(tmp_path / "x.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        doctor_cli.role_of(tmp_path / "gone.toml")


def test_a_role_that_is_not_installed_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor_cli.ROLES, "coordinator", ("partbook.absent.doctor", "coordinator"))
    with pytest.raises(ConfigError, match=r"partbook\.absent is not installed.*partbook\[coordinator\]"):
        doctor_cli.examine("coordinator", tmp_path)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_says_what_to_do(width: int) -> None:
    checks = [
        Check("python", "ok", "Python 3.11.7"),
        Check("disk of the vault", "warn", "1.2 GB free for " + "/a-long-folder" * 12, "Make room."),
        Check("identity key", "fail", "mode 0644", "chmod 600 k"),
    ]
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(doctor_cli.table("node", Path("/etc/partbook/node.toml"), checks))
    text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines())
    assert "→ chmod 600 k" in text
    assert "1 to mend" in text


def test_looking_at_a_node_imports_nothing_of_the_coordinators() -> None:
    code = (
        "import sys, pathlib\nfrom partbook import doctor_cli\nfrom partbook.errors import PartbookError\n"
        "try: doctor_cli.examine('node', pathlib.Path('/nowhere'))\nexcept PartbookError: pass\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", "import json\n" + code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "partbook.node.doctor" in loaded
    assert not [name for name in loaded if name.startswith(("partbook.coordinator", "partbook.generator"))]

import io
import os
import stat
import tomllib
import zipfile
from pathlib import Path

import pytest

from partbook.coordinator import superlink
from partbook.coordinator.home import Home, init


@pytest.fixture
def home(tmp_path: Path) -> Home:
    init(tmp_path / "home")
    return Home.open(tmp_path / "home")


def test_the_bundle_holds_no_code_and_points_at_what_is_installed() -> None:
    archive = zipfile.ZipFile(io.BytesIO(superlink.bundle()))
    assert archive.namelist() == ["pyproject.toml", ".info/CONTENT"]
    flower = tomllib.loads(archive.read("pyproject.toml").decode())["tool"]["flwr"]["app"]
    assert flower["components"] == {"serverapp": "partbook.coordinator.app:app", "clientapp": "partbook.node.app:app"}
    assert superlink.bundle() == superlink.bundle()


def test_the_superlink_listens_on_loopback_with_isolation_and_a_secret(home: Home) -> None:
    command = superlink.superlink(home)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--isolation") + 1] == "process"
    secret = command[command.index("--superexec-auth-secret-file") + 1]
    assert secret in superlink.superexec(home)
    assert command[command.index("--database") + 1] == str(home.link / "superlink.sqlite")


def test_flower_calls_nobody_and_installs_nothing_whatever_the_operators_shell_says(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_FLEET_API", "1")
    found = superlink.surroundings(home)
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert "FLWR_INTERNAL_GRPC_FLEET_API" not in found
    assert found["FLWR_HOME"].startswith(str(home.link))


def test_the_secret_is_made_once_from_random_bytes_and_kept(home: Home, tmp_path: Path) -> None:
    superlink.prepare(home)
    secret = home.link / "superexec.secret"
    before = secret.read_bytes()
    assert len(before) == 32
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    superlink.prepare(home)
    assert secret.read_bytes() == before
    init(tmp_path / "other")
    other = Home.open(tmp_path / "other")
    superlink.prepare(other)
    assert (other.link / "superexec.secret").read_bytes() != before


def test_superexec_finds_our_starter_of_the_serverapp_first(home: Home) -> None:
    superlink.prepare(home)
    first = Path(superlink.surroundings(home)["PATH"].split(os.pathsep)[0]) / "flwr-serverapp"
    assert os.access(first, os.X_OK)
    assert "partbook.coordinator.serverapp" in first.read_text()

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from trio import Trio
from typer.testing import CliRunner

from partbook.coordinator.cli import app
from partbook.errors import ConfigError
from partbook.simulation.ports import lease_port


def made(trio: Trio, folder: Path) -> Path:
    """A HOME in which all is well."""
    parties = trio.parties
    files = {"--roster": parties.roster, "--key": parties.coordinator, "--seal-key": parties.seal_key}
    given = [part for flag, path in files.items() for part in (flag, str(path))]
    found = CliRunner().invoke(app, ["init", "--home", str(folder), *given])
    assert found.exit_code == 0, found.output
    front, superlink, metrics = (lease_port() for _ in range(3))
    server = f'listen = "127.0.0.1:{front}"\nsuperlink_port = {superlink}\nmetrics_port = {metrics}\n'
    (folder / "server.toml").write_text(server)
    return folder


def checked(folder: Path) -> tuple[int, dict[str, str]]:
    """Exit code, and what is to be mended."""
    found = CliRunner().invoke(app, ["check", "--home", str(folder), "--json"])
    about = json.loads(found.stdout)
    assert about["good"] == (found.exit_code == 0)
    return found.exit_code, {each["what"]: each["text"] for each in about["findings"] if not each["good"]}


def test_init_says_what_is_still_missing_and_what_makes_it(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["init", "--home", str(tmp_path), "--host", "federation.example.org"])
    assert found.exit_code == 0
    assert "partbook keys new coordinator" in found.stdout
    assert "roster.toml" in found.stdout
    assert "federation.example.org" in (tmp_path / "server.toml").read_text()


def test_init_prints_one_json_object(tmp_path: Path) -> None:
    about = json.loads(CliRunner().invoke(app, ["init", "--home", str(tmp_path), "--json"]).stdout)
    assert about["written"] == [str(tmp_path / "federation.toml"), str(tmp_path / "server.toml")]
    assert str(tmp_path / "roster.toml") in about["missing"]


def test_check_finds_nothing_to_mend_where_all_is_well(trio: Trio, tmp_path: Path) -> None:
    assert checked(made(trio, tmp_path)) == (0, {})


def test_check_names_a_missing_file(trio: Trio, tmp_path: Path) -> None:
    made(trio, tmp_path)
    path = tmp_path / "federation.toml"
    path.write_text(path.read_text().replace(str(trio.parties.seal_key), "nowhere.seal.public"))
    code, mend = checked(tmp_path)
    assert code == 1
    assert "custodian" in mend["nowhere.seal.public"]


def test_check_names_a_port_that_is_taken(trio: Trio, tmp_path: Path) -> None:
    made(trio, tmp_path)
    text = (tmp_path / "server.toml").read_text()
    port = int(text.partition("superlink_port = ")[2].split()[0])
    with socket.create_server(("127.0.0.1", port)):
        code, mend = checked(tmp_path)
    assert code == 1
    assert list(mend) == ["superlink_port"]


def test_check_names_a_roster_that_lists_another_coordinator(trio: Trio, tmp_path: Path) -> None:
    made(trio, tmp_path)
    trio.member_key("Alto").save(tmp_path / "other.pem")
    path = tmp_path / "federation.toml"
    path.write_text(path.read_text().replace(str(trio.parties.coordinator), "other.pem"))
    assert "not the coordinator's key" in checked(tmp_path)[1]["roster"]


def test_check_stops_at_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    code, mend = checked(tmp_path)
    assert code == 1
    assert "coordinator init" in mend["configuration"]


def test_start_refuses_before_it_starts_anything(trio: Trio, tmp_path: Path) -> None:
    made(trio, tmp_path)
    path = tmp_path / "federation.toml"
    path.write_text(path.read_text().replace(str(trio.parties.roster), "nowhere.toml"))
    found = CliRunner().invoke(app, ["start", "--home", str(tmp_path)])
    assert isinstance(found.exception, ConfigError)
    assert "nowhere.toml" in str(found.exception)
    assert not (tmp_path / "link" / "services.json").exists()


def test_status_of_a_coordinator_that_was_never_started_is_exit_code_1(trio: Trio, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["status", "--home", str(made(trio, tmp_path)), "--json"])
    assert found.exit_code == 1
    assert json.loads(found.stdout)["started"] is False


@pytest.mark.parametrize("command", ["start", "run", "stop", "status", "front"])
def test_a_folder_that_is_no_home_is_named(tmp_path: Path, command: str) -> None:
    found = CliRunner().invoke(app, [command, "--home", str(tmp_path)])
    assert isinstance(found.exception, ConfigError)
    assert str(tmp_path) in str(found.exception)

"""A label's machine, looked at: a whole one, and one with something wrong at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tomli_w
from doors import front
from trio import Trio
from typer.testing import CliRunner

from partbook.doctor import Check, verdict_of
from partbook.doctor_cli import app
from partbook.node import pausing
from partbook.node.doctor import examine
from partbook.node.label import LabelNode
from partbook.node.policy import Policy
from partbook.node.settings import NodeSettings


def settle(trio: Trio, home: Path, port: int = 1, **values: object) -> Path:
    """A copy of Alto's things, with a `node.toml` beside them."""
    shutil.copytree(trio.folder / "Alto", home, dirs_exist_ok=True)
    Policy.default().write(home / "vault" / "policy.toml")
    shutil.copy(trio.parties.roster, home / "roster.toml")
    shutil.copy(trio.parties.seal_key, home / "seal.public")
    fields = {
        "member": "Alto",
        "coordinator": f"127.0.0.1:{port}",
        "vault": "vault",
        "roster": "roster.toml",
        "identity": "keys/identity.pem",
        "receiving": "keys/receiving.pem",
        "seal_key": "seal.public",
        "base": str(trio.base),
    }
    path = home / "node.toml"
    path.write_text(tomli_w.dumps(fields | values))
    return path


def kept(home: Path) -> dict[Path, bytes]:
    """All that lies there; what SQLite keeps beside a database while it is read is no change."""
    files = [path for path in home.glob("**/*") if path.is_file() and path.suffix not in (".sqlite-shm", ".sqlite-wal")]
    return {path: path.read_bytes() for path in files}


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def test_a_machine_that_is_fit_has_nothing_to_mend(trio: Trio, tmp_path: Path) -> None:
    with front(trio.roster, trio.key, tmp_path / "front") as port:
        path = settle(trio, tmp_path / "home", port)
        before = kept(tmp_path / "home")
        found = by_name(examine(path))
    assert {name: check.what for name, check in found.items() if check.verdict == "fail"} == {}
    assert {name for name, check in found.items() if check.verdict == "warn"} <= {
        *("gpu", "proxy", "code path", "telemetry", "disk of the vault", "disk of the state")
    }
    assert set(found) >= {
        *("python", "partbook", "flwr", "torch", "tenseal", "gpu", "roster", "identity", "identity key", "vault key"),
        *("receiving key", "seal key", "base model", "policy", "vault", "ledger", "process", "certificate"),
        *("coordinator", "clock", "disk of the vault", "disk of the state"),
    }
    assert kept(tmp_path / "home") == before, "nothing is changed"


def test_what_is_wrong_is_named_with_what_to_do(trio: Trio, tmp_path: Path) -> None:
    path = settle(trio, tmp_path, devices=["cuda:0"])
    (tmp_path / "keys" / "identity.pem").chmod(0o644)
    (tmp_path / "keys" / "receiving.pem").unlink()
    (tmp_path / "vault" / "policy.toml").write_text("noise = 'loud'")
    (tmp_path / "seal.public").write_bytes(b"x")
    (tmp_path / "roster.toml").write_text(trio.roster.toml.replace("trio", "quartet", 1))
    found = by_name(examine(path))
    failed = {name for name, check in found.items() if check.verdict == "fail"}
    assert failed >= {"identity key", "receiving key", "policy", "seal key", "roster"}
    assert "chmod 600" in found["identity key"].remedy
    assert "partbook keys new 'Alto'" in found["receiving key"].remedy
    assert found["identity"].verdict == "warn", "there is no roster to compare it with"


def test_a_vault_that_does_not_open_hides_no_other_finding(trio: Trio, tmp_path: Path) -> None:
    path = settle(trio, tmp_path)
    (tmp_path / "vault" / "vault.key").unlink()
    found = by_name(examine(path))
    assert (found["vault"].verdict, found["vault key"].verdict) == ("fail", "fail")
    assert "ledger" not in found
    assert found["roster"].verdict == "ok"


def test_a_ledger_that_was_altered_is_found(trio: Trio, tmp_path: Path) -> None:
    path = settle(trio, tmp_path)
    config = NodeSettings.read(path).node
    LabelNode(config).close()
    assert "none yet" not in by_name(examine(path))["ledger"].what
    blob = bytearray(config.accounts.read_bytes())
    blob[-400:] = bytes(400)
    config.accounts.write_bytes(blob)
    for beside in config.accounts.parent.glob("ledger.sqlite-*"):
        beside.unlink()
    check = by_name(examine(path))["ledger"]
    assert check.verdict == "fail"
    assert "Do not delete it" in check.remedy


def test_a_paused_node_is_said_to_be_paused(trio: Trio, tmp_path: Path) -> None:
    path = settle(trio, tmp_path)
    pausing.pause(tmp_path / "state", "a wedding")
    check = by_name(examine(path))["process"]
    assert check.verdict == "warn"
    assert "a wedding" in check.what


@pytest.mark.parametrize("port_is_open", [True, False])
def test_the_command_says_so_in_words_in_json_and_by_its_exit_code(
    trio: Trio, tmp_path: Path, port_is_open: bool
) -> None:
    with front(trio.roster, trio.key, tmp_path / "front") as port:
        path = settle(trio, tmp_path / "home", port if port_is_open else 1)
        plain = CliRunner().invoke(app, [str(path)])
        as_json = CliRunner().invoke(app, [str(path), "--json", "--strict"])
    about = json.loads(as_json.stdout)
    checks = [Check(**check) for check in about["checks"]]
    assert about["role"] == "node"
    assert about["verdict"] == verdict_of(checks) == ("warn" if port_is_open else "fail")
    assert (plain.exit_code, as_json.exit_code) == ((0, 1) if port_is_open else (2, 2))
    assert ("lets this party in" in " ".join(plain.stdout.split())) == port_is_open

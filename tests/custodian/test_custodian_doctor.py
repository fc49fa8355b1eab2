"""A custodian's machine, looked at."""

from __future__ import annotations

import shutil
from pathlib import Path

import tomli_w
from doors import front
from trio import Trio

from partbook.custodian.doctor import examine
from partbook.doctor import Check
from partbook.sealing.parameters import generate


def settle(trio: Trio, home: Path, port: int = 1, **values: object) -> Path:
    office = trio.parties.custodian
    home.mkdir(exist_ok=True)
    for source, name in ((office.identity, "c.pem"), (office.secret, "c.seal.secret"), (office.roster, "roster.toml")):
        shutil.copy(source, home / name)
    fields = {
        "name": "Custodian",
        "coordinator": f"127.0.0.1:{port}",
        "roster": "roster.toml",
        "identity": "c.pem",
        "secret": "c.seal.secret",
    }
    path = home / "custodian.toml"
    path.write_text(tomli_w.dumps(fields | values))
    return path


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def test_a_machine_that_is_fit_has_nothing_to_mend(trio: Trio, tmp_path: Path) -> None:
    with front(trio.roster, trio.key, tmp_path / "front") as port:
        found = by_name(examine(settle(trio, tmp_path / "home", port)))
    assert {name: check.what for name, check in found.items() if check.verdict == "fail"} == {}
    assert set(found) >= {"custodian", "seal", "seal secret", "record", "coordinator", "clock", "identity"}


def test_another_seal_a_broken_record_and_another_name_are_found(trio: Trio, tmp_path: Path) -> None:
    path = settle(trio, tmp_path, name="Notary")
    (tmp_path / "c.seal.secret").unlink()
    generate()[0].write(tmp_path / "c.seal.secret", None)
    (tmp_path / "opened.json").write_text("{")
    found = by_name(examine(path))
    assert {"custodian", "seal", "record", "identity"} <= {name for name, c in found.items() if c.verdict == "fail"}
    assert "opened twice" in found["record"].remedy
    assert "'Custodian'" in found["custodian"].what


def test_a_secret_that_others_may_read_is_found(trio: Trio, tmp_path: Path) -> None:
    path = settle(trio, tmp_path)
    (tmp_path / "c.seal.secret").chmod(0o604)
    found = by_name(examine(path))
    assert "chmod 600" in found["seal secret"].remedy
    assert "InsecureKeyFile" in found["seal"].what

"""`node.toml`: what is wrong in it is named, and what it says is relative to it."""

import os
from pathlib import Path

import pytest
import tomli_w

from partbook.errors import ConfigError, InsecureKeyFile, UnusableKey
from partbook.identity.passphrase import PASSPHRASE_VARIABLE
from partbook.model.checkpoint import BASE
from partbook.node.settings import NodeSettings

LEAST = {
    "member": "Label A",
    "coordinator": "federation.example.org:9443",
    "vault": "vault",
    "roster": "roster.toml",
    "identity": "keys/Label A.pem",
}


def written(folder: Path, **changed: object) -> Path:
    path = folder / "node.toml"
    path.write_text(tomli_w.dumps({key: value for key, value in (LEAST | changed).items() if value is not None}))
    return path


def test_paths_are_relative_to_the_file_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = NodeSettings.read(written(tmp_path, policy="/etc/policy.toml", seed=3, devices=["cpu"], style=7))
    assert (found.vault, found.roster, found.identity) == (
        tmp_path / "vault",
        tmp_path / "roster.toml",
        tmp_path / "keys" / "Label A.pem",
    )
    assert (found.state, found.tls, found.policy) == (tmp_path / "state", tmp_path / "tls", Path("/etc/policy.toml"))
    node = found.node
    assert (node.member, node.state, node.base, node.seed) == ("Label A", tmp_path / "state", BASE, 3)
    assert (node.style, NodeSettings.read(written(tmp_path)).node.style) == (7, None)
    assert (node.receiving, node.seal_key, node.ledger, node.journal, node.key) == (None,) * 5


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"member": None}, "member"),
        ({"member": ""}, "member"),
        ({"member": "../up"}, "member"),
        ({"member": 3}, "member"),
        ({"coordinator": None}, "coordinator"),
        ({"coordinator": "federation.example.org"}, "coordinator"),
        ({"coordinator": "https://federation.example.org:9443"}, "coordinator"),
        ({"coordinator": "one two:9443"}, "coordinator"),
        ({"coordinator": "user@host:9443"}, "coordinator"),
        ({"coordinator": "host:9443/path"}, "coordinator"),
        ({"coordinator": "host:123456"}, "coordinator"),
        ({"coordinator": "host:0"}, "coordinator"),
        ({"coordinator": "host:65536"}, "coordinator"),
        ({"coordinator": "-host:9443"}, "coordinator"),
        ({"vault": None}, "vault"),
        ({"vault": 3}, "vault"),
        ({"roster": None}, "roster"),
        ({"identity": None}, "identity"),
        ({"state": ["a"]}, "state"),
        ({"tls": False}, "tls"),
        ({"seed": "x"}, "seed"),
        ({"devices": "cuda:0"}, "devices"),
        ({"style": -1}, "style"),
        ({"style": 16}, "style"),
        ({"style": "3"}, "style"),
        ({"style": True}, "style"),
        ({"identiy": "keys/x.pem"}, "identiy"),
        ({"record": "opened.json"}, "record"),
    ],
)
def test_every_bad_key_is_named_with_its_file(tmp_path: Path, changed: dict[str, object], named: str) -> None:
    path = written(tmp_path, **changed)
    with pytest.raises(ConfigError, match=rf"{path}: {named}"):
        NodeSettings.read(path)


@pytest.mark.parametrize("address", ["localhost:1", "192.0.2.1:65535", "[2001:db8::1]:9443"])
def test_hosts_are_names_or_addresses(tmp_path: Path, address: str) -> None:
    assert NodeSettings.read(written(tmp_path, coordinator=address)).coordinator == address


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    with pytest.raises(ConfigError, match=rf"{path} cannot be read"):
        NodeSettings.read(path)
    for text in (b"member = ", b"\xff\xfe"):
        path.write_bytes(text)
        with pytest.raises(ConfigError, match=rf"{path} is not TOML"):
            NodeSettings.read(path)


def test_a_passphrase_comes_out_of_its_file_if_that_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "another")
    secret = tmp_path / "passphrase"
    settings = NodeSettings.read(written(tmp_path, passphrase_file=secret.name))
    with pytest.raises(UnusableKey):
        settings.unlock()
    secret.write_text("correct horse\n")
    secret.chmod(0o640)
    with pytest.raises(InsecureKeyFile):
        settings.unlock()
    secret.chmod(0o600)
    settings.unlock()
    assert os.environ[PASSPHRASE_VARIABLE] == "correct horse"
    NodeSettings.read(written(tmp_path)).unlock()
    assert os.environ[PASSPHRASE_VARIABLE] == "correct horse"

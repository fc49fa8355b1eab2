from pathlib import Path

import pytest

from partbook.coordinator.settings import ServerConfig
from partbook.errors import ConfigError


def test_an_empty_file_is_the_safe_default(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("")
    config = ServerConfig.read(path)
    assert config.front == "embedded"
    assert (config.host, config.port) == ("0.0.0.0", 9443)  # noqa: S104
    assert config.superlink == "127.0.0.1:9444"


def test_an_ipv6_address_is_read_without_its_brackets(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('listen = "[::1]:9443"\nhosts = ["::1"]\n')
    assert (ServerConfig.read(path).host, ServerConfig.read(path).port) == ("::1", 9443)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("superlink = 1", "superlink"),
        ("listen = 'everywhere'", "listen"),
        ("listen = 'a:99999'", "listen"),
        ("hosts = []", "hosts"),
        ("hosts = ['two words']", "hosts"),
        ("front = 'nginx'", "front"),
        ("superlink_port = 0", "superlink_port"),
        ("superlink_port = 9443", "different ports"),
        ("metrics_port = 9444", "different ports"),
        ("attempts = 0", "attempts"),
        ("attempts = ", "TOML"),
    ],
)
def test_a_wrong_key_of_the_server_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        ServerConfig.read(path)


def test_a_missing_file_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="init"):
        ServerConfig.read(tmp_path / "server.toml")


def test_behind_a_proxy_the_front_needs_no_port_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("front = 'proxy'\nsuperlink_port = 9443\nmetrics_port = 0\n")
    assert ServerConfig.read(path).superlink_port == 9443

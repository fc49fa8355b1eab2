"""nginx and Caddy in the front's place: their files open what the front opens, to whom the front lets in."""

import re
from pathlib import Path

import pytest
from commands import DEPLOY

from partbook.coordinator.front import LARGEST, PATHS
from partbook.coordinator.settings import ServerConfig
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR
from partbook.identity.tls import issue

NGINX, CADDY = DEPLOY / "proxy" / "nginx.conf", DEPLOY / "proxy" / "Caddyfile"
TLS = "/var/lib/partbook/tls"


def directives(path: Path) -> list[str]:
    """The lines that count, without comments."""
    found = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text().splitlines())
    return [line for line in found if line]


def test_the_same_paths_pass_as_through_the_front_spelt_the_same() -> None:
    nginx = [re.fullmatch(r'"~\^POST ([^$]*)\$" 1;', line) for line in directives(NGINX)]
    assert tuple(found[1] for found in nginx if found) == PATHS
    caddy = [re.fullmatch(r"vars \{http\.request\.orig_uri\} (\S+)", line) for line in directives(CADDY)]
    assert tuple(found[1] for found in caddy if found) == PATHS
    for path, passing in ((NGINX, 1), (CADDY, 0)):
        text = "\n".join(directives(path))
        assert len(re.findall(r"/v1/", text)) == len(PATHS), "no path is opened in another way"
        assert len(re.findall(r"proxy_pass |reverse_proxy ", text)) == 1
        assert len(re.findall(r"^location ", text, re.MULTILINE)) == 3 * passing
    assert {'map "$request_method $request_uri" $partbook_passes {', "default 0;"} <= {*directives(NGINX)}
    assert {"method POST", "handle @passes {"} <= {*directives(CADDY)}


def test_whoever_comes_must_show_a_certificate_in_tls_1_3() -> None:
    assert {
        "ssl_protocols TLSv1.3;",
        "ssl_verify_client on;",
        f"ssl_client_certificate {TLS}/members.pem;",
        "ssl_session_tickets off;",
        "ssl_session_cache off;",
    } <= {*directives(NGINX)}
    assert {
        "protocols tls1.3 tls1.3",
        "mode require_and_verify",
        f"trust_pool file {TLS}/members.pem",
    } <= {*directives(CADDY)}


@pytest.mark.parametrize("path", [NGINX, CADDY], ids=["nginx", "caddy"])
def test_files_ports_and_sizes_are_the_coordinators(path: Path, tmp_path: Path) -> None:
    issue(IdentityKey.generate(), COORDINATOR, hosts=("localhost",)).save(tmp_path)
    text, server = "\n".join(directives(path)), ServerConfig()
    written = {file.name for file in tmp_path.iterdir()} | {"members.pem"}
    assert set(re.findall(rf"{TLS}/([\w.]+)", text)) == written
    assert server.superlink in text
    assert str(server.port) in text
    (limit,) = re.findall(r"(?:client_max_body_size|max_size) (\d+)", text)
    assert int(limit) * 2**20 == LARGEST

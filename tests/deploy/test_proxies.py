"""nginx and Caddy before the coordinator: what both files say, and what nginx does where it is installed."""

import contextlib
import http.client
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.supercore.constant import (
    SUPEREXEC_AUTH_NONCE_HEADER,
    SUPEREXEC_AUTH_SIGNATURE_HEADER,
    TASK_TOKEN_HEADER,
)
from switchboard import Switchboard, until

from partbook.coordinator.front import HEADERS, LARGEST, PATHS
from partbook.coordinator.settings import ServerConfig
from partbook.errors import CertificateRefused
from partbook.identity.keys import IdentityKey
from partbook.identity.tls import anchors, client_context, renewed
from partbook.node.fleet import Link
from partbook.plan import wire
from partbook.simulation.ports import lease_port

pytestmark = pytest.mark.timeout(300)  # a SuperLink and a front start in the first test, and tests kill them

PROXY = Path(__file__).parents[2] / "deploy" / "proxy"
NGINX, CADDY = (PROXY / "nginx.conf").read_text(), (PROXY / "Caddyfile").read_text()
TLS = "/var/lib/partbook/tls"


def bare(text: str) -> str:
    """Without comments."""
    return re.sub(r"(?m)(^|\s)#.*$", "", text)


def test_both_open_the_fronts_paths_and_no_others() -> None:
    (listed,) = re.findall(r"location ~ \^/v1/fleet/\(([a-z|-]+)\)\$", NGINX)
    assert [f"/v1/fleet/{name}" for name in listed.split("|")] == list(PATHS)
    assert re.findall(r"location ([^{]*?)\s*\{\s*return 404;", NGINX) == ["/"]
    assert len(re.findall(r"\blocation\b", bare(NGINX))) == 2
    assert re.findall(r'"(/[^"]*)"', CADDY) == list(PATHS)
    assert re.search(r"handle \{\s*respond 404\s*\}", CADDY)
    assert 'method("POST") &&' in CADDY
    assert "if ($request_method != POST) { return 405; }" in NGINX


def test_nginx_passes_on_the_fronts_headers_alone_and_caddy_none_that_opens_another_door() -> None:
    passed = {name.lower().encode() for name in re.findall(r"proxy_set_header (\S+)", bare(NGINX))}
    assert passed == HEADERS | {b"host", b"connection"}
    assert "proxy_pass_request_headers off;" in NGINX
    dropped = re.findall(r"header_up -(\S+)", bare(CADDY))
    for name in (TASK_TOKEN_HEADER, SUPEREXEC_AUTH_SIGNATURE_HEADER, SUPEREXEC_AUTH_NONCE_HEADER, "authorization"):
        assert any(fnmatch(name.lower(), pattern) for pattern in dropped), name
    for kept in HEADERS:
        assert not any(fnmatch(kept.decode(), pattern) for pattern in dropped), kept


def test_both_listen_where_the_front_would_and_forward_to_loopback() -> None:
    server = ServerConfig()
    assert re.findall(r"listen (\d+) ssl;", NGINX) == [str(server.port)]
    assert re.findall(r"server (\S+);", bare(NGINX)) == [server.superlink]
    assert re.findall(r"https://:(\d+) \{", CADDY) == [str(server.port)]
    assert re.findall(r"reverse_proxy (\S+) \{", CADDY) == [server.superlink]


def test_both_speak_tls_1_3_with_whoever_the_roster_lists() -> None:
    assert re.findall(r"ssl_protocols (.*);", NGINX) == ["TLSv1.3"]
    assert "ssl_verify_client on;" in NGINX
    assert "protocols tls1.3" in CADDY
    assert "mode require_and_verify" in CADDY
    for text in (NGINX, CADDY):
        files = set(re.findall(rf"{TLS}/([\w.]+)", text))
        assert files == {"members.pem", "front.cert.pem", "front.key.pem"}


def test_both_take_bodies_as_large_as_the_front_does() -> None:
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", NGINX)
    assert int(megabytes) * 2**20 == LARGEST
    (mebibytes,) = re.findall(r"max_size (\d+)MiB", CADDY)
    assert int(mebibytes) * 2**20 == LARGEST


def test_both_say_what_they_cannot_do() -> None:
    for text in (NGINX, CADDY):
        said = " ".join(text.replace("#", " ").split())
        assert "What our own front does and this cannot: hold a member to its own node." in said
        assert "After a change of the roster" in said


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switchboard]:
    with Switchboard(tmp_path_factory.mktemp("proxy")) as board:
        (board.home.tls / "members.pem").write_bytes(anchors(board.roster))
        yield board


@pytest.fixture(scope="module")
def nginx(board: Switchboard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The very file, with this test's ports and folders in it; gives the port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("nginx is not installed here")
    board.start("superlink")
    folder, port = tmp_path_factory.mktemp("nginx"), lease_port()
    text = NGINX.replace(TLS, str(board.home.tls)).replace("127.0.0.1:9444", board.home.server.superlink)
    text = text.replace("listen 9443 ssl", f"listen 127.0.0.1:{port} ssl").replace("/var/log/nginx", str(folder))
    text = text.replace("/run/", f"{folder}/").replace("worker_processes auto", "worker_processes 1")
    (folder / "nginx.conf").write_text(text)
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:

        def listens() -> bool:
            assert process.poll() is None
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            until(listens, "nginx listens")
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def asked(board: Switchboard, port: int, target: str, method: str = "POST") -> int:
    line = http.client.HTTPSConnection("localhost", port, context=board.context("Alto"), timeout=30)
    with contextlib.closing(line):
        line.putrequest(method, target, skip_host=True)
        line.putheader("Host", "localhost")
        line.putheader("Content-Length", "0")
        line.endheaders()
        return line.getresponse().status


def test_a_node_works_through_nginx_as_through_the_front(board: Switchboard, nginx: int) -> None:
    blob = bytes(range(256)) * 25_000
    with (
        board.serverapp() as app,
        Link(f"localhost:{nginx}", board.context("Alto"), board.leaf("Alto")) as link,
    ):
        question = app.ask(link.connect(), wire.APPLY, wire.pack([b"question"], [blob]))
        found = []
        until(lambda: found.append(link.receive()) or found[-1] is not None, "the message comes")
        message = link.fetch(found[-1])
        link.reply(Message(wire.pack([b"answer"], [blob]), reply_to=message))
        answer = app.answers([question])[question]
        assert wire.unpack(answer.content, blobs=1) == ([b"answer"], [blob])


def test_nginx_opens_nothing_else(board: Switchboard, nginx: int) -> None:
    for path in PATHS:
        assert asked(board, nginx, path) == 415, "the SuperLink itself answered"
        assert asked(board, nginx, path, "GET") == 405
    for target in (
        "/v1/fleet/get-run",
        "/v1/fleet/get-fab",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/",
        "/v1/fleet//pull-messages",
        "/v1/fleet/../fleet/pull-messages",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/pull%2dmessages",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?x=1",
        "/V1/fleet/pull-messages",
    ):
        assert asked(board, nginx, target) in (400, 404), target


def test_nginx_lets_in_the_rosters_parties_alone(board: Switchboard, nginx: int, tmp_path: Path) -> None:
    stranger = IdentityKey.generate()
    leaf = renewed(tmp_path, stranger, "Alto")
    with (
        Link(f"localhost:{nginx}", client_context(board.roster, tmp_path), leaf) as link,
        pytest.raises(CertificateRefused, match="400"),
    ):
        link.connect()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(cadata=(board.home.tls / "members.pem").read_text())
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", nginx), 30) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="localhost")

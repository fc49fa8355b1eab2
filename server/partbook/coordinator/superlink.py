"""Flower's two long-lived processes, as the coordinator starts them: how they are called, and in what surroundings.

The SuperLink listens on 127.0.0.1 alone, and what it may hand to whom is protected twice: the front passes the fleet's
paths and no others, and a ServerApp's task is handed out against the SuperExec secret only. Without that secret,
whoever reaches the SuperLink can acquire the task and play the coordinator (tried).

The SuperLink is started through `partbook.coordinator.sparing`, which halves what a request costs it.

SuperExec starts `flwr-serverapp`, which it looks up on its PATH, and throws away what that prints. The first
`flwr-serverapp` on the PATH made here is ours (`partbook.coordinator.serverapp`).
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from partbook.coordinator.home import Home
from partbook.errors import ConfigError, ServiceFailed

POLL_EVERY: Final = 0.5  # seconds between SuperExec's looks for a run to start
SECRET_BYTES: Final = 32

_BUNDLE: Final = """\
[project]
name = "partbook-coordinator"
version = "{version}"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "partbook"

[tool.flwr.app.components]
serverapp = "partbook.coordinator.app:app"
clientapp = "partbook.node.app:app"

[tool.flwr.app.config]
federation = ""
"""


def superlink(home: Home) -> list[str]:
    """The SuperLink's command line."""
    return [
        *(sys.executable, "-P", "-m", "partbook.coordinator.sparing"),
        *("--insecure", "--host", "127.0.0.1", "--port", str(home.server.superlink_port)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(_secret(home))),
        *("--database", str(home.link / "superlink.sqlite")),
        "--disable-runtime-dependency-installation",
    ]


def superexec(home: Home) -> list[str]:
    """SuperExec's command line."""
    return [
        _command("flower-superexec"),
        *("--insecure", "--runtime-api-address", home.server.superlink),
        *("--superexec-auth-secret-file", str(_secret(home))),
    ]


def surroundings(home: Home) -> dict[str, str]:
    """The environment of both: Flower's files in HOME, nothing sent home, nothing installed, our ServerApp first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return {
        **kept,
        "FLWR_HOME": str(home.link / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": str(POLL_EVERY),
        "FLWR_LOG_LEVEL": "WARNING",
        "PATH": os.pathsep.join([str(home.link / "bin"), kept.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
    }


def prepare(home: Home) -> None:
    """Make folders, the secret and the ServerApp's starter, as far as they are missing.

    Raises:
        ConfigError: HOME cannot be written to.
    """
    try:
        for folder in (home.link, home.logs, home.link / "bin", home.link / "flwr", home.state):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _secret(home).exists():
            handle = os.open(_secret(home), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
        starter = home.link / "bin" / "flwr-serverapp"
        command = [sys.executable, "-P", "-m", "partbook.coordinator.serverapp"]
        where = [str(home.app_lock), str(home.logs / "serverapp.log")]
        starter.write_text(f'#!/bin/sh\nexec {shlex.join([*command, *where])} "$@"\n')
        starter.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"{error.filename} cannot be written ({error.strerror}); give `start` a --home it owns."
        ) from error


def bundle() -> bytes:
    """The FAB that is submitted: one pyproject.toml, which points at what is installed here.

    Raises:
        FlowerChanged: the installed Flower makes none as the pinned one does.
    """
    from importlib.metadata import version

    from partbook.errors import FlowerChanged

    try:
        from flwr.cli.build import build_fab_from_files

        fab, _ = build_fab_from_files({"pyproject.toml": _BUNDLE.format(version=version("partbook")).encode()})
    except (ImportError, TypeError, ValueError) as error:
        raise FlowerChanged(
            f"The installed Flower makes no bundle in the way of 1.41.0 ({error}); install flwr==1.41.0."
        ) from error
    assert isinstance(fab, bytes), "Flower makes bytes"
    return fab


def _secret(home: Home) -> Path:
    return home.link / "superexec.secret"


def _command(name: str) -> str:
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=os.pathsep.join([str(beside), os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise ServiceFailed(f"{name} is not installed beside {sys.executable}; pip install 'partbook[coordinator]'.")
    return found

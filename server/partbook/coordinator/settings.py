"""The coordinator's machine: `server.toml` says where things listen, and how stubborn a run is.

    listen = "0.0.0.0:9443"          where the front takes connections of members and custodian
    hosts = ["federation.example.org"]   names and addresses in its certificate: what nodes call the coordinator
    front = "embedded"               or "proxy", where nginx or Caddy does TLS and client certificates
    superlink_port = 9444            of Flower's SuperLink, on 127.0.0.1 alone
    metrics_port = 9445              of the Prometheus metrics, on 127.0.0.1 alone; 0 for none
    attempts = 5                     in a row at one round, before a run is given up
    wait = 30                        seconds between two of them
    [timing]                         optional; see `partbook.coordinator.timing`

What is trained, and with whom, stands in `federation.toml`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from partbook.coordinator.timing import ServerTiming
from partbook.errors import ConfigError

Port = Annotated[int, Field(ge=1, le=65535)]
Listen = Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$")]
Host = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F:]+|[A-Za-z0-9.-]+)$", max_length=253)]


class ServerConfig(BaseModel):
    """`server.toml`; every key has a default.

    Attributes:
        listen: `host:port` of the front.
        hosts: DNS names and IP addresses that its certificate is for.
        front: `embedded`, or `proxy` where somebody else's server stands before the SuperLink.
        superlink_port, metrics_port: on loopback; no metrics where 0.
        attempts: runs in a row that may end without a finished round.
        wait: seconds before a round that was aborted by name is tried again.
        timing: how long it waits before it asks again, or takes somebody for dead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: Listen = "0.0.0.0:9443"
    hosts: Annotated[tuple[Host, ...], Field(min_length=1)] = ("localhost", "127.0.0.1")
    front: Literal["embedded", "proxy"] = "embedded"
    superlink_port: Port = 9444
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9445
    attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    wait: Annotated[float, Field(ge=0, le=86400)] = 30.0
    timing: ServerTiming = ServerTiming()

    @model_validator(mode="after")
    def _a_port_each(self) -> Self:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"listen: {self.listen} must end in a port from 1 to 65535")
        embedded = [self.port] if self.front == "embedded" else []
        ports = [*embedded, self.superlink_port, *([self.metrics_port] if self.metrics_port else [])]
        if len(set(ports)) < len(ports):
            raise ValueError("listen, superlink_port and metrics_port must be different ports")
        return self

    @property
    def host(self) -> str:
        """The front's address to bind."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The front's port."""
        return int(self.listen.rpartition(":")[2])

    @property
    def superlink(self) -> str:
        """`host:port` of the SuperLink."""
        return f"127.0.0.1:{self.superlink_port}"

    @classmethod
    def read(cls, path: Path) -> ServerConfig:
        """Read a TOML file.

        Raises:
            ConfigError: the file is missing, is not TOML, or a key is wrong; the message names the key.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}); `coordinator init` writes one.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}.") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{path}: {key + ': ' if key else ''}{first['msg']}.") from error

"""A node's configuration: `node.toml`, one file, checked when it is read.

    member = "Label A"                        its name in the roster
    coordinator = "federation.example.org:9443"   the one host it ever talks to
    vault = "vault"                           the vault, and where it lies
    roster = "roster.toml"                    signed by all, and pinned
    identity = "keys/Label A.pem"             signs for the label
    receiving = "keys/Label A.receiving.pem"  opens what is sent to it        (sealed rounds)
    seal_key = "Custodian.seal.public"        the custodian's public key      (sealed rounds)
    state = "state"                           what is kept between exchanges
    tls = "tls"                               TLS key and certificate, made and renewed by the node itself
    passphrase_file = "passphrase"            opens the keys, mode 0600; else PARTBOOK_KEY_PASSPHRASE, else the terminal
    policy, ledger, journal, key, base        optional; see `NodeConfig`
    devices = ["cuda:0", "cuda:1"]            what it trains on; all of them where not given
    style = 3                                 its style number, 0 to 15, if it opts in; none where not given
    [timing]                                  optional; see `partbook.node.timing`

Paths are relative to the file.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from partbook.errors import ConfigError
from partbook.identity.parties import MEMBER_NAME
from partbook.identity.passphrase import PASSPHRASE_VARIABLE, given_passphrase
from partbook.model.checkpoint import BASE
from partbook.music.vocabulary import STYLES
from partbook.node.label import NodeConfig
from partbook.node.timing import PartyTiming


def _with_a_port(address: str) -> str:
    if not 1 <= int(address.rpartition(":")[2]) <= 65535:
        raise ValueError("it must end in a port from 1 to 65535")
    return address


Address = Annotated[
    str,
    StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):[0-9]{1,5}$"),
    AfterValidator(_with_a_port),
]
PartyName = Annotated[str, StringConstraints(pattern=MEMBER_NAME)]


class PartySettings(BaseModel):
    """What every party's file holds.

    Attributes:
        coordinator: `host:port`.
        roster, identity: see above.
        state: folder for what is kept.
        tls: folder of the TLS key and certificate.
        passphrase_file: opens the keys.
        timing: how long it waits for the coordinator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coordinator: Address
    roster: Path
    identity: Path
    state: Path = Path("state")
    tls: Path = Path("tls")
    passphrase_file: Path | None = None
    timing: PartyTiming = PartyTiming()

    def unlock(self) -> None:
        """Have the keys' passphrase at hand, where a file holds it.

        Raises:
            UnusableKey, InsecureKeyFile: the file cannot be used.
        """
        if self.passphrase_file is not None:
            found = given_passphrase(self.passphrase_file)
            assert found, "an empty file is refused"
            os.environ[PASSPHRASE_VARIABLE] = found.decode()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a TOML file.

        Raises:
            ConfigError: the file is missing, is not TOML, or a key is wrong; the message names the key.
        """
        try:
            found = cls.model_validate(tomllib.loads(path.read_text()))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}); give the party's TOML file.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}.") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
        home = path.resolve().parent
        paths = {name: home / value for name, value in found if isinstance(value, Path)}
        return found.model_copy(update=paths)


class NodeSettings(PartySettings):
    """`node.toml`."""

    member: PartyName
    vault: Path
    receiving: Path | None = None
    seal_key: Path | None = None
    policy: Path | None = None
    ledger: Path | None = None
    journal: Path | None = None
    key: Path | None = None
    base: Path | None = None
    devices: tuple[str, ...] | None = None
    style: Annotated[int, Field(ge=0, lt=STYLES, strict=True)] | None = None
    seed: int | None = None

    @property
    def node(self) -> NodeConfig:
        """For `LabelNode`."""
        return NodeConfig(
            member=self.member,
            vault=self.vault,
            roster=self.roster,
            identity=self.identity,
            receiving=self.receiving,
            seal_key=self.seal_key,
            policy=self.policy,
            ledger=self.ledger,
            state=self.state,
            journal=self.journal,
            key=self.key,
            base=self.base or BASE,
            seed=self.seed,
            devices=self.devices,
            style=self.style,
        )

"""Parties: what a roster says of a member and of the custodian, and the entry file that a party hands out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tomli_w

from partbook.errors import ConfigError
from partbook.identity.keys import PublicIdentity
from partbook.identity.receiving import PublicReceiving
from partbook.identity.tables import Table

MEMBER_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"

_MEMBER_NAME: Final = re.compile(MEMBER_NAME)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ENTRY_HEADER: Final = """\
# Public keys, to be handed to whoever writes the roster. Nothing here is secret. Whoever receives them
# compares the fingerprints that `partbook keys show` prints with their owner, by voice.

"""


@dataclass(frozen=True, slots=True)
class Member:
    """One party and its public keys, as it hands them out.

    Attributes:
        name: letters, digits, space, dot, dash, underscore; at most 64, beginning with a letter or digit.
        identity: what it signs with.
        receiving: what is sealed to it.

    Raises:
        ConfigError: the name is not such a name.
    """

    name: str
    identity: PublicIdentity
    receiving: PublicReceiving

    def __post_init__(self) -> None:
        checked_name(self.name)

    @classmethod
    def read(cls, path: Path) -> Member:
        """The entry that `write` wrote.

        Raises:
            ConfigError: it cannot be read or is no entry; the message names file and key.
        """
        return cls.of(Table.read(path))

    def write(self, path: Path) -> None:
        """Write the entry as TOML, for others to read.

        Raises:
            ConfigError: something is at `path` already, or it cannot be written.
        """
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(_ENTRY_HEADER + tomli_w.dumps(self.fields(), multiline_strings=True))
        except FileExistsError as error:
            raise ConfigError(f"{path} exists already and is not overwritten; choose another name.") from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error

    def fields(self) -> dict[str, str]:
        """What is signed and written of a member."""
        return {"name": self.name, "identity": _pem(self.identity), "receiving": self.receiving.text}

    @classmethod
    def of(cls, table: Table) -> Member:
        """The member whose `fields` are in `table`.

        Raises:
            ConfigError: they are not all there, or wrong.
        """
        table.only("name", "identity", "receiving")
        return cls(
            table.parsed("name", checked_name),
            table.parsed("identity", identity_of_pem),
            table.parsed("receiving", PublicReceiving.parse),
        )


@dataclass(frozen=True, slots=True)
class Custodian:
    """Who holds the secret key of the seal (sealed mode).

    Attributes:
        name: as a member's, and no member's.
        identity: what it signs with.
        seal_key: id of its public BFV key: SHA-256, 64 hex digits (`partbook.sealing.parameters`).

    Raises:
        ConfigError: the name or the id is not spelt so.
    """

    name: str
    identity: PublicIdentity
    seal_key: str

    def __post_init__(self) -> None:
        checked_name(self.name)
        checked_key_id(self.seal_key)

    def fields(self) -> dict[str, str]:
        """What is signed and written of the custodian."""
        return {"name": self.name, "identity": _pem(self.identity), "seal_key": self.seal_key}

    @classmethod
    def of(cls, table: Table) -> Custodian:
        """The custodian whose `fields` are in `table`.

        Raises:
            ConfigError: they are not all there, or wrong.
        """
        table.only("name", "identity", "seal_key")
        return cls(
            table.parsed("name", checked_name),
            table.parsed("identity", identity_of_pem),
            table.parsed("seal_key", checked_key_id),
        )


def checked_name(name: str) -> str:
    """`name`, if a party may be called that.

    Raises:
        ConfigError: it may not.
    """
    if not _MEMBER_NAME.fullmatch(name):
        raise ConfigError(
            f"The name {name[:64]!r} must be 1 to 64 letters, digits, spaces, dots, dashes or underscores, "
            "and begin with a letter or digit."
        )
    return name


def checked_key_id(text: str) -> str:
    """`text`, if it is spelt as the id of a seal key.

    Raises:
        ConfigError: it is not.
    """
    if not _SHA256.fullmatch(text):
        raise ConfigError(
            f"The seal key's id {text[:64]!r} must be 64 lower-case hex digits: "
            "what `partbook keys seal` printed when the custodian made the key."
        )
    return text


def identity_of_pem(text: str) -> PublicIdentity:
    """The identity that a PEM text spells.

    Raises:
        UnusableKey: it spells none.
    """
    return PublicIdentity(text.encode("utf-8"))


def _pem(identity: PublicIdentity) -> str:
    return identity.pem.decode("ascii")

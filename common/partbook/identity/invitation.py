"""An invitation: what a label or a custodian needs to know to make its keys and its configuration, signed.

The coordinator's operator writes one file and sends it to whomever the federation wants. It holds nothing secret, and
whoever gets hold of it gets nothing by it: a party belongs to a federation by the roster that all the others sign, and
by nothing else. What the signature is worth is decided on the telephone: it shows that the file is of one piece with
the key in it, and the 60 digits, read out by the operator, show whose key that is.

    protocol = "partbook/v1"             the protocol that the federation speaks
    version = "0.1.0"                    the coordinator's Partbook
    federation = "The Four Partbooks"    its name
    address = "federation.example.org:9443"
    mode = "sealed"                      or "masked"
    roles = ["member", "custodian"]      what the invited may be
    valid_until = "2026-12-07T12:00:00Z"
    coordinator = (PEM)                  the coordinator's identity, which also vouches for its TLS certificate
    signature = (base64)                 by that key, over the canonical JSON of all the rest
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed
from pathlib import Path
from typing import Final, Literal, get_args

import tomli_w

from partbook.errors import BadSignature, ConfigError
from partbook.identity.canonical import Json, canonical
from partbook.identity.keys import IdentityKey, PublicIdentity
from partbook.identity.parties import identity_of_pem
from partbook.identity.spoken import spoken
from partbook.identity.tables import Table

DOMAIN: Final = "partbook/v1/invitation"
PROTOCOL: Final = "partbook/v1"
Role = Literal["member", "custodian"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
MODES: Final = ("masked", "sealed")

_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):([0-9]{1,5})")
_VERSION: Final = re.compile(r"[0-9A-Za-z.+-]{1,64}")
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_HEADER: Final = """\
# An invitation to a Partbook federation. Nothing here is secret. Before you believe it:
#   partbook federation join FILE --name NAME --out FOLDER   shows its fingerprint;
#   have the coordinator's operator read theirs to you, by voice, on a number that does not stand in the same mail.

"""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What `partbook federation invite` hands out. Building one checks its form; `verify` that it is signed and valid.

    Attributes:
        federation: the federation's name, 1 to 200 printable characters.
        coordinator: the coordinator's identity.
        address: `host:port` at which the coordinator's front listens; an IPv6 address stands in brackets.
        mode: `masked` or `sealed`.
        roles: what the invited may be, of `ROLES`; at least one. There is a custodian in sealed federations only.
        version: of the coordinator's Partbook.
        valid_until: in UTC, whole seconds.
        signature: DER; empty before it is signed.

    Raises:
        ConfigError: a field is not of this form; the message names it.
    """

    federation: str
    coordinator: PublicIdentity
    address: str
    mode: str
    roles: tuple[str, ...]
    version: str
    valid_until: datetime
    signature: bytes = b""

    def __post_init__(self) -> None:
        name = self.federation
        if not 1 <= len(name) <= 200 or not name.isprintable() or name != name.strip():
            raise ConfigError(
                f"federation {name[:60]!r} must be 1 to 200 printable characters without spaces at the ends."
            )
        matched = _ADDRESS.fullmatch(self.address)
        if matched is None or not 1 <= int(matched[3]) <= 65535:
            raise ConfigError(
                f"address {self.address[:80]!r} must be HOST:PORT, such as federation.example.org:9443 or "
                "[2001:db8::1]:9443."
            )
        if self.mode not in MODES:
            raise ConfigError(f"mode {self.mode[:20]!r} must be one of: {', '.join(MODES)}.")
        if not self.roles or len(set(self.roles)) != len(self.roles) or not set(self.roles) <= set(ROLES):
            raise ConfigError(f"roles must name one or more of: {', '.join(ROLES)}; each once.")
        if "custodian" in self.roles and self.mode == "masked":
            raise ConfigError(
                "roles: a masked federation has no custodian; invite members only, or set mode to sealed."
            )
        if not _VERSION.fullmatch(self.version):
            raise ConfigError(f"version {self.version[:70]!r} is not a version of Partbook.")
        if self.valid_until.tzinfo is None or self.valid_until.microsecond:
            raise ConfigError("valid_until must be in UTC and in whole seconds.")
        object.__setattr__(self, "valid_until", self.valid_until.astimezone(UTC))

    @classmethod
    def issue(
        cls,
        key: IdentityKey,
        federation: str,
        address: str,
        *,
        mode: str = "sealed",
        roles: tuple[str, ...] = ("member",),
        days: int = 14,
        now: datetime | None = None,
    ) -> Invitation:
        """An invitation signed by the coordinator's `key`, valid from `now` on.

        Raises:
            ConfigError: a field is not of its form.
        """
        until = (now or datetime.now(UTC)).replace(microsecond=0) + timedelta(days=days)
        bare = cls(federation, key.public, address, mode, roles, installed("partbook"), until)
        return replace(bare, signature=key.sign(canonical(bare._fields()), DOMAIN))

    def verify(self, now: datetime | None = None) -> None:
        """Return if the key in it signed it, and its time is not over.

        Raises:
            BadSignature: it was altered since, or signed with another key.
            ConfigError: `valid_until` has passed.
        """
        try:
            self.coordinator.verify(canonical(self._fields()), self.signature, DOMAIN)
        except BadSignature as error:
            raise BadSignature(
                "The invitation is not signed by the coordinator's key in it: it was altered on its way, or is no "
                "original. Ask the coordinator's operator for it again, on another way."
            ) from error
        if (now or datetime.now(UTC)) > self.valid_until:
            raise ConfigError(
                f"valid_until: the invitation to {self.federation!r} was valid until {self.valid_until:{_TIME}}; ask "
                "the coordinator's operator for a new one, or set this machine's clock if it is wrong."
            )

    @property
    def fingerprint(self) -> str:
        """60 digits for the operator to read out; they cover the coordinator's key, its address and all the rest."""
        return spoken(DOMAIN, self._fields())

    @property
    def toml(self) -> str:
        """The file's text, which `parse` reads."""
        document = {**self._fields(), "signature": base64.b64encode(self.signature).decode("ascii")}
        return _HEADER + tomli_w.dumps(document, multiline_strings=True)

    @classmethod
    def parse(cls, text: str, source: str = "the invitation") -> Invitation:
        """What `toml` spelt; neither signature nor time is looked at.

        Raises:
            ConfigError: it is no invitation, or one for another protocol; the message names `source` and the key.
        """
        return cls._of(Table.parse(text, source))

    @classmethod
    def read(cls, path: Path, *, now: datetime | None = None) -> Invitation:
        """The invitation in a file, verified.

        Raises:
            ConfigError: the file cannot be read, is no invitation, or its time is over.
            BadSignature: it was altered since it was signed.
        """
        found = cls._of(Table.read(path))
        try:
            found.verify(now)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        except BadSignature as error:
            raise BadSignature(f"{path}: {error}") from error
        return found

    def write(self, path: Path) -> None:
        """Write the TOML file, for others to read.

        Raises:
            ConfigError: something is at `path` already, or it cannot be written.
        """
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(self.toml)
        except FileExistsError as error:
            raise ConfigError(f"{path} exists already and is not overwritten; choose another name.") from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error

    def _fields(self) -> dict[str, Json]:
        return {
            "protocol": PROTOCOL,
            "version": self.version,
            "federation": self.federation,
            "address": self.address,
            "mode": self.mode,
            "roles": list(self.roles),
            "valid_until": self.valid_until.strftime(_TIME),
            "coordinator": self.coordinator.pem.decode("ascii"),
        }

    @classmethod
    def _of(cls, table: Table) -> Invitation:
        if table.text("protocol") != PROTOCOL:
            raise table.wrong("protocol", f"must be {PROTOCOL!r}; the federation runs another version of Partbook")
        table.only(
            "protocol", "version", "federation", "address", "mode", "roles", "valid_until", "coordinator", "signature"
        )
        roles = table.values.get("roles")
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise table.wrong("roles", "must be a list of strings")
        try:
            until = datetime.strptime(table.text("valid_until"), _TIME).replace(tzinfo=UTC)
        except ValueError as error:
            raise table.wrong("valid_until", "must be a time such as 2026-12-07T12:00:00Z") from error
        parts = (
            table.text("federation"),
            table.parsed("coordinator", identity_of_pem),
            table.text("address"),
            table.text("mode"),
            tuple(roles),
            table.text("version"),
            until,
            table.base64("signature"),
        )
        try:
            return cls(*parts)
        except ConfigError as error:
            raise ConfigError(f"{table.where}: {error}") from error

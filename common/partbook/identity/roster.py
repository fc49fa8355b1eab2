"""The roster: who belongs to a federation and with which keys, signed by everyone in it.

Every party pins the roster it signed. A coordinator proposes a cohort out of it and can never invent a member
(PROTOCOL §0), because a name counts only with the keys listed here.

What is signed is the canonical JSON (`partbook.identity.canonical`) of all fields but the signatures; the TOML
file is how people pass it round. It names its signers and their keys, so a signature cannot be claimed for a
second key that happens to fit it (see `partbook.identity.keys`). Signatures made on copies of one file may be pasted
together.

Roles are kept apart: every name and every key is listed once. A label that is also the custodian has a second name and
a second key for that.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import tomli_w

from partbook.errors import (
    BadSignature,
    ConfigError,
    DuplicateMember,
    ForgedMember,
    ReplayedMessage,
    UnsignedRoster,
)
from partbook.identity.canonical import LARGEST_INTEGER, Json, canonical
from partbook.identity.keys import IdentityKey, PublicIdentity
from partbook.identity.message import COORDINATOR
from partbook.identity.parties import MEMBER_NAME, Custodian, Member, identity_of_pem
from partbook.identity.tables import Table

__all__ = [
    "COORDINATOR",
    "DOMAIN",
    "FINGERPRINT_DIGITS",
    "MEMBER_NAME",
    "MINIMUM_MEMBERS",
    "Custodian",
    "Member",
    "Roster",
]

DOMAIN: Final = "partbook/v1/roster"
MINIMUM_MEMBERS: Final = 3  # PROTOCOL §1: with two, each would learn the other's update from the sum
FINGERPRINT_DIGITS: Final = 60

_PROTOCOL: Final = "partbook/v1"
_HEADER: Final = """\
# The roster of a Partbook federation. Reading it is not enough:
#   partbook roster verify FILE   says who is in it and who signed it;
#   compare the fingerprint it shows with the other members, by voice, before you sign.

"""


@dataclass(frozen=True)
class Roster:
    """A federation's parties. Building one checks its form; only `verify` says that everybody signed it.

    Attributes:
        federation: its name, 1 to 200 printable characters.
        version: counted from 1; every change is the next.
        coordinator: the coordinator's identity.
        members: at least three, sorted by name whatever order they were given in.
        custodian: holder of the seal's secret key, or None in a federation without the sealed mode.
        signatures: DER, by the name of the party that signed. Not covered by `hash`.
        canonical: what the signatures cover: every field but themselves, in the one spelling. Computed.
        hash: SHA-256 of the domain label and the canonical form, hex. Computed.

    Raises:
        ConfigError: a field is not of this form; the message names it.
        DuplicateMember: a name or a key is listed twice. Names that differ in case only are one name.
    """

    federation: str
    version: int
    coordinator: PublicIdentity
    members: tuple[Member, ...]
    custodian: Custodian | None = None
    signatures: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    canonical: bytes = field(init=False, repr=False, compare=False)
    hash: str = field(init=False, compare=False)
    _identities: Mapping[str, PublicIdentity] = field(init=False, repr=False, compare=False)
    _members: Mapping[str, Member] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_form()
        self._check_nobody_is_there_twice()
        members = tuple(sorted(self.members, key=lambda member: member.name))
        identities = {member.name: member.identity for member in members} | {COORDINATOR: self.coordinator}
        if self.custodian:
            identities[self.custodian.name] = self.custodian.identity
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "signatures", dict(self.signatures))
        object.__setattr__(self, "_members", {member.name: member for member in members})
        object.__setattr__(self, "_identities", identities)
        object.__setattr__(self, "canonical", self._spelt())
        object.__setattr__(self, "hash", hashlib.sha256(DOMAIN.encode("ascii") + self.canonical).hexdigest())

    def _check_form(self) -> None:
        name = self.federation
        if not 1 <= len(name) <= 200 or not name.isprintable() or name != name.strip():
            raise ConfigError(
                f"federation {name[:60]!r} must be 1 to 200 printable characters without spaces at the ends."
            )
        if isinstance(self.version, bool) or not 1 <= self.version <= LARGEST_INTEGER:
            raise ConfigError(f"version {self.version} must be a whole number from 1 on.")
        if len(self.members) < MINIMUM_MEMBERS:
            raise ConfigError(
                f"members: {len(self.members)} listed and at least {MINIMUM_MEMBERS} are needed; "
                "with two, each would learn the other's update from the sum."
            )
        for party in self._named():
            if party.name.casefold() == COORDINATOR:
                raise ConfigError(f"The name {party.name!r} is the coordinator's own; give this party another one.")

    def _check_nobody_is_there_twice(self) -> None:
        names: dict[str, str] = {}
        keys: dict[bytes, str] = {self.coordinator.pem: COORDINATOR}
        for party in self._named():
            # "north" and "North " would be told apart by no one on the phone.
            spoken = " ".join(party.name.casefold().split())
            if spoken in names:
                raise DuplicateMember(
                    f"The roster lists {names[spoken]!r} and {party.name!r}, which are one name when spoken; "
                    "every party, the custodian too, needs a name of its own."
                )
            names[spoken] = party.name
            mine = [party.identity.pem] + ([party.receiving.raw] if isinstance(party, Member) else [])
            for key in mine:
                if key in keys:
                    raise DuplicateMember(
                        f"The roster lists one key for {keys[key]!r} and for {party.name!r}; "
                        "ask both for the entry that `partbook keys new` made for them."
                    )
                keys[key] = party.name

    def _named(self) -> list[Member | Custodian]:
        return [*self.members, *([self.custodian] if self.custodian else [])]

    def _spelt(self) -> bytes:
        members: list[Json] = [member.fields() for member in self.members]
        return canonical(
            {
                "protocol": _PROTOCOL,
                "federation": self.federation,
                "version": self.version,
                "coordinator": self.coordinator.pem.decode("ascii"),
                "members": members,
                "custodian": self.custodian.fields() if self.custodian else None,
            }
        )

    @property
    def fingerprint(self) -> str:
        """The hash as 60 decimal digits in 12 groups of five, for two people to read to each other.

        Digits, because they are the one alphabet that is said alike on any line and in any language (B, D and E
        are not); 60 of them, as Signal's safety numbers. They carry 199 bits (the hash modulo 10^60, bias below
        2^-56): to prepare two different rosters with one fingerprint, for two victims, costs 2^99 hashes. Forty
        digits would leave 2^66, which has been done.
        """
        digits = str(int(self.hash, 16) % 10**FINGERPRINT_DIGITS).zfill(FINGERPRINT_DIGITS)
        return " ".join(digits[i : i + 5] for i in range(0, FINGERPRINT_DIGITS, 5))

    @property
    def parties(self) -> tuple[str, ...]:
        """Names of all who must sign: the members, "coordinator", and the custodian if there is one."""
        return tuple(self._identities)

    def member(self, name: str) -> Member:
        """The member of that name.

        Raises:
            ForgedMember: there is none.
        """
        if name not in self._members:
            raise ForgedMember(self._unknown(name, "member"))
        return self._members[name]

    def identity_of(self, name: str) -> PublicIdentity:
        """The identity of a member, of "coordinator" or of the custodian.

        Raises:
            ForgedMember: the roster lists no such party.
        """
        if name not in self._identities:
            raise ForgedMember(self._unknown(name, "party"))
        return self._identities[name]

    def sign(self, name: str, key: IdentityKey) -> Roster:
        """This roster with the signature of the party `name` added.

        Raises:
            ForgedMember: no such party, or `key` is not the one listed for it.
        """
        listed = self.identity_of(name)
        if key.public != listed:
            raise ForgedMember(
                f"The roster lists the key {listed.fingerprint} for {name!r}, and this is "
                f"{key.public.fingerprint}. Sign with the listed key, or have the roster written anew with yours."
            )
        return replace(self, signatures={**self.signatures, name: key.sign(self.canonical, DOMAIN)})

    def unsigned(self) -> dict[str, str]:
        """Whose signature does not count, and why: "missing", "wrong" or "not a party". Empty if all is well."""
        blob, found = self.canonical, {}
        for name, identity in self._identities.items():
            if name not in self.signatures:
                found[name] = "missing"
                continue
            try:
                identity.verify(blob, self.signatures[name], DOMAIN)
            except BadSignature:
                found[name] = "wrong"
        return found | {name: "not a party" for name in self.signatures if name not in self._identities}

    def verify(self) -> None:
        """Return if every party signed this very roster.

        Raises:
            UnsignedRoster: naming whose signature is missing, wrong, or of nobody listed.
        """
        found = self.unsigned()
        if not found:
            return
        named = "; ".join(
            f"{reason}: {', '.join(repr(n) for n, r in found.items() if r == reason)}"
            for reason in ("missing", "wrong", "not a party")
            if reason in found.values()
        )
        raise UnsignedRoster(
            f"Version {self.version} of the roster of {self.federation!r} is not signed by all ({named}). "
            "Who is missing runs `partbook roster sign`; a wrong signature was made for another roster or "
            "another key, or altered."
        )

    def succeeds(self, previous: Roster) -> None:
        """Return if this is the version that follows `previous`, which a node has pinned.

        Raises:
            ReplayedMessage: it is of another federation, or not newer: an older one may list a stolen key.
            ConfigError: versions between the two are missing.
        """
        if self.federation != previous.federation:
            raise ReplayedMessage(
                f"This roster is of the federation {self.federation!r}, and {previous.federation!r} is pinned."
            )
        if self.version <= previous.version:
            raise ReplayedMessage(
                f"This roster is version {self.version}, and version {previous.version} is pinned already; "
                "ask for the current one, and never go back."
            )
        if self.version != previous.version + 1:
            raise ConfigError(
                f"version {self.version} does not follow the pinned version {previous.version}; "
                f"take version {previous.version + 1} first."
            )

    @property
    def toml(self) -> str:
        """The file's text, which `parse` reads."""
        document: dict[str, Any] = {
            "protocol": _PROTOCOL,
            "federation": self.federation,
            "version": self.version,
            "coordinator": self.coordinator.pem.decode("ascii"),
            "members": [member.fields() for member in self.members],
        }
        if self.custodian:
            document["custodian"] = self.custodian.fields()
        document["signatures"] = {
            name: base64.b64encode(self.signatures[name]).decode("ascii") for name in sorted(self.signatures)
        }
        return _HEADER + tomli_w.dumps(document, multiline_strings=True)

    @classmethod
    def parse(cls, text: str, source: str = "the roster") -> Roster:
        """The roster that `toml` spelt; its signatures are not checked.

        Raises:
            ConfigError: it is no roster; the message names `source` and the key.
            DuplicateMember: a name or a key is listed twice.
        """
        return cls._of(Table.parse(text, source))

    @classmethod
    def _of(cls, table: Table) -> Roster:
        table.only("protocol", "federation", "version", "coordinator", "members", "custodian", "signatures")
        if table.text("protocol") != _PROTOCOL:
            raise table.wrong("protocol", f"must be {_PROTOCOL!r}; this file is for another version of Partbook")
        signatures = table.table("signatures")
        parts = (
            table.text("federation"),
            table.integer("version"),
            table.parsed("coordinator", identity_of_pem),
            tuple(Member.of(entry) for entry in table.tables("members")),
            Custodian.of(table.table("custodian")) if "custodian" in table.values else None,
            {name: signatures.base64(name) for name in signatures.values},
        )
        try:
            return cls(*parts)
        except ConfigError as error:
            raise ConfigError(f"{table.where}: {error}") from error
        except DuplicateMember as error:
            raise DuplicateMember(f"{table.where}: {error}") from error

    @classmethod
    def read(cls, path: Path, verify: bool = True) -> Roster:
        """The roster in a file, signed by all unless `verify` is off (as while signatures are being gathered).

        Raises:
            ConfigError: the file cannot be read or is no roster; the message names file and key.
            DuplicateMember: a name or a key is listed twice.
            UnsignedRoster: a signature is missing or wrong.
        """
        found = cls._of(Table.read(path))
        if verify:
            try:
                found.verify()
            except UnsignedRoster as error:
                raise UnsignedRoster(f"{path}: {error}") from error
        return found

    def write(self, path: Path) -> None:
        """Write the TOML file; whoever reads meanwhile finds the old one or the new one, whole.

        Raises:
            ConfigError: it cannot be written.
        """
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with draft.open("x", encoding="utf-8") as file:
                file.write(self.toml)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise ConfigError(f"The roster cannot be written to {path}: {error.strerror}.") from error

    def _unknown(self, name: str, what: str) -> str:
        return (
            f"Version {self.version} of the roster of {self.federation!r} lists no {what} {name[:64]!r}. "
            "Somebody made it up, or a newer roster must be signed and pinned first."
        )

"""Taking a recording out for good, and a signed certificate of what it had spent until then.

    1  the ledger notes it          from here on no round holds the recording
    2  the vault lets go of it      its shard is deleted, its audio is refused if it comes again
    3  the certificate is written

Each step is on the disk before the next and may be taken twice, so whoever is stopped in between runs the same again.
What earlier rounds learnt stays learnt, within the ε that the certificate names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from itertools import groupby
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from partbook.errors import BadSignature, ConfigError, CorruptMessage, InputError, VaultError
from partbook.identity.canonical import canonical, parse_canonical
from partbook.identity.keys import IdentityKey, PublicIdentity
from partbook.node.debits import Debit, price
from partbook.node.keeping import write_whole
from partbook.node.ledger import Ledger
from partbook.vault.store import Vault

DOMAIN: Final = "partbook/v1/withdrawal"
SHORTEST_PREFIX: Final = 6  # digits of an id; one in 16 million finds another recording by chance
_PREFIX: Final = re.compile(rf"[0-9a-f]{{{SHORTEST_PREFIX},64}}")


class CertifiedRound(BaseModel):
    """A round that may have held the recording: its number, the plan's hash, when, and whether anything was sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    plan: str
    at: str
    state: Literal["reserved", "committed"]


class CertifiedFederation(BaseModel):
    """What the recording spent in the rounds that one coordinator asked for in one federation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation: str
    coordinator: str
    epsilon: str
    rounds: tuple[CertifiedRound, ...]


class Certificate(BaseModel):
    """What a label says of a recording that it has withdrawn.

    Attributes:
        protocol: `partbook/v1`.
        member: the label's name.
        signer: fingerprint of the key that signed.
        recording: the vault's id for it, which tells nothing about it without the vault's key.
        title: only if the label wanted it in.
        joined: when it began to count, ISO 8601 in UTC; empty if it never did.
        withdrawn: when it ceased to.
        delta: the δ of every ε here; figures are strings in the shortest form that reads back.
        epsilon: ε of everything together, what is only reserved included.
        federations: what it is made up of.
        rows: rows of the label's ledger when this was written.
        ledger: MAC of the newest of them, by which the ledger can be held to them later.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["partbook/v1"] = "partbook/v1"
    member: str
    signer: str
    recording: str
    title: str | None = None
    joined: str
    withdrawn: str
    delta: str
    epsilon: str
    federations: tuple[CertifiedFederation, ...]
    rows: int
    ledger: str


def find(vault: Vault, wanted: str) -> str:
    """The id of the recording that a person means: by its id or the first digits of it, its file, or its title.

    Recordings that were withdrawn are found too, though no longer by their titles.

    Raises:
        InputError: none is meant, or several are.
        AudioError: `wanted` is a file that is not inside and cannot be read.
    """
    if _PREFIX.fullmatch(wanted):
        fitting = [name for name in [*vault.ids(), *vault.tombstones()] if name.startswith(wanted)]
        if fitting:
            return _only(fitting, wanted)
    path = Path(wanted)
    if path.is_file():
        from partbook.music.decode import read_audio

        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found = vault.known_file(digest) or vault.withdrawn_file(digest)
        if found is None:
            audio = read_audio(path).sha256
            found = vault.known(audio) or vault.withdrawn(audio)
        if found is None:
            raise InputError(f"{path} is not in the vault, nor was it withdrawn from it; nothing was done.")
        return found
    titled = [name for name in vault.ids() if vault.get(name).title.casefold() == wanted.casefold()]
    if not titled:
        gone = ", ".join(name[:12] for name in vault.tombstones()[:8])
        raise InputError(
            f"No recording in the vault has the id, file or title {wanted!r}; nothing was done. "
            + (f"Withdrawn already, and known by their ids only: {gone}." if gone else "Check the spelling.")
        )
    return _only(titled, wanted)


def withdraw(recording: str, vault: Vault, ledger: Ledger) -> None:
    """Let a recording out of all future rounds and out of the vault. Twice is fine.

    Args:
        recording: its id.
        vault: open for writing.
        ledger: the vault's.

    Raises:
        VaultError: the vault never held it, or the disk refuses; run it again.
    """
    if recording not in vault and recording not in vault.tombstones():
        raise VaultError(f"The vault holds no recording {recording}; nothing was withdrawn.")
    ledger.withdraw(recording)
    vault.withdraw(recording)


def certify(
    recording: str, ledger: Ledger, *, member: str, key: IdentityKey, delta: float, title: str | None = None
) -> bytes:
    """The signed certificate of a recording that the ledger calls withdrawn, in its one spelling.

    Args:
        recording: its id.
        ledger: the vault's.
        member: the label's name.
        key: the label's identity key.
        delta: the δ at which ε is stated.
        title: to be named in it, or None.

    Raises:
        UnsupportedEvent: the accountant does not know something that was done with it.
    """
    (stay,) = [stay for stay in ledger.stays() if stay.recording == recording]
    assert stay.withdrawn_at, "only a withdrawn recording has a certificate"
    debits = ledger.charged(recording)
    rows, head = ledger.head
    certificate = Certificate(
        member=member,
        signer=key.public.fingerprint,
        recording=recording,
        title=title,
        joined=stay.joined_at,
        withdrawn=stay.withdrawn_at,
        delta=repr(delta),
        epsilon=repr(price(debits, delta)),
        federations=tuple(
            CertifiedFederation(
                federation=federation,
                coordinator=coordinator,
                epsilon=repr(price(asked, delta)),
                rounds=tuple(
                    CertifiedRound(round=debit.round, plan=debit.plan, at=debit.reserved_at, state=debit.state)
                    for debit in asked
                    if debit.state != "released"
                ),
            )
            for (federation, coordinator), asked in _by_asker(debits)
        ),
        rows=rows,
        ledger=head,
    )
    body = certificate.model_dump(mode="json", exclude_none=True)
    signature = base64.b64encode(key.sign(canonical(body), DOMAIN)).decode()
    return canonical({"certificate": body, "signature": signature})


def verify_certificate(data: bytes, public: PublicIdentity) -> Certificate:
    """What a certificate says, once it has been shown to be the signer's.

    Args:
        data: what `certify` returned.
        public: the label's identity key, from the roster or from its owner.

    Raises:
        CorruptMessage: it is not a certificate in its one spelling.
        BadSignature: this key did not sign it.
    """
    try:
        value = parse_canonical(data)
        if not isinstance(value, dict) or set(value) != {"certificate", "signature"}:
            raise ValueError("it lacks a field, or has one too many")
        signature = base64.b64decode(str(value["signature"]), validate=True)
        certificate = Certificate.model_validate(value["certificate"])
    except (ValueError, binascii.Error) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CorruptMessage(f"This is not a certificate as it was written ({reason}); ask for it again.") from error
    public.verify(canonical(value["certificate"]), signature, DOMAIN)
    if certificate.signer != public.fingerprint:
        raise BadSignature(
            f"The certificate names {certificate.signer} as its signer, not the key it is read with, "
            f"{public.fingerprint}; ask the label which is its own."
        )
    return certificate


def keep_certificate(path: Path, data: bytes) -> None:
    """Write a certificate, whole or not at all, in place of an earlier one for the same recording.

    Raises:
        ConfigError: something else is at `path`, or it cannot be written.
    """
    refuse_other(path, str(_recording_of(data)))
    try:
        write_whole(path, data)
    except OSError as error:
        raise ConfigError(
            f"The certificate {path} cannot be written ({error.strerror}). The recording is withdrawn; run the same "
            "again with another --certificate."
        ) from error


def refuse_other(path: Path, recording: str) -> None:
    """Return if a certificate for `recording` may be written to `path`.

    Raises:
        ConfigError: something else is there, or its folder is not.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"There is no folder {path.parent} for the certificate; make it, or name another place.")
    if path.exists() and (not path.is_file() or _recording_of(path.read_bytes()) != recording):
        raise ConfigError(f"{path} exists already and is not overwritten; name another file for the certificate.")


def _recording_of(data: bytes) -> str | None:
    try:
        value = parse_canonical(data)
    except ValueError:
        return None
    inside = value.get("certificate") if isinstance(value, dict) else None
    return str(inside.get("recording")) if isinstance(inside, dict) else None


def _by_asker(debits: tuple[Debit, ...]) -> list[tuple[tuple[str, str], list[Debit]]]:
    def asker(debit: Debit) -> tuple[str, str]:
        return debit.federation, debit.coordinator

    return [(who, list(asked)) for who, asked in groupby(sorted(debits, key=asker), asker)]


def _only(fitting: list[str], wanted: str) -> str:
    if len(fitting) > 1:
        raise InputError(
            f"{wanted!r} means {len(fitting)} recordings ({', '.join(name[:12] for name in fitting[:8])}); "
            "give more of the id of one of them."
        )
    return fitting[0]

"""What lies in a folder of TLS certificates: whose each is, and until when it is good.

A party's identity key, which the roster lists, issues its certificates; there is no authority above it. So the question
is not which chain a certificate has, but which key of the roster signed it (RFC 5280, section 6.1: the roster is the
set of trust anchors). Anchors themselves, which are only a form in which TLS libraries want to be told a key, are
passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from partbook.errors import CertificateRefused, ConfigError
from partbook.identity.roster import Roster
from partbook.identity.tls import party_of


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate.

    Attributes:
        path: its file.
        party: whose identity key in the roster issued it; None where none did.
        begins, ends: when it is valid, UTC.
        now: when this was asked.
    """

    path: Path
    party: str | None
    begins: datetime
    ends: datetime
    now: datetime

    @property
    def state(self) -> str:
        """`good`, `expired`, `not yet` valid, or `foreign`: issued by nobody in the roster."""
        if self.party is None:
            return "foreign"
        if self.now > self.ends:
            return "expired"
        return "not yet" if self.now < self.begins else "good"

    @property
    def sentence(self) -> str:
        """The same for a reader, with what to do."""
        who = f"certificate of {self.party}"
        if self.state == "foreign":
            return (
                "issued by no key of this roster; whoever checks by the roster refuses it. Remove it, and start the "
                "process again: it issues a new one."
            )
        if self.state == "expired":
            return f"{who}, expired on {self.ends:%d %B %Y}. Start the process that uses it again: it issues a new one."
        if self.state == "not yet":
            return f"{who}, valid from {self.begins:%d %B %Y, %H:%M} UTC on only: is this machine's clock right?"
        return f"{who}, good until {self.ends:%d %B %Y} ({(self.ends - self.now).days} days)."

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {"file": str(self.path), "party": self.party, "state": self.state, "ends": self.ends.isoformat()}


def certificates(folder: Path, roster: Roster, now: datetime | None = None) -> tuple[Certificate, ...]:
    """The certificates in the PEM files of a folder, by file name; keys and anchors are passed over.

    Raises:
        ConfigError: the folder or a file cannot be read, or a certificate is broken.
    """
    asked = now or datetime.now(UTC)
    found = []
    try:
        files = [(path, path.read_bytes()) for path in sorted(folder.iterdir()) if path.suffix in (".pem", ".crt")]
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}.") from error
    for path, data in files:
        if b"-----BEGIN CERTIFICATE-----" not in data:
            continue
        try:
            parsed = x509.load_pem_x509_certificates(data)
        except ValueError as error:
            raise ConfigError(
                f"{path} holds no certificate that can be read; remove it, and it is made anew."
            ) from error
        found += [
            Certificate(path, _issuer(one, roster), one.not_valid_before_utc, one.not_valid_after_utc, asked)
            for one in parsed
            if not _is_anchor(one)
        ]
    return tuple(found)


def _is_anchor(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _issuer(certificate: x509.Certificate, roster: Roster) -> str | None:
    try:
        return party_of(certificate.public_bytes(serialization.Encoding.DER), roster)
    except CertificateRefused:
        return None

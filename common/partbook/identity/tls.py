"""TLS without a certificate authority: the roster says whom to trust.

A trust anchor is a name and a public key (RFC 5280, section 6.1.1 d); the roster lists both for every party. So whoever
verifies makes the anchor's certificate itself, out of the roster, and a party's identity key issues the short-lived
certificates that the party presents. Nobody sends an anchor to anybody, no authority can invent a member, and a new
version of the roster is all that it takes to let somebody in or keep somebody out.

    anchor   CA certificate with the party's identity key; its own signature is by a key that everybody knows, since
             path validation begins behind it (RFC 5280, section 6.1); checked with OpenSSL 3.0, by default and strict
    leaf     the party's TLS key, certified by its identity key for some weeks; made anew on its own machine

A role stands in every name, and only `serverAuth` for the coordinator and `clientAuth` for the others is certified, so
that no label's certificate serves as the coordinator's. TLS 1.3 (RFC 8446) only.

The TLS key is another than the identity key: it lies unencrypted beside a running process, and is worth nothing once
its certificate is over.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from partbook.errors import CertificateRefused, ExpiredCertificate, ForgedMember, UnusableKey
from partbook.identity.keyfiles import read_secret
from partbook.identity.keys import IdentityKey, PublicIdentity
from partbook.identity.message import COORDINATOR
from partbook.identity.roster import Roster

DAYS: Final = 30.0  # a leaf's life
BACKDATED: Final = timedelta(hours=1)  # so that a clock a little behind takes a fresh leaf
_ANCHORED_FROM: Final = datetime(2020, 1, 1, tzinfo=UTC)
_ANCHORED_UNTIL: Final = datetime(2120, 1, 1, tzinfo=UTC)
_SERVER, _CLIENT = "front", "party"  # stems of the files
# Signs anchors, since something must: everybody knows it, and no verifier looks. RFC 6979 makes the bytes the same each
# time, so that a store to which anchors are added again does not grow.
_NOBODY: Final = ec.derive_private_key(1, ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Leaf:
    """A TLS key and its certificate.

    Attributes:
        key: PEM (PKCS 8), not encrypted.
        certificate: PEM.
    """

    key: bytes = field(repr=False)
    certificate: bytes

    def __reduce__(self) -> str:
        raise TypeError("A TLS key is not pickled; load it where it is needed.")

    @property
    def _read(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate)

    @property
    def expires(self) -> datetime:
        """When it is over, UTC."""
        return self._read.not_valid_after_utc

    @property
    def begins(self) -> datetime:
        """Since when it counts, UTC."""
        return self._read.not_valid_before_utc

    @property
    def name(self) -> str:
        """The party's."""
        return _common_name(self._read.subject)

    @property
    def public_key(self) -> bytes:
        """PEM (SubjectPublicKeyInfo) of the TLS key: by this Flower knows the node."""
        return public_key_of(self._read)

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """The TLS key."""
        key = serialization.load_pem_private_key(self.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey), "a TLS key is a P-256 key"
        return key

    def save(self, folder: Path) -> None:
        """Write both files, for their owner alone.

        Raises:
            UnusableKey: the disk refuses.
        """
        stem = self._stem()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The certificate last: until it is there, the pair counts as missing.
            _replace(folder / f"{stem}.key.pem", self.key)
            _replace(folder / f"{stem}.cert.pem", self.certificate)
        except OSError as error:
            raise UnusableKey(f"The TLS key cannot be written to {folder}: {error.strerror}.") from error

    @classmethod
    def load(cls, folder: Path, *, server: bool | None = None) -> Leaf:
        """What `save` wrote.

        Args:
            folder: where.
            server: the coordinator's (True) or a party's (False), where a folder may hold both; None for whichever
                is there.

        Raises:
            InsecureKeyFile: others may read the key.
            UnusableKey: there is none, or key and certificate do not belong together.
        """
        stems = (_SERVER, _CLIENT) if server is None else (_SERVER if server else _CLIENT,)
        stem = next((stem for stem in stems if (folder / f"{stem}.cert.pem").exists()), stems[-1])
        key = read_secret(folder / f"{stem}.key.pem", "TLS key")
        try:
            leaf = cls(key, (folder / f"{stem}.cert.pem").read_bytes())
            if _spki(leaf.private_key.public_key()) != leaf.public_key:
                raise ValueError("they do not belong together")
        except (OSError, ValueError, TypeError) as error:
            raise UnusableKey(
                f"{folder} holds no TLS key with its certificate ({error}); remove both, and they are made anew."
            ) from error
        return leaf

    def _stem(self) -> str:
        usage = self._read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        return _SERVER if ExtendedKeyUsageOID.SERVER_AUTH in usage else _CLIENT


def anchor(name: str, public: PublicIdentity) -> bytes:
    """A party's trust anchor, PEM: always the same bytes for a name and a key; its own signature means nothing."""
    subject = _subject(name)
    key = serialization.load_pem_public_key(public.pem)
    assert isinstance(key, ec.EllipticCurvePublicKey), "an identity is a P-256 key"
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(_ANCHORED_FROM)
        .not_valid_after(_ANCHORED_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certifies=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .sign(_NOBODY, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def anchors(roster: Roster) -> bytes:
    """The anchors of members and custodian, PEM: whom a front lets in."""
    parties = [(member.name, member.identity) for member in roster.members]
    if roster.custodian is not None:
        parties.append((roster.custodian.name, roster.custodian.identity))
    return b"".join(anchor(name, public) for name, public in parties)


def issue(
    identity: IdentityKey,
    name: str,
    *,
    hosts: Sequence[str] = (),
    days: float = DAYS,
    now: datetime | None = None,
) -> Leaf:
    """A fresh TLS key, certified by a party's identity key.

    Args:
        identity: the party's.
        name: its name in the roster.
        hosts: DNS names and IP addresses that the coordinator is reached at; none for the others.
        days: of life.
        now: when it begins (an hour before, in fact).
    """
    key = ec.generate_private_key(ec.SECP256R1())
    begins = now or datetime.now(UTC)
    issuer_key = serialization.load_pem_public_key(identity.public.pem)
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey), "an identity is a P-256 key"
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(_subject(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - BACKDATED)
        .not_valid_after(begins + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certifies=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Leaf(private, identity.certify(builder).public_bytes(serialization.Encoding.PEM))


def renewed(folder: Path, identity: IdentityKey, name: str, *, hosts: Sequence[str] = (), days: float = DAYS) -> Leaf:
    """The leaf in `folder`; issued anew where there is none, it is another's, or under a third of its life is left.

    One that has not begun was made when this machine's clock was wrong, and is replaced as well.

    Raises:
        InsecureKeyFile: others may read the key that is there.
        UnusableKey: the disk refuses.
    """
    try:
        found = Leaf.load(folder, server=bool(hosts))
        now, life = datetime.now(UTC), found.expires - found.begins
        asked = {str(_host(host).value) for host in hosts}
        mine = found.name == name and _issued_by(found._read, identity.public) and _hosts(found._read) == asked
        if mine and found.begins <= now < found.expires - life / 3:
            return found
    except UnusableKey:
        pass
    leaf = issue(identity, name, hosts=hosts, days=days)
    leaf.save(folder)
    return leaf


def client_context(roster: Roster, folder: Path) -> ssl.SSLContext:
    """For a party's connections: trusts the coordinator of the roster alone, and presents the leaf in `folder`.

    Raises:
        UnusableKey, InsecureKeyFile: see `Leaf.load`.
        ExpiredCertificate: the leaf is over.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=anchor(COORDINATOR, roster.coordinator).decode())
    return _set_up(context, folder, server=False)


def server_context(roster: Roster, folder: Path) -> ssl.SSLContext:
    """For the front: lets in members and custodian of the roster, and presents the leaf in `folder`.

    Raises:
        UnusableKey, InsecureKeyFile, ExpiredCertificate: see `client_context`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cadata=anchors(roster).decode())
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would be taken without another look at the client's certificate.
    context.num_tickets = 0
    return _set_up(context, folder, server=True)


def party_of(certificate: bytes, roster: Roster) -> str:
    """Whose leaf a DER certificate is, by the key that issued it; whether it is over is not looked at.

    Raises:
        CertificateRefused: no party of the roster did.
    """
    try:
        leaf = x509.load_der_x509_certificate(certificate)
        name = _common_name(leaf.subject)
        if _issued_by(leaf, roster.identity_of(name)):
            return name
    except (ValueError, ForgedMember):
        pass
    raise CertificateRefused("The certificate was issued by no party of the roster; compare roster versions.")


def public_key_of(certificate: x509.Certificate) -> bytes:
    """PEM (SubjectPublicKeyInfo) of a leaf's key."""
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey), "a TLS key is a P-256 key"
    return _spki(key)


def _set_up(context: ssl.SSLContext, folder: Path, *, server: bool) -> ssl.SSLContext:
    leaf = Leaf.load(folder, server=server)
    if not leaf.begins <= datetime.now(UTC) < leaf.expires:
        raise ExpiredCertificate(
            f"The certificate in {folder} is good from {leaf.begins:%Y-%m-%d %H:%M} to {leaf.expires:%Y-%m-%d %H:%M} "
            "UTC only; check this machine's clock, start the party again, and it makes a new one."
        )
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / f"{leaf._stem()}.cert.pem", folder / f"{leaf._stem()}.key.pem")
    return context


def _subject(name: str) -> x509.Name:
    role = "coordinator" if name == COORDINATOR else "party"
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Partbook"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _common_name(subject: x509.Name) -> str:
    values = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[0].value) if values else ""


def _usage(*, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certifies,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certifies,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _issued_by(certificate: x509.Certificate, public: PublicIdentity) -> bool:
    key = serialization.load_pem_public_key(public.pem)
    assert isinstance(key, ec.EllipticCurvePublicKey), "an identity is a P-256 key"
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

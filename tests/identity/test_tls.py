"""Certificates out of the roster, tried on real sockets against OpenSSL: who gets in, and who does not."""

import pickle
import socket
import ssl
import stat
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from partbook.errors import CertificateRefused, ExpiredCertificate, InsecureKeyFile, UnusableKey
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR
from partbook.identity.parties import Custodian, Member
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Roster
from partbook.identity.tls import (
    Leaf,
    anchor,
    anchors,
    client_context,
    issue,
    party_of,
    public_key_of,
    renewed,
    server_context,
)

HOSTS = ("localhost", "127.0.0.1", "::1")
MEMBERS = ("Alto", "Bass", "Tenor")
PATIENCE = 20  # seconds that any socket here waits; nothing that goes right takes one


@pytest.fixture(scope="module")
def keys() -> dict[str, IdentityKey]:
    return {name: IdentityKey.generate() for name in (*MEMBERS, "Custodian", COORDINATOR, "Stranger")}


@pytest.fixture(scope="module")
def roster(keys: dict[str, IdentityKey]) -> Roster:
    members = tuple(Member(name, keys[name].public, ReceivingKey.generate().public) for name in MEMBERS)
    custodian = Custodian("Custodian", keys["Custodian"].public, "0" * 64)
    return Roster("test", 1, keys[COORDINATOR].public, members, custodian)


@pytest.fixture(scope="module")
def front(keys: dict[str, IdentityKey], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The coordinator's folder, with its leaf."""
    folder = tmp_path_factory.mktemp("front")
    issue(keys[COORDINATOR], COORDINATOR, hosts=HOSTS).save(folder)
    return folder


def meet(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> bytes | Exception:
    """A handshake and a byte both ways over a real connection: the certificate the server saw, or what ended it.

    In TLS 1.3 a client is done before the server has looked at its certificate, so only the byte says who was let in.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen: list[bytes | Exception] = []

        def serve() -> None:
            try:
                listener.settimeout(PATIENCE)
                accepted, _ = listener.accept()
                accepted.settimeout(PATIENCE)
                with server.wrap_socket(accepted, server_side=True) as line:
                    line.sendall(line.recv(1))
                    seen.append(line.getpeercert(binary_form=True) or b"")
            except OSError as error:
                seen.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        failed: Exception | None = None
        try:
            with (
                socket.create_connection(listener.getsockname(), PATIENCE) as plain,
                client.wrap_socket(plain, server_hostname=host) as line,
            ):
                assert line.version() == "TLSv1.3"
                line.sendall(b"?")
                if line.recv(1) != b"?":
                    failed = ConnectionError("closed without an answer")
        except OSError as error:
            failed = error
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server's side hangs"
        # Where the client refuses, the server only sees it go.
        return (
            seen[0] if failed is None or (isinstance(seen[0], ssl.SSLError) and "ALERT" not in str(seen[0])) else failed
        )


def presenting(roster: Roster, leaf: Leaf | None, folder: Path) -> ssl.SSLContext:
    """A client of ill will: trusts as it should, and presents what `client_context` would not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=anchor(COORDINATOR, roster.coordinator).decode())
    if leaf is not None:
        folder.mkdir(exist_ok=True)
        (folder / "both.pem").write_bytes(leaf.key + leaf.certificate)
        context.load_cert_chain(folder / "both.pem")
    return context


def refusal(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> str:
    found = meet(server, client, host)
    assert isinstance(found, Exception), "it was let in"
    return str(found)


def certified(
    issuer: IdentityKey,
    issuer_name: str,
    name: str,
    *,
    usages: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    certifies: bool = False,
    key: ec.EllipticCurvePrivateKey | None = None,
    hosts: Sequence[str] = (),
) -> Leaf:
    """A certificate as somebody writes it who has a key of the roster and a will of its own."""

    def subject(text: str) -> x509.Name:
        named = x509.load_pem_x509_certificate(anchor(text, issuer.public)).subject
        return x509.Name(named)

    key = key or ec.generate_private_key(ec.SECP256R1())
    now, public = datetime.now(UTC), serialization.load_pem_public_key(issuer.public.pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(subject(issuer_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=certifies, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
    if hosts:
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Leaf(pem, issuer.certify(builder).public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize("party", [*MEMBERS, "Custodian"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_every_party_of_the_roster_meets_the_coordinator_and_is_known_by_name(
    party: str, host: str, roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    leaf = renewed(tmp_path, keys[party], party)
    seen = meet(server_context(roster, front), client_context(roster, tmp_path), host)
    assert isinstance(seen, bytes), seen
    assert party_of(seen, roster) == party
    assert public_key_of(x509.load_der_x509_certificate(seen)) == leaf.public_key


def test_strict_verifiers_take_the_certificates_as_well(
    roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    renewed(tmp_path, keys["Alto"], "Alto")
    server, client = server_context(roster, front), client_context(roster, tmp_path)
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert isinstance(meet(server, client), bytes)


def test_nobody_gets_in_without_a_certificate(roster: Roster, front: Path, tmp_path: Path) -> None:
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in refusal(
        server_context(roster, front), presenting(roster, None, tmp_path)
    )


@pytest.mark.parametrize("days", [-40, 2])
def test_a_certificate_that_is_over_or_has_not_begun_is_refused_by_the_other_side(
    days: int, roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    leaf = issue(keys["Alto"], "Alto", now=datetime.now(UTC) + timedelta(days=days))
    said = refusal(server_context(roster, front), presenting(roster, leaf, tmp_path))
    assert "certificate has expired" in said or "not yet valid" in said


@pytest.mark.parametrize("days", [-40, 2])
def test_a_party_presents_no_certificate_that_is_over_or_has_not_begun(
    days: int, roster: Roster, keys: dict[str, IdentityKey], tmp_path: Path
) -> None:
    issue(keys["Alto"], "Alto", now=datetime.now(UTC) + timedelta(days=days)).save(tmp_path / "party")
    issue(keys[COORDINATOR], COORDINATOR, hosts=HOSTS, now=datetime.now(UTC) + timedelta(days=days)).save(
        tmp_path / "front"
    )
    with pytest.raises(ExpiredCertificate, match="clock"):
        client_context(roster, tmp_path / "party")
    with pytest.raises(ExpiredCertificate, match="clock"):
        server_context(roster, tmp_path / "front")


@pytest.mark.parametrize("name", ["Stranger", "Alto"])
def test_a_key_that_the_roster_does_not_list_opens_nothing_whatever_name_it_takes(
    name: str, roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    leaf = issue(keys["Stranger"], name)
    said = refusal(server_context(roster, front), presenting(roster, leaf, tmp_path))
    assert "unable to get local issuer certificate" in said or "signature failure" in said
    with pytest.raises(CertificateRefused, match="no party of the roster"):
        party_of(ssl.PEM_cert_to_DER_cert(leaf.certificate.decode()), roster)


def test_a_members_certificate_does_not_serve_as_the_coordinators(
    roster: Roster, keys: dict[str, IdentityKey], tmp_path: Path
) -> None:
    for issuer, name in ((keys["Alto"], "Alto"), (keys["Alto"], COORDINATOR)):
        issue(issuer, name, hosts=HOSTS).save(tmp_path / "front")
        renewed(tmp_path / "party", keys["Bass"], "Bass")
        said = refusal(server_context(roster, tmp_path / "front"), client_context(roster, tmp_path / "party"))
        assert "CERTIFICATE_VERIFY_FAILED" in said


def test_a_certificate_serves_for_the_side_it_was_made_for_alone(
    roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    """A client's at the server's end, although the coordinator itself made it; a server's at the client's."""
    as_server = certified(keys[COORDINATOR], COORDINATOR, COORDINATOR, hosts=["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "server.pem").write_bytes(as_server.key + as_server.certificate)
    context.load_cert_chain(tmp_path / "server.pem")
    renewed(tmp_path / "party", keys["Alto"], "Alto")
    said = refusal(context, client_context(roster, tmp_path / "party"))
    assert "unsuitable certificate purpose" in said or "CERTIFICATE_VERIFY_FAILED" in said
    as_client = issue(keys["Alto"], "Alto", hosts=["localhost"])
    said = refusal(server_context(roster, front), presenting(roster, as_client, tmp_path))
    assert "unsuitable certificate purpose" in said


def test_the_coordinators_certificate_is_no_clients(
    roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    for leaf in (Leaf.load(front), issue(keys[COORDINATOR], COORDINATOR), issue(keys[COORDINATOR], "Alto")):
        assert refusal(server_context(roster, front), presenting(roster, leaf, tmp_path))


def test_a_member_that_certifies_another_members_name_is_nobody(
    roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    leaf = certified(keys["Alto"], "Alto", "Bass")
    seen = meet(server_context(roster, front), presenting(roster, leaf, tmp_path))
    assert isinstance(seen, bytes), "TLS knows keys, not names"
    with pytest.raises(CertificateRefused, match="no party of the roster"):
        party_of(seen, roster)


def test_no_certificate_issues_another(
    roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    """Neither a party's leaf, nor an intermediate that a member's identity key was talked into."""
    middle = IdentityKey.generate()
    private = serialization.load_pem_private_key(_private_pem(middle, tmp_path), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    for certifies in (False, True):
        above = certified(keys["Alto"], "Alto", "Stranger", usages=(), certifies=certifies, key=private)
        leaf = certified(middle, "Stranger", "Alto")
        chained = Leaf(leaf.key, leaf.certificate + above.certificate)
        said = refusal(server_context(roster, front), presenting(roster, chained, tmp_path))
        assert "CERTIFICATE_VERIFY_FAILED" in said


def _private_pem(key: IdentityKey, folder: Path) -> bytes:
    path = folder / "middle.pem"
    key.save(path)
    return path.read_bytes()


def test_a_coordinator_at_another_name_is_not_taken(
    roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    renewed(tmp_path, keys["Alto"], "Alto")
    for host in ("federation.example.org", "127.0.0.2", COORDINATOR):
        said = refusal(server_context(roster, front), client_context(roster, tmp_path), host)
        assert "mismatch" in said, "the name must be in the certificate's alternative names"


@pytest.mark.parametrize("old_side", ["server", "client"])
def test_tls_1_2_is_not_spoken(
    old_side: str, roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    leaf = renewed(tmp_path, keys["Alto"], "Alto")
    if old_side == "client":
        server, client = server_context(roster, front), presenting(roster, leaf, tmp_path)
        client.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), client_context(roster, tmp_path)
        server.load_cert_chain(front / "front.cert.pem", front / "front.key.pem")
        server.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "PROTOCOL" in refusal(server, client).upper()


def test_no_session_is_resumed_so_that_every_connection_shows_its_certificate(
    roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    renewed(tmp_path, keys["Alto"], "Alto")
    server, client = server_context(roster, front), client_context(roster, tmp_path)
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.settimeout(PATIENCE)
    kept: list[object] = []

    def connect() -> None:
        with client.wrap_socket(theirs, server_hostname="localhost") as line:
            line.sendall(line.recv(1))
            kept.append(line.session.has_ticket if line.session is not None else False)

    thread = threading.Thread(target=connect)
    thread.start()
    with server.wrap_socket(ours, server_side=True) as line:
        line.sendall(b"!")
        assert line.recv(1) == b"!"
    thread.join(PATIENCE)
    assert kept == [False]


def test_a_certificate_is_kept_until_a_third_of_its_life_is_left(keys: dict[str, IdentityKey], tmp_path: Path) -> None:
    first = renewed(tmp_path, keys["Alto"], "Alto")
    assert renewed(tmp_path, keys["Alto"], "Alto") == first == Leaf.load(tmp_path)
    assert first.name == "Alto"
    assert timedelta(days=29) < first.expires - datetime.now(UTC) < timedelta(days=31)
    for days, kept in ((19, True), (21, False), (31, False), (-1, False)):
        old = issue(keys["Alto"], "Alto", now=datetime.now(UTC) - timedelta(days=days))
        old.save(tmp_path)
        assert (renewed(tmp_path, keys["Alto"], "Alto") == old) is kept, f"{days} days old"


def test_a_certificate_is_made_anew_for_another_name_identity_or_host(
    keys: dict[str, IdentityKey], tmp_path: Path
) -> None:
    alto = renewed(tmp_path, keys["Alto"], "Alto")
    bass = renewed(tmp_path, keys["Bass"], "Bass")
    assert bass.name == "Bass"
    assert bass != alto
    other = renewed(tmp_path, keys["Stranger"], "Bass")
    assert other != bass
    server = renewed(tmp_path, keys[COORDINATOR], COORDINATOR, hosts=HOSTS)
    assert renewed(tmp_path, keys[COORDINATOR], COORDINATOR, hosts=reversed(HOSTS)) == server  # type: ignore[arg-type]
    assert renewed(tmp_path, keys[COORDINATOR], COORDINATOR, hosts=("localhost", "127.0.0.1", "0:0::1")) == server
    more = renewed(tmp_path, keys[COORDINATOR], COORDINATOR, hosts=(*HOSTS, "federation.example.org"))
    assert more != server
    assert renewed(tmp_path, keys["Stranger"], "Bass") == other, "two roles may share a folder"


@pytest.mark.parametrize("damage", ["missing certificate", "missing key", "another key", "no PEM"])
def test_what_cannot_be_used_is_made_anew_and_said_by_name_to_who_only_reads(
    damage: str, roster: Roster, keys: dict[str, IdentityKey], tmp_path: Path
) -> None:
    broken = renewed(tmp_path, keys["Alto"], "Alto")
    key, certificate = tmp_path / "party.key.pem", tmp_path / "party.cert.pem"
    match damage:
        case "missing certificate":
            certificate.unlink()
        case "missing key":
            key.unlink()
        case "another key":
            key.write_bytes(issue(keys["Alto"], "Alto").key)
        case "no PEM":
            certificate.write_bytes(b"\x00\xff")
    with pytest.raises(UnusableKey):
        client_context(roster, tmp_path)
    assert renewed(tmp_path, keys["Alto"], "Alto") != broken
    client_context(roster, tmp_path)


def test_files_are_their_owners_alone_and_a_key_that_others_may_read_is_not_used(
    roster: Roster, keys: dict[str, IdentityKey], tmp_path: Path
) -> None:
    folder = tmp_path / "tls"
    renewed(folder, keys["Alto"], "Alto")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {"party.key.pem", "party.cert.pem"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (folder / "party.key.pem").chmod(0o640)
    with pytest.raises(InsecureKeyFile, match="chmod 600"):
        client_context(roster, folder)
    with pytest.raises(InsecureKeyFile):
        renewed(folder, keys["Alto"], "Alto")


def test_a_tls_key_is_shown_nowhere_and_not_pickled(keys: dict[str, IdentityKey]) -> None:
    leaf = issue(keys["Alto"], "Alto")
    assert "PRIVATE" not in repr(leaf)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(leaf)


def test_anchors_are_the_same_bytes_for_a_name_and_a_key(roster: Roster, keys: dict[str, IdentityKey]) -> None:
    first = anchor("Alto", keys["Alto"].public)
    assert first == anchor("Alto", keys["Alto"].public)
    read, other = (x509.load_pem_x509_certificate(pem) for pem in (first, anchor("Bass", keys["Bass"].public)))
    assert read.subject != other.subject
    assert read.public_bytes(serialization.Encoding.PEM).count(b"\n") > 5
    spki = read.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert spki == keys["Alto"].public.pem
    bundle = x509.load_pem_x509_certificates(anchors(roster))
    names = [found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value for found in bundle]
    assert names == [*MEMBERS, "Custodian"], "the coordinator is nobody's client"
    assert isinstance(read.signature_hash_algorithm, hashes.SHA256)


def test_a_store_does_not_grow_when_the_same_anchors_are_added_again(roster: Roster, front: Path) -> None:
    context = server_context(roster, front)
    for _ in range(3):
        context.load_verify_locations(cadata=anchors(roster).decode())
    assert len(context.get_ca_certs()) == len(MEMBERS) + 1


def test_a_party_whose_key_was_replaced_gets_in_beside_its_old_anchor(
    roster: Roster, keys: dict[str, IdentityKey], front: Path, tmp_path: Path
) -> None:
    """Both anchors have one name; which key issued a leaf stands in the leaf."""
    fresh = IdentityKey.generate()
    members = tuple(
        replace(member, identity=fresh.public) if member.name == "Alto" else member for member in roster.members
    )
    newer = replace(roster, version=2, members=members)
    context = server_context(roster, front)
    context.load_verify_locations(cadata=anchors(newer).decode())
    for key, rosters in ((fresh, newer), (keys["Alto"], roster)):
        renewed(tmp_path, key, "Alto")
        seen = meet(context, client_context(roster, tmp_path))
        assert isinstance(seen, bytes), seen
        assert party_of(seen, rosters) == "Alto"
    with pytest.raises(CertificateRefused):
        party_of(seen, newer)

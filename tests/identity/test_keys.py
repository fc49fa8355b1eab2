from __future__ import annotations

import pickle

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from partbook.errors import BadSignature, InsecureKeyFile, UnusableKey
from partbook.identity.keys import IdentityKey, PublicIdentity

RELEASE, ROUND = "partbook/v1/release", "partbook/v1/round"


@pytest.fixture(scope="module")
def key() -> IdentityKey:
    return IdentityKey.generate()


def test_a_signature_verifies_for_its_message_domain_and_key_only(key):
    signature = key.sign(b"message", RELEASE)
    key.public.verify(b"message", signature, RELEASE)
    other = IdentityKey.generate().public
    for public, message, domain in [
        (key.public, b"massage", RELEASE),
        (key.public, b"message", ROUND),
        (other, b"message", RELEASE),
    ]:
        with pytest.raises(BadSignature):
            public.verify(message, signature, domain)
    for broken in (b"", signature[:-1], signature + b"\0", bytes(len(signature))):
        with pytest.raises(BadSignature):
            key.public.verify(b"message", broken, RELEASE)


def test_moving_bytes_between_domain_and_message_does_not_keep_the_signature(key):
    signature = key.sign(b"ab", "partbook/v1/a")
    with pytest.raises(BadSignature):
        key.public.verify(b"b", signature, "partbook/v1/aa")


@pytest.mark.parametrize("domain", ["", "release", "partbook/v1/", "partbook/v1/Release", "partbook/v1/a b"])
def test_a_purpose_that_is_no_domain_is_a_mistake_of_the_caller(key, domain):
    with pytest.raises(ValueError, match="domain"):
        key.sign(b"", domain)
    with pytest.raises(ValueError, match="domain"):
        key.public.verify(b"", b"", domain)


def test_a_signature_is_plain_ecdsa_over_the_documented_bytes(key):
    domain = RELEASE.encode()
    documented = len(domain).to_bytes(2, "big") + domain + b"hello"
    plain = serialization.load_pem_public_key(key.public.pem)
    assert isinstance(plain, ec.EllipticCurvePublicKey)
    plain.verify(key.sign(b"hello", RELEASE), documented, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("passphrase", [None, "grüße".encode()])
def test_a_saved_key_is_private_and_loads_again(key, tmp_path, passphrase):
    path = tmp_path / "identity.pem"
    key.save(path, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (b"ENCRYPTED" in path.read_bytes()) == (passphrase is not None)
    assert IdentityKey.load(path, passphrase).public == key.public


def test_a_key_is_never_overwritten(key, tmp_path):
    path = tmp_path / "identity.pem"
    path.write_text("precious")
    with pytest.raises(UnusableKey, match="never overwritten"):
        key.save(path)
    assert path.read_text() == "precious"


def test_loading_says_what_is_wrong_with_a_key_file(key, tmp_path):
    plain, locked, text, rsa = (tmp_path / name for name in ("plain", "locked", "text", "p384"))
    key.save(plain)
    key.save(locked, b"secret")
    text.write_text("hello")
    text.chmod(0o600)
    other = ec.generate_private_key(ec.SECP384R1())
    rsa.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    rsa.chmod(0o600)
    for path, passphrase, reason in [
        (tmp_path / "none", None, "cannot be read"),
        (text, None, "not a private key"),
        (rsa, None, "P-256"),
        (locked, None, "give its passphrase"),
        (locked, b"wrong", "does not open"),
        (plain, b"needless", "not encrypted"),
    ]:
        with pytest.raises(UnusableKey, match=reason) as refusal:
            IdentityKey.load(path, passphrase)
        assert str(path) in str(refusal.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(key, tmp_path, mode):
    path = tmp_path / "identity.pem"
    key.save(path)
    path.chmod(mode)
    with pytest.raises(InsecureKeyFile, match="chmod 600"):
        IdentityKey.load(path)


def test_nothing_secret_shows_and_nothing_secret_is_pickled(key):
    secret = format(key._private.private_numbers().private_value, "x")
    assert secret not in repr(key)
    assert key.public.fingerprint in repr(key)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(key)


def test_a_fingerprint_can_be_read_aloud_and_names_one_key(key):
    groups = key.public.fingerprint.split(" ")
    assert len(groups) == 16
    assert all(len(group) == 4 and set(group) <= set("0123456789abcdef") for group in groups)
    assert PublicIdentity(key.public.pem).fingerprint == key.public.fingerprint
    assert IdentityKey.generate().public.fingerprint != key.public.fingerprint


def test_a_public_key_has_one_spelling(key, tmp_path):
    for altered in (key.public.pem + b"\n", b"note\n" + key.public.pem, key.public.pem[:-30], b""):
        with pytest.raises(UnusableKey):
            PublicIdentity(altered)
    path = tmp_path / "public.pem"
    path.write_bytes(key.public.pem)
    assert PublicIdentity.load(path) == key.public
    with pytest.raises(UnusableKey, match="cannot be read"):
        PublicIdentity.load(tmp_path / "none.pem")

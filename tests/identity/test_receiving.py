from __future__ import annotations

import pickle

import pytest
import slow_hpke as slow
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from partbook.errors import CorruptMessage, InsecureKeyFile, UnusableKey
from partbook.identity.keys import IdentityKey
from partbook.identity.receiving import OVERHEAD, PublicReceiving, ReceivingKey

INFO = b"partbook/v1/result|round 3|north"


@pytest.fixture(scope="module")
def key() -> ReceivingKey:
    return ReceivingKey.generate()


@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(100_000)], ids=len)
def test_what_is_sealed_to_a_key_opens_with_it(key, plaintext):
    sealed = key.public.seal_to(plaintext, INFO)
    assert len(sealed) == len(plaintext) + OVERHEAD
    assert key.open(sealed, INFO) == plaintext
    assert key.public.seal_to(plaintext, INFO) != sealed


def test_it_opens_with_no_other_key_purpose_or_bit(key):
    sealed = key.public.seal_to(b"model key", INFO)
    flipped = [sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :] for i in range(len(sealed))]
    for broken in (*flipped, b"", sealed[:31], sealed[:-1], sealed + b"\0", bytes(len(sealed))):
        with pytest.raises(CorruptMessage, match="altered"):
            key.open(broken, INFO)
    with pytest.raises(CorruptMessage):
        key.open(sealed, b"another purpose")
    with pytest.raises(CorruptMessage):
        ReceivingKey.generate().open(sealed, INFO)


def test_sealing_is_hpke_of_rfc_9180_by_an_implementation_of_its_text(key):
    private = key._private.private_bytes_raw()
    assert slow.open_sealed(private, key.public.seal_to(b"from us", INFO), INFO) == b"from us"
    assert key.open(slow.seal(b"\7" * 32, key.public.raw, b"to us", INFO), INFO) == b"to us"


def test_that_implementation_keeps_to_the_rfcs_own_vector():
    # RFC 9180, appendix A.1.1 (AES-128-GCM; the RFC prints none for AES-256-GCM).
    private = bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
    encapsulated = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
    info, shared = b"Ode on a Grecian Urn", slow.x25519(private, encapsulated)
    key, nonce = slow.schedule(shared, encapsulated, slow.x25519(private, slow.BASE_POINT), info, 16)
    assert (key.hex(), nonce.hex()) == ("4531685d41d65f03dc48f6b8302c05b0", "56d890e5accaaf011cff4b7d")
    ciphertext = bytes.fromhex(
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    )
    assert AESGCM(key).decrypt(nonce, ciphertext, b"Count-0") == b"Beauty is truth, truth beauty"


def test_a_public_key_has_one_spelling(key):
    assert PublicReceiving.parse(key.public.text) == key.public
    text = key.public.text
    for altered in ("", "?", text[:-1], text + "\n", text + text, text.rstrip("="), " " + text, "é"):
        with pytest.raises(UnusableKey):
            PublicReceiving.parse(altered)
    # The last digit before the padding carries two bits that decode to nothing.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = text[:42] + alphabet[alphabet.index(text[42]) ^ 1] + "="
    with pytest.raises(UnusableKey):
        PublicReceiving.parse(twin)


@pytest.mark.parametrize("raw", [bytes(31), bytes(33), b"\xff" * 32, (2**255 - 19 + 9).to_bytes(32, "little")])
def test_bytes_that_spell_no_reduced_coordinate_are_no_key(raw):
    with pytest.raises(UnusableKey, match="2\\^255"):
        PublicReceiving(raw)


@pytest.mark.parametrize(
    "number", [0, 1, 2**255 - 20, 0xB8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0]
)
def test_a_key_whose_secrets_anyone_could_compute_is_refused(number):
    with pytest.raises(UnusableKey, match="low order"):
        PublicReceiving(number.to_bytes(32, "little"))


@pytest.mark.parametrize("passphrase", [None, "grüße".encode()])
def test_a_saved_key_is_private_and_loads_again(key, tmp_path, passphrase):
    path = tmp_path / "north.receiving.pem"
    key.save(path, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ReceivingKey.load(path, passphrase).public == key.public
    with pytest.raises(UnusableKey, match="never overwritten"):
        key.save(path)
    with pytest.raises(UnusableKey, match=r"does not open|not encrypted"):
        ReceivingKey.load(path, b"wrong")
    path.chmod(0o640)
    with pytest.raises(InsecureKeyFile, match="chmod 600"):
        ReceivingKey.load(path, passphrase)


def test_the_two_kinds_of_key_are_not_taken_for_each_other(key, tmp_path):
    key.save(tmp_path / "receiving")
    IdentityKey.generate().save(tmp_path / "identity")
    with pytest.raises(UnusableKey, match="X25519"):
        ReceivingKey.load(tmp_path / "identity")
    with pytest.raises(UnusableKey, match="P-256"):
        IdentityKey.load(tmp_path / "receiving")


def test_nothing_secret_shows_and_nothing_secret_is_pickled(key):
    assert repr(key) == f"ReceivingKey({key.public.fingerprint})"
    assert key._private.private_bytes_raw().hex() not in repr(key)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(key)

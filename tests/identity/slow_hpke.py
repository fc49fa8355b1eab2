"""HPKE (RFC 9180) in base mode, single shot, with DHKEM(X25519): step by step from the text, for tests only.

The ladder is RFC 7748, section 5, in plain integers; AES-GCM is the library's. Shares no code with Partbook.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

P = 2**255 - 19


def x25519(scalar: bytes, point: bytes) -> bytes:
    k = int.from_bytes(scalar, "little") & ~7 & ~(1 << 255) | 1 << 254
    u = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3 = 1, 0, u, 1
    for t in reversed(range(255)):
        if k >> t & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a, c * b
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        e = a * a - b * b
        x2, z2 = a * a * b * b % P, e * (a * a + 121665 * e) % P
        if k >> t & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, -1, P) % P).to_bytes(32, "little")


BASE_POINT = (9).to_bytes(32, "little")


def extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.new(salt, b"HPKE-v1" + suite + label + material, hashlib.sha256).digest()


def expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    found, block = b"", b""
    while len(found) < length:
        block = hmac.new(key, block + labelled + bytes([len(found) // 32 + 1]), hashlib.sha256).digest()
        found += block
    return found[:length]


def schedule(shared: bytes, encapsulated: bytes, receiver: bytes, info: bytes, key_length: int) -> tuple[bytes, bytes]:
    """Key and first nonce: RFC 9180, sections 4.1 (ExtractAndExpand) and 5.1 (KeySchedule)."""
    kem = b"KEM\x00\x20"
    secret = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", encapsulated + receiver, 32)
    suite = b"HPKE\x00\x20\x00\x01" + {16: b"\x00\x01", 32: b"\x00\x02"}[key_length]
    context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    master = extract(suite, secret, b"secret", b"")
    return expand(suite, master, b"key", context, key_length), expand(suite, master, b"base_nonce", context, 12)


def seal(ephemeral: bytes, receiver: bytes, plaintext: bytes, info: bytes) -> bytes:
    encapsulated = x25519(ephemeral, BASE_POINT)
    key, nonce = schedule(x25519(ephemeral, receiver), encapsulated, receiver, info, 32)
    return encapsulated + AESGCM(key).encrypt(nonce, plaintext, b"")


def open_sealed(private: bytes, sealed: bytes, info: bytes) -> bytes:
    key, nonce = schedule(x25519(private, sealed[:32]), sealed[:32], x25519(private, BASE_POINT), info, 32)
    return AESGCM(key).decrypt(nonce, sealed[32:], b"")

"""ECDSA on P-256 with SHA-256 from the textbook, in plain integers: slow, not constant in time, for tests only.

Domain parameters: SP 800-186, section 3.2.1.3. Signing and verifying: FIPS 186-5, sections 6.4.1 and 6.4.2.
Nonces: RFC 6979, section 3.2. DER: X.690, as RFC 3279, section 2.2.3, uses it. Shares no code with Partbook.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None  # None is the point at infinity


def add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    rise, run = (3 * a[0] * a[0] - 3, 2 * a[1]) if a == b else (b[1] - a[1], b[0] - a[0])
    slope = rise * pow(run, -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def times(scalar: int, point: Point) -> Point:
    total: Point = None
    for bit in bin(scalar)[2:]:
        total = add(total, total)
        if bit == "1":
            total = add(total, point)
    return total


def digest(message: bytes) -> int:
    return int.from_bytes(hashlib.sha256(message).digest(), "big")


def nonce(private: int, message: bytes) -> int:
    """RFC 6979, section 3.2, steps a to h."""

    def mac(data: bytes) -> bytes:
        return hmac.new(key, data, "sha256").digest()

    seed = private.to_bytes(32, "big") + (digest(message) % N).to_bytes(32, "big")
    value, key = b"\1" * 32, b"\0" * 32
    for step in (b"\0", b"\1"):
        key = mac(value + step + seed)
        value = mac(value)
    while True:
        value = mac(value)
        found = int.from_bytes(value, "big")
        if 1 <= found < N:
            return found
        key = mac(value + b"\0")
        value = mac(value)


def sign(private: int, message: bytes) -> tuple[int, int]:
    k = nonce(private, message)
    r = times(k, G)[0] % N
    return r, pow(k, -1, N) * (digest(message) + r * private) % N


def verify(public: Point, message: bytes, signature: bytes) -> bool:
    pair = read_der(signature)
    if pair is None or not all(1 <= number < N for number in pair):
        return False
    r, s = pair
    inverse = pow(s, -1, N)
    point = add(times(digest(message) * inverse % N, G), times(r * inverse % N, public))
    return point is not None and point[0] % N == r


def der_integer(number: int) -> bytes:
    body = number.to_bytes(number.bit_length() // 8 + 1, "big")  # a leading zero where the sign bit would be set
    return b"\x02" + bytes([len(body)]) + body


def der(r: int, s: int) -> bytes:
    body = der_integer(r) + der_integer(s)
    return b"\x30" + bytes([len(body)]) + body


def read_der(blob: bytes) -> tuple[int, int] | None:
    """The two integers, if `blob` is their one DER spelling and nothing else."""
    numbers, at = [], 2
    for _ in range(2):
        if len(blob) < at + 2 or blob[at] != 2:
            return None
        numbers.append(int.from_bytes(blob[at + 2 : at + 2 + blob[at + 1]], "big", signed=True))
        at += 2 + blob[at + 1]
    r, s = numbers
    return (r, s) if min(numbers) >= 0 and der(r, s) == blob else None


def bound(domain: str, message: bytes) -> bytes:
    """What Partbook says that it signs."""
    return len(domain).to_bytes(2, "big") + domain.encode() + message


def pem(public: tuple[int, int]) -> str:
    """SubjectPublicKeyInfo (RFC 5480) of an uncompressed point."""
    prefix = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200" + "04")
    text = base64.b64encode(prefix + public[0].to_bytes(32, "big") + public[1].to_bytes(32, "big")).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])

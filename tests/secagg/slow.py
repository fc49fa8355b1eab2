"""The arithmetic of secure aggregation, written a second time from its description: slow, and nothing shared.

`python tests/secagg/slow.py` writes tests/vectors/masks.json and tests/vectors/shares.json anew. Masks come from
AES blocks of an explicit counter, word by word; shares from naive Lagrange interpolation at every point.

A case has a comment, its inputs, what to expect ("success" or the name of the error) and, on success, the
outputs: all bytes in hexadecimal, long ones as their SHA-256. `values` stands for its bytes `repeat` times over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
T = 281474976694273
P = 2**256 + 297
Case = dict[str, Any]

REJECTING = (103925, 142426)
"""A chunk, and the word in it, where the stream of `seed(0)` modulo t rejects one: found in 2^35 words."""


class Refused(Exception):
    """The input is to be refused, with the error of that name."""


def seed(number: int) -> bytes:
    return hashlib.sha256(f"partbook test seed {number}".encode()).digest()


# --- masks


def words(key: bytes, chunk: int, size: int) -> Iterator[int]:
    """The little-endian words of `size` bytes in the keystream of one chunk."""
    encrypt = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    counter = chunk << 64
    while True:
        block = encrypt.update(counter.to_bytes(16, "big"))
        for at in range(0, 16, size):
            yield int.from_bytes(block[at : at + size], "little")
        counter += 1


def mask(key: bytes, chunk: int, modulus: int, length: int) -> list[int]:
    if modulus == 2**32:
        stream = words(key, chunk, 4)
        return [next(stream) for _ in range(length)]
    elements: list[int] = []
    bits = len(f"{modulus - 1:b}")
    for word in words(key, chunk, 8):
        if len(elements) == length:
            break
        if word % 2**bits < modulus:
            elements.append(word % 2**bits)
    return elements


def masked(values: list[int], masks: list[tuple[bytes, int]], modulus: int, chunk: int) -> list[int]:
    for key, sign in masks:
        values = [(v + sign * m) % modulus for v, m in zip(values, mask(key, chunk, modulus, len(values)), strict=True)]
    return values


def decoded(data: bytes, length: int, modulus: int) -> list[int]:
    size = 4 if modulus == 2**32 else 8
    if len(data) != length * size:
        raise Refused("CorruptMessage")
    values = [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]
    if any(value >= modulus for value in values):
        raise Refused("ValueOutOfRange")
    return values


def encoded(values: list[int], modulus: int) -> bytes:
    return b"".join(value.to_bytes(4 if modulus == 2**32 else 8, "little") for value in values)


def mask_outcome(case: Case) -> dict[str, str]:
    """What the case is to expect, and its outputs."""
    modulus = int(case["modulus"])
    try:
        values = decoded(bytes.fromhex(case["values"]) * case["repeat"], case["length"], modulus)
    except Refused as refusal:
        return {"expect": str(refusal)}
    masks = [(bytes.fromhex(one["seed"]), one["sign"]) for one in case["masks"]]
    result = encoded(masked(values, masks, modulus, case["chunk"]), modulus)
    if len(result) <= 256:
        return {"expect": "success", "result": result.hex()}
    return {"expect": "success", "result_sha256": hashlib.sha256(result).hexdigest()}


# --- shares


def inverse(number: int) -> int:
    """1 / number modulo P by Euclid's extended algorithm."""
    old, new, a, b = number % P, P, 1, 0
    while new:
        quotient = old // new
        old, new, a, b = new, old - quotient * new, b, a - quotient * b
    assert old == 1
    return a % P


def interpolated(points: dict[int, int], at: int) -> int:
    """The value at `at` of the polynomial of least degree through `points`."""
    total = 0
    for x, y in points.items():
        term = y
        for other in points:
            if other != x:
                term = term * (at - other) * inverse(x - other) % P
        total += term
    return total % P


def restored(shares: dict[int, bytes], threshold: int) -> bytes:
    if len(shares) < threshold:
        raise Refused("CohortTooSmall")
    if any(len(share) != 33 or int.from_bytes(share, "big") >= P for share in shares.values()):
        raise Refused("CorruptMessage")
    values = {point: int.from_bytes(share, "big") for point, share in shares.items()}
    base = {point: values[point] for point in sorted(values)[:threshold]}
    if any(interpolated(base, point) != value for point, value in values.items()):
        raise Refused("CorruptMessage")
    secret = interpolated(base, 0)
    if secret >= 2**256:
        raise Refused("CorruptMessage")
    return secret.to_bytes(32, "big")


def shared(secret: int, threshold: int, points: list[int]) -> dict[int, bytes]:
    """Shares whose coefficients follow from the secret: for vectors only."""
    coefficients = [secret]
    for number in range(1, threshold):
        digest = hashlib.sha512(f"coefficient {number} of {secret}".encode()).digest()
        coefficients.append(int.from_bytes(digest, "big") % P)
    return {x: (sum(c * x**i for i, c in enumerate(coefficients)) % P).to_bytes(33, "big") for x in points}


def share_outcome(case: Case) -> dict[str, str]:
    """What the case is to expect, and its output."""
    shares = {int(point): bytes.fromhex(share) for point, share in case["shares"].items()}
    try:
        return {"expect": "success", "secret": restored(shares, case["threshold"]).hex()}
    except Refused as refusal:
        return {"expect": str(refusal)}


# --- the files


def _mask_case(
    comment: str,
    modulus: int,
    values: list[int],
    signs: list[int],
    *,
    chunk: int = 0,
    repeat: int = 1,
    length: int | None = None,
    first_seed: int = 0,
) -> Case:
    case: Case = {
        "comment": comment,
        "modulus": str(modulus),
        "chunk": chunk,
        "length": len(values) * repeat if length is None else length,
        "values": encoded(values, modulus).hex(),
        "repeat": repeat,
        "masks": [{"seed": seed(first_seed + at).hex(), "sign": sign} for at, sign in enumerate(signs)],
    }
    return case | mask_outcome(case)


def mask_cases() -> list[Case]:
    words32, narrow = 2**32, 2**47 + 5
    cases = [
        _mask_case("modulo 2^32: the keystream itself", words32, [0] * 9, [1]),
        _mask_case("modulo 2^32: the same mask taken off", words32, [0] * 9, [-1]),
        _mask_case("modulo 2^32: another chunk, another stream", words32, [0] * 9, [1], chunk=1),
        _mask_case("modulo 2^32: a chunk index of nine bits", words32, [0] * 9, [1], chunk=256),
        _mask_case("modulo 2^32: wraps around in both directions", words32, [0, 1, words32 - 1], [1, -1, -1, 1]),
        _mask_case("modulo 2^32: nothing to mask", words32, [], [1]),
        _mask_case("modulo 2^32: no masks", words32, [5, words32 - 1], []),
        _mask_case("modulo 2^32: longer than a block", words32, [7], [1, -1], repeat=40_000),
        _mask_case("modulo t: low 48 bits of 8-byte words", T, [0] * 9, [1]),
        _mask_case("modulo t: the same mask taken off", T, [0] * 9, [-1]),
        _mask_case("modulo t: another chunk, another stream", T, [0] * 9, [1], chunk=1),
        _mask_case("modulo t: wraps around in both directions", T, [0, 1, T - 1], [1, -1, -1, 1]),
        _mask_case("modulo t: no masks", T, [5, T - 1], []),
        _mask_case("modulo t: longer than a block", T, [T - 1], [1, -1, 1], repeat=40_000),
        _mask_case(
            "modulo t: word 142426 is rejected and all later elements move up",
            T,
            [0],
            [1],
            chunk=REJECTING[0],
            repeat=REJECTING[1] + 4,
        ),
        _mask_case("modulo 2^47 + 5: about every other word is rejected", narrow, [0] * 9, [1, -1]),
        _mask_case("modulo 2^47 + 5: rejections carry over blocks", narrow, [narrow - 1], [1, 1, -1], repeat=40_000),
        _mask_case("modulo t: an element is t", T, [0, T, 0], [1]),
        _mask_case("modulo t: an element has its top bit set", T, [2**63], [1]),
        _mask_case("modulo t: four bytes are missing", T, [0, 0], [1], length=3),
        _mask_case("modulo 2^32: one element too many", words32, [0, 0], [1], length=1),
        _mask_case("modulo 2^32: no bytes", words32, [], [1], length=1),
    ]
    cut = dict(cases[0], comment="modulo 2^32: the last byte is missing", values=cases[0]["values"][:-2])
    cut.pop("result")
    return [*cases, cut | mask_outcome(cut)]


def share_cases() -> list[Case]:
    secret = int.from_bytes(seed(1), "big")
    five = shared(secret, 3, [1, 2, 3, 4, 5])
    wrong = dict(five)
    wrong[5] = (int.from_bytes(five[5], "big") ^ 1).to_bytes(33, "big")
    other = shared(int.from_bytes(seed(2), "big"), 3, [1, 2, 3, 4, 5])
    many = shared(secret, 67, list(range(1, 101)))
    inputs: list[tuple[str, int, dict[int, bytes]]] = [
        ("three of three", 3, {x: five[x] for x in (1, 2, 3)}),
        ("any three of five", 3, {x: five[x] for x in (1, 4, 5)}),
        ("more than three, which agree", 3, five),
        ("points need not be small or in order", 2, shared(secret, 2, [2**255 + 7, 3, 10**9])),
        ("one of one", 1, shared(secret, 1, [9])),
        ("one of three: all are the same", 1, shared(secret, 1, [1, 2, 3])),
        ("the secret zero", 3, shared(0, 3, [1, 2, 3])),
        ("the largest secret", 3, shared(2**256 - 1, 3, [1, 2, 3])),
        ("67 of 100, all given", 67, many),
        ("67 of 100, the last 67 given", 67, {x: many[x] for x in range(34, 101)}),
        ("too few shares", 3, {x: five[x] for x in (2, 5)}),
        ("no shares", 3, {}),
        ("a share of 32 bytes", 3, {**five, 2: five[2][1:]}),
        ("a share of 34 bytes", 3, {**five, 2: b"\0" + five[2]}),
        ("an empty share", 3, {**five, 2: b""}),
        ("a share that is P", 3, {**five, 2: P.to_bytes(33, "big")}),
        ("a share of ones", 3, {**five, 2: b"\xff" * 33}),
        ("the extra share is wrong in one bit", 3, {x: wrong[x] for x in (1, 2, 3, 5)}),
        ("a wrong share among the first three", 3, {**five, 1: wrong[5]}),
        ("an extra share of another secret", 3, {**five, 4: other[4]}),
        ("two shares changed places", 3, {**five, 1: five[2], 2: five[1]}),
        ("the polynomial's value at zero is no secret", 3, shared(2**256, 3, [1, 2, 3])),
    ]
    cases = []
    for comment, threshold, shares in inputs:
        case = {"comment": comment, "threshold": threshold, "shares": {str(x): y.hex() for x, y in shares.items()}}
        cases.append(case | share_outcome(case))
    return cases


def write() -> None:
    VECTORS.mkdir(exist_ok=True)
    for name, cases in (("masks", mask_cases()), ("shares", share_cases())):
        (VECTORS / f"{name}.json").write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()

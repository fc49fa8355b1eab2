"""Shamir's secret sharing: any `threshold` shares give the secret back, fewer say nothing about it.

Shamir 1979, "How to share a secret" (CACM 22:11). The secret, 32 bytes read as a big-endian number, is the
value at 0 of a polynomial of degree `threshold - 1` whose other coefficients are uniform in GF(P); a share is
its value at the holder's point. P is the smallest prime above 2^256, so every 32-byte secret has a place in
the field and a share takes 33 bytes.

Given more than `threshold` shares, `combine` checks them all by one random codeword of the dual code
(Cascudo and David 2017, "SCRAPE", Lemma 1), for the price of one more interpolation: values that
are not on one polynomial pass with probability below 2^-240. A wrong share is thus noticed whenever there is
one to spare, and no wrong secret is worked with; which share it is stays open.

Python's integers are not constant-time. That is acceptable here: who splits a secret, and who combines one,
knows it anyway, every secret serves one round, and nobody else can watch the arithmetic closely.
PyCryptodome's `Shamir`, the maintained alternative, shares 16-byte secrets over GF(2^128), so each seed would
be two, and at 67 of 100 shares it takes a hundred times as long and more, either way.
"""

from __future__ import annotations

import functools
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from operator import mul
from typing import Final

from partbook.errors import CohortTooSmall, CorruptMessage

P: Final = 2**256 + 297
"""The smallest prime above 2^256."""

SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33


def split(secret: bytes, threshold: int, points: Sequence[int]) -> list[bytes]:
    """Shares of `secret`, one for each of `points`, in their order.

    Args:
        secret: 32 bytes.
        threshold: how many shares give it back.
        points: where the polynomial is evaluated: distinct, from 1 to P - 1.

    Raises:
        ValueError: the secret has another length, or there is no such sharing.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"A secret to share has {SECRET_BYTES} bytes, not {len(secret)}.")
    _check_points(points)
    if not 1 <= threshold <= len(points):
        raise ValueError(f"A threshold of {threshold} cannot be met by {len(points)} shares.")
    coefficients = [secrets.randbelow(P) for _ in range(threshold - 1)]
    constant = int.from_bytes(secret, "big")
    shares = []
    for point in points:
        value = 0
        for coefficient in coefficients:
            value = (value + coefficient) * point % P
        shares.append(((value + constant) % P).to_bytes(SHARE_BYTES, "big"))
    return shares


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret that `shares`, by point, are shares of. Weights are kept for the next secret with these points.

    Raises:
        CohortTooSmall: there are fewer than `threshold`.
        CorruptMessage: a share is not a share, or they do not all belong to one secret of 32 bytes.
        ValueError: a point is not one.
    """
    if threshold < 1:
        raise ValueError(f"{threshold} is not a threshold; it is at least 1.")
    if len(shares) < threshold:
        raise CohortTooSmall(
            f"{len(shares)} shares of a secret came, and {threshold} are needed to restore it; "
            "wait for more members to reveal theirs, or end the round."
        )
    points = tuple(sorted(shares))
    return _interpolation(points, threshold).secret([shares[point] for point in points])


class Interpolation:
    """What the points alone decide about restoring secrets, worked out once for many secrets.

    Args:
        points: distinct, from 1 to P - 1.
        threshold: at most their number; the first `threshold` points decide, the others are checked against them.

    Raises:
        ValueError: the points or the threshold are not that.
    """

    __slots__ = ("_at_zero", "_checks", "points", "threshold")

    def __init__(self, points: Sequence[int], threshold: int) -> None:
        _check_points(points)
        if not 1 <= threshold <= len(points):
            raise ValueError(f"A threshold of {threshold} cannot be met by {len(points)} shares.")
        self.points = tuple(points)
        self.threshold = threshold
        base, spare = self.points[:threshold], self.points[threshold:]
        within = [_product(point - other for other in base if other != point) for point in self.points]
        beyond = [_product(point - other for other in spare if other != point) for point in self.points]
        everything = _product(base)
        # Lagrange at 0: the product of x_l / (x_l - x_j) over the other base points l.
        signed = everything if threshold % 2 else -everything
        inverses = _inverses([a * x % P for a, x in zip(within[:threshold], base, strict=True)])
        self._at_zero = [signed * inverse % P for inverse in inverses]
        self._checks = self._dual_codeword(within, beyond) if spare else []

    def _dual_codeword(self, within: list[int], beyond: list[int]) -> list[int]:
        """Weights whose sum over the shares is 0 if these lie on one polynomial, and by chance only otherwise.

        SCRAPE takes v_j · r(x_j), v_j = 1 / prod(x_j - x_l), for a uniform polynomial r of degree < n - threshold.
        The powers of one uniform number serve as r's coefficients as well: by Schwartz and Zippel a wrong vector then
        passes with probability at most (n - threshold - 1) / P. r(x) is a geometric sum in rho · x.
        """
        terms = len(self.points) - self.threshold
        while True:
            rho = secrets.randbelow(P - 1) + 1
            bases = [rho * point % P for point in self.points]
            if 1 not in bases:
                break
        numerators = [pow(base, terms, P) - 1 for base in bases]
        denominators = [a * b * (base - 1) % P for a, b, base in zip(within, beyond, bases, strict=True)]
        return [a * b % P for a, b in zip(numerators, _inverses(denominators), strict=True)]

    def secret(self, shares: Sequence[bytes]) -> bytes:
        """The 32-byte secret of `shares`, which are in the order of `points`.

        Raises:
            CorruptMessage: a share has another length or is not below P, the shares are not on one polynomial, or
                its value at 0 is none that was shared.
        """
        if len(shares) != len(self.points):
            raise ValueError(f"{len(shares)} shares were given for {len(self.points)} points.")
        values = [_value(share, point) for share, point in zip(shares, self.points, strict=True)]
        if self._checks and sum(map(mul, self._checks, values)) % P:
            raise CorruptMessage(
                f"{len(values)} shares of one secret contradict each other, so at least one of them is wrong; "
                "the secret is not restored. End the round and ask the members' operators which of them was altered."
            )
        number: int = sum(map(mul, self._at_zero, values)) % P
        if number >= 2 ** (8 * SECRET_BYTES):
            raise CorruptMessage(
                "The shares lead to a number that is no secret of 32 bytes, so at least one of them is wrong; "
                "end the round and ask the members' operators which of them was altered."
            )
        return number.to_bytes(SECRET_BYTES, "big")


@functools.lru_cache(maxsize=32)
def _interpolation(points: tuple[int, ...], threshold: int) -> Interpolation:
    return Interpolation(points, threshold)


def _check_points(points: Sequence[int]) -> None:
    if len(set(points)) != len(points) or not all(1 <= point < P for point in points):
        raise ValueError("Points of shares are distinct numbers from 1 on; 0 would be the secret itself.")


def _value(share: bytes, point: int) -> int:
    if len(share) != SHARE_BYTES:
        raise CorruptMessage(
            f"The share at point {point} has {len(share)} bytes, not {SHARE_BYTES}; its holder sent something else."
        )
    value = int.from_bytes(share, "big")
    if value >= P:
        raise CorruptMessage(f"The share at point {point} is no element of the field; its holder altered it.")
    return value


def _product(numbers: Iterable[int]) -> int:
    return math.prod(numbers) % P


def _inverses(numbers: list[int]) -> list[int]:
    """1 / x mod P for each x, all at the price of one inversion (Montgomery 1987, section 10.3.1)."""
    before = [1]
    for number in numbers:
        before.append(before[-1] * number % P)
    inverse = pow(before[-1], -1, P)
    result = [0] * len(numbers)
    for index in range(len(numbers) - 1, -1, -1):
        result[index] = inverse * before[index] % P
        inverse = inverse * numbers[index] % P
    return result

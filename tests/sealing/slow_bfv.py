"""BFV decryption and slot decoding again, in whole numbers of Python: no SEAL, only the papers' formulas.

Decryption: Fan and Vercauteren 2012 (eprint 2012/144), section 3: round(t (c0 + c1 s) / q) mod t.
Slots: evaluations at odd powers of a root of X^N + 1 modulo t, ordered as two rows that powers of 3 walk through
(Smart and Vercauteren 2014, "Fully homomorphic SIMD operations"). The secret arrives as evaluations, in the order of
the transform below, since that is how SEAL keeps it.
"""

from __future__ import annotations

N = 4096
Q = 1152921504606830593
T = 281474976694273
BITS = N.bit_length() - 1


def reversed_bits(value: int) -> int:
    return int(format(value, f"0{BITS}b")[::-1], 2)


def smallest_root(modulus: int) -> int:
    """The smallest primitive 2N-th root of one."""
    for base in range(2, 1000):
        root = pow(base, (modulus - 1) // (2 * N), modulus)
        if pow(root, N, modulus) == modulus - 1:
            break
    square = root * root % modulus
    smallest = current = root
    for _ in range(N - 1):
        current = current * square % modulus
        smallest = min(smallest, current)
    return smallest


def evaluate(polynomial: list[int], modulus: int) -> list[int]:
    """Values at psi^(2 r(i) + 1), r reversing bits (Longa and Naehrig 2016, eprint 2016/504, algorithm 1)."""
    values, root = list(polynomial), smallest_root(modulus)
    powers = [pow(root, reversed_bits(i), modulus) for i in range(N)]
    half, groups = N, 1
    while groups < N:
        half //= 2
        for group in range(groups):
            twist, start = powers[groups + group], 2 * group * half
            for low in range(start, start + half):
                left, right = values[low], values[low + half] * twist % modulus
                values[low], values[low + half] = (left + right) % modulus, (left - right) % modulus
        groups *= 2
    return values


def interpolate(values: list[int], modulus: int) -> list[int]:
    """The polynomial that `evaluate` gives these values of (algorithm 2 of the same)."""
    values, root = list(values), pow(smallest_root(modulus), -1, modulus)
    powers = [pow(root, reversed_bits(i), modulus) for i in range(N)]
    half, groups = 1, N // 2
    while groups:
        for group in range(groups):
            twist, start = powers[groups + group], 2 * group * half
            for low in range(start, start + half):
                left, right = values[low], values[low + half]
                values[low], values[low + half] = (left + right) % modulus, (left - right) * twist % modulus
        half *= 2
        groups //= 2
    scale = pow(N, -1, modulus)
    return [value * scale % modulus for value in values]


def decrypt(c0: list[int], c1: list[int], secret_values: list[int]) -> tuple[list[int], int]:
    """The slots of a ciphertext and the size of its noise, in units where Q / 2t is too much."""
    products = [a * s % Q for a, s in zip(evaluate(c1, Q), secret_values, strict=True)]
    phase = [(a + b) % Q for a, b in zip(c0, interpolate(products, Q), strict=True)]
    message = [(2 * T * x + Q) // (2 * Q) % T for x in phase]
    noise = max(min(e, Q - e) for e in ((x - (Q * m + T // 2) // T) % Q for x, m in zip(phase, message, strict=True)))
    values, slots, power = evaluate(message, T), [0] * N, 1
    for i in range(N // 2):
        slots[i] = values[reversed_bits((power - 1) // 2)]
        slots[i + N // 2] = values[reversed_bits((2 * N - power - 1) // 2)]
        power = power * 3 % (2 * N)
    return slots, noise

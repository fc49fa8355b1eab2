"""Packing again, from its description alone: whole numbers of Python, one digit at a time."""

from __future__ import annotations

T = 281474976694273


def fields_of(span: int, cohort: int) -> int:
    radix, fields, room = cohort * span + 1, 0, T
    while room >= radix:
        room //= radix
        fields += 1
    return fields


def pack(values: list[int], span: int, cohort: int) -> list[int]:
    radix, fields = cohort * span + 1, fields_of(span, cohort)
    slots = []
    for start in range(0, len(values), fields):
        slots.append(sum(value * radix**place for place, value in enumerate(values[start : start + fields])))
    return slots


def unpack(slots: list[int], length: int, span: int, cohort: int) -> list[int]:
    radix, fields = cohort * span + 1, fields_of(span, cohort)
    return [slot // radix**place % radix for slot in slots for place in range(fields)][:length]

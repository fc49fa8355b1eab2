"""One spelling for a JSON value, so that its hash and its signature mean something.

The subset of RFC 8785 (JSON Canonicalization Scheme) without fractions: objects with string keys in UTF-16
order, arrays, strings, integers that a double holds exactly, booleans and null; UTF-8, no spaces. Fractions
are refused rather than spelt, because two languages spell them alike only with care; write a ratio as a
string or as an integer of a stated unit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, TypeAlias

Json: TypeAlias = "str | int | bool | list[Json] | Mapping[str, Json] | None"

_SPELL: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
LARGEST_INTEGER: Final = 2**53 - 1  # RFC 8785, section 3.2.2.3 by way of I-JSON (RFC 7493, section 2.2)


def canonical(value: Json) -> bytes:
    """The one encoding of `value`.

    Raises:
        ValueError: it holds a fraction, an integer beyond ±(2^53 - 1), a key that is not a string, text that
            is not Unicode, or something JSON has no word for.
    """
    return _SPELL(_ordered(value)).encode("utf-8")


def _ordered(value: Json) -> Json:
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            raise ValueError(f"{value} is beyond ±(2^53 - 1); write it as a string.")
        return value
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if isinstance(value, dict | Mapping):  # asking for `dict` first spares nearly every object the slower question
        try:
            # Within ASCII, code points are in the order of UTF-16 already.
            keys = sorted(value, key=None if all(map(str.isascii, value)) else _in_utf_16)
        except (TypeError, AttributeError):
            raise ValueError("An object's keys must be strings.") from None
        return {key: _ordered(value[key]) for key in keys}
    raise ValueError(f"{value!r} has no canonical spelling; use a string or an integer.")


def _in_utf_16(key: str) -> bytes:
    return key.encode("utf-16-be")


def parse_canonical(blob: bytes) -> Json:
    """The value that `canonical` spelt as `blob`.

    Raises:
        ValueError: `blob` is not JSON, or is not in its one spelling (duplicate keys are caught by that too).
    """
    try:
        value: Json = json.loads(blob.decode("utf-8"))
        canonical_blob = canonical(value)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if canonical_blob != blob:
        raise ValueError("not in canonical form")
    return value

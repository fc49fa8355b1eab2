from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partbook.identity.canonical import canonical, parse_canonical

text = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(values)
def test_what_is_spelt_reads_back_and_is_spelt_the_same(value):
    blob = canonical(value)
    assert json.loads(blob) == value == parse_canonical(blob)
    assert canonical(json.loads(blob)) == blob


def test_keys_are_in_the_order_of_rfc_8785():
    # The example of RFC 8785, section 3.2.3: UTF-16 code units, which is not the order of code points.
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    assert list(json.loads(canonical(dict.fromkeys(keys)))) == [
        "\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33",
    ]  # fmt: skip


def test_strings_are_escaped_as_in_rfc_8785():
    # Section 3.2.2.2.
    assert canonical('\u20ac$\x0f\nA\'B"\\\\"/') == '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()


@pytest.mark.parametrize("value", [0.5, float("nan"), 2**53, {1: 2}, "\ud800", (1,), b"x"])
def test_what_has_no_single_spelling_is_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011 (each for a reason of its own)
        canonical(value)


OTHERS = [b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1,"a":1}', b"1.0", b"NaN", b"", b"\xff", b"[" * 9999]


@pytest.mark.parametrize("blob", OTHERS)
def test_another_spelling_is_refused(blob):
    with pytest.raises(ValueError):  # noqa: PT011 (each for a reason of its own)
        parse_canonical(blob)

"""Signed messages: one spelling, and no use for anything but what they were signed for."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partbook.errors import BadSignature, CorruptMessage, ForgedMember, ReplayedMessage
from partbook.identity.canonical import LARGEST_INTEGER, canonical
from partbook.identity.keys import IdentityKey
from partbook.identity.message import Context, Message

KEY = IdentityKey.generate()
CONTEXT = Context("choir", 3, "ab" * 32)
BODY = {"names": ["alto", "Bassi"], "count": 2}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def written() -> Message:
    return Message.write(KEY, "confirmed", CONTEXT, "alto", BODY)


@settings(max_examples=60, deadline=None)
@given(JSON, st.text(min_size=1, max_size=10), st.integers(0, LARGEST_INTEGER))
def test_a_message_survives_its_encoding_and_still_verifies(body, sender, number):
    context = Context("Chœur", number, "cd" * 32)
    message = Message.write(KEY, "shares", context, sender, body)
    read = Message.decode(message.encode())
    assert read == message
    read.check(KEY.public, "shares", context, sender)


def test_the_encoding_is_canonical_json_with_the_fields_of_the_docstring():
    value = json.loads(written().encode())
    assert list(value) == ["body", "federation", "kind", "plan", "round", "sender", "signature"]
    signature = base64.b64decode(value.pop("signature"))
    KEY.public.verify(canonical(value), signature, "partbook/v1/confirmed")


@pytest.mark.parametrize(
    ("kind", "context", "what"),
    [
        ("shares", CONTEXT, "kind"),
        ("confirmed", Context("other choir", 3, "ab" * 32), "federation"),
        ("confirmed", Context("choir", 4, "ab" * 32), "round"),
        ("confirmed", Context("choir", 3, "cd" * 32), "plan"),
    ],
)
def test_a_replayed_message_is_named_by_what_differs(kind, context, what):
    with pytest.raises(ReplayedMessage, match=f"is for {what} "):
        written().check(KEY.public, kind, context, "alto")


def test_a_message_of_another_sender_is_forged():
    with pytest.raises(ForgedMember, match="alto"):
        written().check(KEY.public, "confirmed", CONTEXT, "tenor")


@pytest.mark.parametrize(
    ("change", "kind", "context", "sender"),
    [
        ({"body": {"names": ["alto"], "count": 2}}, "confirmed", CONTEXT, "alto"),
        ({"kind": "shares"}, "shares", CONTEXT, "alto"),
        ({"sender": "tenor"}, "confirmed", CONTEXT, "tenor"),
        ({"context": Context("choir", 4, "ab" * 32)}, "confirmed", Context("choir", 4, "ab" * 32), "alto"),
        ({"context": Context("choirs", 3, "ab" * 32)}, "confirmed", Context("choirs", 3, "ab" * 32), "alto"),
        ({"context": Context("choir", 3, "cd" * 32)}, "confirmed", Context("choir", 3, "cd" * 32), "alto"),
        ({"signature": b""}, "confirmed", CONTEXT, "alto"),
        ({"signature": b"\x30\x06\x02\x01\x00\x02\x01\x00"}, "confirmed", CONTEXT, "alto"),
    ],
)
def test_a_signature_covers_every_other_field(change, kind, context, sender):
    altered = dataclasses.replace(written(), **change)
    with pytest.raises(BadSignature):
        Message.decode(altered.encode()).check(KEY.public, kind, context, sender)


def test_another_key_has_not_signed_it():
    with pytest.raises(BadSignature):
        written().check(IdentityKey.generate().public, "confirmed", CONTEXT, "alto")


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value | {"more": 1},
        lambda value: {name: field for name, field in value.items() if name != "plan"},
        lambda value: value | {"round": "3"},
        lambda value: value | {"round": True},
        lambda value: value | {"sender": 1},
        lambda value: value | {"signature": "no base64!"},
        lambda value: value | {"signature": "é"},
        lambda value: value | {"kind": None},
        lambda value: [value],
    ],
)
def test_a_message_with_other_fields_is_corrupt(change):
    with pytest.raises(CorruptMessage, match="send it again"):
        Message.decode(canonical(change(json.loads(written().encode()))))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"\xff\xfe",
        b'{"body":1.5}',
        b"[" * 100_000,
        b'{"body":' + b"9" * 5000 + b"}",
        b'{"body":"\\ud800"}',
        b'{"body":1,"body":1}',
    ],
    ids=range(9),
)
def test_what_is_no_message_is_corrupt(data):
    with pytest.raises(CorruptMessage):
        Message.decode(data)


def test_another_spelling_of_a_message_is_corrupt():
    for data in (b" " + written().encode(), written().encode() + b"\n", written().encode().replace(b":", b": ", 1)):
        with pytest.raises(CorruptMessage):
            Message.decode(data)


def test_a_signature_spelt_in_another_way_is_corrupt():
    message = Message(written().kind, CONTEXT, "alto", "words", b"4 bytes and so on...")
    data = message.encode()
    assert b'b24uLi4="' in data
    with pytest.raises(CorruptMessage, match="another way"):
        Message.decode(data.replace(b'b24uLi4="', b'b24uLi5="'))


# Signed once: the length of a DER signature varies.
SIGNED = written().encode()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_message_with_any_byte_changed_never_passes(data):
    blob = bytearray(SIGNED)
    place = data.draw(st.integers(0, len(SIGNED) - 1))
    blob[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises((CorruptMessage, ReplayedMessage, ForgedMember, BadSignature)):
        Message.decode(bytes(blob)).check(KEY.public, "confirmed", CONTEXT, "alto")


def test_a_repr_shows_whom_a_message_is_from_and_never_what_it_says():
    assert "alto" in repr(written())
    assert "Bassi" not in repr(written())

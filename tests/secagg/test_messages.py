"""Bodies of messages: what is not exactly one is refused, and the refusal does not repeat what it was given."""

from __future__ import annotations

import base64

import pytest
from pydantic import ValidationError

from partbook.errors import CorruptMessage
from partbook.identity.canonical import Json
from partbook.identity.message import Context, Message
from partbook.secagg import messages as m

KEY = base64.b64encode(bytes(32)).decode()
SHARE = base64.b64encode(bytes(33)).decode()
SEALED = base64.b64encode(bytes(94)).decode()
HASH = "0" * 64


def message(body: Json) -> Message:
    return Message("kind", Context("choir", 1, HASH), "alto", body, b"")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (m.Advertise, {"mask_key": KEY, "share_key": KEY}),
        (m.Keys, {"messages": ["one", "two"]}),
        (m.Shares, {"commitment": KEY, "shares": {"bass": SEALED}}),
        (m.Inbox, {"shares": {"bass": SEALED}}),
        (m.Contribution, {"chunk": 0, "chunks": 1, "elements": 5, "sha256": HASH, "seal_key": ""}),
        (m.Survivors, {"survivors": ["alto", "bass"]}),
        (m.Confirmed, {"digest": HASH, "count": 2}),
        (m.Reveal, {"survivors": ["alto"], "dropped": [], "confirmations": ["signed"]}),
        (m.Revealed, {"self_secrets": {"alto": SHARE}, "mask_keys": {}}),
    ],
)
def test_every_body_is_read_as_it_was_written_and_nothing_beside_it(kind, body):
    assert kind.of(message(body)).json_body() == body
    with pytest.raises(CorruptMessage, match="alto"):
        kind.of(message({**body, "more": 1}))
    for name in body:
        with pytest.raises(CorruptMessage, match=name):
            kind.of(message({**body, name: 7.0 if name not in ("chunk", "chunks", "elements", "count") else -1}))
        with pytest.raises(CorruptMessage):
            kind.of(message({key: value for key, value in body.items() if key != name}))


@pytest.mark.parametrize("key", ["", KEY[:-4], KEY + "AAAA", "é" * 44, "!" * 44, None, 5, [0] * 32])
def test_a_key_of_another_size_or_spelling_is_refused(key):
    with pytest.raises(CorruptMessage, match="mask_key"):
        m.Advertise.of(message({"mask_key": key, "share_key": KEY}))


@pytest.mark.parametrize("names", [[""], ["a" * 65], [1], "alto", {"alto": 1}, ["a"] * 10_001])
def test_a_list_of_names_is_a_list_of_names(names):
    with pytest.raises(CorruptMessage):
        m.Survivors.of(message({"survivors": names}))


def test_a_refusal_does_not_repeat_the_share_it_was_given():
    secret = base64.b64encode(bytes(range(40))).decode()
    with pytest.raises(CorruptMessage) as caught:
        m.Revealed.of(message({"self_secrets": {"bass": secret}, "mask_keys": {}}))
    assert secret not in str(caught.value)
    with pytest.raises(ValidationError) as bare:
        m.Revealed(self_secrets={"bass": secret}, mask_keys={})
    assert secret not in str(bare.value)
    assert secret not in repr(bare.value)


def test_a_repr_does_not_show_the_shares():
    share = bytes(range(1, 34))
    body = m.Revealed(self_secrets={"bass": share}, mask_keys={"tenor": share})
    assert repr(body) == "Revealed()"
    assert repr(share)[2:10] not in str(body)

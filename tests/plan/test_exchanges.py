import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio import Trio

from partbook.errors import BadSignature, CorruptMessage, ForgedMember, ReplayedMessage
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Context, Message
from partbook.plan import exchanges as e

CONTEXT = Context("trio", 1, "a" * 64)
KEY = bytes(range(32))


def test_a_signed_plan_is_read(trio: Trio) -> None:
    plan = trio.plan("sealed")
    assert e.read_plan(e.write_plan(trio.key, plan), trio.roster) == plan


def test_a_plan_signed_by_anybody_else_is_refused(trio: Trio) -> None:
    for key in (IdentityKey.generate(), trio.member_key("Alto")):
        with pytest.raises(BadSignature):
            e.read_plan(e.write_plan(key, trio.plan()), trio.roster)


def test_a_plan_inside_a_message_about_another_is_refused(trio: Trio) -> None:
    plan, body = trio.plan(), e.PlanText(text=trio.plan().encode().decode())
    for change in ({"federation": "quartet"}, {"round": 2}, {"plan": "0" * 64}):
        message = e.write(trio.key, e.PLAN, replace(plan.context(), **change), COORDINATOR, body)
        with pytest.raises(ReplayedMessage):
            e.read_plan(message, trio.roster)
    with pytest.raises(ReplayedMessage):
        e.read_plan(e.write(trio.key, e.BEGIN, plan.context(), COORDINATOR, body), trio.roster)
    with pytest.raises(ForgedMember):
        e.read_plan(e.write(trio.key, e.PLAN, plan.context(), "Alto", body), trio.roster)


def test_an_altered_plan_is_refused(trio: Trio) -> None:
    honest = Message.decode(e.write_plan(trio.key, trio.plan()))
    other = trio.plan(threshold=2)
    body = e.PlanText(text=other.encode().decode()).json_body()
    for context, error in ((honest.context, ReplayedMessage), (other.context(), BadSignature)):
        altered = Message(honest.kind, context, honest.sender, body, honest.signature)
        with pytest.raises(error):
            e.read_plan(altered.encode(), trio.roster)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "\ud800", "x" * 2_000_001], ids=lambda text: text[:4] or "empty"
)
def test_what_is_no_plan_is_refused(trio: Trio, text: str) -> None:
    try:
        message = Message.write(trio.key, e.PLAN, CONTEXT, COORDINATOR, {"text": text}).encode()
    except UnicodeEncodeError:
        # Not even a liar can sign half a character; but one may write the escape.
        honest = Message.write(trio.key, e.PLAN, CONTEXT, COORDINATOR, {"text": "?"}).encode()
        message = honest.replace(b'"?"', json.dumps(text).encode())
    with pytest.raises(CorruptMessage):
        e.read_plan(message, trio.roster)


@given(data=st.binary(max_size=100))
def test_noise_is_no_plan(trio: Trio, data: bytes) -> None:
    with pytest.raises(CorruptMessage):
        e.read_plan(data, trio.roster)


@given(slots=st.binary(max_size=200), chunk=st.integers(0, 2**20), key=st.binary(min_size=32, max_size=32))
def test_an_opened_sum_comes_back_under_its_own_key_round_and_chunk_only(slots: bytes, chunk: int, key: bytes) -> None:
    blob = e.encrypt_sum(key, CONTEXT, chunk, slots)
    assert e.decrypt_sum(key, CONTEXT, chunk, blob) == slots
    wrong = [
        (bytes(32 - len(key)) + bytes(b ^ 1 for b in key), CONTEXT, chunk, blob),
        (key, replace(CONTEXT, round=2), chunk, blob),
        (key, replace(CONTEXT, plan="b" * 64), chunk, blob),
        (key, CONTEXT, chunk + 1, blob),
        (key, CONTEXT, chunk, blob[:-1]),
        (key, CONTEXT, chunk, bytes([blob[0] ^ 1]) + blob[1:]),
        (key, CONTEXT, chunk, b""),
    ]
    for arguments in wrong:
        with pytest.raises(CorruptMessage):
            e.decrypt_sum(*arguments)


@pytest.mark.parametrize("length", [0, 1, 31, 33])
def test_a_key_of_another_length_opens_nothing(length: int) -> None:
    blob = e.encrypt_sum(KEY, CONTEXT, 0, b"slots")
    with pytest.raises(CorruptMessage):
        e.decrypt_sum(bytes(length), CONTEXT, 0, blob)


def test_wrapped_keys_are_bound_to_member_chunk_round_and_plan() -> None:
    infos = {
        e.opened_info(context, chunk, member)
        for context in (CONTEXT, replace(CONTEXT, round=2), replace(CONTEXT, plan="b" * 64))
        for chunk in (0, 1)
        for member in ("", "Alto", "Bass")
    }
    assert len(infos) == 18


OPEN = {"survivors": ["A"], "confirmations": ["x"], "chunk": 0, "sha256": "a" * 64}
OPENED = {"contributions": 3, "chunk": 0, "sha256": "a" * 64, "keys": {"A": "x"}}


@pytest.mark.parametrize(
    ("body", "good", "wrong"),
    [
        (e.Nothing, {}, {"loss": "1"}),
        (e.Proceed, {"chunk": 1}, {"chunk": -1}),
        (e.Proceed, {"chunk": 1}, {"chunk": "1"}),
        (e.Proceed, {"chunk": 1}, {"chunk": True}),
        (e.Open, OPEN, {"sha256": "A" * 64}),
        (e.Open, OPEN, {"survivors": ["A" * 65]}),
        (e.Open, OPEN, {"survivors": "A"}),
        (e.Open, OPEN, {"counts": [1]}),
        (e.Opened, OPENED, {"contributions": 0}),
        (e.Opened, OPENED, {"keys": {"A": "x" * 201}}),
        (e.Opened, OPENED, {"keys": ["A"]}),
        (e.ModelHash, {"model": "a" * 64}, {"model": ""}),
        (e.Publish, {"endorsements": ["x"], "chunk": 0}, {"endorsements": ["x" * 10_001]}),
    ],
)
def test_a_body_has_its_fields_and_no_others(body: type[e.Body], good: dict, wrong: dict) -> None:
    key = IdentityKey.generate()
    assert body.of(Message.write(key, e.OPEN, CONTEXT, "A", good)).json_body() == good
    with pytest.raises(CorruptMessage, match="broken at"):
        body.of(Message.write(key, e.OPEN, CONTEXT, "A", good | wrong))

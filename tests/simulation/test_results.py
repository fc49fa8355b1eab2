"""Every kind of message has its meaning in plain words, and every way to fall away its consequence."""

from __future__ import annotations

import pytest

from partbook.coordinator.checkpoints import RoundRecord
from partbook.plan import wire
from partbook.simulation.federation import Flow, Traffic
from partbook.simulation.results import EXCHANGES, MEANINGS, exchange_reports, message_kinds, round_reports

ALTO, NOTARY = 2, 3


def traffic() -> Traffic:
    seen = Traffic({ALTO: "Alto", NOTARY: "Notary"})
    for party, kind, sent, received in (
        ("Alto", wire.HELLO, 10, 5),
        ("Notary", wire.HELLO, 12, 5),
        ("Alto", wire.TRAIN, 400, 1000),
        ("Notary", wire.OPEN, 3000, 6000),
    ):
        seen.flows[party, True, kind] = Flow().plus(sent, 0.5).plus(sent, 0.25)
        seen.flows[party, False, kind] = Flow().plus(received).plus(received)
    return seen


def test_every_kind_of_message_is_explained_both_ways() -> None:
    assert set(MEANINGS) == {(kind, inbound) for kind in wire.KINDS for inbound in (False, True)}
    assert list(EXCHANGES) == list(wire.KINDS)


def test_kinds_that_were_sent_are_listed_with_their_ends_and_no_others() -> None:
    found = {(kind.kind, kind.from_party): kind for kind in message_kinds(traffic(), "Notary")}
    assert [key[0] for key in found] == [wire.HELLO] * 2 + [wire.TRAIN] * 2 + [wire.OPEN] * 2
    assert found[wire.HELLO, True].party == "node, custodian"
    assert found[wire.TRAIN, False].party == "node"
    assert found[wire.OPEN, True].party == "custodian"
    assert (found[wire.HELLO, True].total_bytes, found[wire.HELLO, True].largest_bytes) == (44, 12)


def test_each_partys_part_in_an_exchange_is_what_crossed_and_how_long_it_worked() -> None:
    train, opening = exchange_reports(traffic(), ("Alto", "Notary"))
    assert (train.party, train.messages, train.bytes_sent, train.bytes_received) == ("Alto", 2, 800, 2000)
    assert train.seconds == 0.75
    assert (opening.kind, opening.party, opening.bytes_received) == (wire.OPEN, "Notary", 12_000)


@pytest.mark.parametrize(
    ("kind", "in_sum", "words"),
    [
        (wire.TRAIN, False, "left nothing behind"),
        (wire.ADVERTISE, False, "left nothing behind"),
        (wire.SHARE, False, "left nothing behind"),
        (wire.CONTRIBUTE, False, "rebuilt from shares of its mask key"),
        (wire.PROCEED, False, "rebuilt from shares of its mask key"),
        (wire.CONFIRM, True, "Its own mask was rebuilt from shares"),
        (wire.REVEAL, True, "Its own mask was rebuilt from shares"),
        (wire.APPLY, True, "takes before the next round"),
    ],
)
def test_what_was_recovered_follows_from_where_a_label_fell_away(kind: str, in_sum: bool, words: str) -> None:
    members = ("Alto", "Bass") if in_sum else ("Bass",)
    history = (RoundRecord(0, "00"), RoundRecord(1, "11", members, dropped={"Alto": kind}))
    (one,) = round_reports(history)
    (drop,) = one.dropped
    assert (drop.member, drop.kind, drop.in_sum) == ("Alto", kind, in_sum)
    assert words in drop.recovered

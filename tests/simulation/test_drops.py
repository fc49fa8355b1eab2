import pytest

from partbook.errors import ConfigError
from partbook.plan import wire
from partbook.simulation.drops import EXCHANGES, Drop, Losses

MEMBERS = ("Alto", "Bass", "Cantus firmus")
ROUND = (
    wire.TRAIN, wire.ADVERTISE, wire.SHARE, wire.CONTRIBUTE, wire.PROCEED, wire.CONFIRM, wire.REVEAL, wire.APPLY,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "drop"),
    [
        ("Alto@train", Drop("Alto", wire.TRAIN)),
        ("Bass@confirm:3", Drop("Bass", wire.CONFIRM, 3)),
        ("Cantus firmus@reveal:12", Drop("Cantus firmus", wire.REVEAL, 12)),
        ("Alto@apply", Drop("Alto", wire.APPLY)),
    ],
)
def test_a_drop_is_spelt_as_member_exchange_and_round(text: str, drop: Drop) -> None:
    assert Drop.parse(text, MEMBERS) == drop


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Tenor@train", "no member"), ("", "no member"), ("Alto", "no exchange"), ("Alto@", "no exchange"),
        ("Alto@hello", "no exchange"), ("Alto@open", "no exchange"), ("Alto@query.share", "no exchange"),
        ("Alto@share:0", "no round"), ("Alto@share:-1", "no round"), ("Alto@share:x", "no round"),
    ],
)  # fmt: skip
def test_a_drop_that_cannot_be_is_named(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Drop.parse(text, MEMBERS)


def test_every_exchange_of_a_node_can_be_named() -> None:
    assert set(EXCHANGES.values()) == set(wire.KINDS) - {wire.HELLO, wire.OPEN}


def lost(drops: list[Drop], rounds: int) -> dict[int, list[str]]:
    """By round, what never reaches Alto (node 2)."""
    losses = Losses(drops, {2: "Alto", 3: "Bass"})
    found: dict[int, list[str]] = {}
    for number in range(1, rounds + 1):
        found[number] = [kind for kind in ROUND if losses(2, kind)]
        assert [kind for kind in ROUND if losses(3, kind)] == []
    return found


@pytest.mark.parametrize("kind", ROUND)
def test_a_member_is_down_from_its_exchange_to_the_end_of_the_round(kind: str) -> None:
    found = lost([Drop("Alto", kind, 2)], 3)
    assert found == {1: [], 2: list(ROUND[ROUND.index(kind) :]), 3: []}


def test_a_drop_without_a_round_is_for_every_round() -> None:
    found = lost([Drop("Alto", wire.CONFIRM)], 3)
    assert found == {number: list(ROUND[ROUND.index(wire.CONFIRM) :]) for number in (1, 2, 3)}


def test_nobody_is_kept_from_saying_who_it_is_and_the_custodian_from_opening() -> None:
    losses = Losses([Drop("Alto", wire.TRAIN)], {2: "Alto"})
    assert not losses(2, wire.HELLO)
    assert not losses(2, wire.OPEN)


def test_a_member_that_is_back_catches_up_before_the_next_plan() -> None:
    losses = Losses([Drop("Alto", wire.SHARE, 1)], {2: "Alto"})
    assert [kind for kind in ROUND if losses(2, kind)] == list(ROUND[ROUND.index(wire.SHARE) :])
    assert not losses(2, wire.APPLY)  # the sum it missed
    assert not losses(2, wire.TRAIN)

"""Who is at the other end: signed questions and answers, and everything that can be wrong about them."""

from dataclasses import replace
from importlib.metadata import version

import pytest

from partbook.errors import BadSignature, CorruptMessage, ForgedMember, PartbookError, ReplayedMessage, WrongClock
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Context, Message
from partbook.identity.parties import Custodian, Member
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Roster
from partbook.plan.greeting import CLOCKS_APART, HELLO, HERE, Greeted, Greeter, Hello, Here, greeted, hello, here

MEMBERS = ("Alto", "Bass", "Tenor")
NONCE, OTHER_NONCE = "0123456789abcdef" * 2, "f" * 32
NOW = 1_800_000_000


@pytest.fixture(scope="module")
def keys() -> dict[str, IdentityKey]:
    return {name: IdentityKey.generate() for name in (*MEMBERS, "Custodian", COORDINATOR, "Stranger")}


@pytest.fixture(scope="module")
def roster(keys: dict[str, IdentityKey]) -> Roster:
    members = tuple(Member(name, keys[name].public, ReceivingKey.generate().public) for name in MEMBERS)
    custodian = Custodian("Custodian", keys["Custodian"].public, "0" * 64)
    return Roster("greeting", 1, keys[COORDINATOR].public, members, custodian)


def context(roster: Roster, **changed: object) -> Context:
    return replace(Context(roster.federation, 0, "0" * 64), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("party", [*MEMBERS, "Custodian"])
@pytest.mark.parametrize("ahead", [-CLOCKS_APART, 0, CLOCKS_APART])
def test_every_party_proves_who_it_is_and_how_its_clock_goes(
    party: str, ahead: int, keys: dict[str, IdentityKey], roster: Roster
) -> None:
    question = hello(keys[COORDINATOR], roster, NONCE, NOW)
    answer = here(question, keys[party], roster, party, NOW + ahead)
    assert greeted(answer, roster, NONCE, NOW) == Greeted(party, version("partbook"), ahead)


def test_a_greeter_asks_and_reads_by_its_own_clock(keys: dict[str, IdentityKey], roster: Roster) -> None:
    import time

    greeter = Greeter(keys[COORDINATOR], roster)
    found = greeter.read(here(greeter.question(NONCE), keys["Alto"], roster, "Alto", int(time.time())), NONCE)
    assert (found.party, abs(found.clock) <= CLOCKS_APART) == ("Alto", True)


def test_an_answer_says_nothing_beyond_name_version_and_time(keys: dict[str, IdentityKey], roster: Roster) -> None:
    assert set(Here.model_fields) == {"nonce", "version", "time"}
    assert set(Hello.model_fields) == {"nonce", "roster", "time"}


@pytest.mark.parametrize("apart", [CLOCKS_APART + 1, -CLOCKS_APART - 1, 86_400, -NOW])
def test_clocks_that_are_minutes_apart_are_named_with_their_direction(
    apart: int, keys: dict[str, IdentityKey], roster: Roster
) -> None:
    question = hello(keys[COORDINATOR], roster, NONCE, NOW)
    way = "ahead of" if apart > 0 else "behind"
    with pytest.raises(WrongClock, match=f"at Alto is {abs(apart)} s {way} the coordinator's; set it by NTP"):
        here(question, keys["Alto"], roster, "Alto", NOW + apart)


def test_a_party_with_another_version_of_the_roster_declines_and_says_which(
    keys: dict[str, IdentityKey], roster: Roster
) -> None:
    newer = replace(roster, version=2)
    question = hello(keys[COORDINATOR], newer, NONCE, NOW)
    with pytest.raises(ForgedMember, match=rf"{newer.hash[:12]}….*at Alto is {roster.hash[:12]}… \(version 1\)"):
        here(question, keys["Alto"], roster, "Alto", NOW)


def test_only_the_coordinator_of_this_federation_is_answered(keys: dict[str, IdentityKey], roster: Roster) -> None:
    body = Hello(nonce=NONCE, roster=roster.hash, time=NOW).json_body()
    good = context(roster)
    for signer, kind, where, sender in (
        ("Stranger", HELLO, good, COORDINATOR),
        ("Alto", HELLO, good, COORDINATOR),
        ("Alto", HELLO, good, "Alto"),
        (COORDINATOR, HERE, good, COORDINATOR),
        (COORDINATOR, HELLO, context(roster, federation="another"), COORDINATOR),
        (COORDINATOR, HELLO, context(roster, round=1), COORDINATOR),
        (COORDINATOR, HELLO, context(roster, plan="1" * 64), COORDINATOR),
    ):
        question = Message.write(keys[signer], kind, where, sender, body).encode()
        with pytest.raises((BadSignature, ReplayedMessage, ForgedMember)):
            here(question, keys["Bass"], roster, "Bass", NOW)
    question = Message.write(keys[COORDINATOR], HELLO, good, COORDINATOR, body).encode()
    assert here(question, keys["Bass"], roster, "Bass", NOW)


def test_nobody_answers_for_another(keys: dict[str, IdentityKey], roster: Roster) -> None:
    question = hello(keys[COORDINATOR], roster, NONCE, NOW)
    for signer, name in (("Alto", "Bass"), ("Stranger", "Bass"), ("Custodian", "Alto"), (COORDINATOR, "Alto")):
        with pytest.raises(BadSignature):
            greeted(here(question, keys[signer], roster, name, NOW), roster, NONCE, NOW)
    with pytest.raises(ForgedMember):
        greeted(here(question, keys["Stranger"], roster, "Stranger", NOW), roster, NONCE, NOW)


def test_an_answer_to_another_question_was_replayed(keys: dict[str, IdentityKey], roster: Roster) -> None:
    answer = here(hello(keys[COORDINATOR], roster, NONCE, NOW), keys["Alto"], roster, "Alto", NOW)
    with pytest.raises(ReplayedMessage, match="Alto's answer is to another question"):
        greeted(answer, roster, OTHER_NONCE, NOW)
    with pytest.raises(ReplayedMessage):
        greeted(answer, replace(roster, federation="another"), NONCE, NOW)


def test_the_coordinators_own_question_is_nobodys_answer(keys: dict[str, IdentityKey], roster: Roster) -> None:
    with pytest.raises(PartbookError):
        greeted(hello(keys[COORDINATOR], roster, NONCE, NOW), roster, NONCE, NOW)


def test_every_byte_of_an_answer_is_signed(keys: dict[str, IdentityKey], roster: Roster) -> None:
    question = hello(keys[COORDINATOR], roster, NONCE, NOW)
    answer = here(question, keys["Alto"], roster, "Alto", NOW)
    for index in range(0, len(answer), 7):
        changed = bytes([*answer[:index], answer[index] ^ 1, *answer[index + 1 :]])
        with pytest.raises(PartbookError):
            greeted(changed, roster, NONCE, NOW)
    for cut in (b"", answer[:-1], answer + b" ", b"{}", b"\xff"):
        with pytest.raises(PartbookError):
            greeted(cut, roster, NONCE, NOW)
        with pytest.raises(PartbookError):
            here(cut, keys["Alto"], roster, "Alto", NOW)


@pytest.mark.parametrize(
    "body",
    [
        {"nonce": "x" * 32, "version": "1", "time": NOW},
        {"nonce": NONCE, "version": "1" * 65, "time": NOW},
        {"nonce": NONCE, "version": "1", "time": -1},
        {"nonce": NONCE, "version": "1", "time": 2**41},
        {"nonce": NONCE, "version": "1", "time": True},
        {"nonce": NONCE, "version": "1"},
        {"nonce": NONCE, "version": "1", "time": NOW, "tokens": 4},
    ],
)
def test_an_answer_of_another_form_is_corrupt_also_where_it_is_signed(
    body: dict[str, object], keys: dict[str, IdentityKey], roster: Roster
) -> None:
    answer = Message.write(keys["Alto"], HERE, context(roster), "Alto", body).encode()  # type: ignore[arg-type]
    with pytest.raises(CorruptMessage):
        greeted(answer, roster, NONCE, NOW)

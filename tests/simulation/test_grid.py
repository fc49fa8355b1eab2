from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from partbook.coordinator.grid import GridTransport
from partbook.coordinator.timing import ServerTiming
from partbook.errors import NodeFailed, WrongClock
from partbook.identity.keys import IdentityKey
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Custodian, Member, Roster
from partbook.plan import wire
from partbook.plan.greeting import Greeter, here
from partbook.simulation.grid import Crossing, InProcessGrid

app = ClientApp()


KEYS = {name: IdentityKey.generate() for name in ("coordinator", "Alto", "Bass", "Broken", "Custodian", "Stranger")}


def entry(name: str) -> Member:
    return Member(name, KEYS[name].public, ReceivingKey.generate().public)


def signed_by_all(roster: Roster) -> Roster:
    for name in ("coordinator", "Alto", "Bass", "Broken", "Custodian"):
        roster = roster.sign(name, KEYS[name])
    return roster


ROSTER = signed_by_all(
    Roster(
        "grid",
        1,
        KEYS["coordinator"].public,
        tuple(map(entry, ("Alto", "Bass", "Broken"))),
        Custodian("Custodian", KEYS["Custodian"].public, "0" * 64),
    )
)
GREETER = Greeter(KEYS["coordinator"], ROSTER)


def greeting(message: Message, name: str, clock: int = 0) -> Message:
    (question,), _ = wire.unpack(message.content)
    said = here(question, KEYS[name], ROSTER, name, int(time.time()) + clock)
    return Message(wire.pack([said]), reply_to=message)


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    return greeting(message, str(context.node_config["member"]))


@app.query("count")
def count(message: Message, context: Context) -> Message:
    if context.node_config["member"] == "Broken":
        raise RuntimeError("a secret that must not travel")
    seen = context.state.config_records.setdefault("seen", ConfigRecord({"n": 0}))
    seen["n"] += 1
    return Message(RecordDict({"n": ConfigRecord({"n": seen["n"]})}), reply_to=message)


SETTLING = 0.1  # seconds after which nodes that were all greeted are no longer waited for


class Awaited(InProcessGrid):
    """Lets a node be slow, for as long as it is waited for, on a machine of any speed."""

    looked = 0.0  # when answers were looked for last
    look = threading.Condition()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = super().pull_messages(message_ids)
        with self.look:
            self.looked = time.monotonic()
            self.look.notify_all()
        return found

    def looked_for(self, seconds: float) -> None:
        """Return once answers were still looked for so many seconds later."""
        until = time.monotonic() + seconds
        with self.look:
            assert self.look.wait_for(lambda: self.looked > until, 60)


@pytest.fixture
def crossings() -> list[Crossing]:
    return []


@pytest.fixture
def transport(crossings: list[Crossing]):
    members = ("Alto", "Bass", "Broken")
    nodes = {10 + i: {"member": m} for i, m in enumerate((*members, "Stranger"))}
    with InProcessGrid(app, nodes, on_crossing=crossings.append) as grid:
        yield GridTransport(grid, members, GREETER, patience=60.0)


def questions_and_answers(crossings: list[Crossing]) -> list[Crossing]:
    """A node that is nobody's may still be saying who it is, when all parties have."""
    return [crossing for crossing in crossings if crossing.kind != wire.HELLO]


def test_members_are_known_by_the_names_they_give_and_strangers_are_not_heard(transport: GridTransport) -> None:
    assert transport.members() == ["Alto", "Bass", "Broken"]


def test_each_node_keeps_its_own_state_between_messages(transport: GridTransport) -> None:
    for expected in (1, 2):
        answers = transport.exchange("query.count", {"Alto": RecordDict(), "Bass": RecordDict()}, timeout=10)
        assert [answers[m].config_records["n"]["n"] for m in ("Alto", "Bass")] == [expected, expected]


def test_a_node_that_fails_answers_for_itself_alone(transport: GridTransport, crossings: list[Crossing]) -> None:
    answers = transport.exchange("query.count", {"Alto": RecordDict(), "Broken": RecordDict()}, timeout=10)
    assert isinstance(answers["Broken"], NodeFailed)
    assert "RuntimeError" in str(answers["Broken"])
    assert isinstance(answers["Alto"], RecordDict)
    assert not any(b"a secret" in crossing.data or b"not travel" in crossing.data for crossing in crossings)


def test_every_message_is_seen_as_bytes_in_both_directions(transport: GridTransport, crossings: list[Crossing]) -> None:
    crossings.clear()
    transport.exchange("query.count", {"Alto": RecordDict()}, timeout=10)
    assert [c.inbound for c in questions_and_answers(crossings)] == [False, True]


def test_a_member_that_is_not_there_is_absent_from_the_answers(transport: GridTransport) -> None:
    assert "Nobody" not in transport.exchange("query.count", {"Nobody": RecordDict()}, timeout=1)


def test_some_nodes_may_run_another_app(crossings: list[Crossing]) -> None:
    other = ClientApp()

    @other.query("hello")
    def hello_too(message: Message, context: Context) -> Message:
        return greeting(message, "Custodian")

    nodes = {10: {"member": "Alto"}, 11: {}}
    with InProcessGrid(app, nodes, others={11: other}, on_crossing=crossings.append) as grid:
        assert GridTransport(grid, ("Alto", "Custodian"), GREETER).members() == ["Alto", "Custodian"]


def test_a_message_that_is_lost_is_never_seen_and_its_node_counts_as_away(crossings: list[Crossing]) -> None:
    def lost(node_id: int, kind: str) -> bool:
        return (node_id, kind) == (10, "query.count")

    nodes = {10: {"member": "Alto"}, 11: {"member": "Bass"}}
    with InProcessGrid(app, nodes, on_crossing=crossings.append, lost=lost) as grid:
        transport = GridTransport(grid, ("Alto", "Bass"), GREETER)
        answers = transport.exchange("query.count", {"Alto": RecordDict(), "Bass": RecordDict()}, timeout=10)
    assert isinstance(answers["Alto"], NodeFailed)
    assert "unavailable" in str(answers["Alto"])
    assert isinstance(answers["Bass"], RecordDict)
    assert not [c for c in crossings if (c.node_id, c.kind) == (10, "query.count")]


def test_a_name_belongs_to_the_first_node_that_gives_it(crossings: list[Crossing]) -> None:
    nodes = {10: {"member": "Alto"}, 11: {"member": "Alto"}, 12: {"member": "Bass"}}
    with InProcessGrid(app, nodes, on_crossing=crossings.append) as grid:
        transport = GridTransport(grid, ("Alto", "Bass"), GREETER)
        crossings.clear()
        answers = transport.exchange("query.count", {"Alto": RecordDict()}, timeout=10)
    assert set(answers) == {"Alto"}
    assert len({crossing.node_id for crossing in questions_and_answers(crossings)}) == 1


def test_how_long_a_node_worked_is_told_with_its_answer(transport: GridTransport, crossings: list[Crossing]) -> None:
    crossings.clear()
    transport.exchange("query.count", {"Alto": RecordDict()}, timeout=10)
    asked, answered = questions_and_answers(crossings)
    assert asked.seconds == 0
    assert 0 < answered.seconds < 10


def test_members_that_never_come_are_not_waited_for_longer_than_patience_allows() -> None:
    with InProcessGrid(app, {10: {"member": "Alto"}}) as grid:
        assert GridTransport(grid, ("Alto", "Bass"), GREETER, patience=2.0, grace=60.0).members() == ["Alto"]


def test_a_node_that_fails_when_asked_who_it_is_is_not_waited_for_and_its_reason_is_told() -> None:
    broken = ClientApp()

    @broken.query("hello")
    def fail(message: Message, context: Context) -> Message:
        raise RuntimeError("no torch here")

    with InProcessGrid(app, {10: {"member": "Alto"}, 11: {}}, others={11: broken}) as grid:
        began = time.monotonic()
        transport = GridTransport(grid, ("Alto", "Bass"), GREETER, patience=600, settled=0.25)
        answers = transport.exchange("query.count", {"Bass": RecordDict()}, timeout=10)
        assert time.monotonic() - began < 300
    assert transport.members() == ["Alto"]
    assert "did not say who it is" in str(answers["Bass"])
    assert "RuntimeError" in str(answers["Bass"])


def test_a_node_that_is_slow_to_say_who_it_is_is_waited_for() -> None:
    slow = ClientApp()

    @slow.query("hello")
    def late(message: Message, context: Context) -> Message:
        grid.looked_for(3 * SETTLING)
        return greeting(message, "Bass")

    with Awaited(app, {10: {"member": "Alto"}, 11: {}}, others={11: slow}) as grid:
        assert GridTransport(grid, ("Alto", "Bass"), GREETER, patience=600, settled=SETTLING).members() == [
            "Alto",
            "Bass",
        ]


def test_a_name_without_its_key_is_nobody() -> None:
    liar = ClientApp()

    @liar.query("hello")
    def lie(message: Message, context: Context) -> Message:
        (question,), _ = wire.unpack(message.content)
        return Message(
            wire.pack([here(question, KEYS["Stranger"], ROSTER, "Bass", int(time.time()))]), reply_to=message
        )

    nodes = {10: {"member": "Alto"}, 11: {}}
    with InProcessGrid(app, nodes, others={11: liar}) as grid:
        assert GridTransport(grid, ("Alto", "Bass"), GREETER, settled=SETTLING).members() == ["Alto"]


def test_an_answer_to_an_earlier_greeting_proves_nothing() -> None:
    replayed: list[bytes] = []
    parrot = ClientApp()

    @parrot.query("hello")
    def repeat(message: Message, context: Context) -> Message:
        (question,), _ = wire.unpack(message.content)
        if not replayed:
            replayed.append(here(question, KEYS["Bass"], ROSTER, "Bass", int(time.time())))
            return Message(RecordDict(), reply_to=message)
        return Message(wire.pack(replayed), reply_to=message)

    with InProcessGrid(parrot, {11: {}}) as grid:
        assert GridTransport(grid, ("Bass",), GREETER, settled=SETTLING).members() == []
        assert GridTransport(grid, ("Bass",), GREETER, settled=SETTLING).members() == []


@pytest.mark.parametrize("first", [10, 11])
def test_of_two_nodes_that_prove_one_name_the_one_that_was_asked_before_is_asked(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("partbook.coordinator.grid.ANSWERS_WITHIN", 60.0)
    slow, asked, other = ClientApp(), list[int](), 21 - first
    copy_was_heard = threading.Event()
    copy_was_heard.set()

    class Hearing(InProcessGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            found = list(super().pull_messages(message_ids))
            if any(reply.metadata.src_node_id == other for reply in found):
                copy_was_heard.set()
            return found

    @slow.query("hello")
    def late(message: Message, context: Context) -> Message:
        assert context.node_id == other or copy_was_heard.wait(60)
        return greeting(message, "Alto")

    @slow.query("count")
    def counted(message: Message, context: Context) -> Message:
        asked.append(context.node_id)
        return Message(RecordDict({"n": ConfigRecord({"n": 1})}), reply_to=message)

    memory = tmp_path / "nodes.json"
    with InProcessGrid(slow, {first: {}}) as grid:
        GridTransport(grid, ("Alto",), GREETER, memory=memory)
    # The copy is heard before the one that was there before.
    copy_was_heard.clear()
    with Hearing(slow, {10: {}, 11: {}}) as grid:
        GridTransport(grid, ("Alto",), GREETER, memory=memory).exchange(
            "query.count", {"Alto": RecordDict()}, timeout=60
        )
    assert copy_was_heard.is_set()
    assert asked == [first]
    # It is gone for good: then the other one is it.
    with InProcessGrid(slow, {other: {}}) as grid:
        GridTransport(grid, ("Alto",), GREETER, memory=memory).exchange(
            "query.count", {"Alto": RecordDict()}, timeout=60
        )
    assert asked == [first, other]


def test_a_node_that_proves_a_name_which_another_has_proved_is_not_used() -> None:
    nodes, asked = {10: "Alto", 11: "Alto", 12: "Bass"}, list[int]()
    one_by_one = ClientApp()

    @one_by_one.query("hello")
    def late(message: Message, context: Context) -> Message:
        time.sleep(0.3 * (context.node_id - 10))
        return greeting(message, nodes[context.node_id])

    @one_by_one.query("count")
    def counted(message: Message, context: Context) -> Message:
        asked.append(context.node_id)
        return Message(RecordDict({"n": ConfigRecord({"n": 1})}), reply_to=message)

    with InProcessGrid(one_by_one, {node: {} for node in nodes}) as grid:
        transport = GridTransport(grid, ("Alto", "Bass"), GREETER)
        transport.exchange("query.count", {"Alto": RecordDict()}, timeout=5)
    assert asked == [10]


def test_what_is_remembered_of_nodes_may_be_broken(tmp_path: Path) -> None:
    memory = tmp_path / "nodes.json"
    memory.write_text("[")
    with InProcessGrid(app, {10: {"member": "Alto"}}) as grid:
        assert GridTransport(grid, ("Alto",), GREETER, memory=memory).members() == ["Alto"]
    assert memory.read_text() == '{"Alto": 10}'


@pytest.mark.parametrize("clock", [-600, 600])
def test_a_party_whose_clock_is_ten_minutes_off_says_so_and_takes_no_part(clock: int) -> None:
    question = GREETER.question("0" * 32)
    with pytest.raises(WrongClock, match=r"Alto is (59\d|60\d) s (behind|ahead of) the coordinator's"):
        here(question, KEYS["Alto"], ROSTER, "Alto", int(time.time()) + clock)


@dataclass
class Told:
    """Watches."""

    present: list[list[str]] = field(default_factory=list)
    said: list[tuple[str, str, str | None]] = field(default_factory=list)

    def progress(self, progress: object) -> None:
        raise AssertionError("the transport tells no progress")

    def here(self, parties: Sequence[str]) -> None:
        self.present.append(list(parties))

    def asked(self, kind: str, parties: Sequence[str], sent: int) -> None:
        self.said.append((kind, ",".join(parties), None))

    def answered(self, kind: str, party: str, seconds: float, received: int, refusal: str | None) -> None:
        self.said.append((kind, party, refusal))


def repeating(seconds: float) -> ServerTiming:
    """Questions are repeated sooner than a file may say: these nodes answer in milliseconds."""
    return ServerTiming().model_copy(update={"repeat_after": seconds, "repeat_soon": seconds})


class Flickering(InProcessGrid):
    """Its nodes in `away` are not online, and what was sent to them is lost."""

    away: frozenset[int] = frozenset()

    def get_node_ids(self) -> list[int]:
        return [node for node in super().get_node_ids() if node not in self.away]


def test_a_node_that_fell_away_is_greeted_and_asked_again_when_it_is_back() -> None:
    told, lost = Told(), [True]

    def gone(node_id: int, kind: str) -> bool:
        if node_id != 10 or kind != "query.count" or not lost:
            return False
        lost.clear()
        return True

    nodes = {10: {"member": "Alto"}, 11: {"member": "Bass"}}
    with InProcessGrid(app, nodes, lost=gone) as grid:
        transport = GridTransport(grid, ("Alto", "Bass"), GREETER, grace=30, watch=told)
        answers = transport.exchange("query.count", {"Alto": RecordDict(), "Bass": RecordDict()}, timeout=30)
    assert [answers[name].config_records["n"]["n"] for name in ("Alto", "Bass")] == [1, 1]
    assert told.present[-3:] == [["Alto", "Bass"], ["Bass"], ["Alto", "Bass"]]
    assert told.said[0] == ("query.count", "Alto,Bass", None)
    assert set(told.said[1:]) == {("query.count", "Alto", None), ("query.count", "Bass", None)}


def test_a_party_that_is_away_is_waited_for_as_long_as_the_grace_and_no_longer() -> None:
    nodes = {10: {"member": "Alto"}, 11: {"member": "Bass"}}
    with Flickering(app, nodes) as grid:
        at_once = ServerTiming().model_copy(update={"look_every": 0.0})
        transport = GridTransport(grid, ("Alto", "Bass"), GREETER, grace=0.5, timing=at_once)
        grid.away = frozenset({10})
        asked = {"Alto": RecordDict(), "Bass": RecordDict()}
        for least in (0.5, 0.0):
            began = time.monotonic()
            answers = transport.exchange("query.count", asked, timeout=60)
            assert least <= time.monotonic() - began < 60
        assert isinstance(answers["Alto"], NodeFailed)
        assert isinstance(answers["Bass"], RecordDict)
        grid.away = frozenset()
        transport.exchange("query.count", {"Bass": RecordDict()}, timeout=30)
        assert isinstance(transport.exchange("query.count", asked, timeout=30)["Alto"], RecordDict)


def test_a_question_that_stays_unanswered_is_asked_again() -> None:
    swallowed = []

    class Losing(InProcessGrid):
        def pull_messages(self, message_ids):
            for reply in super().pull_messages(message_ids):
                if reply.metadata.message_type == "query.count" and not swallowed:
                    swallowed.append(reply)
                else:
                    yield reply

    with Losing(app, {10: {"member": "Alto"}}) as grid:
        transport = GridTransport(grid, ("Alto",), GREETER, grace=5.0, timing=repeating(0.2))
        answers = transport.exchange("query.count", {"Alto": RecordDict()}, timeout=30)
    assert swallowed
    assert isinstance(answers["Alto"], RecordDict)


def test_where_answers_come_soon_a_question_is_asked_again_soon() -> None:
    """The second answer of a kind is lost; only what the first took can tell that it is missed."""
    came: list[Message] = []

    class Losing(InProcessGrid):
        def pull_messages(self, message_ids):
            for reply in super().pull_messages(message_ids):
                if reply.metadata.message_type == "query.count":
                    came.append(reply)
                    if len(came) == 2:
                        continue
                yield reply

    with Losing(app, {10: {"member": "Alto"}}) as grid:
        timing = ServerTiming(repeat_after=600, repeat_soon=0.2)
        transport = GridTransport(grid, ("Alto",), GREETER, grace=5.0, timing=timing)
        for _ in range(2):
            answers = transport.exchange("query.count", {"Alto": RecordDict()}, timeout=120)
            assert isinstance(answers["Alto"], RecordDict)
    assert len(came) == 3


def test_a_slow_node_of_a_simulation_is_asked_once() -> None:
    # Asked again, it would count one round more than there are, and be down in the wrong one.
    slow, asked = ClientApp(), list[str]()

    @slow.query("hello")
    def greeted(message: Message, context: Context) -> Message:
        return greeting(message, "Alto")

    @slow.train()
    def train(message: Message, context: Context) -> Message:
        asked.append(message.metadata.message_type)
        grid.looked_for(0.5)
        return Message(RecordDict(), reply_to=message)

    with Awaited(slow, {10: {}}) as grid:
        transport = GridTransport(grid, ("Alto",), GREETER, timing=repeating(0.1))
        assert isinstance(transport.exchange(wire.TRAIN, {"Alto": RecordDict()}, timeout=20)["Alto"], RecordDict)
    assert asked == [wire.TRAIN]

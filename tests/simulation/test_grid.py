import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from partbook.coordinator.grid import GridTransport
from partbook.errors import NodeFailed
from partbook.plan import wire
from partbook.simulation.grid import Crossing, InProcessGrid

app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    return Message(wire.pack_member(str(context.node_config["member"])), reply_to=message)


@app.query("count")
def count(message: Message, context: Context) -> Message:
    if context.node_config["member"] == "Broken":
        raise RuntimeError("a secret that must not travel")
    seen = context.state.config_records.setdefault("seen", ConfigRecord({"n": 0}))
    seen["n"] += 1
    return Message(RecordDict({"n": ConfigRecord({"n": seen["n"]})}), reply_to=message)


@pytest.fixture
def crossings() -> list[Crossing]:
    return []


@pytest.fixture
def transport(crossings: list[Crossing]):
    members = ("Alto", "Bass", "Broken")
    nodes = {10 + i: {"member": m} for i, m in enumerate((*members, "Stranger"))}
    with InProcessGrid(app, nodes, on_crossing=crossings.append) as grid:
        yield GridTransport(grid, members)


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
    assert not any(b"secret" in crossing.data for crossing in crossings)


def test_every_message_is_seen_as_bytes_in_both_directions(transport: GridTransport, crossings: list[Crossing]) -> None:
    crossings.clear()
    transport.exchange("query.count", {"Alto": RecordDict()}, timeout=10)
    assert [(c.inbound, c.kind) for c in crossings] == [(False, "query.count"), (True, "query.count")]


def test_a_member_that_is_not_there_is_absent_from_the_answers(transport: GridTransport) -> None:
    assert transport.exchange("query.count", {"Nobody": RecordDict()}, timeout=1) == {}


def test_some_nodes_may_run_another_app(crossings: list[Crossing]) -> None:
    other = ClientApp()

    @other.query("hello")
    def hello_too(message: Message, context: Context) -> Message:
        return Message(wire.pack_member("Custodian"), reply_to=message)

    nodes = {10: {"member": "Alto"}, 11: {}}
    with InProcessGrid(app, nodes, others={11: other}, on_crossing=crossings.append) as grid:
        assert GridTransport(grid, ("Alto", "Custodian")).members() == ["Alto", "Custodian"]


def test_a_message_that_is_lost_is_never_seen_and_its_node_counts_as_away(crossings: list[Crossing]) -> None:
    def lost(node_id: int, kind: str) -> bool:
        return (node_id, kind) == (10, "query.count")

    nodes = {10: {"member": "Alto"}, 11: {"member": "Bass"}}
    with InProcessGrid(app, nodes, on_crossing=crossings.append, lost=lost) as grid:
        transport = GridTransport(grid, ("Alto", "Bass"))
        answers = transport.exchange("query.count", {"Alto": RecordDict(), "Bass": RecordDict()}, timeout=10)
    assert isinstance(answers["Alto"], NodeFailed)
    assert "unavailable" in str(answers["Alto"])
    assert isinstance(answers["Bass"], RecordDict)
    assert not [c for c in crossings if (c.node_id, c.kind) == (10, "query.count")]


def test_a_name_belongs_to_the_first_node_that_gives_it(crossings: list[Crossing]) -> None:
    nodes = {10: {"member": "Alto"}, 11: {"member": "Alto"}, 12: {"member": "Bass"}}
    with InProcessGrid(app, nodes, on_crossing=crossings.append) as grid:
        transport = GridTransport(grid, ("Alto", "Bass"))
        crossings.clear()
        answers = transport.exchange("query.count", {"Alto": RecordDict()}, timeout=10)
    assert set(answers) == {"Alto"}
    assert len({crossing.node_id for crossing in crossings}) == 1


def test_how_long_a_node_worked_is_told_with_its_answer(transport: GridTransport, crossings: list[Crossing]) -> None:
    crossings.clear()
    transport.exchange("query.count", {"Alto": RecordDict()}, timeout=10)
    asked, answered = crossings
    assert asked.seconds == 0
    assert 0 < answered.seconds < 10


def test_members_that_never_come_are_not_waited_for_longer_than_patience_allows() -> None:
    with InProcessGrid(app, {10: {"member": "Alto"}}) as grid:
        assert GridTransport(grid, ("Alto", "Bass"), patience=0.1).members() == ["Alto"]

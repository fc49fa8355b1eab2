"""Labels that are behind when the roster changes, or come to a sealed federation that has run before."""

# ruff: noqa: F811  (pytest finds the fixtures of the other module by their names)

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import pytest
from flwr.app import RecordDict
from test_membership_changes import (
    MEMBERS,
    NEWCOMER,
    Federation,
    Line,
    handed_the_model,
    on_a_stick,
    sealed,  # noqa: F401
    vaults,  # noqa: F401
)

from partbook.coordinator.laggards import ASK_AGAIN
from partbook.coordinator.rounds import Coordinator
from partbook.errors import CohortTooSmall, CorruptMessage, ForgedMember, PartbookError
from partbook.identity.keys import IdentityKey
from partbook.identity.membership import next_version
from partbook.identity.message import COORDINATOR
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Member
from partbook.model.adapter import state_hash, unflatten
from partbook.plan import exchanges as e
from partbook.plan import wire
from partbook.simulation.parties import CUSTODIAN


class Wire(Line):
    """Counts what is asked; some members, or all, are away at some exchanges."""

    def __init__(self, line: Line, *away: tuple[str, str]) -> None:
        super().__init__(line.nodes, line.custodian)
        self.away = away
        self.asked: list[tuple[str, str]] = []

    def exchange(
        self, kind: str, requests: Mapping[str, RecordDict], *, timeout: float
    ) -> dict[str, RecordDict | Exception]:
        self.asked += [(kind, member) for member in requests]
        there = {m: content for m, content in requests.items() if (kind, m) not in self.away}
        return super().exchange(kind, there, timeout=timeout)


def started(federation: Federation, *away: tuple[str, str]) -> Wire:
    federation.line = Wire(federation.start(), *away)
    return federation.line


def nobody(kind: str) -> list[tuple[str, str]]:
    return [(kind, member) for member in MEMBERS]


def with_a_laggard(federation: Federation) -> Wire:
    """Two rounds, the second of whose steps Tenor missed; the model is not released."""
    line = started(federation, ("query.apply", "Tenor"), *nobody(wire.ENDORSE))
    with pytest.raises(CohortTooSmall):
        federation.run(1)
    assert line.nodes["Tenor"]._held.shared.round == 0
    return line


def another_custodian_key(federation: Federation) -> Member:
    """The custodian's identity is made anew."""
    made = IdentityKey.generate()
    path = federation.folder / "custodian 2.pem"
    made.save(path)
    federation.parties = replace(federation.parties, custodian=replace(federation.parties.custodian, identity=path))
    return Member(CUSTODIAN, made.public, ReceivingKey.generate().public)


def another_coordinator_key(federation: Federation) -> Member:
    made = IdentityKey.generate()
    path = federation.folder / "coordinator 2.pem"
    made.save(path)
    federation.parties = replace(federation.parties, coordinator=path)
    return Member(COORDINATOR, made.public, ReceivingKey.generate().public)


@pytest.mark.parametrize("change", ["a label's keys", "the coordinator's key", "a seal", "a member leaves"])
def test_a_label_that_missed_a_step_before_the_roster_changed_takes_it_after(sealed: Federation, change: str) -> None:
    with_a_laggard(sealed)
    if change == "a label's keys":
        following = next_version(sealed.roster, replace=[sealed.new_keys("Bass")])
    elif change == "the coordinator's key":
        following = next_version(sealed.roster, replace=[another_coordinator_key(sealed)])
    elif change == "a seal":
        following = next_version(sealed.roster, seal_key=sealed.new_seal())
    else:
        following = next_version(sealed.roster, remove=["Bass"], seal_key=sealed.new_seal())
    sealed.install(following)
    line = started(sealed)
    state = sealed.run(2)
    assert line.refusals == []
    assert set(state.history[2].members) == {member.name for member in following.members}
    assert set(sealed.hashes().values()) == {state.history[2].adapter_hash}


@pytest.mark.parametrize("change", ["a label's keys", "the coordinator's key", "a member leaves", "a member comes"])
def test_a_release_that_is_due_is_made_after_the_roster_changed(sealed: Federation, change: str) -> None:
    started(sealed, *nobody(wire.ENDORSE))
    with pytest.raises(CohortTooSmall, match="0 labels endorse"):
        sealed.run(1)
    if change == "a label's keys":
        following = next_version(sealed.roster, replace=[sealed.new_keys("Bass")])
    elif change == "the coordinator's key":
        following = next_version(sealed.roster, replace=[another_coordinator_key(sealed)])
    elif change == "a member leaves":
        following = next_version(sealed.roster, remove=["Bass"], seal_key=sealed.new_seal())
    else:
        following = next_version(sealed.roster, add=[sealed.new_keys(NEWCOMER)], seal_key=sealed.new_seal())
    sealed.install(following)
    line = started(sealed)
    coordinator = Coordinator(sealed.config(1))
    state = coordinator.run(line)
    assert state_hash(unflatten(state.adapter, coordinator._like)) == state.history[1].adapter_hash
    assert line.refusals == []
    asked = {member for kind, member in line.asked if kind == wire.ENDORSE}
    assert asked == set(MEMBERS) & {member.name for member in following.members}


def test_who_left_has_no_say_in_a_release_nor_has_an_old_key(sealed: Federation) -> None:
    started(sealed, *nobody(wire.ENDORSE))
    with pytest.raises(CohortTooSmall):
        sealed.run(1)
    old = sealed.keys()
    sealed.install(
        next_version(sealed.roster, remove=["Tenor"], replace=[sealed.new_keys("Bass")], seal_key=sealed.new_seal())
    )
    line = started(sealed)
    alto, keys = line.nodes["Alto"], sealed.keys()
    path = sealed.folder / "state" / "sums" / "round-0001.opened"
    kept = path.read_bytes()
    plan_message = kept[8 : 8 + int.from_bytes(kept[:8], "big")]
    plan = e.unverified_plan(plan_message)
    body = e.ModelHash(model=alto._held.shared.hash)

    def publish(**signers: IdentityKey) -> None:
        signed = [e.write(key, e.ENDORSED, plan.context(), name, body).decode() for name, key in signers.items()]
        request = e.write(keys[COORDINATOR], e.PUBLISH, plan.context(), COORDINATOR, e.Publish(endorsements=signed))
        alto.publish(plan_message, request)

    now = {name: keys[name] for name in ("Alto", "Bass", "Discant")}
    with pytest.raises(ForgedMember, match="Tenor"):
        publish(**now, Tenor=old["Tenor"])
    with pytest.raises(PartbookError, match="does not verify"):
        publish(**(now | {"Bass": old["Bass"]}))
    with pytest.raises(CorruptMessage, match=r"2 labels endorsed.*3 are needed"):
        publish(Alto=now["Alto"], Discant=now["Discant"])
    publish(**now)


def test_labels_that_came_count_in_what_a_release_needs(sealed: Federation) -> None:
    plan = Coordinator(sealed.config(1))._planned("0" * 64, 1, MEMBERS)
    assert e.endorsements_needed(plan, sealed.roster) == 3
    many = [replace(sealed.new_keys(f"Voice {index}")) for index in range(4)]
    following = next_version(sealed.roster, add=many, seal_key="a" * 64)
    assert e.endorsements_needed(plan, following) == 5


def test_a_sum_that_an_earlier_key_of_the_custodians_signed_is_stepped_with_by_nobody(
    sealed: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    with_a_laggard(sealed)
    path = sealed.folder / "state" / "sums" / "round-0001.opened"
    sealed.install(next_version(sealed.roster, replace=[another_custodian_key(sealed)]))
    line = started(sealed)
    with caplog.at_level(logging.WARNING):
        state = sealed.run(2)
    assert set(state.history[2].members) == set(MEMBERS) - {"Tenor"}
    assert "Tenor" in [getattr(record, "peer", None) for record in caplog.records]
    assert "partbook node hand-over" in caplog.text
    assert [kind for kind, member in line.asked if member == "Tenor" and kind == wire.APPLY] == [wire.APPLY]
    # Not even a coordinator that sends it all the same moves the label.
    kept, parts = path.read_bytes(), []
    while kept:
        size = int.from_bytes(kept[:8], "big")
        parts.append(kept[8 : 8 + size])
        kept = kept[8 + size :]
    with pytest.raises(ForgedMember, match=r"not in force any more.*partbook node hand-over"):
        line.nodes["Tenor"].apply(parts[0], parts[1:2], parts[2:3])
    sealed.stop()
    handed_the_model(sealed, "Alto", "Tenor")
    line = started(sealed)
    state = sealed.run(3)
    assert set(state.history[3].members) == set(MEMBERS)
    assert line.refusals == []


def test_a_label_with_a_new_receiving_key_that_missed_a_step_says_so(sealed: Federation) -> None:
    with_a_laggard(sealed)
    sealed.install(next_version(sealed.roster, replace=[sealed.new_keys("Tenor")]))
    line = started(sealed)
    sealed.run(3)
    assert set(line.refusals) == {(wire.APPLY, "Tenor", "ForgedMember"), (wire.TRAIN, "Tenor", "UnknownModel")}
    assert line.refusals.count((wire.APPLY, "Tenor", "ForgedMember")) == 1


def test_a_new_label_without_the_model_is_sent_no_sums_in_vain_and_the_remedy_is_named(
    sealed: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    sealed.start()
    sealed.run(2)
    sealed.install(next_version(sealed.roster, add=[sealed.new_keys(NEWCOMER)], seal_key=sealed.new_seal()))
    line = started(sealed)
    with caplog.at_level(logging.WARNING):
        sealed.run(2 + ASK_AGAIN)
    assert [asked for asked in line.asked if asked == (wire.APPLY, NEWCOMER)] == [(wire.APPLY, NEWCOMER)]
    # The others are asked for each step once, and not again because of the one that cannot take it.
    assert line.asked.count((wire.APPLY, "Alto")) == ASK_AGAIN
    assert NEWCOMER in [getattr(record, "peer", None) for record in caplog.records]
    assert "partbook node hand-over" in caplog.text
    reasons = {name for kind, member, name in line.refusals if member == NEWCOMER}
    assert reasons == {"UnknownModel"}


def test_a_new_label_that_takes_over_a_model_which_is_behind_by_now_catches_up(sealed: Federation) -> None:
    sealed.start()
    sealed.run(1)
    sealed.install(next_version(sealed.roster, add=[sealed.new_keys(NEWCOMER)], seal_key=sealed.new_seal()))
    stick = on_a_stick(sealed, "Alto", NEWCOMER)
    sealed.start()
    sealed.run(3)
    sealed.stop()
    handed_the_model(sealed, "Alto", NEWCOMER, stick)
    line = started(sealed)
    state = sealed.run(4)
    assert [refusal for refusal in line.refusals if refusal[0] != wire.TRAIN] == []
    assert NEWCOMER in state.history[4].members
    assert set(sealed.hashes().values()) == {state.history[4].adapter_hash}


def test_a_label_that_is_asked_again_after_some_rounds_goes_on_within_one_run(sealed: Federation) -> None:
    sealed.start()
    sealed.run(1)
    sealed.install(next_version(sealed.roster, add=[sealed.new_keys(NEWCOMER)], seal_key=sealed.new_seal()))
    line = started(sealed)
    handed: list[int] = []
    ask = line.exchange

    def meanwhile(kind: str, requests: Mapping[str, RecordDict], *, timeout: float) -> dict:
        # Its engineer brings the model after round 1 when round 4 begins: two steps are behind it by then.
        if kind == wire.TRAIN and line.nodes["Alto"]._held.shared.round == 3 and not handed:
            handed.append(1)
            line.nodes[NEWCOMER]._held.shared = first
        return ask(kind, requests, timeout=timeout)

    line.exchange = meanwhile  # type: ignore[method-assign]
    first = line.nodes["Alto"]._held.shared
    state = sealed.run(2 + ASK_AGAIN + 1)
    assert handed == [1]
    assert set(sealed.hashes().values()) == {state.history[-1].adapter_hash}


def test_sums_are_kept_for_some_rounds_and_a_label_that_was_away_for_longer_is_handed_the_model(
    sealed: Federation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("partbook.coordinator.sealed.KEPT_SUMS", 2)
    line = started(sealed, (wire.APPLY, "Tenor"))
    sealed.run(4)
    assert line.nodes["Tenor"]._held.shared.round == 0
    assert sorted(path.stem for path in (sealed.folder / "state" / "sums").glob("*.opened")) == [
        "round-0003",
        "round-0004",
    ]
    sealed.stop()
    started(sealed)
    with caplog.at_level(logging.WARNING):
        sealed.run(6)
    assert "Tenor" in [getattr(record, "peer", None) for record in caplog.records]
    assert "partbook node hand-over" in caplog.text
    sealed.stop()
    handed_the_model(sealed, "Alto", "Tenor")
    started(sealed)
    state = sealed.run(7)
    assert "Tenor" in state.history[7].members
    assert set(sealed.hashes().values()) == {state.history[7].adapter_hash}


def test_a_label_whose_older_model_was_restored_is_sent_the_sums_again(sealed: Federation) -> None:
    sealed.start()
    sealed.run(1)
    model = sealed.node_config("Tenor").model
    older = model.read_bytes()
    sealed.run(2)
    sealed.stop()
    model.write_bytes(older)
    started(sealed, (wire.TRAIN, "Bass"))
    with pytest.raises(CohortTooSmall, match="Tenor declined with UnknownModel"):
        sealed.run(3)
    state = sealed.run(3)
    assert set(state.history[3].members) == set(MEMBERS) - {"Bass"}
    assert set(sealed.hashes().values()) == {state.history[3].adapter_hash}


def test_the_plan_of_a_roster_that_a_label_never_pinned_names_the_remedy(sealed: Federation) -> None:
    sealed.start()
    sealed.run(1)
    kept = (sealed.folder / "state" / "sums" / "round-0001.opened").read_bytes()
    plan_message = kept[8 : 8 + int.from_bytes(kept[:8], "big")]
    sealed.install(next_version(sealed.roster, add=[sealed.new_keys(NEWCOMER)], seal_key=sealed.new_seal()))
    line = started(sealed)
    with pytest.raises(ForgedMember, match=r"never pinned.*partbook node hand-over"):
        line.nodes[NEWCOMER].apply(plan_message, [], [])
    line.nodes["Alto"].apply(plan_message, [], [])
    # What a label kept of an earlier roster counts only as all have signed it.
    folder = sealed.node_config("Alto").kept / "rosters"
    for path in folder.iterdir():
        path.write_text(path.read_text().replace("[signatures]", "[signatures]\nNobody = 'AAAA'"))
    with pytest.raises(ForgedMember, match="never pinned"):
        line.nodes["Alto"].apply(plan_message, [], [])

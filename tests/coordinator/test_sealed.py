"""Sealed rounds after the sum: opening, stepping, agreeing, releasing, with labels and a custodian that lie or lag."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import RecordDict
from trio import MEMBERS, Play, Trio

from partbook.coordinator import totals
from partbook.coordinator.attempt import AttemptRecord
from partbook.coordinator.sealed import SealedSums
from partbook.custodian import opening
from partbook.custodian.opening import Custodian
from partbook.errors import (
    AlteredCiphertext,
    AlteredFile,
    BadSignature,
    CohortTooSmall,
    NodeFailed,
    PartbookError,
)
from partbook.identity.message import Message
from partbook.model.adapter import state_hash, unflatten
from partbook.node import held_model, label
from partbook.node.label import LabelNode
from partbook.plan import exchanges as e
from partbook.plan import rounds, wire
from partbook.plan.rounds import RoundPlan
from partbook.simulation.parties import CUSTODIAN

Tamper = Callable[[str, str, RecordDict], "RecordDict | None"]


class Line:
    """Real nodes and a real custodian; `tamper` may change or lose what they answer."""

    def __init__(self, nodes: Mapping[str, LabelNode], custodian: Custodian) -> None:
        self.nodes, self.custodian = dict(nodes), custodian
        self.tamper: Tamper = lambda _kind, _member, content: content
        self.asked: list[tuple[str, str]] = []

    def members(self) -> list[str]:
        return sorted(self.nodes)

    def exchange(
        self, kind: str, requests: Mapping[str, RecordDict], *, timeout: float
    ) -> dict[str, RecordDict | Exception]:
        found: dict[str, RecordDict | Exception] = {}
        for member, content in requests.items():
            self.asked.append((kind, member))
            if self.tamper(kind, member, RecordDict()) is None:
                continue  # it never arrives
            try:
                answer = self._answer(kind, member, content)
            except PartbookError as error:
                answer = wire.pack_refusal(error)
            changed = self.tamper(kind, member, answer)
            if changed is not None:
                found[member] = changed
        return found

    def _answer(self, kind: str, member: str, content: RecordDict) -> RecordDict:
        (plan, *rest), blobs = wire.unpack(content, signed=None, blobs=None)
        if member == CUSTODIAN:
            opened, blob = self.custodian.open(plan, rest[0], blobs[0])
            return wire.pack([opened], [blob])
        node = self.nodes[member]
        if kind == wire.APPLY:
            return wire.pack([node.apply(plan, rest, blobs)])
        if kind == wire.ENDORSE:
            return wire.pack([node.endorse(plan, rest[0])])
        signed, blob = node.publish(plan, rest[0])
        return wire.pack([signed], [blob])


class Season:
    """Some sealed rounds, one after another."""

    def __init__(self, trio: Trio, folder: Path, threshold: int = 2) -> None:
        self.trio, self.folder, self.threshold = trio, folder, threshold
        self.line = Line(trio.nodes(folder), trio.custodian(folder / "office"))
        self.record = AttemptRecord()
        self.model = trio.plan("sealed").model_hash

    @property
    def sums(self) -> SealedSums:
        """As a coordinator that was just started has them."""
        return SealedSums(self.folder / "sums", self.trio.roster, self.trio.key, self.line, 5.0)

    def added(self, number: int) -> SimpleNamespace:
        """A round's attempt, with its sum under the seal."""
        plan = self.trio.plan("sealed", round=number, threshold=self.threshold, model_hash=self.model)
        nodes = {name: node for name, node in self.line.nodes.items() if node._held.shared.hash == self.model}
        away = sorted(set(MEMBERS) - set(nodes))
        played = Play(self.trio, self.line.nodes, plan)
        for name in nodes:
            nodes[name].train(self.trio.signed(plan), None)
        played.play(without=away[0] if away else "")
        played.machine.reconstruct()
        played.total.unmask(played.machine)
        return SimpleNamespace(
            plan=plan,
            plan_message=self.trio.signed(plan),
            total=played.total,
            machine=played.machine,
            record=self.record,
        )

    def play(self, number: int) -> RoundPlan:
        attempt = self.added(number)
        self.sums.open(attempt)
        self.model = self.sums.apply(attempt.plan, self.record)
        return attempt.plan

    def hashes(self) -> dict[str, str]:
        return {name: node._held.shared.hash for name, node in self.line.nodes.items()}


@pytest.fixture
def season(trio: Trio, tmp_path: Path) -> Season:
    return Season(trio, tmp_path)


def test_labels_step_together_and_the_coordinator_learns_the_hash_alone(season: Season) -> None:
    for number in (1, 2):
        before = season.model
        season.play(number)
        assert season.model != before
        assert set(season.hashes().values()) == {season.model}
    assert season.record.dropped == {}
    assert not season.sums.behind(2)
    kept = b"".join(path.read_bytes() for path in (season.folder / "sums").iterdir())
    for node in season.line.nodes.values():
        assert node._held.shared.adapter[:8].tobytes() not in kept


def test_an_attempt_is_opened_once_also_after_a_restart(season: Season) -> None:
    attempt = season.added(1)
    season.sums.open(attempt)
    season.sums.open(attempt)
    assert season.line.asked.count((wire.OPEN, CUSTODIAN)) == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda _t, plan, opened, blob: ([opened], [blob[:-1] + bytes([blob[-1] ^ 1])]), AlteredCiphertext),
        (lambda t, plan, opened, blob: ([resigned(t, "Alto", plan, opened)], [blob]), BadSignature),
        (lambda _t, plan, opened, blob: ([opened], []), PartbookError),
        (None, NodeFailed),
    ],
    ids=["altered", "forged", "without its bytes", "away"],
)
def test_a_custodians_answer_that_is_not_its_own_is_refused_and_asked_for_again(season, change, error) -> None:
    attempt = season.added(1)

    def tamper(kind: str, _member: str, content: RecordDict) -> RecordDict | None:
        if kind != wire.OPEN or (change is not None and not content):
            return content
        if change is None:
            return None
        (opened,), (blob,) = wire.unpack(content, blobs=1)
        return wire.pack(*change(season.trio, attempt.plan, opened, blob))

    season.line.tamper = tamper
    with pytest.raises(error):
        season.sums.open(attempt)
    season.line.tamper = lambda _kind, _member, content: content
    season.sums.open(attempt)
    season.sums.apply(attempt.plan, season.record)


def resigned(trio: Trio, member: str, plan: RoundPlan, data: bytes) -> bytes:
    message = Message.decode(data)
    return Message.write(trio.member_key(member), message.kind, plan.context(), message.sender, message.body).encode()


def away(member: str, *kinds: str) -> Tamper:
    return lambda kind, name, content: None if name == member and kind in kinds else content


def test_a_laggard_takes_the_steps_it_missed_in_order(season: Season) -> None:
    season.line.tamper = away("Tenor", wire.APPLY)
    season.play(1)
    assert season.record.dropped["Tenor"][0] == wire.APPLY
    season.play(2)
    assert season.sums.behind(2)
    assert season.line.nodes["Tenor"]._held.shared.round == 0
    season.line.tamper = lambda _kind, _member, content: content
    season.line.asked.clear()
    reached = season.sums.catch_up(2, AttemptRecord())
    assert reached == dict.fromkeys(MEMBERS, season.model)
    assert [asked for asked in season.line.asked if asked[1] == "Tenor"] == [(wire.APPLY, "Tenor")] * 2
    assert not season.sums.behind(2)
    season.play(3)
    assert set(season.hashes().values()) == {season.model}


def test_a_label_that_lost_its_model_takes_every_step_again(season: Season) -> None:
    season.play(1)
    season.play(2)
    season.line.nodes["Tenor"]._config.model.unlink()
    season.line.nodes = season.trio.nodes(season.folder)
    assert season.line.nodes["Tenor"]._held.shared.round == 0
    season.play(3)
    assert season.record.dropped["Tenor"][0] == wire.APPLY
    assert season.sums.behind(3)
    assert season.sums.catch_up(3, AttemptRecord()) == dict.fromkeys(MEMBERS, season.model)
    assert not season.sums.behind(3)


def test_labels_that_disagree_on_the_model_are_too_few(trio: Trio, tmp_path: Path) -> None:
    season = Season(trio, tmp_path, threshold=3)

    def lie(kind: str, member: str, content: RecordDict) -> RecordDict:
        if (kind, member) != (wire.APPLY, "Bass") or not content:
            return content
        message = Message.decode(wire.unpack(content)[0][0])
        body = e.ModelHash(model="0" * 64)
        return wire.pack([e.write(trio.member_key("Bass"), e.APPLIED, message.context, "Bass", body)])

    season.line.tamper = lie
    with pytest.raises(CohortTooSmall, match=r"2 labels reached one model, 3 are needed.*Bass reached another model"):
        season.play(1)


def test_one_label_that_disagrees_is_named_and_the_others_go_on(season: Season) -> None:
    def lie(kind: str, member: str, content: RecordDict) -> RecordDict:
        if (kind, member) != (wire.APPLY, "Bass") or not content:
            return content
        message = Message.decode(wire.unpack(content)[0][0])
        body = e.ModelHash(model="0" * 64)
        return wire.pack([e.write(season.trio.member_key("Bass"), e.APPLIED, message.context, "Bass", body)])

    season.line.tamper = lie
    season.play(1)
    assert season.model == season.hashes()["Alto"] == season.hashes()["Tenor"]
    assert season.record.dropped["Bass"] == (wire.APPLY, "Bass reached another model, 000000000000…")


def test_an_applied_that_somebody_else_signed_does_not_count(season: Season) -> None:
    def forge(kind: str, member: str, content: RecordDict) -> RecordDict:
        if (kind, member) != (wire.APPLY, "Bass") or not content:
            return content
        message = Message.decode(wire.unpack(content)[0][0])
        body = e.ModelHash.of(message)
        return wire.pack([e.write(season.trio.member_key("Alto"), e.APPLIED, message.context, "Bass", body)])

    season.line.tamper = forge
    season.play(1)
    assert season.record.dropped["Bass"][0] == wire.APPLY
    assert season.sums.behind(1)


def like(season: Season) -> dict:
    return season.line.nodes["Alto"]._trainer.like


def test_the_model_is_released_by_those_who_endorse_it(season: Season) -> None:
    season.play(1)
    adapter = season.sums.release(1, season.model, like(season))
    assert state_hash(unflatten(adapter, like(season))) == season.model


@pytest.mark.parametrize("kind", [wire.ENDORSE, wire.PUBLISH])
def test_a_label_that_is_away_holds_no_release_up(season: Season, kind: str) -> None:
    season.play(1)
    season.line.tamper = away("Alto", kind)
    assert len(season.sums.release(1, season.model, like(season)))


def test_too_few_endorsements_release_nothing(trio: Trio, tmp_path: Path) -> None:
    season = Season(trio, tmp_path, threshold=3)
    season.play(1)
    season.line.tamper = away("Alto", wire.ENDORSE)
    with pytest.raises(CohortTooSmall, match=r"2 labels endorse.*Alto"):
        season.sums.release(1, season.model, like(season))
    assert (wire.PUBLISH, "Bass") not in season.line.asked


@pytest.mark.parametrize("what", ["another model", "a cut one", "a longer one", "another's signature"])
def test_a_label_that_hands_over_another_model_is_passed_by(season: Season, what: str) -> None:
    season.play(1)

    def lie(kind: str, member: str, content: RecordDict) -> RecordDict:
        if (kind, member) != (wire.PUBLISH, "Alto") or not content:
            return content
        (signed,), (blob,) = wire.unpack(content, blobs=1)
        if what == "another's signature":
            message = Message.decode(signed)
            key = season.trio.member_key("Bass")
            signed = Message.write(key, message.kind, message.context, message.sender, message.body).encode()
        changed = {
            "another model": np.zeros(len(blob) // 4, "<f4").tobytes(),
            "a cut one": blob[:-1],
            "a longer one": blob + bytes(4),
        }
        return wire.pack([signed], [changed.get(what, blob)])

    season.line.tamper = lie
    adapter = season.sums.release(1, season.model, like(season))
    assert state_hash(unflatten(adapter, like(season))) == season.model
    asked = [member for kind, member in season.line.asked if kind == wire.PUBLISH]
    assert asked == ["Alto", "Bass"]
    season.line.tamper = lambda kind, member, content: lie(kind, "Alto", content) if kind == wire.PUBLISH else content
    if what != "another's signature":
        with pytest.raises(NodeFailed, match="No label handed the model over"):
            season.sums.release(1, season.model, like(season))


def test_a_missing_sum_is_named(season: Season) -> None:
    season.play(1)
    (path,) = (season.folder / "sums").glob("*.opened")
    path.unlink()
    with pytest.raises(AlteredFile, match="round-0001"):
        season.sums.release(1, season.model, like(season))


def test_what_the_coordinator_keeps_of_a_sum_is_what_the_custodian_said(season: Season) -> None:
    season.play(1)
    (path,) = (season.folder / "sums").glob("*.opened")
    kept, parts = path.read_bytes(), []
    while kept:
        size = int.from_bytes(kept[:8], "big")
        parts.append(kept[8 : 8 + size])
        kept = kept[8 + size :]
    plan = e.read_plan(parts[0], season.trio.roster)
    message = Message.decode(parts[1])
    message.check(season.trio.member_key(CUSTODIAN).public, e.OPENED, plan.context(), CUSTODIAN)
    assert e.Opened.of(message).sha256 == hashlib.sha256(parts[2]).hexdigest()
    assert len(parts) == 3


def test_a_model_too_large_for_one_message_is_released_in_several(season: Season, monkeypatch) -> None:
    size = len(season.trio.start)
    monkeypatch.setattr(e, "PUBLISHED_NUMBERS", -(-size // 3))
    season.play(1)
    season.line.asked.clear()
    adapter = season.sums.release(1, season.model, like(season))
    assert state_hash(unflatten(adapter, like(season))) == season.model
    assert season.line.asked.count((wire.PUBLISH, "Alto")) == 3

    def late(kind: str, member: str, content: RecordDict) -> RecordDict | None:
        if (kind, member) != (wire.PUBLISH, "Alto") or not content:
            return content
        return None if season.line.asked.count((wire.PUBLISH, "Alto")) == 2 else content

    season.line.asked.clear()
    season.line.tamper = late
    assert np.array_equal(season.sums.release(1, season.model, like(season)), adapter)
    asked = [member for kind, member in season.line.asked if kind == wire.PUBLISH]
    assert asked == ["Alto"] * 2 + ["Bass"] * 3


@pytest.fixture
def chunked(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> int:
    elements = trio.plan("sealed").elements
    for module in (rounds, totals, label, held_model, opening):
        monkeypatch.setattr(module, "CHUNK", -(-elements // 3))
    return 3


def test_a_sum_is_opened_kept_and_handed_on_chunk_by_chunk(chunked: int, season: Season) -> None:
    season.play(1)
    assert season.line.asked.count((wire.OPEN, CUSTODIAN)) == chunked
    assert [season.line.asked.count((wire.APPLY, member)) for member in MEMBERS] == [chunked] * 3
    assert set(season.hashes().values()) == {season.model}
    # Who has taken the step says so at the first chunk.
    season.line.asked.clear()
    assert season.sums.catch_up(1, AttemptRecord()) == dict.fromkeys(MEMBERS, season.model)
    assert season.line.asked == [(wire.APPLY, member) for member in MEMBERS]


def test_a_label_lost_between_two_chunks_takes_the_step_when_it_is_back(chunked: int, season: Season) -> None:
    def lose(kind: str, member: str, content: RecordDict) -> RecordDict | None:
        second = season.line.asked.count((wire.APPLY, "Tenor")) >= 2
        return None if (kind, member) == (wire.APPLY, "Tenor") and second else content

    season.line.tamper = lose
    season.play(1)
    assert season.record.dropped["Tenor"][0] == wire.APPLY
    assert season.sums.behind(1)
    season.line.tamper = lambda _kind, _member, content: content
    assert season.sums.catch_up(1, AttemptRecord()) == dict.fromkeys(MEMBERS, season.model)
    season.play(2)
    assert set(season.hashes().values()) == {season.model}


def test_a_label_that_says_held_for_ever_has_not_taken_the_step(chunked: int, season: Season) -> None:
    def stall(kind: str, member: str, content: RecordDict) -> RecordDict:
        if (kind, member) != (wire.APPLY, "Bass") or not content:
            return content
        context = Message.decode(wire.unpack(content)[0][0]).context
        return wire.pack([e.write(season.trio.member_key("Bass"), e.HELD, context, "Bass")])

    season.line.tamper = stall
    season.play(1)
    assert season.record.dropped["Bass"][0] == wire.APPLY
    assert season.sums.behind(1)


def test_a_cut_file_of_an_opened_sum_is_named(chunked: int, season: Season) -> None:
    season.play(1)
    (path,) = (season.folder / "sums").glob("*.opened")
    whole = path.read_bytes()
    for size in (0, 3, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(AlteredFile, match="round-0001"):
            season.sums.catch_up(1, AttemptRecord())

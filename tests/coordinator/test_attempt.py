"""The coordinator's attempt over a transport that lies, loses and is cut off."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flushes import watched
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from trio import MEMBERS, Trio

from partbook.coordinator import totals
from partbook.coordinator.attempt import Attempt
from partbook.coordinator.totals import MaskedTotal, SealedTotal
from partbook.errors import AlteredFile, CohortTooSmall, ForeignSealKey, NodeFailed, PartbookError
from partbook.identity.keys import IdentityKey
from partbook.identity.message import Message
from partbook.node import held_model, label
from partbook.node.label import LabelNode
from partbook.plan import rounds, wire
from partbook.plan.exchanges import write_plan
from partbook.plan.rounds import RoundPlan
from partbook.sealing.blocks import open_chunk, seal
from partbook.sealing.parameters import SealSecret, generate
from partbook.secagg import messages as m

Tamper = Callable[[str, str, RecordDict], "RecordDict | Exception | None"]
EXCHANGES = (wire.TRAIN, wire.ADVERTISE, wire.SHARE, wire.CONTRIBUTE, wire.CONFIRM, wire.REVEAL)


class Killed(Exception):
    """The coordinator's process ends here."""


class Line:
    """Real nodes behind the coordinator's seam; `tamper` may change or lose what they answer."""

    def __init__(
        self, nodes: Mapping[str, LabelNode], tamper: Tamper = lambda _kind, _member, content: content
    ) -> None:
        self.nodes, self.tamper = nodes, tamper
        self.asked: list[tuple[str, str]] = []

    def members(self) -> list[str]:
        return sorted(self.nodes)

    def exchange(
        self, kind: str, requests: Mapping[str, RecordDict], *, timeout: float
    ) -> dict[str, RecordDict | Exception]:
        found: dict[str, RecordDict | Exception] = {}
        for member, content in requests.items():
            self.asked.append((kind, member))
            try:
                answer = self._answer(kind, self.nodes[member], content)
            except PartbookError as error:
                answer = wire.pack_refusal(error)
            changed = self.tamper(kind, member, answer)
            if changed is not None:
                found[member] = changed
        return found

    @staticmethod
    def _answer(kind: str, node: LabelNode, content: RecordDict) -> RecordDict:
        (data,), blobs = wire.unpack(content, blobs=None)
        if kind == wire.TRAIN:
            return wire.pack([node.train(data, blobs[0] if blobs else None)])
        answer = getattr(node, kind.removeprefix("query."))(data)
        return wire.pack([answer]) if isinstance(answer, bytes) else wire.pack([answer[0]], [answer[1]])


@pytest.fixture
def plan(trio: Trio, mode: str) -> RoundPlan:
    """Two are enough, so that one may go."""
    return trio.plan(mode, threshold=2)


@pytest.fixture(params=["masked", "sealed"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def chunks(trio: Trio, mode: str, monkeypatch: pytest.MonkeyPatch) -> int:
    elements = trio.plan(mode).elements
    for module in (rounds, totals, label, held_model):
        monkeypatch.setattr(module, "CHUNK", -(-elements // 3))
    return 3


class Bench:
    """An attempt, its nodes and its file."""

    def __init__(self, trio: Trio, plan: RoundPlan, folder: Path) -> None:
        self.trio, self.plan, self.folder = trio, plan, folder
        self.path = folder / "attempt"
        self.nodes = trio.nodes(folder, trained=True)
        self.attempt = Attempt(trio.signed(plan), trio.roster, trio.key, self.path)

    def run(self, tamper: Tamper = lambda _kind, _member, content: content) -> Line:
        line = Line(self.nodes, tamper)
        start = self.trio.start.tobytes() if self.plan.mode == "masked" else None
        self.attempt.run(line, start, 5.0, lambda _: None)
        return line

    def resume(self) -> Attempt | None:
        found = Attempt.resume(self.path, self.trio.roster, self.trio.key)
        if found is not None:
            self.attempt = found
        return found

    def opened(self) -> list[int]:
        """The integer sum."""
        total = self.attempt.total
        if isinstance(total, MaskedTotal):
            return total.numbers().tolist()
        assert isinstance(total, SealedTotal)
        secret = SealSecret.read(self.trio.parties.custodian.secret, None)
        slots = np.concatenate([open_chunk(secret, blob) for blob in total.dump()])
        return self.plan.packing.unpack(slots, self.plan.parameters, len(self.survivors)).tolist()

    @property
    def survivors(self) -> tuple[str, ...]:
        return self.attempt.machine.survivors

    def expected(self) -> list[int]:
        return sum(self.nodes[name]._vector.astype(np.int64) for name in self.survivors).tolist()


@pytest.fixture
def bench(trio: Trio, plan: RoundPlan, tmp_path: Path) -> Bench:
    return Bench(trio, plan, tmp_path)


def test_the_sum_is_exact_in_one_chunk(bench: Bench) -> None:
    line = bench.run()
    assert bench.survivors == MEMBERS
    assert bench.opened() == bench.expected()
    assert {kind for kind, _ in line.asked} == set(EXCHANGES)


def test_the_sum_is_exact_in_several_chunks(chunks: int, bench: Bench) -> None:
    line = bench.run()
    assert bench.plan.chunks == chunks
    assert [kind for kind, member in line.asked if member == "Bass"].count(wire.PROCEED) == chunks - 1
    assert bench.opened() == bench.expected()


@pytest.mark.parametrize("kind", EXCHANGES)
def test_without_one_member_from_any_exchange_the_sum_is_that_of_the_others(bench: Bench, kind: str) -> None:
    gone = set()

    def lose(asked: str, member: str, content: RecordDict) -> RecordDict | None:
        if (asked, member) == (kind, "Bass"):
            gone.add(member)
        return None if member in gone else content

    bench.run(lose)
    contributed = EXCHANGES.index(kind) > EXCHANGES.index(wire.CONTRIBUTE)
    assert bench.survivors == (MEMBERS if contributed else ("Alto", "Tenor"))
    assert bench.opened() == bench.expected()
    assert set(bench.attempt.record.dropped) == {"Bass"}
    assert bench.attempt.record.dropped["Bass"] == (kind, "Bass did not answer in 5 s.")


def test_a_member_lost_between_two_chunks_leaves_none_of_them_in_the_sum(chunks: int, bench: Bench) -> None:
    bench.run(lambda kind, member, content: None if (kind, member) == (wire.PROCEED, "Bass") else content)
    assert bench.survivors == ("Alto", "Tenor")
    assert bench.opened() == bench.expected()
    assert bench.attempt.record.dropped["Bass"][0] == wire.PROCEED


def flipped(content: RecordDict) -> RecordDict:
    messages, (blob,) = wire.unpack(content, blobs=1)
    return wire.pack(messages, [blob[:-1] + bytes([blob[-1] ^ 1])])


def contribution(bench: Bench, member: str, content: RecordDict, blob: bytes, **fields: object) -> RecordDict:
    """A malicious member's, under its own good signature."""
    (data,), _ = wire.unpack(content, blobs=1)
    honest = m.Contribution.of(Message.decode(data))
    body = honest.model_copy(update={"sha256": hashlib.sha256(blob).hexdigest(), **fields})
    key = bench.trio.member_key(member)
    signed = Message.write(key, m.CONTRIBUTION, bench.plan.context(), member, body.json_body()).encode()
    return wire.pack([signed], [blob])


def bad_answers(bench: Bench) -> dict[str, tuple[str, Callable[[str, RecordDict], RecordDict | Exception]]]:
    def own(member: str, content: RecordDict, blob: Callable[[bytes], bytes], **fields: object) -> RecordDict:
        return contribution(bench, member, content, blob(wire.unpack(content, blobs=1)[1][0]), **fields)

    empty = wire.pack([b"x"])
    empty["blobs"] = ArrayRecord({"0": Array(dtype="uint8", shape=(0,), stype="numpy.ndarray", data=b"")})

    def foreign() -> bytes:
        return seal(generate()[1], np.ones(min(totals.CHUNK, bench.plan.elements), np.uint64))

    return {
        "an altered chunk": ("altered", lambda _, c: flipped(c)),
        "a signed chunk that was cut": ("", lambda n, c: own(n, c, lambda b: b[:-1])),
        "a signed empty chunk": ("", lambda n, c: own(n, c, lambda b: b"")),
        "a signed chunk of one word more": ("", lambda n, c: own(n, c, lambda b: b + bytes(8))),
        "another chunk than was asked for": ("", lambda n, c: own(n, c, lambda b: b, chunk=2)),
        "a chunk of another count": ("", lambda n, c: own(n, c, lambda b: b, chunks=9)),
        "a chunk said to be for another key": ("key", lambda n, c: own(n, c, lambda b: b, seal_key="0" * 64)),
        "a chunk sealed to another key": ("", lambda n, c: own(n, c, lambda b: foreign())),
        "no chunk at all": ("", lambda _, c: wire.pack(wire.unpack(c, blobs=1)[0])),
        "two chunks": ("", lambda _, c: wire.pack(wire.unpack(c, blobs=1)[0], wire.unpack(c, blobs=1)[1] * 2)),
        "an array that is none": ("", lambda _, c: empty),
        "an empty message": ("", lambda _, c: RecordDict()),
        "something beside": ("", lambda _, c: RecordDict({**c, "loss": ConfigRecord({"x": 1.0})})),
        "a failure": ("broke", lambda _, c: NodeFailed("it broke")),
    }


EITHER = ("an altered chunk", "a signed chunk that was cut", "a chunk said to be for another key")
MASKED = (
    *EITHER, "a signed empty chunk", "a signed chunk of one word more", "another chunk than was asked for",
    "a chunk of another count", "no chunk at all", "two chunks", "an array that is none", "an empty message",
    "something beside", "a failure",
)  # fmt: skip
LATE = ("an altered chunk", "a signed chunk that was cut", "another chunk than was asked for")


@pytest.mark.parametrize(
    ("what", "mode", "late"),
    [
        *((what, "masked", False) for what in MASKED),
        *((what, "sealed", False) for what in (*EITHER, "a chunk sealed to another key")),
        *((what, "masked", True) for what in LATE),
        ("a signed chunk that was cut", "sealed", True),
    ],
)
def test_a_member_that_sends_a_wrong_chunk_is_dropped_by_name_and_the_round_goes_on(
    chunks: int, bench: Bench, what: str, late: bool
) -> None:
    word, change = bad_answers(bench)[what]
    kind, calls = (wire.PROCEED if late else wire.CONTRIBUTE), 0

    def tamper(asked: str, member: str, content: RecordDict) -> RecordDict | Exception:
        nonlocal calls
        if (asked, member) != (kind, "Bass"):
            return content
        calls += 1
        if late and calls < chunks - 1:
            return content
        if late and what == "another chunk than was asked for":
            return contribution(bench, member, content, wire.unpack(content, blobs=1)[1][0], chunk=0)
        return change(member, content)

    bench.run(tamper)
    assert bench.survivors == ("Alto", "Tenor")
    assert bench.opened() == bench.expected()
    asked, why = bench.attempt.record.dropped["Bass"]
    assert asked == kind
    assert word in why
    assert set(bench.attempt.record.dropped) == {"Bass"}


@pytest.mark.parametrize("kind", [kind for kind in EXCHANGES if kind != wire.CONTRIBUTE])
def test_a_member_for_whom_somebody_else_signs_is_dropped(bench: Bench, kind: str) -> None:
    def forge(asked: str, member: str, content: RecordDict) -> RecordDict:
        if (asked, member) != (kind, "Bass"):
            return content
        message = Message.decode(wire.unpack(content)[0][0])
        key = bench.trio.member_key("Tenor")
        return wire.pack([Message.write(key, message.kind, message.context, member, message.body).encode()])

    bench.run(forge)
    assert set(bench.attempt.record.dropped) == {"Bass"}
    assert bench.opened() == bench.expected()


def test_a_member_with_a_foreign_seal_key_in_its_file_never_begins(trio: Trio, tmp_path: Path) -> None:
    generate()[1].write(tmp_path / "foreign")
    with pytest.raises(ForeignSealKey):
        LabelNode(replace(trio.config("Bass", tmp_path), seal_key=tmp_path / "foreign"))


def test_below_the_threshold_the_attempt_ends_and_says_who_was_lost_and_why(trio, mode, tmp_path) -> None:
    bench = Bench(trio, trio.plan(mode), tmp_path)
    with pytest.raises(CohortTooSmall, match=r"Round 1.*3 are needed.*Bass: Bass did not answer"):
        bench.run(lambda kind, member, content: None if (kind, member) == (wire.SHARE, "Bass") else content)


@pytest.mark.parametrize("kind", [*EXCHANGES[1:], "unmasked"])
def test_an_attempt_goes_on_where_its_process_was_killed(bench: Bench, kind: str) -> None:
    def kill(asked: str, member: str, content: RecordDict) -> RecordDict:
        if (asked, member) == (kind, "Tenor"):
            raise Killed
        return content

    if kind == "unmasked":
        bench.run()
    else:
        with pytest.raises(Killed):
            bench.run(kill)
    bench.nodes = bench.trio.nodes(bench.folder)
    assert bench.resume() is not None
    line = bench.run()
    done = EXCHANGES[: EXCHANGES.index(kind)] if kind != "unmasked" else EXCHANGES
    assert not {asked for asked, _ in line.asked} & set(done)
    assert bench.survivors == MEMBERS
    assert bench.opened() == bench.expected()
    assert bench.attempt.record.dropped == {}


def test_an_attempt_killed_between_two_chunks_goes_on(chunks: int, bench: Bench) -> None:
    def kill(asked: str, member: str, content: RecordDict) -> RecordDict:
        if (asked, member) == (wire.PROCEED, "Tenor"):
            raise Killed
        return content

    with pytest.raises(Killed):
        bench.run(kill)
    assert bench.resume() is not None
    bench.run()
    assert bench.survivors == MEMBERS
    assert bench.opened() == bench.expected()


def test_nothing_is_resumed_where_there_is_nothing_or_the_deadline_is_over(trio, plan, tmp_path) -> None:
    assert Attempt.resume(tmp_path / "attempt", trio.roster, trio.key) is None
    bench = Bench(trio, trio.plan(plan.mode, threshold=2, deadline=1), tmp_path)
    bench.attempt._save()
    assert bench.resume() is None


def test_an_attempt_that_has_asked_for_shares_is_finished_whatever_the_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Members that revealed take part in no other attempt at this round.
    def kill(asked: str, member: str, content: RecordDict) -> RecordDict:
        if (asked, member) == (wire.REVEAL, "Tenor"):
            raise Killed
        return content

    with pytest.raises(Killed):
        bench.run(kill)
    monkeypatch.setattr(time, "time", lambda: 5e9)
    assert bench.resume() is not None
    bench.run()
    assert bench.opened() == bench.expected()


def test_a_broken_file_is_named(bench: Bench) -> None:
    bench.run()
    whole = bench.path.read_bytes()
    size = int.from_bytes(whole[:8], "big")
    head = whole[8 : 8 + size]
    assert whole.count(head) == 1

    def with_head(data: bytes) -> bytes:
        return len(data).to_bytes(8, "big") + data + whole[8 + size :]

    for blob in (
        b"", b"\0", whole[:-1], whole[: 8 + size], whole[:20], os.urandom(200),
        with_head(b"[]"), with_head(b"{}"), with_head(b"3"), with_head(head.replace(b'"ready"', b'"readi"')),
        with_head(head.replace(b'"dropped": {}', b'"dropped": []')),
    ):  # fmt: skip
        bench.path.write_bytes(blob)
        with pytest.raises(AlteredFile, match="attempt"):
            bench.resume()
    bench.path.write_bytes(whole)
    assert bench.resume() is not None


def test_an_attempt_of_another_coordinators_plan_is_not_resumed(bench: Bench) -> None:
    bench.run()
    whole = bench.path.read_bytes()
    forged = write_plan(IdentityKey.generate(), bench.plan)
    size = int.from_bytes(whole[:8], "big")
    head = json.loads(whole[8 : 8 + size])
    rest = whole[8 + size :][head["parts"][0] :]
    head["parts"][0] = len(forged)
    text = json.dumps(head).encode()
    bench.path.write_bytes(len(text).to_bytes(8, "big") + text + forged + rest)
    with pytest.raises(AlteredFile):
        bench.resume()


def test_a_finished_attempt_leaves_nothing(bench: Bench) -> None:
    bench.run()
    assert bench.path.exists()
    bench.attempt.forget()
    bench.attempt.forget()
    assert not bench.path.exists()


def leftovers(bench: Bench) -> set[str]:
    return {path.name for path in bench.folder.iterdir() if path.name.startswith("attempt")}


def test_contributions_wait_on_the_disk_and_the_sum_is_written_once(chunks: int, bench: Bench) -> None:
    written: dict[str, int] = {}

    def watch(kind: str, member: str, content: RecordDict) -> RecordDict:
        if kind in (wire.PROCEED, wire.CONFIRM, wire.REVEAL):
            assert not [path for path in bench.folder.glob("attempt.*/*") if path.stat().st_mode & 0o077]
        if kind == wire.PROCEED:
            assert not (bench.folder / "attempt.sums").exists(), "nothing is added before a contribution is whole"
        if kind in (wire.CONFIRM, wire.REVEAL):
            assert not (bench.folder / "attempt.parts").exists()
            for path in (bench.folder / "attempt.sums").iterdir():
                assert written.setdefault(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
        return content

    bench.run(watch)
    assert len(written) == chunks
    assert bench.opened() == bench.opened() == bench.expected()
    bench.attempt.forget()
    assert leftovers(bench) == set()


def test_what_a_killed_coordinator_left_of_a_sum_is_in_no_other(chunks: int, bench: Bench) -> None:
    def lose(kind: str, member: str, content: RecordDict) -> RecordDict | None:
        if kind == wire.CONFIRM:
            raise Killed
        return None if (kind, member) == (wire.PROCEED, "Bass") else content

    with pytest.raises(Killed):
        bench.run(lose)
    later = bench.trio.plan(bench.plan.mode, threshold=2, nonce="1" * 32)
    bench.plan, bench.attempt = later, Attempt(bench.trio.signed(later), bench.trio.roster, bench.trio.key, bench.path)
    bench.run()
    assert bench.survivors == MEMBERS
    assert bench.opened() == bench.expected()


def test_sums_are_on_the_disk_before_the_state_that_names_them(
    chunks: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        seen = watched(patch)
        bench.run()
    flushed = "folder attempt.sums"
    assert flushed in seen
    place = seen.index(flushed)
    sums = [f"{path.stat().st_size} bytes" for path in (bench.folder / "attempt.sums").iterdir()]
    assert sorted(seen[place - chunks : place]) == sorted(sums)
    assert seen[place + 2] == "named attempt"


@pytest.mark.parametrize("how", ["gone", "altered"])
def test_a_sum_whose_file_is_not_what_was_written_is_named(chunks: int, bench: Bench, how: str) -> None:
    bench.run()
    path = bench.folder / "attempt.sums" / "sum-00001"
    if how == "gone":
        path.unlink()
        with pytest.raises(AlteredFile, match="attempt"):
            bench.resume()
        return
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(bytes(altered))
    assert bench.resume() is not None
    with pytest.raises(AlteredFile, match="sum-00001"):
        bench.opened()

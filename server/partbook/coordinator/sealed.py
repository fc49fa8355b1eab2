"""Sealed rounds after the sum: the custodian opens it for the labels, who step, agree on the model, and release it.

The coordinator carries sums that it cannot read. It keeps the newest, encrypted as they are, so that a label that was
away can take the steps it missed. One that was away for longer is handed the model by another label.

A sum is asked for, kept and handed on chunk by chunk: in one message it would be hundreds of megabytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray
from torch import Tensor

from partbook.coordinator.attempt import Attempt, AttemptRecord, answered
from partbook.coordinator.disk import replace_file
from partbook.coordinator.laggards import Laggards
from partbook.coordinator.totals import SealedTotal
from partbook.errors import (
    AlteredCiphertext,
    AlteredFile,
    CohortTooSmall,
    CorruptMessage,
    NodeFailed,
    PartbookError,
    UnknownModel,
)
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Message
from partbook.identity.roster import Roster
from partbook.model.adapter import state_hash, unflatten
from partbook.plan import exchanges as e
from partbook.plan import wire
from partbook.plan.rounds import RoundPlan
from partbook.plan.transport import Transport

KEPT_SUMS: Final = 50
"""Rounds whose opened sums are kept: each is as large as the model, and a federation plays for weeks."""


class SealedSums:
    """The opened sums of a federation, as the coordinator may hold them, and who has stepped how far."""

    def __init__(self, folder: Path, roster: Roster, key: IdentityKey, transport: Transport, timeout: float) -> None:
        """Use `folder`, made where missing."""
        self._folder, self._roster, self._key = folder, roster, key
        self._transport, self._timeout = transport, timeout
        self._laggards = Laggards(roster, self._beginning)
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, attempt: Attempt) -> None:
        """Have the custodian open an attempt's sum for the labels, and keep what it says; once an attempt.

        Raises:
            NodeFailed: the custodian is away or declines.
        """
        total, plan = attempt.total, attempt.plan
        assert self._roster.custodian is not None, "a sealed plan was checked against the roster"
        assert isinstance(total, SealedTotal), "a sealed plan adds up ciphertexts"
        path = self._path(plan.round)
        if path.exists() and _OpenedFile(path).plan == attempt.plan_message:
            return
        chunks = (self._open_chunk(attempt, index, total.chunk(index)) for index in range(plan.chunks))
        _write_parts(path, chain([attempt.plan_message], chain.from_iterable(chunks)))
        self._laggards.forget(plan.round)

    def _open_chunk(self, attempt: Attempt, index: int, blob: bytes) -> tuple[bytes, bytes]:
        """What the custodian signs, and the encrypted chunk that it vouches for."""
        custodian, plan = self._roster.custodian, attempt.plan
        assert custodian is not None, "as above"
        body = e.Open(
            survivors=attempt.machine.survivors,
            confirmations=tuple(data.decode() for data in attempt.machine.confirmations()),
            chunk=index,
            sha256=hashlib.sha256(blob).hexdigest(),
        )
        request = e.write(self._key, e.OPEN, plan.context(), COORDINATOR, body)
        content = wire.pack([attempt.plan_message, request], [blob])
        (answer,) = self._ask(wire.OPEN, {custodian.name: content}, attempt.record).values()
        (opened,), (encrypted,) = wire.unpack(answer, blobs=1)
        message = Message.decode(opened)
        message.check(custodian.identity, e.OPENED, plan.context(), custodian.name)
        if hashlib.sha256(encrypted).hexdigest() != e.Opened.of(message).sha256:
            raise AlteredCiphertext("The opened sum is not what the custodian signed; ask for it again.")
        return opened, encrypted

    def catch_up(self, plan_round: int, record: AttemptRecord) -> dict[str, str]:
        """Send every member the opened sums that it lacks, up to a round's, in order.

        The round's own goes to all whom it can help: whoever has taken its step already only says again where it
        stands.

        Returns:
            By member that stands after that round, the hash of its model.
        """
        reached = self._reached()
        members = [member.name for member in self._roster.members]
        hashes: dict[str, str] = {}
        standing, before = {member: reached.get(member, 0) for member in members}, 0
        for number in self._opened(plan_round):
            helped = self._laggards.helped(number)
            due = [m for m in members if standing[m] == before or number == plan_round]
            behind = [m for m in due if m in helped and not self._laggards.resting(m, plan_round)]
            if behind:
                hashes |= self._hand_over(number, behind, reached, record, plan_round)
            standing |= {m: reached.get(m, 0) for m in behind}
            standing |= {m: number for m in members if m not in helped and standing[m] == before}
            before = number
        for member in members:
            if standing[member] > reached.get(member, 0):
                self._laggards.passed_by(member, plan_round)
        self._keep_reached(reached)
        return {member: model for member, model in hashes.items() if reached.get(member) == plan_round}

    def _hand_over(
        self, number: int, behind: list[str], reached: dict[str, int], record: AttemptRecord, last: int
    ) -> dict[str, str]:
        """One round's opened sum, chunk by chunk; by member that took its step, or had, the hash of its model."""
        file, hashes = _OpenedFile(self._path(number)), dict[str, str]()
        # This coordinator's own file, and its key may be another since; labels look at who signed the plan.
        context = e.unverified_plan(file.plan).context()
        for index in range(file.chunks):
            opened, encrypted = file.chunk(index)
            contents = dict.fromkeys(behind, wire.pack([file.plan, opened], [encrypted]))
            declined = set[str]()
            behind = []
            for member, answer in self._ask(wire.APPLY, contents, record, needed=False, declined=declined).items():
                public = self._roster.member(member).identity
                try:
                    message = Message.decode(wire.unpack(answer)[0][0])
                    if message.kind == e.HELD and index + 1 < file.chunks:
                        message.check(public, e.HELD, context, member)
                        behind.append(member)
                        continue
                    message.check(public, e.APPLIED, context, member)
                    hashes[member] = e.ModelHash.of(message).model
                    reached[member] = number
                except PartbookError as error:
                    record.lose(member, wire.APPLY, error)
            # They stand elsewhere than they said, as after a restored backup: next time they get every sum again, and
            # pass over those they have.
            reached.update(dict.fromkeys(declined, 0))
            self._laggards.declined(declined, number, file.plan, last)
            if not behind:
                break
        return hashes

    def apply(self, plan: RoundPlan, record: AttemptRecord) -> str:
        """Send every member the sum of this round, and those it missed; returns the hash of the model they reached.

        Raises:
            CohortTooSmall: fewer members than the threshold reached one model.
        """
        self._laggards.trained(m for m in plan.cohort if record.dropped.get(m, ("", ""))[0] != wire.TRAIN)
        reached = self.catch_up(plan.round, record)
        found = Counter(reached.values())
        model, count = found.most_common(1)[0] if found else ("", 0)
        for member, other in reached.items():
            if other != model:
                record.dropped.setdefault(member, (wire.APPLY, f"{member} reached another model, {other[:12]}…"))
        if count < plan.threshold:
            raise CohortTooSmall(
                f"Round {plan.round}: {count} labels reached one model, {plan.threshold} are needed. "
                + "; ".join(why for _, why in record.dropped.values())
            )
        for number in self._opened(plan.round)[:-KEPT_SUMS]:
            self._path(number).unlink(missing_ok=True)
            self._laggards.forget(number)
        return model

    def doubt(self, members: Iterable[str]) -> None:
        """These members stand elsewhere than they said, as after a restored backup: send them every sum again."""
        reached = self._reached()
        if again := {member: 0 for member in members if reached.get(member)}:
            self._keep_reached(reached | again)

    def behind(self, number: int) -> bool:
        """Whether any member has yet to take the step of this round, and there is a sum that may lead it there."""
        reached = self._reached()
        for member in (member.name for member in self._roster.members):
            lacking = [found for found in self._opened(number) if found > reached.get(member, 0)]
            helped = any(member in self._laggards.helped(found) for found in lacking)
            if helped and not self._laggards.resting(member, number):
                return True
        return False

    def _beginning(self, number: int) -> tuple[bytes, bytes]:
        """The signed plan of a kept sum, and the signed `opened` of its first chunk."""
        file = _OpenedFile(self._path(number))
        return file.plan, file.chunk(0)[0]

    def _opened(self, last: int) -> list[int]:
        """The rounds whose opened sums are kept, up to `last`, in order."""
        numbers = sorted(int(path.stem.removeprefix("round-")) for path in self._folder.glob("round-*.opened"))
        return [number for number in numbers if number <= last]

    def release(self, number: int, model_hash: str, like: Mapping[str, Tensor]) -> NDArray[np.float32]:
        """Ask the labels to endorse the model after a round, and take it from the first that hands it over.

        Args:
            number: the round.
            model_hash: `state_hash` of the adapter after it.
            like: an adapter state that gives names and shapes.

        Raises:
            CohortTooSmall: fewer labels than the threshold endorse it.
            NodeFailed: none hands it over.
        """
        plan_message = _OpenedFile(self._path(number)).plan
        # The coordinator's key may be another since, and the roster: labels look at both (`PinnedRosters`).
        plan, record = e.unverified_plan(plan_message), AttemptRecord()
        needed, members = e.endorsements_needed(plan, self._roster), {member.name for member in self._roster.members}
        ask = e.write(self._key, e.ENDORSE, plan.context(), COORDINATOR, e.ModelHash(model=model_hash))
        there = [member for member, reached in self._reached().items() if reached == number and member in members]
        contents = dict.fromkeys(there, wire.pack([plan_message, ask]))
        endorsed: dict[str, str] = {}
        for member, answer in self._ask(wire.ENDORSE, contents, record, needed=False).items():
            try:
                data = wire.unpack(answer)[0][0]
                message = Message.decode(data)
                message.check(self._roster.member(member).identity, e.ENDORSED, plan.context(), member)
                if e.ModelHash.of(message).model == model_hash:
                    endorsed[member] = data.decode()
            except PartbookError as error:
                record.lose(member, wire.ENDORSE, error)
        if len(endorsed) < needed:
            raise CohortTooSmall(
                f"{len(endorsed)} labels endorse the release of the model after round {number}, {needed} are needed. "
                + ("So many are not in the roster any more: play another round. " if needed > len(members) else "")
                + "; ".join(why for _, why in record.dropped.values())
            )
        for member in endorsed:
            try:
                return self._released(member, plan_message, plan, tuple(endorsed.values()), model_hash, like, record)
            except PartbookError as error:
                record.lose(member, wire.PUBLISH, error)
        raise NodeFailed("No label handed the model over. " + "; ".join(why for _, why in record.dropped.values()))

    def _released(
        self,
        member: str,
        plan_message: bytes,
        plan: RoundPlan,
        endorsements: tuple[str, ...],
        model_hash: str,
        like: Mapping[str, Tensor],
        record: AttemptRecord,
    ) -> NDArray[np.float32]:
        """The model from one member, stretch by stretch."""
        adapter = np.empty(sum(tensor.numel() for tensor in like.values()), np.float32)
        for index, start in enumerate(range(0, len(adapter), e.PUBLISHED_NUMBERS)):
            part = adapter[start : start + e.PUBLISHED_NUMBERS]
            body = e.Publish(endorsements=endorsements, chunk=index)
            content = wire.pack([plan_message, e.write(self._key, e.PUBLISH, plan.context(), COORDINATOR, body)])
            answer = self._ask(wire.PUBLISH, {member: content}, record)[member]
            (signed,), (blob,) = wire.unpack(answer, blobs=1)
            Message.decode(signed).check(self._roster.member(member).identity, e.PUBLISHED, plan.context(), member)
            if len(blob) != 4 * len(part):
                raise CorruptMessage(f"{member} handed over {len(blob)} bytes, where {4 * len(part)} were due.")
            part[:] = np.frombuffer(blob, dtype="<f4")
        if state_hash(unflatten(adapter, like)) != model_hash:
            raise UnknownModel(f"{member} handed over another model than the one that it endorsed.")
        return adapter

    def _ask(
        self,
        kind: str,
        contents: dict[str, RecordDict],
        record: AttemptRecord,
        *,
        needed: bool = True,
        declined: set[str] | None = None,
    ) -> dict[str, RecordDict]:
        """Answers by member; those that are missing are in `record`, and those that were refusals in `declined`."""
        began = time.monotonic()
        replies = self._transport.exchange(kind, contents, timeout=self._timeout)
        good: dict[str, RecordDict] = {}
        for member in contents:
            try:
                good[member] = answered(replies, member, self._timeout)
            except PartbookError as error:
                if needed:
                    raise
                if declined is not None and isinstance(replies.get(member), RecordDict):
                    declined.add(member)
                record.lose(member, kind, error)
        record.spent(kind, began)
        return good

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:04d}.opened"

    def _reached(self) -> dict[str, int]:
        path = self._folder / "reached.json"
        found: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _keep_reached(self, reached: dict[str, int]) -> None:
        replace_file(self._folder / "reached.json", json.dumps(reached, sort_keys=True).encode())


class _OpenedFile:
    """What the custodian said of one round, on the disk: plan, then `opened` and encrypted chunk by turns."""

    def __init__(self, path: Path) -> None:
        """Find where the parts are.

        Raises:
            AlteredFile: the file is missing or cut.
        """
        self._path, self._places = path, list[tuple[int, int]]()
        try:
            with path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                start = 0
                while start < end:
                    file.seek(start)
                    size = int.from_bytes(file.read(8), "big")
                    self._places.append((start + 8, size))
                    start += 8 + size
        except OSError as error:
            raise AlteredFile(f"{path} cannot be read ({error.strerror}); labels that were away need it.") from error
        if start != end or len(self._places) < 3 or len(self._places) % 2 == 0:
            raise AlteredFile(f"{path} was cut; restore it: labels that were away need it.")

    @property
    def chunks(self) -> int:
        """How many the sum has."""
        return len(self._places) // 2

    @property
    def plan(self) -> bytes:
        """The signed plan."""
        return self._part(0)

    def chunk(self, index: int) -> tuple[bytes, bytes]:
        """The signed `opened` of a chunk, and what it vouches for."""
        return self._part(1 + 2 * index), self._part(2 + 2 * index)

    def _part(self, index: int) -> bytes:
        start, size = self._places[index]
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise AlteredFile(f"{self._path} cannot be read ({error.strerror}).") from error


def _write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Each part behind its length: whole or not at all, and one in memory at a time."""
    temporary = path.with_suffix(path.suffix + ".part")
    with temporary.open("wb") as file:
        for part in parts:
            file.write(len(part).to_bytes(8, "big"))
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

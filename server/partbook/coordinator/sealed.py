"""Sealed rounds after the sum: the custodian opens it for the labels, who step, agree on the model, and release it.

The coordinator carries sums that it cannot read. It keeps them, encrypted as they are, so that a label that was away
can take the steps it missed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray
from torch import Tensor

from partbook.coordinator.attempt import Attempt, AttemptRecord, answered
from partbook.coordinator.checkpoints import replace_file
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


class SealedSums:
    """The opened sums of a federation, as the coordinator may hold them, and who has stepped how far."""

    def __init__(self, folder: Path, roster: Roster, key: IdentityKey, transport: Transport, timeout: float) -> None:
        """Use `folder`, made where missing."""
        self._folder, self._roster, self._key = folder, roster, key
        self._transport, self._timeout = transport, timeout
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, attempt: Attempt) -> None:
        """Have the custodian open an attempt's sum for the labels, and keep what it says; once an attempt.

        Raises:
            NodeFailed: the custodian is away or declines.
        """
        custodian = self._roster.custodian
        total, plan = attempt.total, attempt.plan
        assert custodian is not None, "a sealed plan was checked against the roster"
        assert isinstance(total, SealedTotal), "a sealed plan adds up ciphertexts"
        path = self._path(plan.round)
        if path.exists() and _read_parts(path)[0] == attempt.plan_message:
            return
        confirmations = tuple(data.decode() for data in attempt.machine.confirmations())
        parts = [attempt.plan_message]
        for index, blob in enumerate(total.dump()):
            body = e.Open(
                survivors=attempt.machine.survivors,
                confirmations=confirmations,
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
            parts += [opened, encrypted]
        _write_parts(path, parts)

    def catch_up(self, plan_round: int, record: AttemptRecord) -> dict[str, str]:
        """Send every member the opened sums that it lacks, up to a round's, in order.

        The round's own goes to all: whoever has taken its step already only says again where it stands.

        Returns:
            By member that stands after that round, the hash of its model.
        """
        reached = self._reached()
        members = [member.name for member in self._roster.members]
        hashes: dict[str, str] = {}
        before = 0
        for number in self._opened(plan_round):
            parts = _read_parts(self._path(number))
            plan = e.read_plan(parts[0], self._roster)
            content = wire.pack([parts[0], *parts[1::2]], parts[2::2])
            behind = [m for m in members if reached.get(m, 0) == before or number == plan_round]
            before = number
            if not behind:
                continue
            declined = set[str]()
            contents = dict.fromkeys(behind, content)
            for member, answer in self._ask(wire.APPLY, contents, record, needed=False, declined=declined).items():
                try:
                    message = Message.decode(wire.unpack(answer)[0][0])
                    message.check(self._roster.member(member).identity, e.APPLIED, plan.context(), member)
                    hashes[member] = e.ModelHash.of(message).model
                    reached[member] = number
                except PartbookError as error:
                    record.lose(member, wire.APPLY, error)
            for member in declined:
                # It stands elsewhere than it said, as after a restored backup: next time it gets every sum again, and
                # passes over those it has.
                reached[member] = 0
        self._keep_reached(reached)
        return {member: model for member, model in hashes.items() if reached.get(member) == plan_round}

    def apply(self, plan: RoundPlan, record: AttemptRecord) -> str:
        """Send every member the sum of this round, and those it missed; returns the hash of the model they reached.

        Raises:
            CohortTooSmall: fewer members than the threshold reached one model.
        """
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
        return model

    def behind(self, number: int) -> bool:
        """Whether any member has yet to take the step of this round."""
        reached = self._reached()
        return any(reached.get(member.name, 0) < number for member in self._roster.members)

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
        plan_message = _read_parts(self._path(number))[0]
        plan, record = e.read_plan(plan_message, self._roster), AttemptRecord()
        ask = e.write(self._key, e.ENDORSE, plan.context(), COORDINATOR, e.ModelHash(model=model_hash))
        there = [member for member, reached in self._reached().items() if reached == number]
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
        if len(endorsed) < plan.threshold:
            raise CohortTooSmall(
                f"{len(endorsed)} labels endorse the release of the model after round {number}, {plan.threshold} are "
                "needed. " + "; ".join(why for _, why in record.dropped.values())
            )
        body = e.Publish(endorsements=tuple(endorsed.values()))
        content = wire.pack([plan_message, e.write(self._key, e.PUBLISH, plan.context(), COORDINATOR, body)])
        for member in endorsed:
            for answer in self._ask(wire.PUBLISH, {member: content}, record, needed=False).values():
                try:
                    return self._released(member, answer, plan, model_hash, like)
                except PartbookError as error:
                    record.lose(member, wire.PUBLISH, error)
        raise NodeFailed("No label handed the model over. " + "; ".join(why for _, why in record.dropped.values()))

    def _released(
        self, member: str, answer: RecordDict, plan: RoundPlan, model_hash: str, like: Mapping[str, Tensor]
    ) -> NDArray[np.float32]:
        (signed,), (blob,) = wire.unpack(answer, blobs=1)
        public = self._roster.member(member).identity
        Message.decode(signed).check(public, e.PUBLISHED, plan.context(), member)
        if len(blob) % 4:
            raise CorruptMessage(f"{member} handed over {len(blob)} bytes, which are no float32 numbers.")
        adapter = np.frombuffer(blob, dtype="<f4").astype(np.float32)
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


def _write_parts(path: Path, parts: list[bytes]) -> None:
    replace_file(path, *(piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)))


def _read_parts(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AlteredFile(f"{path} cannot be read ({error.strerror}); labels that were away need it.") from error
    parts = []
    while data:
        size = int.from_bytes(data[:8], "big")
        parts.append(data[8 : 8 + size])
        data = data[8 + size :]
    return parts

"""Sealed rounds after the sum: the custodian opens it for the labels, who step, agree on the model, and release it.

The coordinator carries sums that it cannot read. It keeps them, encrypted as they are, so that a label that was away
can take the steps it missed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from partbook.coordinator.attempt import Attempt, AttemptRecord
from partbook.coordinator.totals import SealedTotal
from partbook.errors import AlteredCiphertext, AlteredFile, CohortTooSmall, NodeFailed, PartbookError
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Message
from partbook.identity.roster import Roster
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
        """Have the custodian open an attempt's sum for the labels, and keep what it says.

        Raises:
            NodeFailed: the custodian is away or declines.
        """
        custodian = self._roster.custodian
        total, plan = attempt.total, attempt.plan
        assert custodian is not None, "a sealed plan was checked against the roster"
        assert isinstance(total, SealedTotal), "a sealed plan adds up ciphertexts"
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
        _write_parts(self._path(plan.round), parts)

    def catch_up(self, plan_round: int, record: AttemptRecord) -> dict[str, str]:
        """Send every member the opened sums that it lacks, up to a round's, in order.

        The round's own goes to all: whoever has taken its step already only says again where it stands.

        Returns:
            By member that stands after that round, the hash of its model.
        """
        reached = self._reached()
        members = [member.name for member in self._roster.members]
        hashes: dict[str, str] = {}
        slowest = min(reached.get(member, 0) for member in members)
        for number in range(min(slowest + 1, plan_round), plan_round + 1):
            parts = _read_parts(self._path(number))
            plan = e.read_plan(parts[0], self._roster)
            content = wire.pack([parts[0], *parts[1::2]], parts[2::2])
            behind = [m for m in members if number in (reached.get(m, 0) + 1, plan_round)]
            for member, answer in self._ask(wire.APPLY, dict.fromkeys(behind, content), record, needed=False).items():
                try:
                    message = Message.decode(wire.unpack(answer)[0][0])
                    message.check(self._roster.member(member).identity, e.APPLIED, plan.context(), member)
                    hashes[member] = e.ModelHash.of(message).model
                    reached[member] = number
                except PartbookError as error:
                    record.dropped.setdefault(member, (wire.APPLY, str(error)))
        self._keep_reached(reached)
        return {member: model for member, model in hashes.items() if reached.get(member) == plan_round}

    def apply(self, plan: RoundPlan, record: AttemptRecord) -> str:
        """Send every member the sum of this round, and those it missed; returns the hash of the model they reached.

        Raises:
            CohortTooSmall: fewer members than the threshold reached one model.
        """
        found = Counter(self.catch_up(plan.round, record).values())
        model, count = found.most_common(1)[0] if found else ("", 0)
        if count < plan.threshold:
            raise CohortTooSmall(
                f"Round {plan.round}: {count} labels reached one model, {plan.threshold} are needed. "
                + "; ".join(why for _, why in record.dropped.values())
            )
        return model

    def behind(self, number: int) -> bool:
        """Whether any member has yet to take the step of a round before this one."""
        reached = self._reached()
        return any(reached.get(member.name, 0) < number - 1 for member in self._roster.members)

    def release(self, number: int, model_hash: str) -> NDArray[np.float32]:
        """Ask the labels to endorse the model after a round, and take it from the first that hands it over.

        Raises:
            CohortTooSmall: fewer labels than the threshold endorse it.
            NodeFailed: none hands it over.
        """
        plan_message = _read_parts(self._path(number))[0]
        plan, record = e.read_plan(plan_message, self._roster), AttemptRecord()
        ask = e.write(self._key, e.ENDORSE, plan.context(), COORDINATOR, e.ModelHash(model=model_hash))
        contents = dict.fromkeys(plan.cohort, wire.pack([plan_message, ask]))
        endorsed: dict[str, str] = {}
        for member, answer in self._ask(wire.ENDORSE, contents, record, needed=False).items():
            try:
                data = wire.unpack(answer)[0][0]
                message = Message.decode(data)
                message.check(self._roster.member(member).identity, e.ENDORSED, plan.context(), member)
                if e.ModelHash.of(message).model == model_hash:
                    endorsed[member] = data.decode()
            except PartbookError as error:
                record.dropped.setdefault(member, (wire.ENDORSE, str(error)))
        if len(endorsed) < plan.threshold:
            raise CohortTooSmall(
                f"{len(endorsed)} labels endorse the release of the model after round {number}, {plan.threshold} are "
                "needed. " + "; ".join(why for _, why in record.dropped.values())
            )
        body = e.Publish(endorsements=tuple(endorsed.values()))
        content = wire.pack([plan_message, e.write(self._key, e.PUBLISH, plan.context(), COORDINATOR, body)])
        for member in endorsed:
            answers = self._ask(wire.PUBLISH, {member: content}, record, needed=False)
            for answer in answers.values():
                _, (adapter,) = wire.unpack(answer, blobs=1)
                return np.frombuffer(adapter, dtype="<f4").astype(np.float32)
        raise NodeFailed("No label handed the model over. " + "; ".join(why for _, why in record.dropped.values()))

    def _ask(
        self, kind: str, contents: dict[str, RecordDict], record: AttemptRecord, *, needed: bool = True
    ) -> dict[str, RecordDict]:
        began = time.monotonic()
        replies = self._transport.exchange(kind, contents, timeout=self._timeout)
        good: dict[str, RecordDict] = {}
        for member in contents:
            try:
                reply = replies.get(member) or NodeFailed(f"{member} did not answer in {self._timeout:g} s.")
                if isinstance(reply, Exception):
                    raise reply
                wire.raise_refusal(reply, member)
                good[member] = reply
            except PartbookError as error:
                if needed:
                    raise
                record.dropped.setdefault(member, (kind, str(error)))
        record.seconds[kind] = record.seconds.get(kind, 0.0) + time.monotonic() - began
        return good

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:04d}.opened"

    def _reached(self) -> dict[str, int]:
        path = self._folder / "reached.json"
        found: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _keep_reached(self, reached: dict[str, int]) -> None:
        path = self._folder / "reached.json"
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(reached, sort_keys=True))
        temporary.replace(path)


def _write_parts(path: Path, parts: list[bytes]) -> None:
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        for part in parts:
            file.write(len(part).to_bytes(8, "big") + part)
    temporary.replace(path)


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

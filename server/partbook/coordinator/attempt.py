"""One attempt at a round's sum: the six exchanges of PROTOCOL §1, over whatever carries messages.

    train       every member trains, and says that it is ready
    advertise   fresh keys
    share       shares of the secrets behind the masks
    contribute  masked (sealed: and encrypted) updates, added up as they come
    confirm     one list of survivors, signed
    reveal      what is needed to take off the masks that are left

A member that does not answer, or answers wrongly, is dropped from there on; fewer than the threshold end the attempt
by name. The state is on the disk after every exchange, so a coordinator that is killed goes on with the attempt.

    attempt        plan, messages and record; written anew each time
    attempt.sums   the sum's chunks, written once, before the file above says that they are whole
    attempt.parts  chunks of contributions that are not whole yet; a coordinator that is killed asks for them again
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

from flwr.app import RecordDict

from partbook.coordinator.disk import replace_file
from partbook.coordinator.shelf import Shelf
from partbook.coordinator.totals import MaskedTotal, SealedTotal
from partbook.errors import AlteredFile, CohortTooSmall, CorruptMessage, NodeFailed, PartbookError, UnknownModel
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR, Message
from partbook.identity.roster import Roster
from partbook.plan import exchanges as e
from partbook.plan import wire
from partbook.plan.rounds import RoundPlan
from partbook.plan.transport import Transport
from partbook.secagg import messages as m
from partbook.secagg.coordinator import CoordinatorRound

T = TypeVar("T")
Close: TypeAlias = Callable[[], T]


@dataclass(slots=True)
class AttemptRecord:
    """What an attempt leaves for the round's record.

    Attributes:
        seconds: wall clock of each exchange, by message kind.
        dropped: by member that was lost, (message kind, why).
        elsewhere: members that hold another model than the plan's; not kept on the disk.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, tuple[str, str]] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)

    def spent(self, kind: str, since: float) -> None:
        """Count the time since `since` (`time.monotonic`) for an exchange."""
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - since

    def lose(self, member: str, kind: str, error: PartbookError) -> None:
        """Remember where and why a member was lost first."""
        self.dropped.setdefault(member, (kind, str(error)))
        if kind == wire.TRAIN and isinstance(error, NodeFailed) and error.declined == UnknownModel.__name__:
            self.elsewhere.add(member)


def answered(replies: Mapping[str, RecordDict | Exception], member: str, timeout: float) -> RecordDict:
    """A member's answer out of an exchange's.

    Raises:
        NodeFailed: there is none, or it is a refusal.
    """
    reply = replies.get(member, NodeFailed(f"{member} did not answer in {timeout:g} s."))
    if isinstance(reply, Exception):
        raise reply
    wire.raise_refusal(reply, member)
    return reply


class Attempt:
    """One attempt, from the plan to the unmasked total."""

    def __init__(self, plan_message: bytes, roster: Roster, key: IdentityKey, path: Path) -> None:
        """Begin, or go on with, the attempt at this plan; `path` is where its state is kept.

        Raises:
            ProtocolViolation: the plan does not fit the roster.
        """
        self.plan_message, self._roster, self._key, self._path = plan_message, roster, key, path
        self.plan: RoundPlan = e.read_plan(plan_message, roster)
        self._session = self.plan.session(roster)
        self.record = AttemptRecord()
        self.machine = CoordinatorRound(self._session, key, chunks=self.plan.chunks, seal_key=self.plan.seal_key)
        self._sums = Shelf(path.with_name(f"{path.name}.sums"))
        # Where a contribution is one message, an exchange's answers lie in memory together anyhow.
        self._parts = Shelf(None if self.plan.chunks == 1 else path.with_name(f"{path.name}.parts"))
        self.total: MaskedTotal | SealedTotal = (
            MaskedTotal(self.plan, self._sums) if self.plan.mode == "masked" else SealedTotal(self.plan, self._sums)
        )
        self._ready: list[str] = []
        self._unmasked = False

    @staticmethod
    def plan_at(path: Path) -> RoundPlan | None:
        """The plan of the attempt whose state is at `path`, for whatever roster it is; None where there is none.

        Raises:
            AlteredFile: the state is broken.
        """
        try:
            data = path.read_bytes()
            size = int.from_bytes(data[:8], "big")
            start = 8 + size
            message = Message.decode(data[start : start + json.loads(data[8:start])["parts"][0]])
            return RoundPlan.decode(e.PlanText.of(message).text.encode())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, IndexError, PartbookError) as error:
            raise AlteredFile(f"{path} holds a broken attempt ({error}); remove it to start again.") from error

    @classmethod
    def resume(cls, path: Path, roster: Roster, key: IdentityKey) -> Attempt | None:
        """The attempt whose state is at `path`; None where there is none, or its deadline is over.

        One that has asked for shares is gone on with whatever the time: members that handed theirs over take part in
        no other attempt at its round, since two sums of the same updates could differ by a single one.

        Raises:
            AlteredFile: the state is broken.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            size = int.from_bytes(data[:8], "big")
            head = json.loads(data[8 : 8 + size])
            parts, rest = [], data[8 + size :]
            for length in head["parts"]:
                parts.append(rest[:length])
                rest = rest[length:]
            plan_message, machine = parts
            attempt = cls(plan_message, roster, key, path)
            attempt.machine = CoordinatorRound.load(attempt._session, key, machine)
            attempt._sums.restore(head["sums"])
            attempt._ready, attempt._unmasked = head["ready"], head["unmasked"]
            if attempt._unmasked:
                attempt.total.unmask(attempt.machine)
            dropped = {member: (kind, why) for member, (kind, why) in head["dropped"].items()}
            attempt.record = AttemptRecord(head["seconds"], dropped)
        except (ValueError, KeyError, TypeError, AttributeError, PartbookError) as error:
            raise AlteredFile(f"{path} holds a broken attempt ({error}); remove it to start again.") from error
        in_time = time.time() < attempt.plan.deadline
        return attempt if in_time or attempt.machine.closed(m.CONFIRMED) else None

    def run(self, transport: Transport, adapter: bytes | None, timeout: float, tell: Callable[[str], None]) -> None:
        """Do what is left to do of the exchanges; `total` is then the exact sum, or its ciphertext.

        Args:
            transport: carries the messages.
            adapter: float32 bytes that members start from; None where they hold it.
            timeout: seconds to wait for one exchange.
            tell: told each exchange's message kind as it begins.

        Raises:
            CohortTooSmall: too few members were left; the message says why each was lost.
            CorruptMessage: shares that were revealed do not fit together.
        """
        machine = self.machine

        def ask(kind: str, requests: Mapping[str, RecordDict], accept: Callable[[str, RecordDict], None]) -> None:
            tell(kind)
            began = time.monotonic()
            replies = transport.exchange(kind, requests, timeout=timeout)
            for member in requests:
                try:
                    accept(member, answered(replies, member, timeout))
                except PartbookError as error:
                    self.record.lose(member, kind, error)
            self.record.spent(kind, began)

        def exchange(
            kind: str, answer: str, requests: Mapping[str, bytes], accept: Callable[[str, bytes], None], close: Close[T]
        ) -> T:
            """Ask, end the exchange, keep its outcome; what `close` gives is what comes next."""
            if machine.closed(answer):
                return close()
            packed = {member: wire.pack([data]) for member, data in requests.items()}
            ask(kind, packed, lambda member, reply: accept(member, wire.unpack(reply)[0][0]))
            following = close()
            self._save()
            return following

        try:
            if not self._ready:
                content = wire.pack([self.plan_message], [] if adapter is None else [adapter])
                ask(wire.TRAIN, dict.fromkeys(self.plan.cohort, content), self._accept_ready)
                if len(self._ready) < self.plan.threshold:
                    raise CohortTooSmall(f"{len(self._ready)} of {len(self.plan.cohort)} members are ready")
                self._save()
            begin = e.write(self._key, e.BEGIN, self.plan.context(), COORDINATOR)
            keys = exchange(
                wire.ADVERTISE,
                m.ADVERTISE,
                dict.fromkeys(self._ready, begin),
                machine.accept_keys,
                machine.ask_share,
            )
            inboxes = exchange(wire.SHARE, m.SHARES, keys, machine.accept_shares, machine.ask_contribute)
            if not machine.closed(m.CONTRIBUTION):
                self._contributions(inboxes, ask)
            lists = machine.ask_confirm()
            self._save()
            requests = exchange(wire.CONFIRM, m.CONFIRMED, lists, machine.accept_confirmation, machine.ask_reveal)
            exchange(wire.REVEAL, m.REVEALED, requests, machine.accept_reveal, machine.reconstruct)
            if not self._unmasked:
                self.total.unmask(machine)
                self._unmasked = True
                self._save()
        except CohortTooSmall as error:
            raise CohortTooSmall(self._why(str(error))) from error

    @property
    def revealing(self) -> bool:
        """Whether shares were asked for: from then on no member takes part in another attempt at this round."""
        return self.machine.closed(m.CONFIRMED)

    def forget(self) -> None:
        """Remove the attempt's state: its round is over, or is planned anew."""
        self._path.unlink(missing_ok=True)
        self._sums.clear()
        self._parts.clear()

    def _accept_ready(self, member: str, reply: RecordDict) -> None:
        message = Message.decode(wire.unpack(reply)[0][0])
        message.check(self._session.identities[member], e.READY, self.plan.context(), member)
        self._ready.append(member)

    def _contributions(
        self,
        inboxes: Mapping[str, bytes],
        ask: Callable[[str, Mapping[str, RecordDict], Callable[[str, RecordDict], None]], None],
    ) -> None:
        """Chunk by chunk from every member; whole contributions are added, and of others nothing is."""
        done, chunks = self.machine.members(m.CONTRIBUTION), self.plan.chunks
        if not done:
            # A coordinator that goes on with an attempt asks for everything again: members send the same bytes.
            self._sums.clear()
        self._parts.clear()
        held = {member: 0 for member in inboxes if member not in done}

        def accept(member: str, reply: RecordDict) -> None:
            (signed,), (blob,) = wire.unpack(reply, blobs=1)
            if m.Contribution.of(Message.decode(signed)).chunk != held[member]:
                raise CorruptMessage(f"{member} sent another chunk than the one it was asked for.")
            self.machine.accept_contribution(member, signed, blob, self.total.check)
            self._parts.put(self._part(member, held[member]), blob)
            held[member] += 1

        ask(wire.CONTRIBUTE, {member: wire.pack([inboxes[member]]) for member in held}, accept)
        for index in range(1, chunks):
            proceed = e.write(self._key, e.PROCEED, self.plan.context(), COORDINATOR, e.Proceed(chunk=index))
            going = [member for member, count in held.items() if count == index]
            ask(wire.PROCEED, dict.fromkeys(going, wire.pack([proceed])), accept)
        whole = [member for member, count in held.items() if count == chunks]
        for index in range(chunks if whole else 0):
            self.total.add_all(index, (self._parts.get(self._part(member, index)) for member in whole))
        self._parts.clear()

    def _part(self, member: str, chunk: int) -> str:
        return f"{self.plan.cohort.index(member):05d}-{chunk:05d}"

    def _why(self, what: str) -> str:
        lost = "; ".join(f"{member}: {why}" for member, (_, why) in sorted(self.record.dropped.items()))
        start = "" if what.startswith("Round") else f"Round {self.plan.round}: "
        needed = "" if "needed" in what else f", {self.plan.threshold} are needed"
        return f"{start}{what.removesuffix('.')}{needed}. {lost}".strip()

    def _save(self) -> None:
        parts = [self.plan_message, self.machine.dump()]
        self._sums.flush()
        head = json.dumps(
            {
                "parts": [len(part) for part in parts],
                "sums": self._sums.digests,
                "ready": self._ready,
                "unmasked": self._unmasked,
                "seconds": self.record.seconds,
                "dropped": self.record.dropped,
            }
        ).encode()
        replace_file(self._path, len(head).to_bytes(8, "big"), head, *parts)

"""The Transport over a Flower Grid: the same in a simulation and over a SuperLink.

A node counts as a party once it has answered a signed greeting (`partbook.plan.greeting`); replies are matched by the
message they answer, never by the sender they claim, so a node can only ever answer for itself.

Nodes come and go while an exchange runs. One that fell away is greeted again when it is back, and asked again: every
answer of a node is made once and kept on its disk, so to ask twice is to be told the same thing twice. A question that
stays unanswered for unusually long is repeated for the same reason: a SuperLink or a front that is killed loses what
it was handing over.

Two nodes may prove that they are one party, when its folder was copied to a second machine. The one that was asked
before goes on being asked, over restarts as well, and so a party has one ledger.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from partbook.coordinator.disk import replace_file
from partbook.coordinator.timing import ServerTiming
from partbook.coordinator.watching import Unwatched, Watch
from partbook.errors import NodeFailed, PartbookError
from partbook.plan import wire
from partbook.plan.greeting import Greeter

PULL_EVERY: Final = 0.05  # seconds between two looks for answers, at first
PULL_SELDOM: Final = 0.5  # the same when they let themselves be waited for
LAG: Final = 0.1  # a pause is at most this part of the time that was waited already, between these two
EASE: Final = 1.0  # and at least so many times as long as a look takes: a SuperLink with much to do is asked less
EASED: Final = 2.0  # seconds, and no longer; a look may have hung through a restart
WORK: Final = 4.0  # a pause is at least so many times what a look cost this process: a thousand parties are many to ask
HELD: Final = 0.2  # seconds; a look that took as long was waiting itself
UNUSUAL: Final = 3.0  # times what an answer of that kind took in the middle, the last time
ANSWERS_WITHIN: Final = 5.0  # seconds in which a node that is there says who it is
SETTLED: Final = 1.0  # seconds after the last greeting, after which no node is new where none comes and goes
GREET_AGAIN: Final = 30.0  # seconds after which a node that declined to say who it is is asked again

_AWAY: Final = {ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Asked:
    """One party's question in an exchange."""

    content: RecordDict
    since: float
    node: int | None = None
    repeat: float = 0.0
    wait: float = 0.0
    reason: str = "has no node online"


@dataclass(slots=True)
class _Nodes:
    """Which node is which party's, and who was greeted."""

    of: dict[str, int] = field(default_factory=dict)
    asked: dict[str, tuple[int, str, float]] = field(default_factory=dict)  # message id: node, nonce, when
    known: set[int] = field(default_factory=set)  # greeted, whatever they answered
    declined: dict[int, tuple[float, str]] = field(default_factory=dict)  # when, and why

    def forget(self, node: int) -> None:
        """It fell away: greet it anew when it is back."""
        self.known.discard(node)
        self.declined.pop(node, None)
        self.of = {party: other for party, other in self.of.items() if other != node}


class GridTransport:
    """Parties by name over a grid of node ids."""

    def __init__(
        self,
        grid: Grid,
        parties: tuple[str, ...],
        greeter: Greeter,
        *,
        patience: float = 60.0,
        grace: float = 0.0,
        short: float = float("inf"),
        watch: Watch | None = None,
        memory: Path | None = None,
        held: bool = False,
        timing: ServerTiming = ServerTiming(),  # noqa: B008 (frozen)
        settled: float = SETTLED,
    ) -> None:
        """Greet the nodes that are there, and wait for those that are not.

        Args:
            grid: Flower's.
            parties: names; nodes that prove another one are not listened to.
            greeter: asks who they are.
            patience: seconds to wait at first until all have come.
            grace: seconds for which an exchange waits for a party that fell away.
            short: seconds that an exchange other than training may take, whatever its timeout.
            watch: told who is here, and who answers.
            memory: file that remembers which node was asked last for which party.
            held: whether the SuperLink keeps a question for answers until there are some (`coordinator.waiting`).
            timing: how often it looks for nodes, and when it asks again.
            settled: seconds after the last greeting, after which no node is new where there is no grace.
        """
        self._grid, self._parties, self._greeter = grid, parties, greeter
        self._grace, self._short, self._watch, self._held = grace, short, watch or Unwatched(), held
        self._timing, self._nodes = timing, _Nodes()
        self._memory, self._before = memory, _remembered(memory)
        self._looked = 0.0
        self._usual: dict[str, float] = {}  # seconds that an answer took in the middle, by message kind
        self._away = dict.fromkeys(parties, time.monotonic())
        deadline, asked = time.monotonic() + patience, time.monotonic()
        self._look()
        while len(self._nodes.of) < len(parties) and time.monotonic() < deadline:
            self._pull({})
            asked = time.monotonic() if self._nodes.asked or not self._nodes.known else asked
            if not grace and time.monotonic() - asked > settled:
                break  # all nodes there are have said who they are, and nobody falls away or comes back
            if len(self._nodes.of) < len(parties):
                time.sleep(PULL_EVERY)
                self._look()
        self._watch.here(self.members())

    def members(self) -> list[str]:
        """Parties that have a node, sorted."""
        return sorted(self._nodes.of)

    def exchange(
        self, kind: str, requests: Mapping[str, RecordDict], *, timeout: float
    ) -> dict[str, RecordDict | Exception]:
        """See `partbook.plan.transport.Transport`."""
        began = heard = time.monotonic()
        if kind != wire.TRAIN:
            timeout = min(timeout, self._short)
        self._look()
        self._watch.asked(kind, sorted(requests), sum(map(size_of, requests.values())))
        waiting = {party: _Asked(content, began) for party, content in requests.items() if party in self._parties}
        answers: dict[str, RecordDict | Exception] = {}
        took_each: list[float] = []
        messages: dict[str, str] = {}  # message id: party

        def told(party: str, answer: RecordDict | Exception) -> None:
            answers[party] = answer
            del waiting[party]
            received, seconds = 0 if isinstance(answer, Exception) else size_of(answer), time.monotonic() - began
            took_each.append(seconds)
            self._watch.answered(kind, party, seconds, received, _refusal(answer))

        while waiting:
            cpu = time.thread_time()
            self._ask(kind, waiting, messages)
            looked = time.monotonic()
            replies = self._pull(messages)
            # What it takes to fetch answers says nothing about how busy the SuperLink is.
            took, heard = (0.0, looked) if replies else (time.monotonic() - looked, heard)
            for identifier, reply in replies.items():
                party = messages.pop(identifier)
                if party not in waiting:
                    continue
                if reply.has_error() and reply.error.code in _AWAY:
                    self._lost(waiting[party], reply)
                elif reply.has_error():
                    told(party, NodeFailed(f"The node failed ({reply.error.reason}); its own log says why."))
                else:
                    told(party, reply.content)
            now = time.monotonic()
            for party, asked in list(waiting.items()):
                if asked.node is not None or party in self._nodes.of or self._greeting(now):
                    continue  # asked, about to be asked, or perhaps the one that is saying who it is
                if now - self._away.get(party, began) >= self._grace:
                    told(party, NodeFailed(f"{party} {asked.reason}.{self._strangers()}"))
            if now - began >= timeout:
                break
            if waiting:
                if not (self._held and (replies or took >= HELD)):
                    ease = min(EASED, max(EASE * took, WORK * (time.thread_time() - cpu)))
                    time.sleep(max(PULL_EVERY, min(PULL_SELDOM, LAG * (now - heard)), ease))
                self._look()
        if took_each:
            self._usual[kind] = median(took_each)
        for party in waiting:
            answers[party] = NodeFailed(f"{party} did not answer in {timeout:g} s.")
            self._watch.answered(kind, party, timeout, 0, f"no answer in {timeout:g} s")
        return answers

    def _ask(self, kind: str, waiting: Mapping[str, _Asked], messages: dict[str, str]) -> None:
        """Send to whoever has a node and was not asked yet, or has been silent for long."""
        now = time.monotonic()
        due: list[tuple[str, int, RecordDict]] = []
        for party, asked in waiting.items():
            node = self._nodes.of.get(party)
            if node is None:
                continue
            if asked.node is None or asked.node != node:
                asked.node, asked.wait = node, self._silent_for(kind)
            elif now < asked.repeat or not self._grace:
                continue  # where nobody falls away and comes back, nothing is lost, and slow is not silent
            else:
                log.info("asking %s again for %s", party, kind)
                asked.wait *= 2
            asked.repeat = now + asked.wait
            due.append((party, node, asked.content))
        # One push for each content: a shared one is sent to the SuperLink once, and others need not lie here together.
        groups: dict[int, list[tuple[str, int, RecordDict]]] = {}
        for entry in due:
            groups.setdefault(id(entry[2]), []).append(entry)
        for group in groups.values():
            pushed = list(self._grid.push_messages([Message(content, node, kind) for _, node, content in group]))
            for (party, node, _), identifier in zip(group, pushed or [""] * len(group), strict=True):
                if identifier:
                    messages[identifier] = party
                else:
                    self._nodes.forget(node)
                    waiting[party].node = None

    def _silent_for(self, kind: str) -> float:
        """Seconds without an answer to a question of a kind, after which it is asked again."""
        longest = self._timing.repeat_after
        return min(longest, max(self._timing.repeat_soon, UNUSUAL * self._usual.get(kind, longest)))

    def _pull(self, messages: Mapping[str, str]) -> dict[str, Message]:
        """Answers to these messages that are there; answers to greetings are dealt with on the way."""
        wanted = {*messages, *self._nodes.asked}
        found: dict[str, Message] = {}
        for reply in self._grid.pull_messages(sorted(wanted)) if wanted else ():
            identifier = reply.metadata.reply_to_message_id
            if identifier in self._nodes.asked:
                self._greeted(*self._nodes.asked.pop(identifier), reply)
            elif identifier in messages:
                found[identifier] = reply
        return found

    def _look(self) -> None:
        """Greet nodes that are new, or back; forget those that left."""
        now = time.monotonic()
        if now - self._looked < self._timing.look_every and self._looked:
            return
        self._looked = now
        online = set(self._grid.get_node_ids())
        before = self.members()
        again = {node for node, (when, _) in self._nodes.declined.items() if now - when >= GREET_AGAIN}
        for node in (self._nodes.known - online) | again:
            self._nodes.forget(node)
        self._mark(before)
        for node in sorted(online - self._nodes.known):
            nonce = secrets.token_hex(16)
            (identifier,) = self._grid.push_messages(
                [Message(wire.pack([self._greeter.question(nonce)]), node, wire.HELLO)]
            ) or (None,)
            if identifier:
                self._nodes.known.add(node)
                self._nodes.asked[identifier] = (node, nonce, now)

    def _greeted(self, node: int, nonce: str, _when: float, reply: Message) -> None:
        if reply.has_error() and reply.error.code in _AWAY:
            self._nodes.forget(node)
            return
        try:
            if reply.has_error():
                raise NodeFailed(f"It failed ({reply.error.reason}); its own log says why.")
            wire.raise_refusal(reply.content, f"node {node}")
            (answer,), _ = wire.unpack(reply.content)
            found = self._greeter.read(answer, nonce)
        except PartbookError as error:
            log.warning("node %d is not listened to: %s", node, error)
            self._nodes.declined[node] = (time.monotonic(), str(error))
            self._watch.answered(wire.HELLO, f"node {node}", 0.0, 0, str(error))
            return
        if found.party not in self._parties:
            log.warning("node %d is %s, whom these rounds do not need", node, found.party)
        elif found.party in self._nodes.of:
            log.warning("a second node says with %s's signature that it is %s; it is not used", *[found.party] * 2)
        elif self._before.get(found.party, node) in self._saying() - {node}:
            self._nodes.forget(node)  # greeted again once the one that was asked before has said who it is
        else:
            before = self.members()
            self._nodes.of[found.party] = node
            self._remember(found.party, node)
            self._mark(before)
            log.info("%s is here, Partbook %s, clock %+d s", found.party, found.version, found.clock)

    def _remember(self, party: str, node: int) -> None:
        if self._before.get(party) != node:
            self._before[party] = node
            if self._memory is not None:
                replace_file(self._memory, json.dumps(self._before, sort_keys=True).encode())

    def _greeting(self, now: float) -> bool:
        """Whether a node was asked just now who it is: it may be the one that is missed."""
        return bool(self._saying(now))

    def _saying(self, now: float | None = None) -> set[int]:
        """Nodes that were asked just now who they are."""
        now = time.monotonic() if now is None else now
        return {node for node, _, when in self._nodes.asked.values() if now - when < ANSWERS_WITHIN}

    def _strangers(self) -> str:
        """What nodes said that did not prove who they are: one of them may be the party that is missed."""
        return "".join(f" A node did not say who it is: {why}" for _, why in self._nodes.declined.values())

    def _lost(self, asked: _Asked, reply: Message) -> None:
        before = self.members()
        if asked.node is not None:
            self._nodes.forget(asked.node)
        asked.node, asked.reason = None, f"fell away ({reply.error.reason})"
        self._looked = 0.0  # it may be back already
        self._mark(before)

    def _mark(self, before: list[str]) -> None:
        """Remember since when who is away, and tell."""
        now, after = time.monotonic(), self.members()
        for party in set(before) - set(after):
            self._away[party] = now
        for party in after:
            self._away.pop(party, None)
        if before != after:
            self._watch.here(after)


def _remembered(path: Path | None) -> dict[str, int]:
    """Which node was which party's; nothing where the file is missing or broken: it only settles who comes first."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        if path is not None:
            return {str(party): int(node) for party, node in json.loads(path.read_text()).items()}
    return {}


def size_of(content: RecordDict) -> int:
    """Bytes of what a content holds; Flower's envelope is not counted."""
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    texts = 0
    for record in content.config_records.values():
        for value in record.values():
            parts = value if isinstance(value, list) else [value]
            texts += sum(len(part) if isinstance(part, bytes | str) else 8 for part in parts)
    return arrays + texts


def _refusal(answer: RecordDict | Exception) -> str | None:
    if isinstance(answer, Exception):
        return str(answer)
    record = answer.config_records.get("refusal")
    return None if record is None else f"{record.get('error')!s}: {record.get('reason')!s}"[:600]

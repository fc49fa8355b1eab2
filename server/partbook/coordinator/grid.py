"""The Transport over a Flower Grid: the same in a simulation and over a SuperLink.

Replies are matched by the message they answer, never by the sender they claim (an error reply can carry a wrong
one), so a node can only ever answer for itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from partbook.errors import NodeFailed, PartbookError
from partbook.plan import wire

ENROL_TIMEOUT = 60.0  # seconds for all nodes to say who they are


class GridTransport:
    """Members by name over a grid of node ids."""

    def __init__(self, grid: Grid, expected: tuple[str, ...], *, patience: float = 60.0) -> None:
        """Find the nodes of the expected members.

        Args:
            grid: Flower's.
            expected: members' names; nodes that give another are not listened to.
            patience: seconds to wait until all have come.
        """
        self._grid = grid
        self._nodes: dict[str, int] = {}
        deadline = time.monotonic() + patience
        while True:
            self._enrol(expected)
            if len(self._nodes) == len(expected) or time.monotonic() >= deadline:
                break
            time.sleep(0.5)

    def members(self) -> list[str]:
        """Members that have answered `hello`, sorted."""
        return sorted(self._nodes)

    def exchange(
        self, kind: str, requests: Mapping[str, RecordDict], *, timeout: float
    ) -> dict[str, RecordDict | Exception]:
        """See `partbook.plan.transport.Transport`."""
        nodes = {self._nodes[member]: content for member, content in requests.items() if member in self._nodes}
        names = {node: member for member, node in self._nodes.items()}
        return {names[node]: answer for node, answer in self._send(kind, nodes, timeout).items()}

    def _enrol(self, expected: tuple[str, ...]) -> None:
        unknown = [node for node in self._grid.get_node_ids() if node not in self._nodes.values()]
        answers = self._send(wire.HELLO, {node: wire.pack_hello() for node in unknown}, ENROL_TIMEOUT)
        for node, answer in answers.items():
            if isinstance(answer, Exception):
                continue
            try:
                name = wire.unpack_member(answer)
            except PartbookError:
                continue
            if name in expected and name not in self._nodes:
                self._nodes[name] = node

    def _send(self, kind: str, contents: Mapping[int, RecordDict], timeout: float) -> dict[int, RecordDict | Exception]:
        pushed = [Message(content, node, kind) for node, content in contents.items()]
        if not pushed:
            return {}
        ids = list(self._grid.push_messages(pushed))
        asked = dict(zip(ids, contents, strict=True))
        waiting, answers = set(ids), dict[int, RecordDict | Exception]()
        deadline = time.monotonic() + timeout
        while waiting and time.monotonic() < deadline:
            for reply in self._grid.pull_messages(sorted(waiting)):
                request = reply.metadata.reply_to_message_id
                if request not in waiting:
                    continue
                waiting.discard(request)
                answers[asked[request]] = _content(reply)
            if waiting:
                time.sleep(0.05)
        return answers


def _content(reply: Message) -> RecordDict | Exception:
    if reply.has_error():
        return NodeFailed(f"The node failed ({reply.error.reason}); its own log says why.")
    return reply.content

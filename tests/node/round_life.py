"""A whole noisy round of three labels, in which one label's process is killed at each of its writes.

python round_life.py BASE FOLDER [everything]   prints how many ends there were, by kind of write; what is written is
                                                torn as well where it says so
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kill_points import Say, Tear, kill_everywhere, unharmed
from trio import MEMBERS, STEPS, Play, Trio

from partbook.model.checkpoint import load_tokenizer
from partbook.node.label import LabelNode
from partbook.plan.training import DistributedDp

ALTO = MEMBERS[0]
NOISY = DistributedDp(noise_multiplier=1.5, sampling=1.0, batch=3.0, clip=0.5)


class Doomed:
    """Alto's node: all that it is asked is answered by it alone, and told when it has been."""

    def __init__(self, node: LabelNode, say: Say) -> None:
        self._node, self._say = node, say

    def __getattr__(self, name: str) -> object:
        method = getattr(self._node, name)
        if name not in (*STEPS, "train", "proceed"):
            return method

        def asked(*given: object) -> object:
            answer = method(*given)
            told = hashlib.sha256(self._node._vector.tobytes()).hexdigest() if name == "contribute" else ""
            self._say(f"{name} {told}".strip())
            return answer

        return asked


class Sheltered:
    """Another label's node, on another machine."""

    def __init__(self, node: LabelNode) -> None:
        self._node = node

    def __getattr__(self, name: str) -> object:
        method = getattr(self._node, name)

        def asked(*given: object) -> object:
            with unharmed():
                return method(*given)

        return asked


def main(base: Path, folder: Path, tear: Tear) -> None:
    trio = Trio.build(folder / "trio", base, load_tokenizer(base))
    start, nodes = folder / "start", {}

    def nodes_at(place: Path) -> dict[str, LabelNode]:
        return trio.nodes(place, seed=None)

    for node in nodes_at(start).values():  # a ledger in its first state, which is another test's matter
        node.close()
    first, second = trio.plan(training=NOISY), trio.plan(training=NOISY, nonce="1" * 32)

    def live(place: Path, say: Say) -> None:
        with unharmed():
            nodes.update(nodes_at(place))
            others = {member: Sheltered(nodes[member]) for member in MEMBERS[1:]}
            played = Play(trio, {ALTO: Doomed(nodes[ALTO], say), **others}, first)
        played.train().play()

    def check(place: Path, said: list[str]) -> None:
        again = nodes_at(place)
        ledger, question = again[ALTO]._ledger, first.question()
        contributed = [line.split()[1] for line in said if line.startswith("contribute ")]
        if contributed:
            assert ledger.state(question) == "committed", "what has left is paid for"
        elif "train" in said:
            assert ledger.state(question) in ("reserved", "committed")
        if "reveal" in said or (again[ALTO]._round is not None and again[ALTO]._round.revealed):
            return  # the attempt has to be finished; another one is refused, which test_label.py shows
        if any(node._round is not None and node._round.revealed for node in again.values()):
            return
        played = Play(trio, again, second).train().play()
        assert played.sum().any()
        debits = [debit for debit in ledger.debits() if debit.question == question]
        assert [debit.state for debit in debits] == ["committed"], "paid once"
        sent = hashlib.sha256(again[ALTO]._vector.tobytes()).hexdigest()
        assert not contributed or contributed == [sent], "a retry sends the same bytes"
        for node in again.values():
            node.close()

    print(json.dumps(kill_everywhere(start, folder / "lives", live, check, tear=tear)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "everything" if sys.argv[3:] == ["everything"] else "nothing")

"""The life of a ledger, ended at every write there is. Run as a script by `test_ledger_kills`.

python ledger_life.py kill FOLDER [everything]   prints how many ends it came to, by kind of write, as JSON; files that
                                                 are about to be flushed are torn as well where it says so
python ledger_life.py race FOLDER                two processes want the last of a budget at once, again and again
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from kill_points import Say, Tear, kill_everywhere

from partbook.errors import BudgetExhausted
from partbook.node.ledger import Ledger
from partbook.node.policy import Policy
from partbook.privacy.accounting import epsilon
from partbook.privacy.events import NoisySum, Repeated

KEY = bytes(range(32))
EVENTS = (Repeated(NoisySum(2.0, 0.5), 3),)
POLICY = Policy(epsilon_recording=20.0)
RACES = 12


def _reserve(ledger: Ledger, question: str) -> None:
    if ledger.state(question) == "committed":  # its answer is kept, and nothing is trained for it again
        return
    ledger.reserve("folk", "its key", int(question[1:]), question, f"plan of {question}", EVENTS, policy=POLICY)


# What is done, and the facts that it leaves.
LIFE: list[tuple[Callable[[Ledger], object], list[str]]] = [
    (lambda ledger: ledger.join(["a", "b"]), ["joined a", "joined b"]),
    (lambda ledger: _reserve(ledger, "q1"), ["reserved q1"]),
    (lambda ledger: ledger.commit("q1", "answer"), ["committed q1"]),
    (lambda ledger: _reserve(ledger, "q2"), ["reserved q2"]),
    (lambda ledger: ledger.release("q2"), ["released q2"]),
    (lambda ledger: ledger.join(["a", "b", "c"]), ["joined c"]),
    (lambda ledger: _reserve(ledger, "q3"), ["reserved q3"]),
    (lambda ledger: ledger.withdraw("b"), ["withdrawn b"]),
    (lambda ledger: ledger.commit("q3"), ["committed q3"]),
    (lambda ledger: _reserve(ledger, "q4"), ["reserved q4"]),
]
AFTER = {"q1": "committed", "q2": "released", "q3": "committed", "q4": "reserved"}


def live(place: Path, say: Say) -> None:
    with Ledger.open(place / "ledger.sqlite", KEY) as ledger:
        for number, (act, _) in enumerate(LIFE, 1):
            act(ledger)
            say(str(number))


def facts(ledger: Ledger) -> list[str]:
    return [
        f"{row.body['kind']} {row.body.get('recording') or row.body.get('question')}" for row in ledger.entries()[1:]
    ]


def check(place: Path, said: list[str]) -> None:
    returned = len(said)
    steps = [left for _, left in LIFE]
    with Ledger.open(place / "ledger.sqlite", KEY) as ledger:  # the chain holds, or this raises
        found = facts(ledger)
        # Every step that returned is there, the one it was ended in is there or not, as a whole, and nothing is twice.
        allowed = [list(chain.from_iterable(steps[:count])) for count in (returned, returned + 1)]
        assert found in allowed, f"after {returned} steps: {found}"
        for act, _ in LIFE:
            act(ledger)
        assert {question: ledger.state(question) for question in AFTER} == AFTER
        assert ledger.withdrawn == {"b"}
        once = [fact for fact in facts(ledger) if "q2" not in fact]
        assert len(once) == len(set(once)), "doing it all again put something down twice"
        assert ledger.spent(POLICY.delta).epsilon_reserved_too == epsilon([Repeated(EVENTS[0].event, 9)], POLICY.delta)


def race(folder: Path) -> None:
    once, twice = (epsilon([Repeated(EVENTS[0].event, 3 * times)], 1e-6) for times in (1, 2))
    policy = Policy(epsilon_recording=(once + twice) / 2)  # enough for one of them
    for number in range(RACES):
        path = folder / f"{number}.sqlite"
        with Ledger.open(path, KEY) as ledger:
            ledger.join(["a"])
        reading, writing = os.pipe()
        children = []
        for name in ("left", "right"):
            child = os.fork()
            if not child:
                os.close(writing)
                with Ledger.open(path, KEY) as ledger:
                    os.read(reading, 1)  # both go when the pipe is closed
                    try:
                        ledger.reserve("folk", "its key", 1, name, "plan", EVENTS, policy=policy)
                    except BudgetExhausted:
                        os._exit(7)
                    os._exit(0)
            children.append(child)
        os.close(writing)
        os.close(reading)
        codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
        assert codes == [0, 7], codes
        with Ledger.open(path, KEY) as ledger:
            assert ledger.rounds("folk") == 1


if __name__ == "__main__":
    epsilon([Repeated(EVENTS[0].event, 9)], POLICY.delta)  # loads in this process what every life needs
    what, place = sys.argv[1], Path(sys.argv[2])
    if what == "race":
        race(place)
    else:
        (place / "nothing").mkdir()
        tear: Tear = "everything" if sys.argv[3:] == ["everything"] else "pages"
        print(json.dumps(kill_everywhere(place / "nothing", place, live, check, tear=tear)))

"""`kill -9` of every process at every exchange: rounds go on, nothing is spent twice, and the model is right.

One federation lives through all of it as long as no test fails; each test can be run by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from quartet import MEMBERS, Quartet, Standing

EXCHANGES = (
    "train",
    "query.advertise",
    "query.share",
    "query.contribute",
    "query.confirm",
    "query.reveal",
    "query.apply",
    "query.endorse",
    "query.publish",
)
PROCESSES = ("serverapp", "superlink", "superexec", "front")

pytestmark = pytest.mark.timeout(900)  # a federation of real processes, several rounds a test


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, tiny_base, tiny_tokenizer) -> Iterator[Standing]:
    def build(stack: ExitStack) -> Quartet:
        quartet = Quartet(tmp_path_factory.mktemp("kills"), tiny_base, tiny_tokenizer)
        stack.enter_context(quartet.federation)
        return quartet.up()

    standing = Standing(build)
    yield standing
    standing.end()


def victim_of(index: int) -> str:
    # The first to be asked for the model is asked alone.
    return MEMBERS[0] if EXCHANGES[index] == "query.publish" else MEMBERS[index % 3]


def order(quartet: Quartet, index: int) -> None:
    """Before the node has done anything about the message, and after it has done all but answer, in turns."""
    quartet.order(victim_of(index), f"kill {EXCHANGES[index]} {('received', 'answering')[index % 2]}")


@pytest.mark.parametrize("index", range(len(EXCHANGES)), ids=EXCHANGES)
def test_a_round_survives_a_node_killed_in_every_exchange(index: int, quartet: Quartet, successor: str | None) -> None:
    # All in one round: the next victim has its order before the one that died lets the round go on.
    if not quartet.under_way:
        order(quartet, index)
        quartet.begin()
    quartet.dies(victim_of(index))
    if successor:
        order(quartet, index + 1)
    quartet.back(victim_of(index))
    if not successor:
        quartet.finish()
    quartet.left_to = successor


def test_a_round_survives_a_custodian_killed_before_and_after_it_opened_the_sum(quartet: Quartet) -> None:
    quartet.order("Custodian", "kill query.open received")
    quartet.begin()
    quartet.dies("Custodian")
    quartet.order("Custodian", "kill query.open answering")
    quartet.back("Custodian")
    quartet.dies("Custodian")
    quartet.back("Custodian")
    quartet.finish()


@pytest.mark.parametrize("place", range(len(PROCESSES)), ids=PROCESSES)
def test_a_round_survives_a_killed(place: int, quartet: Quartet, successor: str | None) -> None:
    # Four rounds in one run, and one of the coordinator's processes dies in each.
    if not quartet.under_way:
        quartet.begin(len(PROCESSES) - place)
    quartet.reaches("query.share", quartet.rounds - len(PROCESSES) + 1 + place)
    quartet.federation.kill(PROCESSES[place])
    if not successor:
        quartet.finish()
    quartet.left_to = successor


def test_a_round_survives_a_coordinators_machine_that_loses_power(quartet: Quartet) -> None:
    quartet.begin()
    quartet.reaches("query.confirm")
    federation = quartet.federation
    victims = [federation.pid(name) for name in ("superlink", "superexec", "front", "serverapp", "run")]
    assert all(victims)
    federation.kill("coordinator")
    federation.kill("run")
    federation.until("everything is gone", lambda: not any(map(alive, victims)))
    federation.start_coordinator()
    federation.start_run()
    quartet.finish()


def test_in_the_end_the_model_is_right_and_every_round_was_spent_once(quartet: Quartet) -> None:
    federation = quartet.federation
    if quartet.rounds == 0:
        quartet.begin()
        quartet.finish()
    for member in MEMBERS:
        assert federation.stop(member) == 0
    rounds = list(range(1, quartet.rounds + 1))
    assert quartet.spent() == dict.fromkeys(MEMBERS, rounds)
    assert quartet.model_is_right()


def alive(process: int | None) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

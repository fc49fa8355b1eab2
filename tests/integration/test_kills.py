"""`kill -9` of every process at every exchange: rounds go on, nothing is spent twice, and the model is right.

One federation lives through all of it, a round a test, so the order of the tests matters.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from quartet import MEMBERS, Quartet

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

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def quartet(tmp_path_factory: pytest.TempPathFactory, tiny_base, tiny_tokenizer) -> Iterator[Quartet]:
    quartet = Quartet(tmp_path_factory.mktemp("kills"), tiny_base, tiny_tokenizer)
    with quartet.federation:
        yield quartet.up()


@pytest.mark.parametrize("index", range(len(EXCHANGES)), ids=EXCHANGES)
def test_a_round_survives_a_node_killed_in(index: int, quartet: Quartet) -> None:
    # Before the node has done anything about the message, and after it has done all but answer, in turns.
    victim, when = MEMBERS[index % 3], ("received", "answering")[index % 2]
    if EXCHANGES[index] == "query.publish":
        victim = MEMBERS[0]  # the first to be asked
    quartet.order(victim, f"kill {EXCHANGES[index]} {when}")
    quartet.begin()
    quartet.dies(victim)
    quartet.back(victim)
    quartet.finish()


def test_a_round_survives_a_killed_custodian(quartet: Quartet) -> None:
    for when in ("received", "answering"):
        quartet.order("Custodian", f"kill query.open {when}")
        quartet.begin()
        quartet.dies("Custodian")
        quartet.back("Custodian")
        quartet.finish()


@pytest.mark.parametrize("process", ["serverapp", "superlink", "superexec", "front"])
def test_a_round_survives_a_killed(process: str, quartet: Quartet) -> None:
    quartet.begin()
    quartet.reaches("query.share")
    quartet.federation.kill(process)
    quartet.finish()


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

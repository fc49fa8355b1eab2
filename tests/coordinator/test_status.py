"""What an operator is told: true, quick, and honest where nothing is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from partbook.coordinator.checkpoints import RoundRecord
from partbook.coordinator.rounds import Progress
from partbook.coordinator.standing import PartyStanding, Spending, Status
from partbook.coordinator.status import EVERY, StatusWriter, read_status, table
from partbook.coordinator.status_table import size, spell
from partbook.errors import AlteredFile
from partbook.privacy.events import NoisySum, Repeated, Unprotected, to_json

MEMBERS = ("Alto", "Bass", "Tenor")
NOISY = to_json((Repeated(NoisySum(1.2, 0.2, 1e-9, 1e-20)),))
BARE = to_json((Repeated(Unprotected()),))


def record(number: int, cost: str = NOISY, **values: object) -> RoundRecord:
    spent = {"colluders": cost, "outsiders": cost} if number else {}
    return replace(
        RoundRecord(number, "0" * 64, MEMBERS, 4.0, 0.5, {"Bach": 1.5 - 0.1 * number}, spent=spent), **values
    )


def checkpoint(state: Path, *records: RoundRecord) -> None:
    """What the rounds leave behind, as far as it is read here."""
    state.mkdir(parents=True, exist_ok=True)
    head = {"federation": "trio", "base": "0" * 64, "history": [asdict(each) for each in records]}
    (state / "state.json").write_text(json.dumps(head))


def page(status: Status, width: int = 80, now: float | None = None) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"), legacy_windows=False)  # noqa: SIM115
    console.print(table(status, now))
    return console.export_text()


def writer(state: Path, **values: object) -> StatusWriter:
    return StatusWriter(state, federation="trio", mode="masked", rounds=4, parties=MEMBERS, board=False, **values)


def test_before_any_run_nothing_is_known_and_the_table_says_so(tmp_path: Path) -> None:
    status = read_status(tmp_path)
    assert not status.known
    assert "Nothing is known yet" in page(status)


def test_who_was_asked_and_has_not_answered_is_named_until_they_do(tmp_path: Path) -> None:
    with writer(tmp_path) as watch:
        watch.here(["Alto", "Bass"])
        watch.progress(Progress(1, 4, "train"))
        watch.asked("train", MEMBERS, 3000)
        watch.answered("train", "Alto", 0.2, 500, None)
    status = read_status(tmp_path)
    assert (status.exchange, status.stage, status.round) == ("train", "train", 1)
    assert {name: party.asked for name, party in status.parties.items()} == {
        "Alto": None,
        "Bass": "train",
        "Tenor": "train",
    }
    assert [status.parties[name].here for name in MEMBERS] == [True, True, False]
    assert (status.sent, status.received, status.parties["Alto"].received) == (3000, 500, 500)


def test_a_refusal_is_shown_in_its_round_and_gone_in_the_next(tmp_path: Path) -> None:
    with writer(tmp_path) as watch:
        watch.here(MEMBERS)
        watch.progress(Progress(1, 4, "train"))
        watch.asked("train", MEMBERS, 0)
        watch.answered("train", "Bass", 0.1, 0, "BudgetExhausted: \x1b[2Jε 8.1 asked,\n8 allowed")
        during = read_status_soon(tmp_path, lambda status: status.refusals == 1)
        watch.progress(Progress(2, 4, "train"))
    assert during.parties["Bass"].refusal == "BudgetExhausted:  [2Jε 8.1 asked, 8 allowed"
    assert "\x1b[2J" not in page(during)
    assert "BudgetExhausted" in page(during)
    after = read_status(tmp_path)
    assert after.parties["Bass"].refusal is None
    assert after.refusals == 1


def test_a_node_that_proved_to_be_nobody_is_no_party(tmp_path: Path) -> None:
    with writer(tmp_path) as watch:
        for node in range(20):
            watch.answered("query.hello", f"node {node}", 0.0, 0, "WrongClock: 400 s ahead")
    status = read_status(tmp_path)
    assert set(status.parties) == set(MEMBERS)
    assert list(status.strangers) == [f"node {node}" for node in range(12, 20)]


def test_an_answer_is_late_when_it_takes_twice_as_long_as_usual(tmp_path: Path) -> None:
    asked = PartyStanding(here=True, since=0.0, asked="train", asked_at=100.0)
    status = Status(parties={"Bass": asked}, recent={"train": (9.0, 10.0, 11.0)}, exchange="train", written=1.0)
    assert not status.late("Bass", 119.0)
    assert status.late("Bass", 121.0)
    assert "late, asked 21 s ago" in page(status, now=121.0)
    assert not replace(status, recent={}).late("Bass", 1e6), "nobody knows what is usual"
    about = status.about(121.0)
    assert (about["late"], about["seconds"], about["silent"]) == (["Bass"], {"train": 10.0}, None)
    json.dumps(about, allow_nan=False)


def test_every_finished_round_is_on_the_disk_when_the_next_begins(tmp_path: Path) -> None:
    with writer(tmp_path) as watch:
        for number in range(5):
            watch.progress(Progress(number, 4, "done", record(number)))
            status = read_status(tmp_path)
            assert status.finished == number
            assert status.validation_round == number
    assert status.complete
    assert not status.stale
    assert status.round_seconds == 4.0
    assert status.eta(time.time()) == 0


def test_epsilon_is_what_the_accountant_says_and_what_it_will_be(tmp_path: Path) -> None:
    from partbook.coordinator.privacy import statement

    history = [record(number) for number in range(5)]
    with writer(tmp_path) as watch:
        for each in history[:3]:
            watch.progress(Progress(each.round, 4, "done", each))
        status = read_status_soon(tmp_path, lambda found: found.privacy is not None and found.privacy.rounds == 2)
        assert status.privacy is not None
        assert status.privacy.colluders == statement(history[:3], (), 1e-6).colluders
        assert status.privacy.planned_colluders == statement(history, (), 1e-6).colluders
        for each in history[3:]:
            watch.progress(Progress(each.round, 4, "done", each))
        last = read_status(tmp_path).privacy
    assert last is not None
    assert last.rounds == 4, "after the last round nothing is left to a thread"
    assert last.colluders == last.planned_colluders == status.privacy.planned_colluders


def test_rounds_without_noise_have_no_bound(tmp_path: Path) -> None:
    with writer(tmp_path) as watch:
        for number in range(5):
            watch.progress(Progress(number, 4, "done", record(number, BARE)))
    status = read_status(tmp_path)
    assert status.privacy == Spending(1e-6, 4, None, None, None, None)
    assert "no bound" in page(status)
    json.loads((tmp_path / "status.json").read_text(), parse_constant=pytest.fail)


def test_rounds_that_were_given_up_are_counted_with_what_they_cost(tmp_path: Path) -> None:
    checkpoint(tmp_path, record(0), record(1))
    lost = {"rounds": [{"round": 2, "spent": {"colluders": NOISY, "outsiders": NOISY}}]}
    (tmp_path / "given-up.json").write_text(json.dumps(lost))
    with writer(tmp_path):
        status = read_status_soon(tmp_path, lambda found: found.given_up == 1)
    assert status.privacy is not None
    assert status.privacy.rounds == 2
    assert "1 given up" in page(status)


def test_a_later_run_goes_on_counting_where_the_earlier_one_ended(tmp_path: Path) -> None:
    with writer(tmp_path) as watch:
        watch.here(MEMBERS)
        watch.asked("train", MEMBERS, 3000)
        for name in MEMBERS:
            watch.answered("train", name, 0.1, 100, None)
    checkpoint(tmp_path, record(0), record(1))
    with writer(tmp_path) as watch:
        watch.asked("train", MEMBERS, 3000)
    status = read_status(tmp_path)
    assert (status.sent, status.received, status.finished) == (6000, 300, 1)
    assert status.parties["Alto"].sent == 2000
    assert not status.parties["Alto"].here, "nobody has greeted this run yet"
    assert len(status.recent["train"]) == 1


def test_another_federation_does_not_inherit_the_counts(tmp_path: Path) -> None:
    with writer(tmp_path) as watch:
        watch.asked("train", MEMBERS, 3000)
    with StatusWriter(tmp_path, federation="quartet", board=False):
        assert read_status_soon(tmp_path, lambda found: found.federation == "quartet").sent == 0


def test_sealed_rounds_are_scored_by_what_the_release_left_in_the_checkpoint(tmp_path: Path) -> None:
    bare = [replace(record(number), validation={}) for number in range(1, 5)]
    with writer(tmp_path) as watch:
        for each in (record(0), *bare):
            watch.progress(Progress(each.round, 4, "done", each))
    assert read_status(tmp_path).validation_round == 0
    checkpoint(tmp_path, record(0), *bare[:-1], record(4))
    status = read_status(tmp_path)
    assert (status.validation_round, status.validation) == (4, record(4).validation)


def test_it_is_written_at_most_twice_a_second_however_much_is_told(tmp_path: Path) -> None:
    seen: set[int] = set()
    began, over = time.monotonic(), threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            seen.add((tmp_path / "status.json").stat().st_ino if (tmp_path / "status.json").exists() else 0)

    looker = threading.Thread(target=look)
    looker.start()
    with writer(tmp_path) as watch:
        while time.monotonic() - began < 1.2:
            watch.here(MEMBERS)
            watch.answered("query.share", "Alto", 0.0, 1, None)
            time.sleep(0.001)
        over.set()
        looker.join()
    assert len(seen - {0}) <= (time.monotonic() - began) / EVERY + 2


def test_a_disk_that_refuses_stops_no_round(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with writer(tmp_path) as watch:
        read_status_soon(tmp_path, lambda status: status.known)
        (tmp_path / "status.json").unlink()
        (tmp_path / "status.json").mkdir()
        watch.progress(Progress(0, 4, "done", record(0)))
        watch.progress(Progress(1, 4, "done", record(1)))
    path = tmp_path / "status.json"
    assert len([record for record in caplog.records if isinstance(record.args, tuple) and path in record.args]) == 1


def test_a_file_that_is_not_ours_is_named(tmp_path: Path) -> None:
    for text in ("", "[]", '{"format": 2}', '{"format": 1, "rounds": "many"}'):
        (tmp_path / "status.json").write_text(text)
        with pytest.raises(AlteredFile, match=r"status\.json is not what Partbook writes"):
            read_status(tmp_path)


def test_a_process_that_was_killed_is_not_said_to_be_at_work(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom partbook.coordinator.status import StatusWriter\n"
        "watch = StatusWriter(pathlib.Path(sys.argv[1]), federation='trio', rounds=4, parties=['Alto'], board=False)\n"
        "watch.here(['Alto']); watch.asked('train', ['Alto'], 1); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        status = read_status_soon(tmp_path, lambda found: found.exchange == "train")
        assert not status.stale
        process.kill()
        process.wait()
        status = read_status(tmp_path)
    finally:
        process.kill()
        process.wait()
    assert status.silent is not None
    assert "has ended" in status.silent
    assert status.eta(time.time()) is None
    assert "This is how things were" in page(status)
    assert "● here" not in page(status)


def test_a_file_from_elsewhere_counts_as_long_as_it_is_fresh(tmp_path: Path) -> None:
    with writer(tmp_path):
        read_status_soon(tmp_path, lambda status: status.known)
    found = json.loads((tmp_path / "status.json").read_text())
    for age, silent in ((5.0, False), (300.0, True)):
        elsewhere = {**found, "host": "elsewhere", "written": time.time() - age}
        (tmp_path / "status.json").write_text(json.dumps(elsewhere))
        assert read_status(tmp_path).stale == silent


def test_what_a_run_ended_with_is_told_also_where_nobody_closed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom partbook.coordinator.status import StatusWriter\n"
        "watch = StatusWriter(pathlib.Path(sys.argv[1]), federation='trio', parties=['Alto'], board=False)\n"
        "watch.answered('train', 'Alto', 1.0, 0, 'NodePaused: paused')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert read_status(tmp_path).parties["Alto"].refusal == "NodePaused: paused"


@pytest.mark.parametrize("width", [80, 120])
def test_the_page_fits_its_width(width: int) -> None:
    name = "Société Générale des Enregistrements Phonographiques"
    party = PartyStanding(True, 0.0, "query.contribute", 1.0, None, "CohortRefused: " + 30 * "too few ", 10**12, 10**12)
    status = Status(
        federation=4 * name,
        mode="sealed",
        round=999,
        rounds=1000,
        finished=998,
        stage="query.contribute",
        exchange="query.contribute",
        exchange_since=1.0,
        parties={name: party, "Bass": replace(party, refusal=None)},
        recent={"query.contribute": (1.0,)},
        recent_rounds=(86_000.0,),
        validation={name: 1.0, "b": 2.0},
        validation_round=3,
        privacy=Spending(1e-6, 998, 12.3456, 10.1, 99.9, 80.0),
        written=1.0,
    )
    text = page(status, width, now=3601.0)
    assert all(len(line) <= width for line in text.splitlines())
    assert "CohortRefused" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (4.21, "4.2 s"), (59, "59 s"), (730, "12 min"), (12_000, "3 h 20 min"), (400_000, "4 d 15 h")],
)
def test_durations_are_said_in_one_or_two_units(seconds: float, text: str) -> None:
    assert spell(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB")])
def test_sizes_are_said_in_decimal_units(count: int, text: str) -> None:
    assert size(count) == text


def read_status_soon(state: Path, found: object) -> Status:
    """The first status of which something is true."""
    assert callable(found)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = read_status(state)
        if found(status):
            return status
        time.sleep(0.02)
    raise AssertionError("it was never written")

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flushes import watched
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from partbook.errors import BudgetExhausted, InputError, LedgerBroken, StalePlan, VaultError
from partbook.node.chain import Chain
from partbook.node.ledger import Ledger
from partbook.node.policy import Policy
from partbook.privacy.accounting import epsilon
from partbook.privacy.events import NoisySum, Repeated, Unprotected

KEY = bytes(range(32))
CHEAP = (Repeated(NoisySum(4.0, 0.1)),)
DEAR = (Repeated(NoisySum(1.0, 0.5), 2),)
OPEN = (Repeated(Unprotected()),)
POLICY = Policy()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """A new ledger in which two recordings count."""
    with Ledger.open(path, KEY) as opened:
        opened.join(["a", "b"])
        yield opened


def reserve(ledger: Ledger, question: str, events=CHEAP, *, federation="folk", policy=POLICY, round=1) -> None:
    ledger.reserve(federation, "its key", round, question, "plan", events, policy=policy)


def pay(ledger: Ledger, question: str, events=CHEAP, **more) -> None:
    reserve(ledger, question, events, **more)
    ledger.commit(question)


# ---------------------------------------------------------------------- what is spent


def test_epsilon_is_that_of_all_events_together(ledger: Ledger) -> None:
    pay(ledger, "q1", CHEAP)
    pay(ledger, "q2", DEAR)
    reserve(ledger, "q3", CHEAP)
    spent = ledger.spent(1e-6)
    assert spent.epsilon_committed == pytest.approx(epsilon([*CHEAP, *DEAR], 1e-6))
    assert spent.epsilon_reserved_too == pytest.approx(epsilon([*CHEAP, *DEAR, *CHEAP], 1e-6))
    assert (spent.rounds, ledger.rounds("folk"), ledger.rounds("jazz")) == (3, 3, 0)
    assert ledger.rounds("folk", besides="q3") == 2


def test_a_round_that_would_overspend_is_refused_with_what_is_spent_asked_and_left(ledger: Ledger) -> None:
    policy = Policy(epsilon_recording=2.0)
    pay(ledger, "q1", policy=policy)
    before, after = (epsilon([Repeated(NoisySum(4.0, 0.1))], 1e-6), epsilon([*CHEAP, *DEAR], 1e-6))
    with pytest.raises(BudgetExhausted) as refusal:
        reserve(ledger, "q2", DEAR, policy=policy, round=7)
    text = str(refusal.value)
    figures = (f"ε = {before:.4g}", f"to {after:.4g}", f"{2 - before:.4g} is left")
    for part in ("Round 7", "'folk'", "recording a…", "epsilon_federation", "allows 2", "δ = 1e-06", *figures):
        assert part in text
    assert ledger.state("q2") == "unknown"
    reserve(ledger, "q3", policy=policy)  # a cheaper one still fits


def test_each_federation_has_its_own_limit_and_all_have_one_together(ledger: Ledger) -> None:
    one = epsilon(CHEAP, 1e-6)
    policy = Policy(epsilon_federation=1.05 * one, epsilon_recording=1.01 * epsilon([*CHEAP, *CHEAP], 1e-6))
    pay(ledger, "q1", federation="folk", policy=policy)
    with pytest.raises(BudgetExhausted, match=r"`epsilon_federation` .* left in this federation"):
        reserve(ledger, "q2", federation="folk", policy=policy)
    pay(ledger, "q3", federation="jazz", policy=policy)
    with pytest.raises(BudgetExhausted, match=r"`epsilon_recording` .* left over all federations"):
        pay(ledger, "q4", federation="blues", policy=policy)


def test_rounds_without_noise_need_limits_that_are_infinite(ledger: Ledger) -> None:
    with pytest.raises(BudgetExhausted, match="to inf"):
        reserve(ledger, "q1", OPEN)
    with pytest.raises(BudgetExhausted, match="epsilon_recording"):
        reserve(ledger, "q1", OPEN, policy=Policy(epsilon_federation=float("inf")))
    pay(ledger, "q1", OPEN, policy=Policy(epsilon_recording=float("inf")))
    assert ledger.spent(1e-6).epsilon_committed == float("inf")
    with pytest.raises(BudgetExhausted):
        reserve(ledger, "q2", CHEAP)


def test_a_recording_that_joined_later_has_spent_less(ledger: Ledger) -> None:
    pay(ledger, "q1")
    reserve(ledger, "q2")
    assert ledger.join(["a", "c"]) == ("a", "c")
    ledger.commit("q2")
    pay(ledger, "q3")
    assert [debit.question for debit in ledger.charged("a")] == ["q1", "q2", "q3"]
    # q2 was not sent yet when c came, so it may have been trained on c.
    assert [debit.question for debit in ledger.charged("c")] == ["q2", "q3"]
    assert ledger.spent(1e-6).recording == "a"
    assert ledger.spent(1e-6, recording="c").rounds == 2


def test_a_withdrawn_recording_spends_no_more_and_never_joins_again(ledger: Ledger) -> None:
    pay(ledger, "q1")
    ledger.withdraw("a")
    ledger.withdraw("a")
    pay(ledger, "q2")
    assert [debit.question for debit in ledger.charged("a")] == ["q1"]
    assert ledger.join(["a", "b"]) == ("b",)
    assert ledger.withdrawn == {"a"}
    assert ledger.spent(1e-6).recording == "b"
    ledger.withdraw("never seen")
    assert ledger.join(["never seen"]) == ()
    ledger.withdraw("b")
    with pytest.raises(InputError, match="No recording counts"):
        reserve(ledger, "q3")


def test_a_reservation_counts_until_it_is_released(ledger: Ledger) -> None:
    policy = Policy(epsilon_recording=1.1 * epsilon(DEAR, 1e-6))
    reserve(ledger, "q1", DEAR, policy=policy)
    with pytest.raises(BudgetExhausted):
        reserve(ledger, "q2", DEAR, policy=policy)
    ledger.release("q1")
    ledger.release("q1")
    pay(ledger, "q2", DEAR, policy=policy)
    with pytest.raises(BudgetExhausted):
        reserve(ledger, "q1", DEAR, policy=policy)  # it must fit anew


def test_a_question_is_paid_for_once_however_often_it_is_asked(ledger: Ledger) -> None:
    for _ in range(3):
        reserve(ledger, "q1", DEAR)
    with pytest.raises(StalePlan, match="fixed since"):
        reserve(ledger, "q1", OPEN, policy=Policy(epsilon_recording=float("inf")))
    almost = (Repeated(NoisySum(1.0, 0.5, tail=1e-27), 2),)
    reserve(ledger, "q1", almost)  # an attempt with more members: the noise is the same
    for _ in range(3):
        ledger.commit("q1")
    assert ledger.rounds("folk") == 1
    assert len(ledger.entries()) == 1 + 2 + 2


def test_a_question_has_one_answer(path: Path, ledger: Ledger) -> None:
    reserve(ledger, "q1")
    ledger.commit("q1", "ab" * 32)
    ledger.commit("q1", "ab" * 32)  # a retry sends the same bytes
    with pytest.raises(StalePlan, match="answered already"):
        reserve(ledger, "q1")
    with Ledger.open(path, KEY) as other, pytest.raises(LedgerBroken, match="Another vector"):
        other.commit("q1", "cd" * 32)


def test_what_was_not_reserved_is_not_sent_and_what_was_sent_stays_spent(ledger: Ledger) -> None:
    with pytest.raises(LedgerBroken, match="it is unknown"):
        ledger.commit("q1")
    with pytest.raises(LedgerBroken, match="unknown"):
        ledger.release("q1")
    reserve(ledger, "q1")
    ledger.release("q1")
    with pytest.raises(LedgerBroken, match="released"):
        ledger.commit("q1")
    pay(ledger, "q2")
    with pytest.raises(LedgerBroken, match="stays spent"):
        ledger.release("q2")


def test_two_processes_see_each_others_facts(path: Path, ledger: Ledger) -> None:
    with Ledger.open(path, KEY) as other:
        pay(other, "q1")
        assert ledger.state("q1") == "committed"
        ledger.withdraw("a")
        assert other.join(["a", "b"]) == ("b",)
        assert other.entries() == ledger.entries()
        assert other.head == ledger.head


# ---------------------------------------------------------------------- what may happen to the file


def rewrite(path: Path, *statements: str) -> None:
    """What somebody with an SQLite editor and no key does."""
    with sqlite3.connect(path) as database:
        for trigger in ("rows_stay", "rows_last", "rows_follow"):
            database.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            database.execute(statement)
    database.close()


@pytest.fixture
def written(path: Path) -> Path:
    """A closed ledger of six rows."""
    with Ledger.open(path, KEY) as ledger:
        ledger.join(["a"])
        pay(ledger, "q1")
        pay(ledger, "q2")
    return path


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE rows SET body = replace(body, '4.0', '9.0') WHERE number = 3", "Row 3 "),
        ("UPDATE rows SET body = CAST(replace(body, '4.0', '9.0') AS BLOB) WHERE number = 3", "Row 3 "),
        ("UPDATE rows SET mac = zeroblob(32) WHERE number = 6", "Row 6 "),
        ("DELETE FROM rows WHERE number = 4", "Row 4 "),
        ("DELETE FROM rows WHERE number > 4", "ends at row 4, but ledger.sqlite.head names row 6"),
        ("DELETE FROM rows", "ends at row 0"),
        ("INSERT INTO rows SELECT 7, body, mac FROM rows WHERE number = 6", "Row 7 "),
        ("DROP TABLE rows", "no such table"),
    ],
)
def test_an_altered_ledger_is_named_as_broken_with_the_row(written: Path, statement: str, said: str) -> None:
    rewrite(written, statement)
    with pytest.raises(LedgerBroken, match=said):
        Ledger.open(written, KEY)


def test_another_vaults_key_does_not_open_it(written: Path) -> None:
    with pytest.raises(LedgerBroken, match="another key"):
        Ledger.open(written, bytes(32))


def test_another_vaults_ledger_in_its_place_is_refused(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    Ledger.open(other, bytes(32)).close()
    shutil.copy(other, written)
    with pytest.raises(LedgerBroken, match="Row 1 "):
        Ledger.open(written, KEY)


def test_an_older_copy_of_it_is_refused(path: Path, tmp_path: Path) -> None:
    with Ledger.open(path, KEY) as ledger:
        ledger.join(["a"])
        pay(ledger, "q1")
    shutil.copy(path, tmp_path / "backup")
    with Ledger.open(path, KEY) as ledger:
        pay(ledger, "q2")
    shutil.copy(tmp_path / "backup", path)
    with pytest.raises(LedgerBroken, match="older copy"):
        Ledger.open(path, KEY)


def test_a_new_one_is_not_begun_where_one_was(written: Path) -> None:
    written.unlink()
    with pytest.raises(LedgerBroken, match="is gone"):
        Ledger.open(written, KEY)


def test_a_lost_head_is_named_with_the_line_that_mends_it(written: Path) -> None:
    head = written.with_name("ledger.sqlite.head")
    line = head.read_text()
    head.unlink()
    with pytest.raises(LedgerBroken, match="write this line into it") as error:
        Ledger.open(written, KEY)
    assert line.strip() in str(error.value)
    head.write_text(line)
    Ledger.open(written, KEY).close()
    head.write_text("six\n")
    with pytest.raises(LedgerBroken, match="head is not what was written"):
        Ledger.open(written, KEY)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_short_is_refused(written: Path, share: float) -> None:
    os.truncate(written, int(written.stat().st_size * share))
    with pytest.raises(LedgerBroken, match=r"restore|Restore"):
        Ledger.open(written, KEY)


def test_something_else_in_its_place_is_refused(written: Path) -> None:
    written.write_bytes(b"the minutes of the meeting\n" * 400)
    with pytest.raises(LedgerBroken, match="Restore it"):
        Ledger.open(written, KEY)


def test_rows_are_neither_changed_nor_removed_by_mistake(written: Path) -> None:
    with sqlite3.connect(written) as database:
        for statement in (
            "UPDATE rows SET body = ''",
            "DELETE FROM rows",
            "INSERT INTO rows VALUES (99, '', '')",
            "INSERT OR REPLACE INTO rows SELECT number, '', '' FROM rows",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="of a ledger are"):
                database.execute(statement)


def pay_until_it_breaks(ledger: Ledger) -> None:
    for number in range(3, 1000):
        pay(ledger, f"q{number}", policy=Policy(epsilon_recording=float("inf")))


def test_on_a_full_disk_nothing_is_reserved_and_nothing_is_lost(written: Path) -> None:
    with Ledger.open(written, KEY) as ledger:
        before = ledger.entries()
        size = max(p.stat().st_size for p in written.parent.iterdir())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(VaultError, match="room"):
                pay_until_it_breaks(ledger)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        kept = ledger.entries()
        assert kept[: len(before)] == before
        pay(ledger, "later", policy=Policy(epsilon_recording=float("inf")))
    with Ledger.open(written, KEY) as ledger:
        assert ledger.entries()[: len(kept)] == kept


READ_ONLY = """
import os, sys
from pathlib import Path
from partbook.errors import VaultError
from partbook.node.ledger import Ledger
if not os.getuid():
    os.setuid(65534)  # nothing is closed to root
try:
    Ledger.open(Path(sys.argv[1]), bytes(range(32)))
except VaultError as error:
    print(type(error).__name__, error)
"""


def test_a_fact_is_flushed_when_its_call_returns(path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    database = ledger._chain._db
    assert database is not None
    assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert database.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert database.execute("PRAGMA fullfsync").fetchone()[0] == 1
    with monkeypatch.context() as patch:
        seen = watched(patch)
        pay(ledger, "q1")
    head = f"{len(path.with_name('ledger.sqlite.head').read_bytes())} bytes"
    named = ["named ledger.sqlite.head", f"folder {path.parent.name}"]
    assert seen == [head, *named, head, *named], "the head names a debit only after it is there"


def test_where_it_may_not_be_written_it_says_so(written: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for file in written.parent.iterdir():
            os.chmod(shutil.copy(file, folder), 0o444)
        os.chmod(folder, 0o555)  # noqa: S103 (for all to read, for none to write)
        command = [sys.executable, "-c", READ_ONLY, f"{folder}/ledger.sqlite"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        os.chmod(folder, 0o700)
    assert "VaultError The ledger" in done.stdout, done.stderr
    assert "cannot be written (Permission denied)" in done.stdout


def test_thousands_of_rows_are_checked_in_a_moment(path: Path) -> None:
    import time

    with Ledger.open(path, KEY) as ledger:
        ledger.join([f"{number:064x}" for number in range(5000)])
    begun = time.process_time()
    seen: list[int] = []
    Chain.open(path, KEY, lambda row: seen.append(row.number)).close()
    assert seen == list(range(1, 5002))
    assert time.process_time() - begun < 2.0


# ---------------------------------------------------------------------- against a model that has no rows

NAMES = st.sampled_from(["a", "b", "c", "d"])
QUESTIONS = st.sampled_from([f"q{number}" for number in range(6)])
FEDERATIONS = {f"q{number}": ("folk", "jazz")[number % 2] for number in range(6)}
EVENTS = {f"q{number}": (CHEAP, DEAR)[number // 3] for number in range(6)}
LIMITS = Policy(epsilon_recording=9.0, epsilon_federation=6.5)


class LedgerAgainstModel(RuleBasedStateMachine):
    """Each recording of the model holds the questions that it pays for; nothing else is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)  # noqa: S108
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.ledger = Ledger.open(self.path, KEY)
        self.pays: dict[str, set[str]] = {}
        self.staying: set[str] = set()
        self.gone: set[str] = set()
        self.states: dict[str, str] = {}

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    @initialize(names=st.sets(NAMES, min_size=1))
    def begin(self, names: set[str]) -> None:
        self.join(names)

    @rule(names=st.sets(NAMES))
    def join(self, names: set[str]) -> None:
        assert self.ledger.join(sorted(names)) == tuple(sorted(names - self.gone))
        for name in names - self.staying - self.gone:
            self.staying.add(name)
            self.pays[name] = {question for question, state in self.states.items() if state == "reserved"}

    @rule(name=NAMES)
    def withdraw(self, name: str) -> None:
        self.ledger.withdraw(name)
        self.gone.add(name)
        self.staying.discard(name)

    @rule(question=QUESTIONS)
    def reserve(self, question: str) -> None:
        allowed: type[Exception] | None = StalePlan if self.states.get(question) == "committed" else None
        if self.states.get(question) not in ("reserved", "committed"):
            allowed = InputError if not self.staying else BudgetExhausted if self.too_dear(question) else None
        if allowed:
            with pytest.raises(allowed):
                reserve(self.ledger, question, EVENTS[question], federation=FEDERATIONS[question], policy=LIMITS)
            return
        reserve(self.ledger, question, EVENTS[question], federation=FEDERATIONS[question], policy=LIMITS)
        if self.states.get(question) != "reserved":
            self.states[question] = "reserved"
            for name in self.staying:
                self.pays[name].add(question)

    @rule(question=QUESTIONS)
    def commit(self, question: str) -> None:
        if self.states.get(question) in ("reserved", "committed"):
            self.ledger.commit(question)
            self.states[question] = "committed"
        else:
            with pytest.raises(LedgerBroken):
                self.ledger.commit(question)

    @rule(question=QUESTIONS)
    def release(self, question: str) -> None:
        if self.states.get(question) in ("reserved", "released"):
            self.ledger.release(question)
            self.states[question] = "released"
            for paid in self.pays.values():
                paid.discard(question)
        else:
            with pytest.raises(LedgerBroken):
                self.ledger.release(question)

    @rule()
    def end_and_begin_again(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.path, KEY)

    @invariant()
    def they_agree(self) -> None:
        for question in FEDERATIONS:
            assert self.ledger.state(question) == self.states.get(question, "unknown")
        for name in "abcd":
            assert {debit.question for debit in self.ledger.charged(name)} == self.pays.get(name, set())
        assert self.ledger.withdrawn == self.gone
        if self.staying:
            most = max(self.price(self.pays[name]) for name in self.staying)
            assert self.ledger.spent(LIMITS.delta).epsilon_reserved_too == pytest.approx(most)
            assert most <= LIMITS.epsilon_recording

    def price(self, questions: set[str]) -> float:
        events = [item for question in sorted(questions) for item in EVENTS[question]]
        return epsilon(events, LIMITS.delta) if events else 0.0

    def too_dear(self, question: str) -> bool:
        for name in self.staying:
            all_of_it = self.pays[name] | {question}
            here = {one for one in all_of_it if FEDERATIONS[one] == FEDERATIONS[question]}
            if self.price(all_of_it) > LIMITS.epsilon_recording or self.price(here) > LIMITS.epsilon_federation:
                return True
        return False


TestLedgerAgainstModel = LedgerAgainstModel.TestCase
TestLedgerAgainstModel.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)

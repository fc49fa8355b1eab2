"""What every recording of this label has lost so far in privacy, kept where no coordinator can reach it.

    with Ledger.open(vault / "ledger.sqlite", key) as ledger:
        ids = ledger.join(vault.ids())                          # those that may be trained on
        ledger.reserve(..., question, ..., events, policy=...)  # before training
        ledger.commit(question)                                 # before a contribution leaves

The rows are facts (`partbook.node.chain`): a recording joined or was withdrawn; a question was reserved, committed or
released. ε is never stored, it is computed from the events each time, so that a better theorem makes old rounds
cheaper and a mended mistake makes them dearer.

Which recordings pay for a question is said in `partbook.node.debits`. The one that joined first among those still there
has paid for all that any other of them has, so to check it is to check them all (ε only grows with more events).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from partbook.errors import BudgetExhausted, InputError, LedgerBroken, StalePlan
from partbook.node.chain import Chain, Row
from partbook.node.debits import NEVER, Debit, Spent, State, Stay, price

if TYPE_CHECKING:
    from partbook.node.policy import Policy
    from partbook.privacy.events import Repeated

LEDGER_FILE: Final = "ledger.sqlite"


class Ledger:
    """An open ledger. Threads may share it, and processes may open it side by side. Use it in a `with` statement."""

    def __init__(self) -> None:
        """Use `Ledger.open`."""
        self._chain: Chain
        self._debits: dict[str, Debit] = {}  # by question
        self._stays: dict[str, Stay] = {}  # by recording, in the order they joined
        self._rows: list[Row] = []

    @classmethod
    def open(cls, path: Path, key: bytes) -> Self:
        """Open the ledger at `path`, made where there is none, and check all of it.

        Args:
            path: of the database; its folder must exist.
            key: `Vault.ledger_key`.

        Raises:
            LedgerBroken: it was altered or shortened, or belongs to another vault; the message says where.
            VaultBusy: another process does not let go of it.
            VaultError: the disk refuses.
        """
        ledger = cls()
        ledger._chain = Chain.open(path, key, ledger._take)
        return ledger

    def close(self) -> None:
        """Let go of the files. Closing twice is fine."""
        self._chain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ recordings

    def join(self, recordings: Sequence[str]) -> tuple[str, ...]:
        """Let recordings count from now on, where they do not yet. On the disk when this returns.

        Returns:
            Those of them that may be trained on: all but the withdrawn, which never come back.
        """
        with self._chain.appending() as append:
            for recording in dict.fromkeys(recordings):
                if recording not in self._stays:
                    append({"kind": "joined", "recording": recording})
            gone = self._gone()
        return tuple(recording for recording in recordings if recording not in gone)

    def withdraw(self, recording: str) -> None:
        """Let a recording count no more, for good. It need not have joined. On the disk when this returns."""
        with self._chain.appending() as append:
            if recording not in self._gone():
                append({"kind": "withdrawn", "recording": recording})

    @property
    def withdrawn(self) -> frozenset[str]:
        """Recordings that are not to be trained on any more."""
        self._chain.catch_up()
        return self._gone()

    # ------------------------------------------------------------------ questions

    def reserve(
        self,
        federation: str,
        coordinator: str,
        round: int,
        question: str,
        plan_hash: str,
        events: tuple[Repeated, ...],
        *,
        policy: Policy,
        note: str = "",
    ) -> None:
        """Put aside what a question costs, before anything is trained. On the disk when this returns.

        To reserve it again changes nothing; if it was released in between, it is reserved anew. Take what `join`
        returns after this, not before, as what to train on: a recording withdrawn in between would not have paid.

        Args:
            federation: which.
            coordinator: fingerprint of the coordinator's identity key.
            round: counted from 1.
            question: `RoundPlan.question`.
            plan_hash: the plan's.
            events: what happens to a recording (`partbook.privacy.events.events_of`, against colluders).
            policy: the limits.
            note: what it is for, in words, such as "sealed, distributed".

        Raises:
            BudgetExhausted: a recording would lose more than the policy allows; nothing was reserved.
            StalePlan: the question is committed, so nothing new may be trained for it; or it was reserved at a lower
                price than this plan's.
            InputError: no recording counts.
            UnsupportedEvent: nobody knows what it costs.
            VaultError: the disk refuses; nothing was reserved.
        """
        from partbook.privacy.events import to_json

        spelt = to_json(events)
        with self._chain.appending() as append:
            before = self._debits.get(question)
            if before is not None and before.state == "committed":
                raise StalePlan(
                    f"Round {round} of {federation!r} was answered already, and only that answer may be sent again: a "
                    "second one, with other noise, would be paid for as one. Go on with the next round."
                )
            if before is not None and before.state == "reserved":
                self._same_price(before, events, spelt, policy.delta)
                return
            self._affordable(federation, round, events, policy)
            append(
                {
                    "kind": "reserved",
                    "federation": federation,
                    "coordinator": coordinator,
                    "round": round,
                    "question": question,
                    "plan": plan_hash,
                    "note": note,
                    "events": spelt,
                }
            )

    def commit(self, question: str, answer: str = "") -> None:
        """Note that a contribution for a question is about to leave. On the disk when this returns; twice is fine.

        Args:
            question: which.
            answer: SHA-256 of the finished vector, hexadecimal: no other one leaves for this question then.

        Raises:
            LedgerBroken: it is not reserved, or another answer was given to it; nothing may leave.
            VaultError: the disk refuses; nothing may leave.
        """
        with self._chain.appending() as append:
            debit = self._debits.get(question)
            if debit is not None and debit.state == "committed":
                if debit.answer != answer:
                    raise LedgerBroken(
                        f"Another vector than this one has left for the question {question[:12]}…; two would be paid "
                        "for as one. Nothing was sent. Let one node only use this vault, and go on with the next round."
                    )
                return
            if debit is None or debit.state != "reserved":
                raise LedgerBroken(
                    f"A contribution for the question {question[:12]}… was to leave, but the ledger says it is "
                    f"{self._state(question)}. Nothing was sent. Remove what the node keeps of this round, and let it "
                    "be planned anew."
                )
            append({"kind": "committed", "question": question, "answer": answer})

    def release(self, question: str) -> None:
        """Give a reservation back. Only for a question whose vector was destroyed unsent; twice is fine.

        Raises:
            LedgerBroken: it was never reserved, or it was committed: what left the node stays spent.
            VaultError: the disk refuses; it stays reserved.
        """
        with self._chain.appending() as append:
            state = self._state(question)
            if state == "released":
                return
            if state != "reserved":
                raise LedgerBroken(
                    f"The question {question[:12]}… is {state} in the ledger and cannot be released; "
                    "what has left the node stays spent."
                )
            append({"kind": "released", "question": question})

    def state(self, question: str) -> State:
        """What became of a question."""
        self._chain.catch_up()
        return self._state(question)

    def rounds(self, federation: str, *, besides: str = "") -> int:
        """Questions of a federation that are reserved or committed, not counting the question `besides`."""
        self._chain.catch_up()
        return sum(
            debit.federation == federation and debit.state != "released" and debit.question != besides
            for debit in tuple(self._debits.values())
        )

    # ------------------------------------------------------------------ looking at it

    def spent(self, delta: float, *, federation: str | None = None, recording: str | None = None) -> Spent:
        """What a recording has spent at `delta`.

        Args:
            delta: the δ.
            federation: only in this one, or in all.
            recording: which; where None, the one that has spent most of those that may be trained on, or of all where
                none may.
        """
        self._chain.catch_up()
        stay = self._dearest() if recording is None else self._stays.get(recording, Stay(recording))
        debits = self._charged(stay, federation)
        committed = [debit for debit in debits if debit.state == "committed"]
        return Spent(price(committed, delta), price(debits, delta), len(debits), stay.recording if stay else "")

    def charged(self, recording: str) -> tuple[Debit, ...]:
        """The questions that a recording has paid for or has put aside for, in order."""
        self._chain.catch_up()
        return tuple(self._charged(self._stays.get(recording, Stay(recording)), None))

    def debits(self) -> tuple[Debit, ...]:
        """All questions ever reserved, in the order of their first reservation."""
        self._chain.catch_up()
        return tuple(self._debits.values())

    def stays(self) -> tuple[Stay, ...]:
        """All recordings that ever counted or were withdrawn."""
        self._chain.catch_up()
        return tuple(self._stays.values())

    def entries(self) -> tuple[Row, ...]:
        """All rows, as they were written."""
        self._chain.catch_up()
        return tuple(self._rows)

    @property
    def head(self) -> tuple[int, str]:
        """Number and MAC, hexadecimal, of the newest row seen: what stands before it cannot be changed any more."""
        return self._chain.head

    # ------------------------------------------------------------------ inside

    def _take(self, row: Row) -> None:
        """Put a fact that is on the disk to what is known."""
        fact, at = row.body, str(row.body["at"])
        self._rows.append(row)
        match fact["kind"]:
            case "joined":
                name = str(fact["recording"])
                self._stays[name] = replace(self._stays.get(name, Stay(name)), joined=row.number, joined_at=at)
            case "withdrawn":
                name = str(fact["recording"])
                self._stays[name] = replace(self._stays.get(name, Stay(name)), withdrawn=row.number, withdrawn_at=at)
            case "reserved":
                self._debits[str(fact["question"])] = Debit.of(row)
            case "committed" | "released" as state:
                question = str(fact["question"])
                self._debits[question] = replace(
                    self._debits[question],
                    state=state,
                    settled=row.number,
                    settled_at=at,
                    answer=str(fact.get("answer", "")),
                )
            case "opened":
                pass
            case other:
                raise LedgerBroken(
                    f"Row {row.number} of the ledger says {other!r}; a newer Partbook wrote it. Use that."
                )

    def _gone(self) -> frozenset[str]:
        return frozenset(stay.recording for stay in tuple(self._stays.values()) if stay.withdrawn < NEVER)

    def _state(self, question: str) -> State:
        debit = self._debits.get(question)
        return debit.state if debit else "unknown"

    def _dearest(self) -> Stay | None:
        """The recording that has paid for most: the first to join of those that may be trained on, or of all."""
        staying = [stay for stay in tuple(self._stays.values()) if stay.withdrawn == NEVER]
        if staying:
            return min(staying, key=lambda stay: stay.joined)
        return max(self._stays.values(), key=lambda stay: len(self._charged(stay, None)), default=None)

    def _charged(self, stay: Stay | None, federation: str | None) -> list[Debit]:
        return [
            debit
            for debit in tuple(self._debits.values())
            if stay is not None and stay.pays(debit) and federation in (None, debit.federation)
        ]

    def _affordable(self, federation: str, round: int, events: tuple[Repeated, ...], policy: Policy) -> None:
        dearest = self._dearest()
        if dearest is None or dearest.withdrawn < NEVER:
            raise InputError(
                "No recording counts in the ledger: ingest some; those that were withdrawn never come back."
            )
        for key, limit, where in (
            ("epsilon_federation", policy.epsilon_federation, federation),
            ("epsilon_recording", policy.epsilon_recording, None),
        ):
            if limit == math.inf:
                continue
            before = self._charged(dearest, where)
            after = price(before, policy.delta, events)
            if not after <= limit:
                spent, alone = price(before, policy.delta), price((), policy.delta, events)
                raise BudgetExhausted(
                    f"Round {round} of {federation!r} asks for ε = {alone:.4g} by itself; the recording "
                    f"{dearest.recording[:12]}…, which has spent most, would go from ε = {spent:.4g} to {after:.4g} at "
                    f"δ = {policy.delta:g}. `{key}` in policy.toml allows {limit:g}, so {limit - spent:.4g} is left"
                    f"{' in this federation' if where else ' over all federations'}. Raise it, or take no further part."
                )

    def _same_price(self, paid: Debit, events: tuple[Repeated, ...], spelt: str, delta: float) -> None:
        # An attempt with other members may differ in terms far below what ε is printed with; the noise may not.
        if paid.events == spelt:
            return
        before, now = price([paid], delta), price((), delta, events)
        if not now <= before * (1 + 1e-6):
            raise StalePlan(
                f"Round {paid.round} was paid for at ε = {before:.4g}, and its answer is fixed since; this attempt "
                f"would let it tell ε = {now:.4g}. Plan it with the noise it had, or go on with the next round."
            )

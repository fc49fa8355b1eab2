"""A small federation of real processes for the tests: three labels with a recording each, sealed rounds, no noise.

Without noise and with fixed seeds, whatever happened on the way, its model is that of the same rounds run in one
process without any mishap; so every test can end with "and the model is right".
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunes import recording_of, tune

from partbook.coordinator.timing import ServerTiming
from partbook.music.tokens import Tokenizer
from partbook.node.label import NodeConfig
from partbook.node.ledger import Ledger
from partbook.node.timing import PartyTiming
from partbook.plan import wire
from partbook.plan.federation import FederationConfig
from partbook.plan.training import PlainTraining, Training
from partbook.simulation.federation import simulate
from partbook.simulation.parties import enrol
from partbook.simulation.processes import COORDINATOR, ProcessFederation, Site, same_adapters
from partbook.vault.store import Vault

MEMBERS = ("Alto", "Bass", "Tenor")
PLAIN = PlainTraining(steps=1, batch=1, clip=0.5)
HERE = Path(__file__).parent

# A fifth of what a federation of weeks waits, or as near to it as the settings allow. A party's heartbeat cannot be
# hastened: a node that is killed counts as online for 20 s, unless its next life says goodbye for it.
PARTIES = PartyTiming(refused_for=25, noticed=1, longest_wait=2, call_timeout=12)
SERVER = ServerTiming(look_every=0.2, repeat_after=6, repeat_soon=1, gone_after=0.5, at_once=0.1)


@dataclass
class Quartet:
    """Three labels and a custodian, their processes, and the rounds they have done."""

    folder: Path
    base: Path
    tokenizer: Tokenizer
    members: tuple[str, ...] = MEMBERS
    training: Training = PLAIN
    threshold: int | None = None
    patience: float = 90.0
    federation: ProcessFederation = field(init=False)
    rounds: int = 0
    left_to: str | None = None  # the test that goes on with the round under way

    def __post_init__(self) -> None:
        sites: dict[str, Site] = {}
        for index, member in enumerate(self.members):
            with Vault.create(self.folder / "vaults" / member) as vault:
                vault.add(recording_of(tune(index), self.tokenizer, index), f"{index:064x}")
            sites[member] = Site(self.folder / "vaults" / member, base=self.base, seed=7)
        self.federation = ProcessFederation(
            self.folder / "processes", "quartet", sites, server_timing=SERVER, party_timing=PARTIES
        )
        for party in (*self.members, "Custodian"):
            self.federation.command[party] = [sys.executable, str(HERE / "killable.py"), str(self.orders(party))]

    def config(self, rounds: int) -> FederationConfig:
        """Its rounds."""
        anywhere = Path("filled-in-later")
        return FederationConfig(
            roster=anywhere,
            key=anywhere,
            seal_key=anywhere,
            state=anywhere,
            mode="sealed",
            rounds=rounds,
            threshold=self.threshold,
            base=self.base,
            timeout=self.patience,
            patience=self.patience,
            training=self.training,
        )

    def orders(self, party: str) -> Path:
        """What `killable` reads."""
        return self.folder / "processes" / party / "orders"

    def order(self, party: str, text: str) -> None:
        """Have a party hurt itself; see `killable`."""
        path = self.orders(party)
        draft = path.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(path)

    def up(self) -> Quartet:
        """Start everybody."""
        self.federation.configure(self.config(1))
        self.federation.start()
        return self

    @property
    def whole(self) -> bool:
        """Whether everybody runs, no round is under way, and nobody has an order that was not carried out."""
        parties, processes = (*self.members, "Custodian"), self.federation.processes
        running = (party in processes and processes[party].poll() is None for party in (COORDINATOR, *parties))
        return all(running) and not self.under_way and not any(self.orders(party).exists() for party in parties)

    @property
    def under_way(self) -> bool:
        """Whether rounds were begun and nobody has waited for them yet."""
        return "run" in self.federation.processes

    def begin(self, rounds: int = 1) -> None:
        """Start to run so many rounds more; `finish` waits."""
        self.rounds += rounds
        home = self.federation.home / "federation.toml"
        FederationConfig.read(home).model_copy(update={"rounds": self.rounds}).write(home)
        self.federation.start_run()

    def finish(self, *, timeout: float = 400.0) -> None:
        """Wait for the rounds that were begun, and check that no more and no fewer were done."""
        self.federation.finish_run(timeout=timeout)
        assert self.federation.rounds_done() == self.rounds

    def reaches(self, exchange: str, number: int | None = None) -> None:
        """Wait until a round, the last where not given, is in an exchange, or in a later one: some are short."""
        wanted = self.rounds if number is None else number

        def there() -> bool:
            assert self.federation.rounds_done() < wanted, f"round {wanted} was over before it was looked at"
            now = self.federation.status()
            place = wire.KINDS.index(now["exchange"]) if now.get("exchange") in wire.KINDS else -1
            return now.get("round") == wanted and place >= wire.KINDS.index(exchange)

        self.federation.until(f"round {wanted} reaches {exchange}", there)

    def dies(self, party: str) -> None:
        """Wait until a party has died of its orders."""
        process = self.federation.processes[party]
        self.federation.until(f"{party} dies", lambda: process.poll() is not None)
        del self.federation.processes[party]

    def back(self, party: str) -> None:
        """Start a party that was killed."""
        if party == "Custodian":
            self.federation.start_custodian()
        else:
            self.federation.start_node(party)

    def model_is_right(self) -> bool:
        """Whether its model is, bit for bit, that of the same rounds in one process without a mishap."""
        reference = self.folder / f"reference-{self.rounds}"
        keys = {member: reference / "keys" / member for member in self.members}
        parties = enrol(reference / "office", "quartet", keys)
        nodes = {
            member: parties.node(replace(self.federation.node_config(member), state=reference / member, policy=None))
            for member in self.members
        }
        config = self.config(self.rounds).model_copy(
            update={
                "roster": parties.roster,
                "key": parties.coordinator,
                "seal_key": parties.seal_key,
                "state": reference / "state",
            }
        )
        nodes = {name: replace(node, ledger=reference / name / "ledger.sqlite") for name, node in nodes.items()}
        simulate(config, nodes, parties.custodian)
        return same_adapters([self.federation.state, reference / "state"])

    def spent(self) -> Mapping[str, list[int]]:
        """Rounds that each label's ledger has committed, in order; its node must not run."""
        return {member: rounds_spent(self.federation.node_config(member)) for member in self.members}


def rounds_spent(node: NodeConfig) -> list[int]:
    """Rounds that a label's ledger has committed, in order; its node must not run."""
    with Vault.open(node.vault, node.key) as vault, Ledger.open(node.accounts, vault.ledger_key) as ledger:
        return [debit.round for debit in ledger.debits() if debit.state == "committed"]


@dataclass
class Standing:
    """The quartet of a module's tests: one for all of them while each leaves it whole, and a new one after a failure.

    Attributes:
        build: makes one that is up; what is entered into the stack ends with it.
    """

    build: Callable[[ExitStack], Quartet]
    _now: Quartet | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def quartet(self, test: str) -> Quartet:
        """A whole one for a test; in the middle of a round only where that round was left to this very test."""
        now = self._now
        if now is not None and not (now.whole if now.left_to is None else now.left_to == test):
            self.end()
        if self._now is None:
            self._now = self.build(self._stack)
        self._now.left_to = None
        return self._now

    def end(self) -> None:
        """End its processes; whoever asks next gets a new one."""
        self._now = None
        self._stack.close()

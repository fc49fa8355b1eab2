"""A federation of processes to be measured: any number of labels, a recording each, and a model small enough to be
nothing beside the protocol and its transport.

What is measured on it is what messages, masks, ciphertexts, TLS and the coordinator's processes take. Training takes
milliseconds here, and the tunes are the tests'.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from partbook.plan.federation import FederationConfig
from partbook.plan.training import DistributedDp, Training
from partbook.simulation.processes import ProcessFederation, Site, memory_of

ROOT: Final = Path(__file__).parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]  # the tunes, and the cable that can be cut

NOISY: Final = DistributedDp(noise_multiplier=4.0, sampling=0.5, batch=2.0, clip=0.5)
SERVICES: Final = ("coordinator", "superlink", "superexec", "front", "serverapp")
CUSTODIAN: Final = "Custodian"
MASKING: Final = ("query.advertise", "query.share", "query.contribute", "query.confirm", "query.reveal")


def tiny_base(folder: Path) -> Path:
    """A base model of a few thousand parameters, with its own tokeniser; made once."""
    import torch
    from tunes import TUNES, tokenizer_of, tune

    from partbook.model.checkpoint import save_base
    from partbook.model.config import ModelConfig
    from partbook.model.transformer import PartbookModel

    base = folder / "base"
    if (base / "manifest.json").exists():
        return base
    tokenizer = tokenizer_of([tune(index) for index in range(len(TUNES))], 580)
    torch.manual_seed(0)
    config = ModelConfig(len(tokenizer), width=32, layers=2, heads=2, hidden=64, context=64, adapter_rank=4)
    model = PartbookModel(config)
    model.clock.set(tokenizer)
    save_base(base, model, tokenizer, {"sources": ["tunes written for the tests"]})
    return base


def end_in_order() -> None:
    """Have SIGTERM unwind what was begun, as Ctrl-C does: no process is left behind."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


@dataclass(slots=True)
class Ensemble:
    """A federation's processes, its members' names, and the configuration of its rounds.

    Attributes:
        federation: the processes.
        members: the labels' names.
        base: the tiny model.
        training: what a round asks for.
        patience: seconds that an exchange may take.
    """

    federation: ProcessFederation
    members: tuple[str, ...]
    base: Path
    training: Training
    patience: float

    @classmethod
    def of(cls, folder: Path, members: int, training: Training = NOISY, *, patience: float = 120.0) -> Ensemble:
        """Keys, vaults and files; no process yet."""
        from tunes import recording_of, tune

        from partbook.music.tokens import Tokenizer
        from partbook.vault.store import Vault

        base = tiny_base(folder)
        tokenizer = Tokenizer.load(base / "tokenizer.json")
        names = tuple(f"Label {index + 1:02d}" for index in range(members))
        sites = {}
        for index, member in enumerate(names):
            vault = folder / "vaults" / member
            if not vault.exists():
                with Vault.create(vault) as opened:
                    opened.add(recording_of(tune(index), tokenizer, index), f"{index:064x}")
            sites[member] = Site(vault, base=base, seed=7)
        return cls(ProcessFederation(folder / "processes", "ensemble", sites), names, base, training, patience)

    @property
    def parties(self) -> tuple[str, ...]:
        """All that have a process of their own beside the coordinator's."""
        return (*self.members, CUSTODIAN)

    @property
    def everybody(self) -> tuple[str, ...]:
        """All processes there can be, by the names that `ProcessFederation.pid` takes."""
        return (*SERVICES, *self.parties, "run")

    def config(self, rounds: int) -> FederationConfig:
        """So many rounds in all."""
        anywhere = Path("filled-in-by-configure")
        return FederationConfig(
            roster=anywhere,
            key=anywhere,
            seal_key=anywhere,
            state=anywhere,
            mode="sealed",
            rounds=rounds,
            base=self.base,
            timeout=self.patience,
            patience=self.patience,
            training=self.training,
        )

    def up(self, tell: Callable[[str], None], *, at_a_time: int = 4, attempts: int = 5) -> None:
        """Start everybody, a few at a time: each loads PyTorch."""
        self.federation.configure(self.config(1), attempts=attempts)
        self.federation.start_coordinator()
        tell("the coordinator is up")
        for start in range(0, len(self.parties), at_a_time):
            some = self.parties[start : start + at_a_time]
            for party in some:
                self.start(party, wait=False)
            for party in some:
                self.federation.await_online(party)
            tell(f"{start + len(some)} of {len(self.parties)} parties are online")

    def start(self, party: str, *, wait: bool) -> None:
        """Start a party."""
        if party == CUSTODIAN:
            self.federation.start_custodian(wait=wait)
        else:
            self.federation.start_node(party, wait=wait)

    def aim(self, rounds: int) -> None:
        """So many rounds in all are to be done; `federation.start_run` does them."""
        path = self.federation.home / "federation.toml"
        FederationConfig.read(path).model_copy(update={"rounds": rounds}).write(path)

    def history(self) -> list[dict[str, Any]]:
        """Records of the finished rounds, of round 1 first."""
        try:
            found: list[dict[str, Any]] = json.loads((self.federation.state / "state.json").read_bytes())["history"]
        except OSError:
            return []
        return found[1:]

    def memory(self) -> dict[str, dict[str, int]]:
        """Bytes of every process that is alive now: `VmRSS` and `VmHWM`."""
        found = {}
        for name in self.everybody:
            process = self.federation.pid(name)
            if process is not None:
                with contextlib.suppress(OSError):  # it has just ended
                    found[name] = memory_of(process)
        return found

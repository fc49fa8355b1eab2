"""A label leaves without its recordings, and without its model."""

from dataclasses import replace
from pathlib import Path

from trio import Play, Trio

from partbook.node.leaving import leave
from partbook.node.ledger import Ledger
from partbook.vault.store import Vault


def states(trio: Trio, folder: Path, member: str) -> list[str]:
    config = trio.config(member, folder)
    with Vault.open(config.vault, config.key) as vault, Ledger.open(config.accounts, vault.ledger_key) as ledger:
        return [debit.state for debit in ledger.debits()]


def played(trio: Trio, folder: Path, steps: tuple[str, ...]) -> None:
    nodes = trio.nodes(folder)
    play = Play(trio, nodes, trio.plan()).train()
    play.play(steps)
    for node in nodes.values():
        node.close()


def test_what_was_not_handed_over_is_destroyed_and_given_back(trio: Trio, tmp_path: Path) -> None:
    played(trio, tmp_path, ("advertise",))
    config = trio.config("Alto", tmp_path)
    assert list(config.kept.glob("vector*"))
    assert leave(config) == 1
    assert not list(config.kept.glob("vector*"))
    assert "reserved" not in states(trio, tmp_path, "Alto")
    assert leave(config) == 0


def test_what_was_handed_over_stays_debited(trio: Trio, tmp_path: Path) -> None:
    played(trio, tmp_path, ("advertise", "share", "contribute"))
    config = trio.config("Alto", tmp_path)
    assert leave(config) == 0
    assert states(trio, tmp_path, "Alto")[-1] == "committed"
    assert list(config.kept.glob("vector*"))


def test_a_label_with_an_empty_vault_leaves(trio: Trio, tmp_path: Path) -> None:
    config = trio.config("Alto", tmp_path)
    with Vault.create(tmp_path / "vault"):
        pass
    assert leave(replace(config, vault=tmp_path / "vault", ledger=None)) == 0

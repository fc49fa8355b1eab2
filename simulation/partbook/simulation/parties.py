"""Keys and roster of a simulated federation: real keys in each party's own folder, a roster that all have signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Final

from partbook.custodian.opening import CustodianConfig
from partbook.errors import PartbookError
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import DOMAIN, Custodian, Member, Roster
from partbook.node.label import NodeConfig
from partbook.node.policy import POLICY_FILE, Policy
from partbook.sealing.parameters import SealPublic, SealSecret, generate

CUSTODIAN: Final = "Custodian"
ANYTHING: Final = Policy(
    epsilon_recording=inf, noise=("distributed", "local", "none"), modes=("masked", "sealed"), rounds=100_000
)
"""What a simulated label allows where the simulation is about something else."""


@dataclass(frozen=True, slots=True)
class Parties:
    """Where a federation's parties keep their keys.

    Attributes:
        roster: signed by all of them.
        coordinator: the coordinator's identity key.
        seal_key: the custodian's public key, as all have it.
        custodian: the custodian's configuration.
        folders: each member's folder of keys.
    """

    roster: Path
    coordinator: Path
    seal_key: Path
    custodian: CustodianConfig
    folders: Mapping[str, Path]

    def node(self, config: NodeConfig, policy: Policy = ANYTHING) -> NodeConfig:
        """A member's configuration with its keys filled in, and its policy written where it keeps what it keeps."""
        folder = self.folders[config.member]
        config.kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        written = config.kept / POLICY_FILE
        written.unlink(missing_ok=True)
        policy.write(written)
        return replace(
            config,
            roster=self.roster,
            identity=folder / "identity.pem",
            receiving=folder / "receiving.pem",
            seal_key=self.seal_key,
            policy=written,
        )


def enrol(folder: Path, federation: str, members: Mapping[str, Path]) -> Parties:
    """Make what is missing of a federation's keys, and its roster.

    Args:
        folder: for the coordinator's and the custodian's keys, and for the roster.
        federation: its name.
        members: each member's folder of keys.
    """
    office = folder / "custodian"
    parties = Parties(
        folder / "roster.toml",
        folder / "coordinator.pem",
        folder / "custodian.seal.public",
        CustodianConfig(
            CUSTODIAN, folder / "roster.toml", office / "identity.pem", office / "seal.secret", office / "opened.json"
        ),
        dict(members),
    )
    if not _stands(parties, federation):
        _write(parties, federation)
    return parties


def _stands(parties: Parties, federation: str) -> bool:
    """Whether a roster of just these members is there, with the keys it lists and the secrets behind them."""
    try:
        roster = Roster.read(parties.roster)
        names = tuple(member.name for member in roster.members)
        custodian = roster.custodian
        return (
            (roster.federation, names) == (federation, tuple(sorted(parties.folders)))
            and custodian is not None
            and SealPublic.read(parties.seal_key, custodian.seal_key) is not None
            and SealSecret.read(parties.custodian.secret, None).key_id == custodian.seal_key
            and IdentityKey.load(parties.custodian.identity).public == custodian.identity
            and IdentityKey.load(parties.coordinator).public == roster.coordinator
            and all(
                (IdentityKey.load(folder / "identity.pem").public, ReceivingKey.load(folder / "receiving.pem").public)
                == (roster.member(name).identity, roster.member(name).receiving)
                for name, folder in parties.folders.items()
            )
        )
    except PartbookError:
        return False


def _write(parties: Parties, federation: str) -> None:
    office = parties.custodian
    office.secret.parent.mkdir(parents=True, exist_ok=True)
    # What the record says was opened was opened with the old key.
    for path in (office.secret, parties.seal_key, office.record):
        path.unlink(missing_ok=True)
    secret, public = generate()
    secret.write(office.secret, None)
    public.write(parties.seal_key)
    keys = {name: _identity(folder / "identity.pem") for name, folder in parties.folders.items()}
    everyone = {**keys, COORDINATOR: _identity(parties.coordinator), CUSTODIAN: _identity(office.identity)}
    entries = [
        Member(name, key.public, _receiving(parties.folders[name] / "receiving.pem").public)
        for name, key in sorted(keys.items())
    ]
    roster = Roster(
        federation,
        1,
        everyone[COORDINATOR].public,
        tuple(entries),
        Custodian(CUSTODIAN, everyone[CUSTODIAN].public, public.key_id),
    )
    signatures = {name: key.sign(roster.canonical, DOMAIN) for name, key in everyone.items()}
    replace(roster, signatures=signatures).write(parties.roster)


def _identity(path: Path) -> IdentityKey:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        IdentityKey.generate().save(path)
    return IdentityKey.load(path)


def _receiving(path: Path) -> ReceivingKey:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        ReceivingKey.generate().save(path)
    return ReceivingKey.load(path)

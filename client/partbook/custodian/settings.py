"""A custodian's configuration: `custodian.toml`.

    name = "Custodian"                        its name in the roster
    coordinator = "federation.example.org:9443"
    roster = "roster.toml"                    signed by all, and pinned
    identity = "keys/Custodian.pem"           signs for it
    secret = "keys/Custodian.seal.secret"     opens sums
    record = "opened.json"                    what it opened; without it a round could be opened twice
    state = "state"                           holds the lock of the running process
    tls = "tls"
    [timing]                                  optional; see `partbook.node.timing`

Paths are relative to the file.
"""

from __future__ import annotations

from pathlib import Path

from partbook.custodian.opening import CustodianConfig
from partbook.node.settings import PartyName, PartySettings


class CustodianSettings(PartySettings):
    """`custodian.toml`."""

    name: PartyName
    secret: Path
    record: Path = Path("opened.json")

    @property
    def custodian(self) -> CustodianConfig:
        """For `Custodian`."""
        return CustodianConfig(self.name, self.roster, self.identity, self.secret, self.record)

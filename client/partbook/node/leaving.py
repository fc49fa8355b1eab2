"""A label leaves: what it trained and has not handed over is destroyed, and what that cost is given back.

It needs neither the model nor the recordings, so a label whose vault is empty by now can leave as well.
"""

from __future__ import annotations

import json

from partbook.identity.roster import Roster
from partbook.node.keeping import Keeping
from partbook.node.label import EXCHANGE, VECTOR, NodeConfig, split
from partbook.node.ledger import Ledger
from partbook.vault.store import Vault


def leave(config: NodeConfig) -> int:
    """Destroy a vector that never left, and only then give back what was reserved; returns for how many rounds.

    What was handed over stays kept and debited. The node must not run (`only_one`).

    Raises:
        VaultError: the vault cannot be opened, the ledger is broken, or the disk refuses.
        UnsignedRoster, ConfigError: the roster cannot be used.
    """
    federation = Roster.read(config.roster).federation
    with Vault.open(config.vault, config.key) as vault, Ledger.open(config.accounts, vault.ledger_key) as ledger:
        kept = Keeping(config.kept, vault.rounds_key)
        vector = kept.get(VECTOR)
        question = "" if vector is None else str(json.loads(split(vector)[0])["question"])
        reserved = [d.question for d in ledger.debits() if d.federation == federation and d.state == "reserved"]
        if question in reserved:
            kept.remove(EXCHANGE)
            kept.remove(VECTOR)
        for each in reserved:
            ledger.release(each)
        return len(reserved)

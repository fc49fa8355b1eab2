"""A withdrawal, ended at every write there is. Run as a script by `test_withdrawal`.

python withdrawal_life.py FOLDER [everything]   prints how many ends it came to, by kind of write, as JSON; files that
                                                are about to be flushed are torn as well where it says so
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from kill_points import Say, Tear, kill_everywhere

from partbook.errors import WithdrawnRecording
from partbook.identity.keys import IdentityKey
from partbook.music.notes import Notes
from partbook.music.recording import Recording
from partbook.node.ledger import Ledger
from partbook.node.policy import Policy
from partbook.node.withdrawal import certify, find, keep_certificate, verify_certificate, withdraw
from partbook.privacy.accounting import epsilon
from partbook.privacy.events import NoisySum, Repeated
from partbook.vault.store import Vault

EVENTS = (Repeated(NoisySum(2.0, 0.5)),)
AUDIO = {"the one": "1" * 64, "another": "2" * 64}
FILE = "3" * 64
DELTA = 1e-6


def recording(title: str) -> Recording:
    """A recording of one note."""
    one = Notes.from_rows([(0.0, 1.0, 60, 90)])
    ids, starts = np.array([5, 6], dtype=np.int16), np.zeros(1, dtype=np.int64)
    return Recording(title, 1.0, one, ids, starts, np.zeros(1, dtype=np.float32), np.zeros((4, 128), dtype=np.float16))


def template(place: Path) -> str:
    """A vault of two recordings that took part in one round, and are reserved for a second. The id of "the one"."""
    with Vault.create(place / "vault") as vault:
        for title, sha256 in AUDIO.items():
            vault.add(recording(title), sha256, file_sha256=FILE if title == "the one" else None)
        with Ledger.open(place / "vault" / "ledger.sqlite", vault.ledger_key) as ledger:
            ledger.join(vault.ids())
            for question in ("q1", "q2"):
                ledger.reserve("folk", "its key", int(question[1:]), question, "plan", EVENTS, policy=Policy())
            ledger.commit("q1")
        IdentityKey.generate().save(place / "identity.pem")
        return vault.ids()[0]


def live(place: Path, say: Say) -> None:
    with (
        Vault.open(place / "vault", writable=True) as vault,
        Ledger.open(place / "vault" / "ledger.sqlite", vault.ledger_key) as ledger,
    ):
        identifier = find(vault, IDENTIFIER[:12])
        withdraw(identifier, vault, ledger)
        say("withdrawn")
        key = IdentityKey.load(place / "identity.pem")
        keep_certificate(place / "certificate", certify(identifier, ledger, member="Alto", key=key, delta=DELTA))
        say("certified")


def check(place: Path, said: list[str]) -> None:
    path = place / "vault" / "ledger.sqlite"
    with Vault.open(place / "vault") as vault, Ledger.open(path, vault.ledger_key) as ledger:
        noted, inside = IDENTIFIER in ledger.withdrawn, IDENTIFIER in vault
        assert inside != (IDENTIFIER in vault.tombstones()), "inside or refused, never both, never neither"
        assert noted or inside, "the vault let go of it before the ledger knew"
        if inside:
            assert vault.get(IDENTIFIER).title == "the one"
        if "withdrawn" in said:
            assert noted
            assert not inside
    if "certified" in said:
        verified(place)
    live(place, lambda _: None)
    with Vault.open(place / "vault", writable=True) as vault, Ledger.open(path, vault.ledger_key) as ledger:
        assert [vault.get(identifier).title for identifier in vault.ids()] == ["another"]
        assert [shard.stem for shard in (place / "vault" / "shards").iterdir()] == vault.ids()
        assert vault.withdrawn_file(FILE) == IDENTIFIER
        try:
            vault.add(recording("the one, again"), AUDIO["the one"])
        except WithdrawnRecording:
            pass
        else:
            raise AssertionError("withdrawn audio was taken again")
        kinds = [row.body["kind"] for row in ledger.entries()]
        assert kinds.count("withdrawn") == 1
        assert ledger.join(vault.ids()) == tuple(vault.ids())
    verified(place)


def verified(place: Path) -> None:
    public = IdentityKey.load(place / "identity.pem").public
    certificate = verify_certificate((place / "certificate").read_bytes(), public)
    assert certificate.recording == IDENTIFIER
    assert float(certificate.epsilon) == epsilon([Repeated(EVENTS[0].event, 2)], DELTA)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    IDENTIFIER = template(folder / "template")
    tear: Tear = "everything" if sys.argv[2:] == ["everything"] else "pages"
    print(json.dumps(kill_everywhere(folder / "template", folder, live, check, tear=tear)))

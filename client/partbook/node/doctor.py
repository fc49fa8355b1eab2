"""Is a label's machine fit to take part? Nothing is changed, and nothing leaves but one request to the coordinator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from partbook import doctor
from partbook.doctor import Check, attempt
from partbook.node.holding import running
from partbook.node.pausing import paused
from partbook.node.settings import NodeSettings, PartySettings
from partbook.probing import reach

if TYPE_CHECKING:
    from partbook.identity.roster import Roster

EXTRA: Final = "node"
_NEEDED: Final = ("flwr", "torch", "tenseal", "cryptography")


def examine(path: Path) -> list[Check]:
    """Every check of the node whose `node.toml` this is.

    Raises:
        ConfigError: the file is missing, or a key in it is wrong.
    """
    settings = NodeSettings.read(path)
    start = f"partbook node start --config {path}"
    paper, roster = doctor.roster(settings.roster)
    checks = [*doctor.versions(_NEEDED, EXTRA), *doctor.environment(os.environ)]
    checks += [doctor.gpu(settings.devices), *_disks(settings)]
    checks += [*_keys(settings), paper, doctor.identity(settings.identity, settings.member, roster)]
    if settings.seal_key is not None:
        checks.append(_seal(settings.seal_key, roster))
    checks += [_base(settings), _policy(settings), *_vault(settings), process(settings, start)]
    checks.append(doctor.certificate(settings.tls, settings.member, roster, start))
    return checks + reach(settings.coordinator, roster, settings.tls, settings.identity, settings.member)


def process(settings: PartySettings, start: str) -> Check:
    """Whether the party runs."""
    number, pause = running(settings.state), paused(settings.state)
    if pause is not None:
        return Check("process", "warn", f"paused {pause}; it trains for no plan", "partbook node resume")
    if number is None:
        return Check("process", "ok", f"not running; start it with: {start}")
    return Check("process", "ok", f"runs as process {number}")


def _disks(settings: NodeSettings) -> list[Check]:
    return [doctor.disk("disk of the vault", settings.vault), doctor.disk("disk of the state", settings.node.kept)]


def _keys(settings: NodeSettings) -> list[Check]:
    made = f"partbook keys new '{settings.member}' --out '{settings.identity.parent}'"
    found = [doctor.secret_file("identity key", settings.identity, f"Make it on this machine: {made}")]
    if settings.receiving is not None:
        found.append(doctor.secret_file("receiving key", settings.receiving, f"Make it on this machine: {made}"))
    key = settings.key or settings.vault / "vault.key"
    found.append(doctor.secret_file("vault key", key, "Restore it; without it a vault cannot be opened by anyone."))
    return found


def _seal(path: Path, roster: Roster | None) -> Check:
    from partbook.sealing.parameters import SealPublic

    custodian = None if roster is None else roster.custodian

    def look() -> str:
        SealPublic.read(path, None if custodian is None else custodian.seal_key)
        return "the custodian's, as the roster lists it" if custodian else "readable; no roster to compare it with"

    return attempt("seal key", look, "Ask the custodian for its public file.")


def _base(settings: NodeSettings) -> Check:
    from partbook.model.checkpoint import base_manifest

    def look() -> str:
        digest: str = base_manifest(settings.node.base)["files"]["model.safetensors"]
        return f"whole, {digest[:12]}…"

    return attempt("base model", look, "Install Partbook again, or restore the folder that `base` names.")


def _policy(settings: NodeSettings) -> Check:
    from partbook.node.policy import POLICY_FILE, Policy

    def look() -> Check | str:
        policy = Policy.in_force(settings.vault, settings.policy)
        text = f"ε ≤ {policy.epsilon_recording:g} a recording at δ = {policy.delta:g}, {', '.join(policy.modes)} rounds"
        if settings.policy is None and not (settings.vault / POLICY_FILE).exists():
            remedy = f"Write it down, and read it: partbook node policy --write '{settings.vault / POLICY_FILE}'"
            return Check("policy", "warn", f"none written; the careful default holds ({text})", remedy)
        return text

    return attempt("policy", look, "Mend the key that is named.")


def _vault(settings: NodeSettings) -> list[Check]:
    from partbook.vault.store import Vault

    ingest = f"partbook node ingest FOLDER --vault '{settings.vault}'"
    ledger_key: list[bytes] = []

    def look() -> Check | str:
        with Vault.open(settings.vault, settings.key) as vault:
            ledger_key.append(vault.ledger_key)
            summary = vault.summary()
        if not summary.recordings:
            return Check("vault", "fail", "it opens, and is empty", f"Bring recordings in: {ingest}")
        return f"opens; recordings: {summary.recordings}, {summary.seconds / 60:.0f} min in all"

    found = [attempt("vault", look, f"Make one, or name the right one: {ingest}")]
    if ledger_key:
        found.append(_ledger(settings.node.accounts, ledger_key[0]))
    return found


def _ledger(path: Path, key: bytes) -> Check:
    from partbook.node.ledger import Ledger

    def look() -> str:
        if not path.exists():
            return "none yet; it begins with the first round"
        with Ledger.open(path, key):
            return "opens, and every row of it is as it was written"

    return attempt(
        "ledger", look, "Do not delete it, and put no older copy in its place: that would forget what was spent."
    )

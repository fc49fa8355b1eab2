"""Is a custodian's machine fit? Nothing is changed, and nothing leaves but one request to the coordinator."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from partbook import doctor
from partbook.custodian.settings import CustodianSettings
from partbook.doctor import Check, attempt
from partbook.node.holding import running
from partbook.probing import reach

if TYPE_CHECKING:
    from partbook.identity.roster import Roster

EXTRA: Final = "node"
_NEEDED: Final = ("flwr", "tenseal", "cryptography")


def examine(path: Path) -> list[Check]:
    """Every check of the custodian whose `custodian.toml` this is.

    Raises:
        ConfigError: the file is missing, or a key in it is wrong.
    """
    settings = CustodianSettings.read(path)
    start = f"partbook custodian start --config {path}"
    paper, roster = doctor.roster(settings.roster)
    made = f"partbook keys new '{settings.name}' --out '{settings.identity.parent}'"
    checks = [*doctor.versions(_NEEDED, EXTRA), *doctor.environment(os.environ)]
    checks += [
        doctor.disk("disk of the record", settings.record.parent),
        doctor.disk("disk of the state", settings.state),
    ]
    checks.append(doctor.secret_file("identity key", settings.identity, f"Make it on this machine: {made}"))
    checks.append(doctor.secret_file("seal secret", settings.secret, "Restore it; sums sealed to it cannot be opened."))
    checks += [paper, doctor.identity(settings.identity, settings.name, roster), _listed(settings, roster)]
    checks += [_secret(settings, roster), _record(settings.record)]
    number = running(settings.state)
    said = f"runs as process {number}" if number else f"not running; start it with: {start}"
    checks.append(Check("process", "ok", said))
    checks.append(doctor.certificate(settings.tls, settings.name, roster, start))
    return checks + reach(settings.coordinator, roster, settings.tls, settings.identity, settings.name)


def _listed(settings: CustodianSettings, roster: Roster | None) -> Check:
    custodian = None if roster is None else roster.custodian
    if roster is None:
        return Check("custodian", "warn", "not compared: there is no roster")
    if custodian is None:
        return Check("custodian", "fail", "the roster names no custodian", "Its federation holds masked rounds only.")
    if custodian.name != settings.name:
        return Check(
            "custodian", "fail", f"the roster names {custodian.name!r}", "Mend `name`, or take the new roster."
        )
    return Check("custodian", "ok", f"the roster names {settings.name!r}")


def _secret(settings: CustodianSettings, roster: Roster | None) -> Check:
    from partbook.identity.passphrase import given_passphrase
    from partbook.sealing.parameters import SealSecret

    def look() -> Check | str:
        found = SealSecret.read(settings.secret, given_passphrase()).key_id
        custodian = None if roster is None else roster.custodian
        if custodian is None:
            return Check("seal", "warn", "it opens; there is no roster to compare it with")
        if custodian.seal_key != found:
            remedy = "Use the secret behind the listed key, or have the roster list this one."
            return Check(
                "seal",
                "fail",
                f"the roster lists the key {custodian.seal_key[:12]}…, and this is {found[:12]}…",
                remedy,
            )
        return "the secret behind the key that the roster lists"

    return attempt("seal", look, "Set PARTBOOK_KEY_PASSPHRASE if it is encrypted; else restore a backup.")


def _record(path: Path) -> Check:
    def look() -> Check | str:
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return "none yet; it begins with the first sum that is opened"
        except ValueError as error:
            remedy = "Mend it by hand, or make a new seal: with an older copy a round could be opened twice."
            return Check("record", "fail", f"{path} is broken ({error})", remedy)
        return f"remembers {len(found)} opened rounds"

    return attempt("record", look)

"""The next version of a roster: who comes, who goes, whose keys change, and what that asks of everybody else.

Pure: rosters and entries in, an unsigned roster and sentences out. A roster is never edited, because everybody pinned
the one they signed; a change is its next version, which all who are in *that* one sign and pin. Whoever leaves signs
nothing, and whoever lost a key signs with the new one: a signature with a lost key proves nothing. What proves that a
new key is its owner's is a voice on the telephone, never a file.

The seal's key is made anew with every change of who is a member (PROTOCOL §2). A member's new keys alone do not ask for
it: no member holds any part of the seal's secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from partbook.errors import ConfigError, DuplicateMember, ForgedMember
from partbook.identity.message import COORDINATOR
from partbook.identity.parties import Custodian, Member
from partbook.identity.roster import Roster
from partbook.identity.spoken import spoken

ENTRY_DOMAIN: Final = "partbook/v1/entry"

Kind = Literal["added", "removed", "identity", "receiving", "custodian", "seal"]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between a roster and the version before it.

    Attributes:
        kind: `added` and `removed`: a member; `identity`, `receiving`: a party's key of that kind is another;
            `custodian`: there is one now, or none, or another party; `seal`: sums are sealed to another key.
        party: whom it is about.
        sentence: the same for a reader.
    """

    kind: Kind
    party: str
    sentence: str


def entry_digits(entry: Member, seal_key: str | None = None) -> str:
    """60 digits over an entry, for its owner to read out to those who will sign the roster with it.

    They cover the name and both keys, and the id of the seal's key where the entry is the custodian's.
    """
    return spoken(ENTRY_DOMAIN, {**entry.fields(), "seal_key": seal_key})


def next_version(
    current: Roster,
    *,
    add: Sequence[Member] = (),
    remove: Sequence[str] = (),
    replace: Sequence[Member] = (),
    custodian: Member | None = None,
    seal_key: str | None = None,
) -> Roster:
    """The roster that follows `current`, which nobody has signed yet.

    Args:
        current: the one in force.
        add: new members.
        remove: names of members who leave; the custodian's name ends the sealed mode.
        replace: entries with new keys for parties that are in it: members, the custodian, or "coordinator".
        custodian: a custodian, where there was none or another party.
        seal_key: id of the seal's new public key.

    Raises:
        DuplicateMember: a name is asked for twice, or one to be added is there already, or a key is listed twice.
        ForgedMember: one to be removed or replaced is not there.
        ConfigError: nothing changes; fewer than three members are left; the seal's key has to change and does not.
    """
    _named_once([*(m.name for m in add), *remove, *(m.name for m in replace), *([custodian.name] if custodian else [])])
    members = {member.name: member for member in current.members}
    coordinator, keeper = current.coordinator, current.custodian
    for name in remove:
        if name == COORDINATOR:
            raise ConfigError("The coordinator cannot be removed; replace its key, or found another federation.")
        if keeper is not None and name == keeper.name:
            keeper = None
        elif members.pop(name, None) is None:
            raise _nobody(current, name)
    for entry in replace:
        if entry.name == COORDINATOR:
            _differ(entry, current.coordinator == entry.identity)
            coordinator = entry.identity
        elif keeper is not None and entry.name == keeper.name:
            _differ(entry, keeper.identity == entry.identity)
            keeper = Custodian(keeper.name, entry.identity, keeper.seal_key)
        elif entry.name in members:
            _differ(entry, members[entry.name] == entry)
            members[entry.name] = entry
        else:
            raise _nobody(current, entry.name)
    for entry in add:
        if entry.name in members:
            raise DuplicateMember(
                f"{entry.name!r} is in version {current.version} already; replace it if its keys are new."
            )
        members[entry.name] = entry
    if custodian is not None:
        if keeper is not None and keeper.name == custodian.name:
            raise DuplicateMember(
                f"{custodian.name!r} is the custodian of version {current.version} already; replace it if its key is "
                "new."
            )
        if seal_key is None:
            raise ConfigError(f"{custodian.name} needs a seal of its own: give the file {custodian.name}.seal.public.")
        keeper = Custodian(custodian.name, custodian.identity, seal_key)
    elif seal_key is not None:
        if keeper is None:
            raise ConfigError("A seal's key was given, but there is no custodian to hold its other half; name one.")
        keeper = Custodian(keeper.name, keeper.identity, seal_key)
    following = Roster(current.federation, current.version + 1, coordinator, tuple(members.values()), keeper)
    _seal_is_new(current, following, asked=seal_key is not None)
    if not changes(current, following):
        raise ConfigError(f"Nothing would differ from version {current.version}; say who comes, goes or has new keys.")
    return following


def changes(previous: Roster, following: Roster) -> tuple[Change, ...]:
    """What differs between two versions, members first; empty where only the version does."""
    before = {member.name: member for member in previous.members}
    after = {member.name: member for member in following.members}
    found = [Change("removed", name, f"{name} is no longer a member.") for name in before if name not in after]
    found += [Change("added", name, f"{name} is a new member.") for name in after if name not in before]
    for name in (name for name in after if name in before):
        if before[name].identity != after[name].identity:
            found.append(Change("identity", name, f"{name} signs with a new key."))
        if before[name].receiving != after[name].receiving:
            found.append(Change("receiving", name, f"What is sent to {name} alone is encrypted to a new key."))
    if previous.coordinator != following.coordinator:
        found.append(Change("identity", COORDINATOR, "The coordinator signs with a new key."))
    return (*found, *_custodians(previous.custodian, following.custodian))


def duties(previous: Roster | None, following: Roster) -> dict[str, tuple[str, ...]]:
    """What each party has to do before and after the new version is in force, by name; leavers included, last.

    Commands are those of `docs/enrolment.md`, where the order of the steps stands.
    """
    found = {
        name: [f"compares the fingerprint, signs version {following.version} and installs it"]
        for name in following.parties
    }
    if previous is None:
        return {name: tuple(steps) for name, steps in found.items()}
    changed = changes(previous, following)
    sealed_anew = following.custodian is not None and any(c.kind in ("seal", "custodian") for c in changed)
    for name in found:
        if name == COORDINATOR:
            found[name].append("lets the round under way end first, then starts again with the new file")
            if sealed_anew:
                found[name].append("puts the seal's new public key where `seal_key` in federation.toml names it")
        elif following.custodian is not None and name == following.custodian.name:
            found[name].append("starts again with the new file, and keeps its record of what was opened")
            if sealed_anew:
                found[name].append("sets `secret` in custodian.toml to the new secret key, and destroys the old one")
        else:
            found[name].append("starts its node again with the new file; vault, ledger, state and policy stay")
            if sealed_anew:
                found[name].append("puts the seal's new public key where `seal_key` in node.toml names it")
    for change in changed:
        if change.kind == "added" and following.custodian is not None:
            found[change.party].append(
                "takes the model over from another label, if sealed rounds were held (`partbook node take-over`)"
            )
        if change.kind in ("identity", "receiving") and change.party != COORDINATOR:
            note = "signs with the new key, and destroys the old keys or treats them as stolen"
            if note not in found[change.party]:
                found[change.party].append(note)
        if change.kind == "identity" and change.party == COORDINATOR:
            for member in following.members:
                found[member.name].append(
                    "sets `coordinator` in its policy.toml to the new fingerprint, where it names the old one"
                )
    for name in previous.parties:
        if name not in found:
            found[name] = ["stops; it signs nothing, and is refused from the moment the others have started again"]
    return {name: tuple(steps) for name, steps in found.items()}


def _custodians(before: Custodian | None, after: Custodian | None) -> list[Change]:
    if after is None:
        text = "There is no custodian any more: the coordinator may read sums, where a label's policy lets it."
        return [] if before is None else [Change("custodian", before.name, text)]
    if before is None or before.name != after.name:
        who = "There is a custodian now" if before is None else f"{before.name} is no longer the custodian"
        return [Change("custodian", after.name, f"{who}: sums are sealed to {after.name}.")]
    found = []
    if before.identity != after.identity:
        found.append(Change("identity", after.name, f"The custodian {after.name} signs with a new key."))
    if before.seal_key != after.seal_key:
        found.append(Change("seal", after.name, f"Sums are sealed to a new key of {after.name}'s."))
    return found


def _seal_is_new(current: Roster, following: Roster, *, asked: bool) -> None:
    before, after = current.custodian, following.custodian
    if before is None or after is None:
        return
    same = before.seal_key == after.seal_key
    if same and asked:
        raise ConfigError(f"The seal's key given is the one that version {current.version} names; make a new one.")
    if same and {m.name for m in current.members} != {m.name for m in following.members}:
        raise ConfigError(
            "The seal's key changes whenever the members do. Have the custodian make a new one "
            f"(`partbook keys seal {after.name!r} --out FOLDER`) and give the file that ends in .seal.public."
        )


def _named_once(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DuplicateMember(f"{name!r} is named twice; one party changes in one way at a time.")


def _differ(entry: Member, same: bool) -> None:
    if same:
        raise ConfigError(
            f"The entry of {entry.name} holds the keys that the roster lists already; ask for its new one."
        )


def _nobody(current: Roster, name: str) -> ForgedMember:
    return ForgedMember(
        f"Version {current.version} of the roster of {current.federation!r} lists nobody called {name[:64]!r}; it "
        f"lists {', '.join(current.parties)}."
    )

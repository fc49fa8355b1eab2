"""The custodian against a coordinator that has the coordinator's own key and lies with it (PROTOCOL §2)."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from trio import MEMBERS, Trio

from partbook.custodian.opening import Custodian
from partbook.errors import (
    AlteredCiphertext,
    BadSignature,
    CohortTooSmall,
    ConfigError,
    CorruptMessage,
    DuplicateMember,
    ForeignSealKey,
    ForgedMember,
    PartbookError,
    ReplayedMessage,
    TwoSurvivorLists,
    UnsignedRoster,
    VaultError,
)
from partbook.identity.keys import IdentityKey
from partbook.identity.message import Message
from partbook.identity.receiving import ReceivingKey
from partbook.plan import exchanges as e
from partbook.plan.rounds import RoundPlan
from partbook.sealing.blocks import SealedSum, seal
from partbook.sealing.parameters import SealPublic, generate
from partbook.secagg import messages as m
from partbook.simulation.parties import CUSTODIAN

LENGTH = 9  # parameters


@pytest.fixture(scope="module")
def public(trio: Trio) -> SealPublic:
    return SealPublic.read(trio.parties.seal_key, None)


@dataclass
class Office:
    """What a coordinator has after a round of three, and may ask the custodian."""

    trio: Trio
    public: SealPublic
    folder: Path
    plan: RoundPlan

    @property
    def total(self) -> np.ndarray:
        """The slots of the honest sum."""
        values = [np.arange(LENGTH, dtype=np.uint32) + index for index in range(len(MEMBERS))]
        return sum(self.plan.packing.pack(value) for value in values)

    def blob(self, count: int = 3, public: SealPublic | None = None, slots: int | None = None) -> bytes:
        """A sealed sum of so many contributions."""
        key = public or self.public
        total = self.total[:slots]
        addends = [total] + [np.zeros_like(total)] * (count - 1)
        sealed = SealedSum(len(total), key.key_id)
        for addend in addends:
            sealed.add(seal(key, addend.astype(np.uint64)))
        return sealed.serialise()

    def confirmed(self, *members: str, survivors: tuple[str, ...] = MEMBERS, **changed: object) -> tuple[str, ...]:
        """Signatures over a list of survivors."""
        plan = changed.get("plan", self.plan)
        assert isinstance(plan, RoundPlan)
        digest = plan.session(self.trio.roster).survivors_digest(survivors)
        body = m.Confirmed(digest=digest, count=len(survivors))
        return tuple(
            e.write(
                changed.get("key") or self.trio.member_key(member), m.CONFIRMED, plan.context(), member, body
            ).decode()
            for member in members
        )

    def request(self, blob: bytes, **changed: object) -> bytes:
        """The coordinator's signed `open`."""
        plan, key = changed.pop("plan", self.plan), changed.pop("key", self.trio.key)
        sender = changed.pop("sender", "coordinator")
        values = {
            "survivors": MEMBERS,
            "confirmations": self.confirmed(*MEMBERS),
            "chunk": 0,
            "sha256": hashlib.sha256(blob).hexdigest(),
        }
        return e.write(key, e.OPEN, plan.context(), sender, e.Open(**(values | changed)))

    def found(self, member: str, opened: bytes, encrypted: bytes) -> np.ndarray:
        """What a label reads."""
        body = e.Opened.of(Message.decode(opened))
        key = ReceivingKey.load(self.trio.parties.folders[member] / "receiving.pem")
        once = key.open(base64.b64decode(body.keys[member]), e.opened_info(self.plan.context(), body.chunk, member))
        return np.frombuffer(e.decrypt_sum(once, self.plan.context(), body.chunk, encrypted), "<u8")

    def refused(self, error: type[PartbookError], act: Callable[[Custodian], object]) -> str:
        """The words of a refusal by this very error, after which nothing is remembered and the round can be opened."""
        custodian = self.trio.custodian(self.folder)
        with pytest.raises(PartbookError) as caught:
            act(custodian)
        assert type(caught.value) is error, f"{caught.value!r} instead of {error.__name__}"
        assert not (self.folder / "opened.json").exists()
        blob = self.blob()
        custodian.open(self.trio.signed(self.plan), self.request(blob), blob)
        (self.folder / "opened.json").unlink()
        return str(caught.value)


@pytest.fixture
def office(trio: Trio, public: SealPublic, tmp_path: Path) -> Office:
    return Office(trio, public, tmp_path, trio.plan("sealed", parameters=LENGTH))


def test_an_agreed_sum_is_opened_and_every_label_can_read_it(office, trio):
    blob = office.blob()
    opened, encrypted = trio.custodian(office.folder).open(trio.signed(office.plan), office.request(blob), blob)
    message = Message.decode(opened)
    message.check(trio.member_key(CUSTODIAN).public, e.OPENED, office.plan.context(), CUSTODIAN)
    body = e.Opened.of(message)
    assert (body.contributions, body.chunk, set(body.keys)) == (3, 0, set(MEMBERS))
    assert body.sha256 == hashlib.sha256(encrypted).hexdigest()
    for member in MEMBERS:
        slots = office.found(member, opened, encrypted)
        assert office.plan.packing.unpack(slots, LENGTH, 3).tolist() == [3 * i + 3 for i in range(LENGTH)]


def test_the_coordinator_cannot_read_what_was_opened(office, trio):
    blob = office.blob()
    opened, encrypted = trio.custodian(office.folder).open(trio.signed(office.plan), office.request(blob), blob)
    body = e.Opened.of(Message.decode(opened))
    for number in office.total.tolist():
        assert int(number).to_bytes(8, "little") not in encrypted + opened
    # All keys that it has, or can make: wrapped keys open with a label's receiving key only, and for that label.
    for member in MEMBERS:
        wrapped = base64.b64decode(body.keys[member])
        with pytest.raises(CorruptMessage):
            ReceivingKey.generate().open(wrapped, e.opened_info(office.plan.context(), 0, member))
        with pytest.raises(CorruptMessage):
            e.decrypt_sum(hashlib.sha256(wrapped).digest(), office.plan.context(), 0, encrypted)
    bass = ReceivingKey.load(trio.parties.folders["Bass"] / "receiving.pem")
    with pytest.raises(CorruptMessage):
        bass.open(base64.b64decode(body.keys["Alto"]), e.opened_info(office.plan.context(), 0, "Alto"))


def test_the_same_request_again_gets_the_same_sum_under_a_fresh_key(office, trio):
    custodian, blob = trio.custodian(office.folder), office.blob()
    plan, answers = trio.signed(office.plan), []
    for again in (custodian, custodian, trio.custodian(office.folder)):
        answers.append(again.open(plan, office.request(blob), blob))
    sums = [office.found("Bass", *answer).tolist() for answer in answers]
    assert sums[0] == sums[1] == sums[2]
    assert len({encrypted for _, encrypted in answers}) == 3


def test_too_few_confirmations(office, trio):
    blob = office.blob()
    for signers in ((), ("Alto",), ("Alto", "Bass"), ("Alto", "Bass", "Bass", "Alto")):
        confirmations = office.confirmed(*signers)
        office.refused(
            CohortTooSmall,
            lambda c, confirmations=confirmations: c.open(
                trio.signed(office.plan), office.request(blob, confirmations=confirmations), blob
            ),
        )


def test_too_few_survivors(office, trio):
    # Enough signatures for the threshold cannot come from fewer survivors.
    pair = ("Alto", "Bass")
    blob = office.blob(2)
    confirmations = office.confirmed(*pair, *pair, survivors=pair)
    request = office.request(blob, survivors=pair, confirmations=confirmations)
    office.refused(CohortTooSmall, lambda c: c.open(trio.signed(office.plan), request, blob))


def test_one_contribution_alone_is_not_opened(office, trio):
    blob = office.blob(1)
    request = office.request(blob, survivors=("Alto",), confirmations=office.confirmed("Alto", survivors=("Alto",)))
    office.refused(CohortTooSmall, lambda c: c.open(trio.signed(office.plan), request, blob))
    # Nor under the name of the sum of all.
    request = office.request(blob)
    office.refused(AlteredCiphertext, lambda c: c.open(trio.signed(office.plan), request, blob))


def test_two_survivor_lists_in_one_request(office, trio):
    pair, blob = ("Alto", "Bass"), office.blob()
    confirmations = (*office.confirmed(*pair), *office.confirmed("Tenor", survivors=pair))
    request = office.request(blob, confirmations=confirmations)
    office.refused(TwoSurvivorLists, lambda c: c.open(trio.signed(office.plan), request, blob))


def test_two_survivor_lists_one_after_the_other(office, trio):
    four = replace(office, plan=trio.plan("sealed", parameters=LENGTH, threshold=2))
    custodian, blob = trio.custodian(office.folder), four.blob()
    plan = trio.signed(four.plan)
    custodian.open(plan, four.request(blob, confirmations=four.confirmed(*MEMBERS)), blob)
    pair, short = ("Alto", "Bass"), four.blob(2)
    request = four.request(short, survivors=pair, confirmations=four.confirmed(*pair, survivors=pair))
    for again in (custodian, trio.custodian(office.folder)):
        with pytest.raises(TwoSurvivorLists):
            again.open(plan, request, short)


def test_another_plan_for_a_round_that_was_opened(office, trio):
    custodian, blob = trio.custodian(office.folder), office.blob()
    custodian.open(trio.signed(office.plan), office.request(blob), blob)
    other = replace(office, plan=trio.plan("sealed", parameters=LENGTH, nonce="1" * 32))
    for again in (custodian, trio.custodian(office.folder)):
        with pytest.raises(TwoSurvivorLists, match="one round is opened once"):
            again.open(trio.signed(other.plan), other.request(blob), blob)
    third = replace(office, plan=trio.plan("sealed", parameters=LENGTH, round=2))
    custodian.open(trio.signed(third.plan), third.request(blob), blob)


def test_a_second_opening_with_other_bytes(office, trio):
    custodian, blob, other = trio.custodian(office.folder), office.blob(), office.blob()
    plan = trio.signed(office.plan)
    custodian.open(plan, office.request(blob), blob)
    before = (office.folder / "opened.json").read_bytes()
    for again in (custodian, trio.custodian(office.folder)):
        with pytest.raises(TwoSurvivorLists, match="other bytes"):
            again.open(plan, office.request(other), other)
    assert (office.folder / "opened.json").read_bytes() == before
    custodian.open(plan, office.request(blob), blob)


def test_a_chunk_that_the_plan_does_not_have(office, trio):
    blob = office.blob()
    office.refused(CorruptMessage, lambda c: c.open(trio.signed(office.plan), office.request(blob, chunk=1), blob))


def test_forged_survivor(office, trio):
    blob = office.blob(4)
    four = (*MEMBERS, "Mallory")
    plan = trio.signed(office.plan)
    request = office.request(blob, survivors=four, confirmations=office.confirmed(*MEMBERS, survivors=four))
    assert "Mallory" in office.refused(ForgedMember, lambda c: c.open(plan, request, blob))


def test_duplicate_survivor(office, trio):
    blob, twice = office.blob(), ("Alto", "Alto", "Bass")
    request = office.request(blob, survivors=twice, confirmations=office.confirmed("Alto", "Bass", survivors=twice))
    office.refused(DuplicateMember, lambda c: c.open(trio.signed(office.plan), request, blob))


def test_forged_confirmation(office, trio):
    blob, plan = office.blob(), trio.signed(office.plan)
    honest = office.confirmed("Alto", "Bass")
    for forged in (
        office.confirmed("Tenor", key=trio.key),
        office.confirmed("Tenor", key=trio.member_key("Bass")),
        office.confirmed("Mallory", key=IdentityKey.generate()),
        office.confirmed(CUSTODIAN),
    ):
        request = office.request(blob, confirmations=(*honest, *forged))
        office.refused(ForgedMember, lambda c, request=request: c.open(plan, request, blob))


def test_replayed_confirmation_of_another_attempt(office, trio):
    blob = office.blob()
    other = trio.plan("sealed", parameters=LENGTH, nonce="1" * 32)
    request = office.request(blob, confirmations=office.confirmed(*MEMBERS, plan=other))
    office.refused(ReplayedMessage, lambda c: c.open(trio.signed(office.plan), request, blob))


def test_a_request_that_the_coordinator_did_not_sign(office, trio):
    blob, plan = office.blob(), trio.signed(office.plan)
    for key in (IdentityKey.generate(), trio.member_key("Alto")):
        request = office.request(blob, key=key)
        office.refused(BadSignature, lambda c, request=request: c.open(plan, request, blob))
        forged = e.write_plan(key, office.plan)
        office.refused(BadSignature, lambda c, forged=forged: c.open(forged, office.request(blob), blob))
    request = office.request(blob, sender="Alto", key=trio.member_key("Alto"))
    office.refused(ForgedMember, lambda c: c.open(plan, request, blob))


def test_replayed_request_of_another_attempt(office, trio):
    blob = office.blob()
    other = trio.plan("sealed", parameters=LENGTH, nonce="1" * 32)
    request = office.request(blob, plan=other)
    office.refused(ReplayedMessage, lambda c: c.open(trio.signed(office.plan), request, blob))


def test_a_plan_of_another_roster_or_federation(office, trio):
    blob = office.blob()
    for fields in ({"roster": "0" * 64}, {"federation": "quartet"}):
        plan = trio.signed(trio.plan("sealed", parameters=LENGTH, **fields))
        office.refused(ForgedMember, lambda c, plan=plan: c.open(plan, office.request(blob), blob))


def test_a_masked_plan_has_nothing_to_open(office, trio):
    blob = office.blob()
    plan = trio.signed(trio.plan(parameters=LENGTH))
    office.refused(ForeignSealKey, lambda c: c.open(plan, office.request(blob), blob))


def test_foreign_he_key(office, trio):
    foreign = generate()[1]
    plan = trio.signed(trio.plan("sealed", parameters=LENGTH, seal_key=foreign.key_id))
    blob = office.blob()
    office.refused(ForeignSealKey, lambda c: c.open(plan, office.request(blob), blob))
    sealed = office.blob(public=foreign)
    office.refused(ForeignSealKey, lambda c: c.open(trio.signed(office.plan), office.request(sealed), sealed))


def test_flipped_ciphertext_bit(office, trio):
    blob = office.blob()
    for index in (0, 20, 60, len(blob) // 2, len(blob) - 1):
        altered = bytearray(blob)
        altered[index] ^= 4
        request = office.request(blob)
        office.refused(
            AlteredCiphertext,
            lambda c, altered=bytes(altered), request=request: c.open(trio.signed(office.plan), request, altered),
        )


def test_a_signed_chunk_of_the_wrong_form(office, trio):
    for blob in (b"", office.blob()[:-1], office.blob() + b"\0", office.blob(slots=1), office.blob(4)):
        request = office.request(blob)
        office.refused(
            AlteredCiphertext, lambda c, blob=blob, request=request: c.open(trio.signed(office.plan), request, blob)
        )


def test_a_custodian_that_the_roster_does_not_name(office, trio, tmp_path):
    config = trio.custodian(tmp_path)._config
    with pytest.raises(ConfigError, match="does not name"):
        Custodian(replace(config, name="Notary"))
    other = tmp_path / "other.pem"
    IdentityKey.generate().save(other)
    with pytest.raises(ConfigError, match="does not name"):
        Custodian(replace(config, identity=other))
    with pytest.raises(ConfigError, match="does not name"):
        Custodian(replace(config, roster=trio.rewritten(tmp_path / "bare.toml", custodian=None)))


def test_a_secret_key_that_is_not_the_rosters(office, trio, tmp_path):
    generate()[0].write(tmp_path / "other.secret", None)
    with pytest.raises(ForeignSealKey, match="not the key in the roster"):
        Custodian(replace(trio.custodian(tmp_path)._config, secret=tmp_path / "other.secret"))


def test_a_roster_that_somebody_did_not_sign(office, trio, tmp_path):
    signatures = {name: blob for name, blob in trio.roster.signatures.items() if name != "Bass"}
    replace(trio.roster, signatures=signatures).write(tmp_path / "roster.toml")
    with pytest.raises(UnsignedRoster, match="Bass"):
        Custodian(replace(trio.custodian(tmp_path)._config, roster=tmp_path / "roster.toml"))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", '{"trio/1": 3}', '{"trio/1": {}}', '{"trio/1": {"plan": "p", "survivors": "s", "x": 1}}',
        '{"trio/1": {"plan": "p", "survivors": "s", "chunks": []}}',
        '{"trio/1": {"plan": 1, "survivors": "s", "chunks": {}}}',
    ],
)  # fmt: skip
def test_a_broken_record_is_named(trio, tmp_path, text):
    (tmp_path / "opened.json").write_text(text)
    with pytest.raises(ConfigError, match=r"opened\.json is broken"):
        trio.custodian(tmp_path)


def test_a_full_disk_opens_nothing(office, trio, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    custodian, blob = trio.custodian(office.folder), office.blob()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(VaultError, match="nothing was opened"):
            custodian.open(trio.signed(office.plan), office.request(blob), blob)
    assert not (office.folder / "opened.json").exists()
    custodian.open(trio.signed(office.plan), office.request(blob), blob)


def test_the_record_holds_hashes_and_no_sums(office, trio):
    blob = office.blob()
    trio.custodian(office.folder).open(trio.signed(office.plan), office.request(blob), blob)
    (entry,) = json.loads((office.folder / "opened.json").read_text()).values()
    assert entry == {
        "plan": office.plan.hash(),
        "survivors": office.plan.session(trio.roster).survivors_digest(MEMBERS),
        "chunks": {"0": hashlib.sha256(blob).hexdigest()},
    }

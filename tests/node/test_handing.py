"""A model that one label hands to another: what arrives is what was held, and nothing else is ever taken."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trio import MEMBERS, Trio
from typer.testing import CliRunner

from partbook.errors import (
    AlreadyRunning,
    AlteredFile,
    BadSignature,
    ConfigError,
    CorruptMessage,
    ForgedMember,
    PartbookError,
    ReplayedMessage,
    StalePlan,
    UnknownModel,
)
from partbook.identity.keys import IdentityKey
from partbook.identity.message import Context, Message
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Custodian, Member, Roster
from partbook.node import handing
from partbook.node.cli import app
from partbook.node.handing import Offer, digest_of, hand_over
from partbook.node.holding import only_one
from partbook.node.label import LabelNode
from partbook.node.shared_model import SharedModel
from partbook.plan.step import Motion

LIKE = {"x.b": torch.arange(4, dtype=torch.float32).reshape(2, 2), "norm.weight": torch.ones(3)}
BASE = "b" * 64
NAMES = ("Alto", "Bass", "Tenor")
IDENTITIES = {name: IdentityKey.generate() for name in (*NAMES, "coordinator", "Notary")}
RECEIVING = {name: ReceivingKey.generate() for name in NAMES}
ROSTER = Roster(
    "trio",
    1,
    IDENTITIES["coordinator"].public,
    tuple(Member(name, IDENTITIES[name].public, RECEIVING[name].public) for name in NAMES),
    Custodian("Notary", IDENTITIES["Notary"].public, "0" * 64),
)


def model_of(like: dict[str, torch.Tensor] = LIKE, number: int = 5, seed: int = 0) -> SharedModel:
    """The state after some rounds."""
    random, size = np.random.default_rng(seed), sum(tensor.numel() for tensor in like.values())
    adapter, velocity, second = random.standard_normal((3, size)).astype(np.float32)
    return SharedModel(number, adapter, Motion(velocity, second, 4), like)


def handed(model: SharedModel, roster: Roster = ROSTER, giver: str = "Alto", to: str = "Tenor") -> bytes:
    return b"".join(hand_over(model, BASE, roster, giver, IDENTITIES[giver], to)[1])


def taken(data: bytes, member: str = "Tenor", roster: Roster = ROSTER, held: SharedModel | None = None) -> SharedModel:
    file, into = io.BytesIO(data), io.BytesIO()
    offer = Offer.read(file, roster, member)
    offer.must_lead_on(held or SharedModel.fresh(LIKE), BASE)
    offer.take(file, RECEIVING[member], into)
    return offer.model(np.frombuffer(into.getvalue(), "<f4").reshape(3, -1), LIKE)


def test_adapter_memory_and_round_arrive_bit_for_bit() -> None:
    model = model_of()
    found = taken(handed(model))
    assert (found.round, found.motion.steps, found.hash) == (5, 4, model.hash)
    for mine, theirs in (
        (found.adapter, model.adapter),
        (found.motion.velocity, model.motion.velocity),
        (found.motion.second, model.motion.second),
    ):
        assert mine.tobytes() == theirs.tobytes()


@given(size=st.integers(1, 60), words=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_a_model_of_any_length_goes_through_blocks_of_any_length(size: int, words: int) -> None:
    like = {"w": torch.zeros(size)}
    model, before = model_of(like), handing._BLOCK
    handing._BLOCK = 4 * words
    try:
        data = handed(model)
        file, into = io.BytesIO(data), io.BytesIO()
        Offer.read(file, ROSTER, "Tenor").take(file, RECEIVING["Tenor"], into)
    finally:
        handing._BLOCK = before
    arrays = (model.motion.velocity, model.motion.second, model.adapter)
    assert into.getvalue() == b"".join(array.tobytes() for array in arrays)


def test_nothing_of_the_model_is_readable_in_the_file() -> None:
    model = model_of()
    data = handed(model)
    assert model.adapter[:2].tobytes() not in data
    file = io.BytesIO(data)
    offer = Offer.read(file, ROSTER, "Tenor")
    with pytest.raises(CorruptMessage, match="does not open"):
        offer.take(file, RECEIVING["Bass"], io.BytesIO())


def test_a_file_that_was_altered_cut_or_lengthened_anywhere_is_refused_by_name() -> None:
    data = handed(model_of())
    for place in range(0, len(data), 7):
        with pytest.raises(PartbookError):
            taken(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(PartbookError):
            taken(data[:place])
    with pytest.raises(CorruptMessage, match="altered or cut"):
        taken(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptMessage, match="behind"):
        taken(data + b"\0")
    with pytest.raises(CorruptMessage, match="hand-over"):
        taken(b"")


def test_blocks_cannot_change_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing, "_BLOCK", 28)
    data = handed(model_of())
    block = 28 + 16
    head, blocks = data[: -3 * block], [data[-3 * block :][i * block : (i + 1) * block] for i in range(3)]
    assert taken(data).round == 5
    for order in ((1, 0, 2), (0, 2, 1), (0, 1), (0, 1, 1, 2)):
        with pytest.raises(CorruptMessage):
            taken(head + b"".join(blocks[i] for i in order))


def test_only_the_label_that_it_is_for_can_take_it() -> None:
    with pytest.raises(ReplayedMessage, match=r'handed this model to Tenor.*--to "Bass"'):
        taken(handed(model_of()), member="Bass")
    with pytest.raises(ConfigError, match="name another label"):
        handed(model_of(), to="Alto")
    with pytest.raises(ForgedMember, match="Quintus"):
        handed(model_of(), to="Quintus")


def test_a_hand_over_under_another_roster_or_federation_is_refused() -> None:
    newer = replace(ROSTER, version=2)
    with pytest.raises(ForgedMember, match="Both install the newer one"):
        taken(handed(model_of()), roster=newer)
    with pytest.raises(ReplayedMessage, match="federation"):
        taken(handed(model_of(), roster=replace(ROSTER, federation="quartet")))


def test_only_a_later_model_of_the_same_base_leads_on() -> None:
    data = handed(model_of(number=5))
    assert taken(data, held=model_of(number=4)).round == 5
    for held in (5, 6):
        with pytest.raises(StalePlan, match=f"after round {held}; there is nothing to take over"):
            taken(data, held=model_of(number=held))
    offer = Offer.read(io.BytesIO(data), ROSTER, "Tenor")
    with pytest.raises(UnknownModel, match="same Partbook release"):
        offer.must_lead_on(SharedModel.fresh(LIKE), "c" * 64)
    with pytest.raises(UnknownModel, match="7 numbers"):
        offer.must_lead_on(SharedModel.fresh({"x": torch.zeros(3)}), BASE)
    with pytest.raises(ConfigError, match="nothing to hand over"):
        handed(SharedModel.fresh(LIKE))


def resigned(data: bytes, signer: str, number: int = 5, sender: str = "Alto", **changes: object) -> bytes:
    """The same blocks behind another message, signed by whoever has a key."""
    size = int.from_bytes(data[:8], "big")
    message = Message.decode(data[8 : 8 + size])
    body = {**message.body, **changes}
    made = Message.write(
        IDENTITIES[signer], handing.HAND_OVER, Context("trio", number, ROSTER.hash), sender, body
    ).encode()
    return len(made).to_bytes(8, "big") + made + data[8 + size :]


def test_nobody_but_a_member_signs_a_hand_over_and_only_in_its_own_name() -> None:
    data = handed(model_of())
    with pytest.raises(BadSignature):
        taken(resigned(data, "Bass"))
    with pytest.raises(ForgedMember, match="coordinator"):
        taken(resigned(data, "coordinator", sender="coordinator"))
    # Bass says that what Alto handed over is from Bass: the key is sealed with Alto's name.
    with pytest.raises(CorruptMessage, match="does not open"):
        taken(resigned(data, "Bass", sender="Bass"))
    with pytest.raises(ForgedMember, match="to itself"):
        taken(resigned(data, "Tenor", sender="Tenor"))


def test_a_giver_cannot_sign_for_one_model_and_hand_over_another() -> None:
    model = model_of()
    data = handed(model)
    with pytest.raises(CorruptMessage, match="does not open"):  # the sealed key is of round 5
        taken(resigned(data, "Alto", number=6))
    with pytest.raises(AlteredFile, match="another model"):
        taken(resigned(data, "Alto", steps=9))
    with pytest.raises(AlteredFile, match="another model"):
        taken(resigned(data, "Alto", model="0" * 64))
    with pytest.raises(CorruptMessage, match="base64"):
        taken(resigned(data, "Alto", key="é"))
    with pytest.raises(CorruptMessage, match="does not open"):
        taken(resigned(data, "Alto", key=base64.b64encode(bytes(80)).decode()))


@pytest.mark.parametrize("array", ["adapter", "velocity", "second"])
def test_the_digits_that_labels_read_to_each_other_cover_every_number(array: str) -> None:
    model, other = model_of(), model_of()
    assert digest_of(model) == digest_of(other)
    target = other.adapter if array == "adapter" else getattr(other.motion, array)
    target[3] = np.nextafter(target[3], np.float32(9))
    moved = replace(model, motion=replace(model.motion, steps=5))
    assert len({digest_of(found) for found in (model, other, moved, replace(model, round=6))}) == 4


# ---------------------------------------------------------------------------------------------------- the commands


class Labels:
    """Three labels' folders with a `node.toml` each, as on three machines."""

    def __init__(self, trio: Trio, folder: Path) -> None:
        self.trio, self.folder = trio, folder
        for member in MEMBERS:
            self.write(member)

    def write(self, member: str, **changes: str) -> Path:
        keys = self.trio.parties.folders[member]
        place = self.folder / member
        place.mkdir(parents=True, exist_ok=True)
        values = {
            "member": member,
            "coordinator": "localhost:9443",
            "vault": str(self.trio.folder / member / "vault"),
            "roster": str(self.trio.parties.roster),
            "identity": str(keys / "identity.pem"),
            "receiving": str(keys / "receiving.pem"),
            "seal_key": str(self.trio.parties.seal_key),
            "ledger": str(place / "ledger.sqlite"),
            "base": str(self.trio.base),
        }
        path = place / "node.toml"
        path.write_text(tomli_w.dumps(values | changes))
        return path

    def model(self, member: str) -> Path:
        return self.folder / member / "state" / "model.safetensors"

    def hold(self, member: str, number: int, seed: int = 0) -> SharedModel:
        made = model_of(self.trio._like, number, seed)
        self.model(member).parent.mkdir(parents=True, exist_ok=True)
        made.save(self.model(member))
        return made

    def run(self, command: str, member: str, *words: object) -> dict:
        arguments = [command, "--config", self.folder / member / "node.toml", *words, "--json"]
        done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        return json.loads(done.output)


@pytest.fixture
def labels(trio: Trio, tmp_path: Path) -> Labels:
    return Labels(trio, tmp_path)


def test_a_label_takes_over_what_another_holds_and_a_third_vouches_for(labels: Labels, tmp_path: Path) -> None:
    model, out = labels.hold("Alto", 7), tmp_path / "for Tenor"
    labels.hold("Bass", 7)
    ledger = tmp_path / "Tenor" / "ledger.sqlite"
    ledger.write_bytes(b"spent")
    with only_one(tmp_path / "Alto" / "state"):  # the giver's node may go on running
        given = labels.run("hand-over", "Alto", "--to", "Tenor", "--out", out)
    assert out.stat().st_mode & 0o777 == 0o600
    third = labels.run("hand-over", "Bass")
    assert third["fingerprint"] == given["fingerprint"]
    said = labels.run("take-over", "Tenor", out, "--fingerprint", third["fingerprint"])
    assert (said["giver"], said["round"], said["model"], said["compared"]) == ("Alto", 7, model.hash, True)
    assert labels.model("Tenor").read_bytes() == labels.model("Alto").read_bytes()
    assert ledger.read_bytes() == b"spent"
    assert sorted(path.name for path in (tmp_path / "Tenor" / "state").iterdir()) == ["lock", "model.safetensors"]
    assert sorted(path.name for path in (tmp_path / "Alto" / "state").iterdir()) == ["lock", "model.safetensors"]
    with pytest.raises(StalePlan):
        labels.run("take-over", "Tenor", out)


def test_a_node_begins_with_the_model_that_was_taken_over(labels: Labels, trio: Trio, tmp_path: Path) -> None:
    config = trio.config("Tenor", tmp_path / "nodes")
    labels.write("Tenor", state=str(config.kept))
    model, out = labels.hold("Alto", 3), tmp_path / "file"
    labels.run("hand-over", "Alto", "--to", "Tenor", "--out", out)
    labels.run("take-over", "Tenor", out)
    node = LabelNode(config)
    assert (node._held.shared.round, node._held.shared.hash) == (3, model.hash)
    node.close()


def test_whatever_does_not_fit_leaves_the_model_that_is_held(labels: Labels, trio: Trio, tmp_path: Path) -> None:
    labels.hold("Alto", 7)
    labels.hold("Tenor", 6, seed=1)
    before, out = labels.model("Tenor").read_bytes(), tmp_path / "file"
    labels.run("hand-over", "Alto", "--to", "Tenor", "--out", out)
    with pytest.raises(AlteredFile, match="Alto's model is another than the one read"):
        labels.run("take-over", "Tenor", out, "--fingerprint", "12345 " * 12)
    with only_one(tmp_path / "Tenor" / "state"), pytest.raises(AlreadyRunning):
        labels.run("take-over", "Tenor", out)
    with pytest.raises(ReplayedMessage, match='--to "Bass"'):
        labels.run("take-over", "Bass", out)
    with pytest.raises(ConfigError, match="exists already"):
        labels.run("hand-over", "Alto", "--to", "Tenor", "--out", out)
    with pytest.raises(ConfigError, match="belong together"):
        labels.run("hand-over", "Alto", "--to", "Tenor")
    with pytest.raises(ConfigError, match="cannot be read"):
        labels.run("take-over", "Tenor", tmp_path / "nothing")
    whole = out.read_bytes()
    out.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptMessage, match="nothing was taken over"):
        labels.run("take-over", "Tenor", out)
    labels.write("Tenor", receiving=str(trio.parties.folders["Bass"] / "receiving.pem"))
    with pytest.raises(ForgedMember, match="another receiving key"):
        labels.run("take-over", "Tenor", out)
    assert labels.model("Tenor").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "Tenor" / "state").iterdir()) == ["lock", "model.safetensors"]


def test_a_masked_federation_or_one_before_its_first_round_has_nothing_to_hand_over(
    labels: Labels, trio: Trio, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="nothing to hand over"):
        labels.run("hand-over", "Alto", "--to", "Tenor", "--out", tmp_path / "file")
    masked = trio.rewritten(tmp_path / "masked.toml", custodian=None)
    labels.write("Alto", roster=str(masked))
    with pytest.raises(ConfigError, match="the coordinator sends the model"):
        labels.run("hand-over", "Alto", "--to", "Tenor", "--out", tmp_path / "file")


def test_the_commands_say_what_to_compare(labels: Labels, tmp_path: Path) -> None:
    labels.hold("Alto", 7)
    out = tmp_path / "file"

    def said(*words: object) -> str:
        done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    given = said("hand-over", "--config", tmp_path / "Alto" / "node.toml", "--to", "Tenor", "--out", out)
    got = said("take-over", "--config", tmp_path / "Tenor" / "node.toml", out)
    digits = labels.run("hand-over", "Alto")["fingerprint"].split()
    for text in (given, got):
        assert " ".join(digits[:6]) in text
        assert "A label other than the giver" in text
    assert "from Alto" in got

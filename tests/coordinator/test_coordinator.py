"""The coordinator before it begins, and what ends a round for good."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import RecordDict
from test_attempt import Line
from trio import TRAINING, Trio

from partbook.coordinator.attempt import Attempt
from partbook.coordinator.checkpoints import Checkpoints
from partbook.coordinator.rounds import Coordinator
from partbook.errors import CohortTooSmall, ConfigError, CorruptMessage, ForeignSealKey
from partbook.identity.keys import IdentityKey
from partbook.identity.message import Message
from partbook.plan import wire
from partbook.plan.federation import FederationConfig
from partbook.sealing.parameters import generate
from partbook.secagg import messages as m


def config(trio: Trio, folder: Path, **fields: object) -> FederationConfig:
    values = {
        "roster": trio.parties.roster,
        "key": trio.parties.coordinator,
        "seal_key": trio.parties.seal_key,
        "mode": "masked",
        "threshold": 2,
        "rounds": 1,
        "base": trio.base,
        "state": folder / "state",
        "training": TRAINING,
        "timeout": 5.0,
    }
    return FederationConfig(**(values | fields))


def test_a_coordinator_that_the_roster_does_not_name_does_not_begin(trio: Trio, tmp_path: Path) -> None:
    IdentityKey.generate().save(tmp_path / "other.pem")
    with pytest.raises(ConfigError, match="key: "):
        Coordinator(config(trio, tmp_path, key=tmp_path / "other.pem"))


def test_foreign_he_key_at_the_coordinator(trio: Trio, tmp_path: Path) -> None:
    generate()[1].write(tmp_path / "other.public")
    with pytest.raises(ForeignSealKey, match="seal_key: "):
        Coordinator(config(trio, tmp_path, mode="sealed", seal_key=tmp_path / "other.public"))


def test_sealed_rounds_need_a_custodian(trio: Trio, tmp_path: Path) -> None:
    bare = trio.rewritten(tmp_path / "bare.toml", custodian=None)
    with pytest.raises(ConfigError, match="names none"):
        Coordinator(config(trio, tmp_path, mode="sealed", roster=bare))
    assert Coordinator(config(trio, tmp_path, roster=bare)).parties == ("Alto", "Bass", "Tenor")


def test_the_custodian_is_needed_in_sealed_rounds_only(trio: Trio, tmp_path: Path) -> None:
    assert Coordinator(config(trio, tmp_path, mode="sealed")).parties == ("Alto", "Bass", "Tenor", "Custodian")
    assert Coordinator(config(trio, tmp_path)).parties == ("Alto", "Bass", "Tenor")


def last_rounds(trio: Trio, folder: Path) -> list[int]:
    state = Checkpoints(folder / "state", "trio", trio.plan().base_hash).load()
    assert state is not None
    return [record.round for record in state.history]


def test_shares_that_do_not_fit_end_the_round_for_good_and_the_next_number_is_planned(
    trio: Trio, tmp_path: Path
) -> None:
    def lie(kind: str, member: str, content: RecordDict) -> RecordDict:
        if (kind, member) != (wire.REVEAL, "Bass"):
            return content
        message = Message.decode(wire.unpack(content)[0][0])
        body = m.Revealed.of(message)
        wrong = {name: bytes(33) for name in body.self_secrets}
        other = body.model_copy(update={"self_secrets": wrong})
        key = trio.member_key("Bass")
        return wire.pack([Message.write(key, m.REVEALED, message.context, "Bass", other.json_body()).encode()])

    nodes = trio.nodes(tmp_path)
    with pytest.raises(CorruptMessage, match="do not fit"):
        Coordinator(config(trio, tmp_path)).run(Line(nodes, lie))
    assert last_rounds(trio, tmp_path) == [0]
    assert not (tmp_path / "state" / "attempt").exists()
    Coordinator(config(trio, tmp_path)).run(Line(nodes))
    assert last_rounds(trio, tmp_path) == [0, 2]


class Killed(Exception):
    """The coordinator's process ends here."""


def test_a_coordinator_killed_while_shares_come_in_finishes_that_attempt_after_its_deadline(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(kind: str, member: str, content: RecordDict) -> RecordDict:
        if (kind, member) == (wire.REVEAL, "Tenor"):
            raise Killed
        return content

    nodes = trio.nodes(tmp_path)
    with pytest.raises(Killed):
        Coordinator(config(trio, tmp_path)).run(Line(nodes, kill))
    monkeypatch.setattr("time.time", lambda: 5e9)
    found = Attempt.resume(tmp_path / "state" / "attempt", trio.roster, trio.key)
    assert found is not None
    assert found.revealing
    line = Line(nodes)
    Coordinator(config(trio, tmp_path)).run(line)
    assert {kind for kind, _ in line.asked} == {wire.REVEAL}
    assert last_rounds(trio, tmp_path) == [0, 1]


def test_a_round_that_cannot_be_finished_after_shares_were_asked_for_is_given_up(trio: Trio, tmp_path: Path) -> None:
    gone = config(trio, tmp_path, threshold=3)
    nodes = trio.nodes(tmp_path)

    def lose(kind: str, member: str, content: RecordDict) -> RecordDict | None:
        return None if (kind, member) == (wire.REVEAL, "Tenor") else content

    with pytest.raises(CohortTooSmall, match=r"Round 1.*Tenor"):
        Coordinator(gone).run(Line(nodes, lose))
    Coordinator(gone).run(Line(nodes))
    assert last_rounds(trio, tmp_path) == [0, 2]

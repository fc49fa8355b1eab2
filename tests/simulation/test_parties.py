import stat
from pathlib import Path

import pytest

from partbook.custodian.opening import Custodian
from partbook.identity.keys import IdentityKey
from partbook.identity.message import COORDINATOR
from partbook.identity.receiving import ReceivingKey
from partbook.identity.roster import Roster
from partbook.node.label import NodeConfig
from partbook.sealing.parameters import SealPublic, SealSecret
from partbook.simulation.parties import CUSTODIAN, Parties, enrol

NAMES = ("Alto", "Bass", "Tenor")


def everybody(tmp_path: Path, *names: str) -> dict[str, Path]:
    return {name: tmp_path / name / "keys" for name in names or NAMES}


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return enrol(tmp_path / "office", "trio", everybody(tmp_path))


def test_everybody_signs_a_roster_that_lists_their_keys(parties: Parties) -> None:
    roster = Roster.read(parties.roster)
    assert set(roster.signatures) == {*NAMES, COORDINATOR, CUSTODIAN}
    assert roster.coordinator == IdentityKey.load(parties.coordinator).public
    for name, folder in parties.folders.items():
        assert roster.member(name).identity == IdentityKey.load(folder / "identity.pem").public
        assert roster.member(name).receiving == ReceivingKey.load(folder / "receiving.pem").public
    assert roster.custodian is not None
    assert SealPublic.read(parties.seal_key, roster.custodian.seal_key)
    assert SealSecret.read(parties.custodian.secret, None).key_id == roster.custodian.seal_key
    assert Custodian(parties.custodian).name == CUSTODIAN


def test_each_party_has_its_own_folder_and_its_secrets_are_its_owners_alone(parties: Parties, tmp_path: Path) -> None:
    secrets = [*tmp_path.rglob("*.pem"), *tmp_path.rglob("*.secret")]
    assert len(secrets) == 2 * len(NAMES) + 3
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in secrets)
    assert parties.custodian.secret.parent != parties.seal_key.parent
    assert not list((tmp_path / "Alto").rglob("*.secret"))


def test_enrolling_again_changes_nothing(parties: Parties, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert enrol(tmp_path / "office", "trio", everybody(tmp_path)) == parties
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_new_member_leads_to_a_new_roster_and_a_new_seal(parties: Parties, tmp_path: Path) -> None:
    before = Roster.read(parties.roster)
    after = Roster.read(enrol(tmp_path / "office", "trio", everybody(tmp_path, *NAMES, "Cantus")).roster)
    assert [member.name for member in after.members] == ["Alto", "Bass", "Cantus", "Tenor"]
    assert before.custodian is not None
    assert after.custodian is not None
    # PROTOCOL §2: the key is rotated on any change of members; the others keep theirs.
    assert after.custodian.seal_key != before.custodian.seal_key
    assert all(after.member(name) == before.member(name) for name in NAMES)


@pytest.mark.parametrize("missing", ["office/roster.toml", "office/custodian.seal.public", "Alto/keys/identity.pem"])
def test_what_is_missing_is_made_and_the_parties_fit_again(parties: Parties, tmp_path: Path, missing: str) -> None:
    (tmp_path / missing).unlink()
    again = enrol(tmp_path / "office", "trio", everybody(tmp_path))
    roster = Roster.read(again.roster)
    assert roster.custodian is not None
    assert SealPublic.read(again.seal_key, roster.custodian.seal_key)
    assert roster.member("Alto").identity == IdentityKey.load(again.folders["Alto"] / "identity.pem").public


@pytest.mark.parametrize("missing", ["receiving.pem", "secret", "custodian"])
def test_lost_secrets_lead_to_a_roster_of_those_that_are_there(parties: Parties, tmp_path: Path, missing: str) -> None:
    lost = {
        "receiving.pem": tmp_path / "Alto" / "keys" / "receiving.pem",
        "secret": parties.custodian.secret,
        "custodian": parties.custodian.identity,
    }
    lost[missing].unlink()
    again = enrol(tmp_path / "office", "trio", everybody(tmp_path))
    roster = Roster.read(again.roster)
    assert roster.member("Alto").receiving == ReceivingKey.load(again.folders["Alto"] / "receiving.pem").public
    assert Custodian(again.custodian).name == CUSTODIAN


def test_a_members_configuration_gets_its_own_keys(parties: Parties, tmp_path: Path) -> None:
    config = parties.node(NodeConfig("Bass", tmp_path / "vault", Path(), Path(), seed=3))
    assert config.identity == tmp_path / "Bass" / "keys" / "identity.pem"
    assert config.receiving == tmp_path / "Bass" / "keys" / "receiving.pem"
    assert (config.roster, config.seal_key) == (parties.roster, parties.seal_key)
    assert (config.member, config.vault, config.seed) == ("Bass", tmp_path / "vault", 3)

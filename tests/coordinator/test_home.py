import stat
from pathlib import Path

import pytest
from trio import Trio

from partbook.coordinator.home import Home, init, missing
from partbook.errors import ConfigError
from partbook.identity.keys import IdentityKey
from partbook.plan.training import DistributedDp


def test_before_any_keys_exist_the_files_are_written_and_what_is_missing_is_named(tmp_path: Path) -> None:
    written = init(tmp_path / "home", hosts=("federation.example.org", "192.0.2.1"), listen="0.0.0.0:7000", rounds=9)
    assert [path.name for path in written] == ["federation.toml", "server.toml"]
    home = Home.open(tmp_path / "home")
    assert home.federation.mode == "sealed"
    assert isinstance(home.federation.training, DistributedDp)
    assert home.federation.rounds == 9
    assert home.server.hosts == ("federation.example.org", "192.0.2.1")
    assert home.server.port == 7000
    assert [path.relative_to(home.folder) for path in missing(home)] == [
        Path("keys/coordinator.pem"),
        Path("roster.toml"),
        Path("Custodian.seal.public"),
    ]


def test_paths_in_the_file_begin_at_its_folder_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(tmp_path / "home")
    monkeypatch.chdir("/")
    home = Home.open(tmp_path / "home")
    assert home.federation.roster == tmp_path / "home" / "roster.toml"
    assert home.state == tmp_path / "home" / "state"


def test_what_lies_in_home_is_named_relative_to_it_and_what_does_not_in_full(trio: Trio, tmp_path: Path) -> None:
    office = trio.parties.roster.parent
    init(tmp_path, roster=trio.parties.roster, key=trio.parties.coordinator, seal_key=tmp_path / "their.seal.public")
    text = (tmp_path / "federation.toml").read_text()
    assert f'roster = "{office}/roster.toml"' in text
    assert 'seal_key = "their.seal.public"' in text
    home = Home.open(tmp_path)
    assert home.roster() == trio.roster
    assert list(missing(home)) == [tmp_path / "their.seal.public"]


def test_a_roster_without_a_custodian_makes_a_masked_federation(trio: Trio, tmp_path: Path) -> None:
    init(tmp_path / "home", roster=trio.rewritten(tmp_path / "bare.toml", custodian=None))
    home = Home.open(tmp_path / "home")
    assert home.federation.mode == "masked"
    assert home.federation.seal_key is None


@pytest.mark.parametrize("name", ["federation.toml", "server.toml"])
def test_nothing_is_ever_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match="never overwritten"):
        init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_key_that_is_not_the_rosters_is_refused(trio: Trio, tmp_path: Path) -> None:
    IdentityKey.generate().save(tmp_path / "other.pem")
    with pytest.raises(ConfigError, match="not the coordinator's key"):
        init(tmp_path / "home", roster=trio.parties.roster, key=tmp_path / "other.pem")


def test_a_wrong_address_leaves_no_files_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="listen"):
        init(tmp_path, listen="everywhere")
    assert not list(tmp_path.glob("*.toml"))


def test_a_folder_that_was_never_made_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="coordinator init"):
        Home.open(tmp_path)


def test_keys_and_what_flower_keeps_are_for_their_owner_alone(tmp_path: Path) -> None:
    init(tmp_path / "home")
    for name in ("keys", "link"):
        assert stat.S_IMODE((tmp_path / "home" / name).stat().st_mode) == 0o700

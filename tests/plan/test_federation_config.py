from pathlib import Path

import pytest

from partbook.errors import ConfigError
from partbook.plan.federation import FederationConfig
from partbook.plan.rounds import ServerStep
from partbook.plan.training import DistributedDp, PlainTraining

HEAD = "roster = 'r.toml'\nkey = 'c.pem'\nstate = 's'\n"
DP = "[training]\nkind = 'distributed'\nnoise_multiplier = 1.5\nsampling = 0.1\nbatch = 100\n"


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = FederationConfig(
        roster=tmp_path / "roster.toml",
        key=tmp_path / "coordinator.pem",
        seal_key=tmp_path / "seal.public",
        rounds=5,
        threshold=2,
        state=tmp_path / "state",
        training=PlainTraining(steps=3),
        step=ServerStep(momentum=0.5),
        timeout=1.5,
    )
    config.write(tmp_path / "federation.toml")
    assert FederationConfig.read(tmp_path / "federation.toml") == config


def test_the_defaults_are_safe(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(HEAD + "rounds = 3\nseal_key = 'k'\n" + DP)
    config = FederationConfig.read(path)
    assert config.training == DistributedDp(noise_multiplier=1.5, sampling=0.1, batch=100)
    assert config.mode == "sealed"
    assert config.threshold is None  # the secure one, of the roster's members
    assert config.number_bits == 16


@pytest.mark.parametrize(("mode", "bits", "number"), [("masked", None, 20), ("sealed", None, 16), ("masked", 12, 12)])
def test_bits_follow_the_mode_unless_given(mode: str, bits: int | None, number: int) -> None:
    config = FederationConfig(
        roster=Path("r"),
        key=Path("c"),
        seal_key=Path("k"),
        rounds=1,
        state=Path("s"),
        mode=mode,
        bits=bits,
        training=PlainTraining(),
    )
    assert config.number_bits == number


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (HEAD + "mode = 'masked'\n", "rounds"),
        (HEAD + "rounds = 3\n" + DP, "seal_key"),
        (HEAD + "rounds = 3\nmode = 'clear'\n", "mode"),
        (HEAD + "rounds = 3\nmode = 'masked'\nbits = 30\n", "bits"),
        (HEAD + "rounds = 3\nmode = 'masked'\ntimeout = 0\n", "timeout"),
        (HEAD + "rounds = 3\nmode = 'masked'\n[training]\nkind = 'plain'\nclip = -1\n", r"training\.plain\.clip"),
        (HEAD + "rounds = 3\nmode = 'masked'\n[training]\nkind = 'loud'\n", "training"),
        (HEAD + "rounds = 3\nmode = 'masked'\n" + DP.replace("1.5", "0"), r"training\.distributed\.noise_multiplier"),
        (HEAD + "rounds = 3\nmode = 'masked'\n", "training"),  # whether there is noise is said, never assumed
        (HEAD + "rounds = 3\nmode = 'masked'\nhurry = true\n" + DP, "hurry"),
        (HEAD + "rounds = 3\nmode = 'masked'\nmembers = ['A', 'B', 'C']\n" + DP, "members"),
        ("rounds = 3\nmode = 'masked'\nkey = 'c'\nstate = 's'\n", "roster"),
        ("roster = ", "TOML"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=key):
        FederationConfig.read(path)
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        FederationConfig.read(tmp_path / "absent.toml")


def test_relative_paths_begin_at_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "federation.toml"
    path.write_text(HEAD + "rounds = 3\nseal_key = '/keys/k'\nvalidation = '../public'\n" + DP)
    monkeypatch.chdir(tmp_path)
    config = FederationConfig.read(Path("home/federation.toml"))
    assert config.roster == tmp_path / "home" / "r.toml"
    assert config.seal_key == Path("/keys/k")
    assert config.validation == tmp_path / "home" / ".." / "public"
    assert config.base is None
    assert config.patience == 120


def test_patience_is_some_time(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(HEAD + "rounds = 3\nmode = 'masked'\npatience = 0\n" + DP)
    with pytest.raises(ConfigError, match="patience"):
        FederationConfig.read(path)

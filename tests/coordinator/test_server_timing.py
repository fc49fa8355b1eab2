"""`[timing]` of `server.toml`: today's figures where nothing is said, and who reads them when."""

from pathlib import Path

import pytest

from partbook.coordinator.app import _timing
from partbook.coordinator.home import Home, init
from partbook.coordinator.settings import ServerConfig
from partbook.coordinator.timing import ServerTiming
from partbook.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "server.toml"
    path.write_text(text)
    return path


def test_whoever_says_nothing_waits_as_coordinators_always_did(tmp_path: Path) -> None:
    assert ServerConfig.read(written(tmp_path, "")).timing.model_dump() == {
        "look_every": 1.0,
        "repeat_after": 30.0,
        "repeat_soon": 5.0,
        "gone_after": 1.5,
        "at_once": 0.5,
    }


def test_each_figure_can_be_given_alone(tmp_path: Path) -> None:
    path = written(tmp_path, "attempts = 2\n[timing]\nrepeat_after = 6\n")
    assert ServerConfig.read(path).timing == ServerTiming(repeat_after=6.0)
    assert ServerConfig.read(path).attempts == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("look_every = 0", r"timing\.look_every"),
        ("look_every = 61", r"timing\.look_every"),
        ("repeat_after = 0.9", r"timing\.repeat_after"),
        ("repeat_after = inf", r"timing\.repeat_after"),
        ("repeat_after = nan", r"timing\.repeat_after"),
        ("repeat_after = '30'", r"timing\.repeat_after"),
        ("repeat_soon = 0", r"timing\.repeat_soon"),
        ("repeat_soon = 31", r"timing: .*repeat_soon: 31 must not be more than repeat_after"),
        ("repeat_after = 4", r"timing: .*repeat_soon: 5 must not be more than repeat_after"),
        ("gone_after = 0.2", r"timing\.gone_after"),
        ("gone_after = true", r"timing\.gone_after"),
        ("at_once = 0", r"timing\.at_once"),
        ("at_once = 61", r"timing\.at_once"),
        ("poll_every = 1", r"timing\.poll_every"),
    ],
)
def test_a_figure_that_cannot_be_is_named_with_its_file(tmp_path: Path, text: str, named: str) -> None:
    path = written(tmp_path, f"[timing]\n{text}\n")
    with pytest.raises(ConfigError, match=rf"^{path}: {named}"):
        ServerConfig.read(path)


def test_the_file_that_init_writes_shows_the_figures_that_hold(tmp_path: Path) -> None:
    init(tmp_path)
    path = tmp_path / "server.toml"
    assert Home.open(tmp_path).server.timing == ServerTiming()
    head, shown = path.read_text().split("# [timing]")
    path.write_text(head + "[timing]" + shown.replace("\n# ", "\n"))
    assert Home.open(tmp_path).server.timing.model_fields_set == set(ServerTiming.model_fields)
    assert Home.open(tmp_path).server.timing == ServerTiming()


def test_a_serverapp_reads_the_figures_with_each_run_and_needs_none(tmp_path: Path) -> None:
    federation = tmp_path / "federation.toml"
    assert _timing(federation) == ServerTiming()
    for seconds in (20, 6):
        written(tmp_path, f"[timing]\nrepeat_after = {seconds}\n")
        assert _timing(federation) == ServerTiming(repeat_after=seconds)
    written(tmp_path, "[timing]\nrepeat_after = 0\n")
    with pytest.raises(ConfigError, match=r"timing\.repeat_after"):
        _timing(federation)

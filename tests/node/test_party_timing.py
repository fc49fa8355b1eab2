"""`[timing]` of `node.toml` and `custodian.toml`: what holds where nothing is said, and none that breaks a promise."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tomli_w
from flwr.common.constant import HEARTBEAT_MAX_INTERVAL, HEARTBEAT_MIN_INTERVAL, HEARTBEAT_PATIENCE
from flwr.superlink.servicer.fleet.fleet_handlers import InvalidHeartbeatIntervalError, _validate_heartbeat_interval
from trio import Trio

from partbook.custodian.settings import CustodianSettings
from partbook.errors import ConfigError
from partbook.identity.invitation import ROLES, Invitation
from partbook.identity.joining import custodian_toml, node_toml
from partbook.identity.keys import IdentityKey
from partbook.node import pinned
from partbook.node.fleet import WAIT, Stopped
from partbook.node.settings import NodeSettings, PartySettings
from partbook.node.timing import HEARTBEAT, ONLINE_FOR, PartyTiming
from partbook.plan import wire

FILES: dict[type[PartySettings], dict[str, str]] = {
    NodeSettings: {"member": "Label A", "vault": "vault"},
    CustodianSettings: {"name": "Notary", "secret": "seal.secret"},
}
LEAST = {"coordinator": "federation.example.org:9443", "roster": "roster.toml", "identity": "identity.pem"}

either = pytest.mark.parametrize("kind", FILES, ids=["label", "custodian"])


def written(folder: Path, kind: type[PartySettings], **timing: object) -> Path:
    path = folder / "party.toml"
    path.write_text(tomli_w.dumps({**LEAST, **FILES[kind], **({"timing": timing} if timing else {})}))
    return path


def test_whoever_says_nothing_waits_as_parties_always_did() -> None:
    assert PartyTiming().model_dump() == {
        "refused_for": 60.0,
        "noticed": 2.0,
        "longest_wait": 10.0,
        "call_timeout": 60.0,
    }


@either
def test_each_figure_can_be_given_alone(tmp_path: Path, kind: type[PartySettings]) -> None:
    assert kind.read(written(tmp_path, kind)).timing == PartyTiming()
    found = kind.read(written(tmp_path, kind, refused_for=25, noticed=0.5)).timing
    assert found == PartyTiming(refused_for=25.0, noticed=0.5, longest_wait=10.0, call_timeout=60.0)


@either
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("refused_for", ONLINE_FOR),
        ("refused_for", 24.9),
        ("refused_for", 3601),
        ("refused_for", float("nan")),
        ("refused_for", float("inf")),
        ("refused_for", "60"),
        ("refused_for", True),
        ("noticed", -0.1),
        ("noticed", 61),
        ("longest_wait", 0),
        ("longest_wait", 601),
        ("call_timeout", WAIT),
        ("call_timeout", 601),
        ("heartbeat", 10),
        ("patience", 1),
    ],
)
def test_a_figure_that_cannot_be_is_named_with_its_file(
    tmp_path: Path, kind: type[PartySettings], key: str, value: object
) -> None:
    path = written(tmp_path, kind, **{key: value})
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}: timing\.{key}: "):
        kind.read(path)


def test_the_heartbeat_is_the_shortest_that_a_superlink_takes() -> None:
    assert HEARTBEAT == HEARTBEAT_MIN_INTERVAL
    assert ONLINE_FOR == HEARTBEAT_PATIENCE * HEARTBEAT
    for interval in (HEARTBEAT, HEARTBEAT_MAX_INTERVAL):
        _validate_heartbeat_interval(interval)
    for interval in (HEARTBEAT - 0.1, HEARTBEAT_MAX_INTERVAL + 0.1):
        with pytest.raises(InvalidHeartbeatIntervalError):
            _validate_heartbeat_interval(interval)


def test_no_file_can_have_a_killed_node_take_its_earlier_life_for_somebody_else() -> None:
    shortest = PartyTiming(refused_for=25).refused_for
    assert shortest > ONLINE_FOR
    with pytest.raises(ValueError, match="refused_for"):
        PartyTiming(refused_for=ONLINE_FOR)


@pytest.mark.parametrize("mode", ["sealed", "masked"])
def test_the_files_that_join_writes_show_the_figures_that_hold(tmp_path: Path, mode: str) -> None:
    roles = ("member",) if mode == "masked" else ROLES
    until = datetime(2030, 1, 1, tzinfo=UTC)
    key = IdentityKey.generate().public
    invitation = Invitation("partbooks", key, "federation.example.org:9443", mode, roles, "1", until)
    texts = {NodeSettings: node_toml(invitation, "Label A"), CustodianSettings: custodian_toml(invitation, "Notary")}
    for kind, text in texts.items():
        path = tmp_path / "party.toml"
        head, shown = text.split("# [timing]")
        path.write_text(head + "[timing]" + shown.replace("\n# ", "\n"))
        assert kind.read(path).timing.model_fields_set == set(PartyTiming.model_fields)
        assert kind.read(path).timing == PartyTiming()


def test_a_party_that_is_started_again_waits_as_its_file_says_now(
    tmp_path: Path, trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[PartyTiming] = []

    def link(*_: object, timing: PartyTiming, **__: object) -> object:
        waited.append(timing)
        raise Stopped

    monkeypatch.setattr(pinned, "Link", link)
    values = {
        "member": "Alto",
        "coordinator": "localhost:1",
        "vault": str(trio.folder / "Alto" / "vault"),
        "roster": str(trio.parties.roster),
        "identity": str(trio.parties.folders["Alto"] / "identity.pem"),
    }
    for timing in (PartyTiming(), PartyTiming(noticed=1)):
        path = tmp_path / "node.toml"
        path.write_text(tomli_w.dumps({**values, "timing": timing.model_dump()}))
        with pytest.raises(Stopped):
            pinned.run_party(
                NodeSettings.read(path), "Alto", app=None, config={}, allowed=wire.TO_LABELS, prepare=lambda: None
            )  # type: ignore[arg-type]
    assert waited == [PartyTiming(), PartyTiming(noticed=1)]

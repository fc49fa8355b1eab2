"""Files of a federation of processes; the processes themselves are started in tests/integration."""

import tomllib
from pathlib import Path

import pytest

from partbook.coordinator.home import Home
from partbook.coordinator.timing import ServerTiming
from partbook.custodian.settings import CustodianSettings
from partbook.node.settings import NodeSettings
from partbook.node.timing import PartyTiming
from partbook.plan.federation import FederationConfig
from partbook.plan.training import PlainTraining
from partbook.simulation.processes import ProcessFederation, Site


@pytest.mark.parametrize(
    ("server", "parties"),
    [
        (ServerTiming(), PartyTiming()),
        (ServerTiming(repeat_after=6), PartyTiming(noticed=1)),
        (ServerTiming(gone_after=0.5), PartyTiming()),
    ],
)
def test_coordinator_and_parties_wait_as_they_are_told_to_and_as_the_product_does_where_not(
    tmp_path: Path, server: ServerTiming, parties: PartyTiming
) -> None:
    sites = {name: Site(tmp_path / "vaults" / name) for name in ("Alto", "Bass", "Tenor")}
    federation = ProcessFederation(tmp_path / "processes", "trio", sites, server_timing=server, party_timing=parties)
    later = Path("filled-in-later")
    federation.configure(
        FederationConfig(
            roster=later,
            key=later,
            seal_key=later,
            state=later,
            mode="sealed",
            rounds=1,
            training=PlainTraining(steps=1, batch=1, clip=0.5),
        )
    )
    home, files = Home.open(federation.home), [federation.folder / name / "node.toml" for name in sites]
    assert home.server.timing == server
    assert {NodeSettings.read(path).timing.model_dump_json() for path in files} == {parties.model_dump_json()}
    office = federation.folder / "Custodian" / "custodian.toml"
    assert CustodianSettings.read(office).timing == parties
    for path, timing in ((federation.home / "server.toml", server), *((path, parties) for path in (*files, office))):
        assert ("timing" in tomllib.loads(path.read_text())) == (timing != type(timing)())

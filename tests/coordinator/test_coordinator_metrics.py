"""What Prometheus reads: the documented names, true values, on loopback alone."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from partbook.coordinator import metrics
from partbook.coordinator.standing import PartyStanding, Spending, Status, whoami
from partbook.errors import ConfigError

NOW = 1000.0
FULL = Status(
    federation='a "name"\nwith two lines',
    mode="masked",
    round=3,
    rounds=10,
    finished=2,
    stage="train",
    exchange="query.contribute",
    exchange_since=990.0,
    round_since=980.0,
    parties={
        "Alto": PartyStanding(True, 1.0, None, None, 0.3, None, 10, 20),
        "Bass": PartyStanding(True, 1.0, "query.contribute", 960.0, None, None, 10, 0),
        "Tenor": PartyStanding(False, 1.0, None, None, None, "NodePaused: paused", 10, 0),
    },
    sent=30,
    received=20,
    refusals=1,
    given_up=1,
    recent={"query.contribute": (1.0, 3.0, 2.0)},
    recent_rounds=(60.0, 50.0),
    validation={"Bach": 1.25},
    validation_round=2,
    update_norm=0.5,
    privacy=Spending(1e-6, 3, 2.5, 2.0, 8.0, 7.0),
    written=999.0,
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[metrics.Served]:
    server = metrics.serve_metrics(tmp_path, 0)
    yield server
    server.close()


def scrape(served: metrics.Served) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def write(state: Path, status: Status) -> None:
    pid, host, process = whoami()
    import time

    now = time.time()
    shifted = replace(status, pid=pid, host=host, process=process, written=now, round_since=now - 20)
    (state / "status.json").write_bytes(shifted.to_json())


def test_before_any_run_it_says_that_nobody_is_at_work_and_no_more(served: metrics.Served) -> None:
    found = values(scrape(served))
    assert found.pop(("partbook_state_disk_free_bytes",)) > 0
    assert found == {("partbook_status_readable",): 1, ("partbook_writer_alive",): 0}


def test_what_is_served_is_what_the_status_says(served: metrics.Served, tmp_path: Path) -> None:
    write(tmp_path, FULL)
    found = values(scrape(served))
    assert found["partbook_writer_alive",] == 1
    assert found["partbook_federation_info", FULL.federation, "masked"] == 1
    assert found["partbook_rounds_finished",] == 2
    assert found["partbook_exchange_info", "contribute"] == 1
    assert found["partbook_exchange_seconds", "contribute"] == 2.0
    assert found["partbook_received_bytes_total",] == 20
    assert found["partbook_party_received_bytes_total", "Alto"] == 20
    assert found["partbook_epsilon", "colluders"] == 2.5
    assert found["partbook_epsilon_planned", "outsiders"] == 7.0
    assert [found["partbook_party_here", name] for name in ("Alto", "Bass", "Tenor")] == [1, 1, 0]
    assert [found["partbook_party_late", name] for name in ("Alto", "Bass", "Tenor")] == [0, 1, 0]
    assert [found["partbook_party_refused", name] for name in ("Alto", "Bass", "Tenor")] == [0, 0, 1]
    assert 0 < found["partbook_eta_seconds",] <= 8 * 55


def test_every_documented_metric_is_served_and_no_other() -> None:
    served = {sample.exposed for sample in metrics.samples(FULL, NOW)}
    served |= {"partbook_status_readable", "partbook_state_disk_free_bytes"}
    assert served == set(metrics._HELP)
    assert all(re.fullmatch(r"partbook_[a-z_]+", name) and text for name, text in metrics._HELP.items())


def test_what_is_not_known_is_left_out_and_not_said_to_be_nought() -> None:
    bare = [s.exposed for s in metrics.samples(Status(rounds=10, written=999.0), NOW) if s.values]
    for name in ("eta_seconds", "epsilon", "round_seconds", "update_norm", "validation_nats_per_token", "delta"):
        assert f"partbook_{name}" not in bare
    endless = replace(FULL, privacy=Spending(1e-6, 3, None, None, None, None))
    found = {s.exposed: s.values for s in metrics.samples(endless, NOW)}
    assert found["partbook_privacy_bounded"] == {(): 0.0}
    assert found["partbook_epsilon"] == {}


def test_a_broken_status_is_said_to_be_broken(served: metrics.Served, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"format": 99}))
    assert values(scrape(served))["partbook_status_readable",] == 0


def test_it_listens_on_loopback_alone_and_names_a_port_that_is_taken(served: metrics.Served) -> None:
    assert served._server.socket.getsockname() == ("127.0.0.1", served.port)
    with pytest.raises(ConfigError, match="metrics_port"):
        metrics.serve_metrics(Path("/nowhere"), served.port)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="metrics_port"):
            metrics.serve_metrics(Path("/nowhere"), other.getsockname()[1])

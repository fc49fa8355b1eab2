"""`partbook coordinator start` and `run` as processes, with Flower's own; rounds are counted by a ServerApp of ours."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_files
from support.fork_server import Forked
from support.fork_server import run as forked
from trio import Trio
from waiting import runs, until

from partbook.coordinator.control import Control
from partbook.coordinator.home import Home, init
from partbook.coordinator.locks import is_taken
from partbook.coordinator.running import Done, Event, rounds_done, run, stop
from partbook.coordinator.supervisor import listens
from partbook.errors import CohortTooSmall, ConfigError
from partbook.simulation.ports import lease_port

pytestmark = pytest.mark.timeout(400)  # real processes, each of which imports torch and Flower

PROJECT = """
[project]
name = "tiny"
version = "1.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "partbook"
[tool.flwr.app.components]
serverapp = "tiny_server:app"
clientapp = "tiny_server:app"
[tool.flwr.app.config]
federation = ""
"""

# Counts rounds into state.json, one whenever `go` says that it may have so many; reads what it shall fail with.
SERVER = """
import json, time
from pathlib import Path
from flwr.serverapp import ServerApp
from partbook import errors
from partbook.coordinator.failure import write_failure
app = ServerApp()
@app.main()
def main(grid, context):
    state = Path(context.run_config["federation"]).parent / "state"
    head = state / "state.json"
    done = json.loads(head.read_text())["history"][-1]["round"] if head.exists() else 0
    with (state / "begun").open("a") as file:
        file.write(f"{done}\\n")
    while done < 3:
        list(grid.get_node_ids())
        if (state / "fail").exists():
            name = (state / "fail").read_text()
            (state / "fail").unlink()
            error = getattr(errors, name)("the test wants it")
            write_failure(state, error)
            raise error
        if int((state / "go").read_text()) > done:
            done += 1
            (state / "part").write_text(json.dumps({"history": [{"round": done}]}))
            (state / "part").replace(head)
        time.sleep(0.05)
"""


def tiny() -> bytes:
    fab, _ = build_fab_from_files({"pyproject.toml": PROJECT.encode(), "tiny_server.py": SERVER.encode()})
    return fab


class Started:
    """A coordinator's processes."""

    def __init__(self, folder: Path, trio: Trio) -> None:
        parties = trio.parties
        roster = shutil.copy(parties.roster, folder / "roster.toml")
        init(folder, roster=roster, key=parties.coordinator, seal_key=parties.seal_key, rounds=3)
        front, superlink, metrics = (lease_port() for _ in range(3))
        (folder / "server.toml").write_text(
            f'listen = "127.0.0.1:{front}"\nsuperlink_port = {superlink}\nmetrics_port = {metrics}\n'
            "attempts = 2\nwait = 0.1\n[timing]\ngone_after = 0.5\nat_once = 0.1\n"
        )
        self.folder, self.home = folder, Home.open(folder)
        self.home.state.mkdir(exist_ok=True)
        self.process = self.begin()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "partbook.cli", "coordinator", *arguments, "--home", str(self.folder)]

    def begin(self) -> subprocess.Popen[bytes]:
        with (self.folder / "start.log").open("ab") as said:
            self.process = Forked(
                self.command("start", "--json"), stdout=subprocess.PIPE, stderr=said, start_new_session=True
            )
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline())["ready"]
        return self.process

    def end(self) -> None:
        for pid in (self.process.pid, *self.pids().values()):
            if runs(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def pids(self) -> dict[str, int]:
        """Of everything that lives."""
        found = {}
        if self.home.services.exists():
            services = json.loads(self.home.services.read_text())["services"]
            found = {name: about["pid"] for name, about in services.items() if about["pid"]}
        if is_taken(self.home.app_lock):
            found["serverapp"] = int(self.home.app_lock.read_text())
        return found

    def may(self, rounds: int) -> None:
        """Let the ServerApp come so far."""
        (self.home.state / "part.go").write_text(str(rounds))
        (self.home.state / "part.go").replace(self.home.state / "go")

    def begun(self) -> list[int]:
        """The rounds from which ServerApps went on."""
        path = self.home.state / "begun"
        return [int(each) for each in path.read_text().split()] if path.exists() else []

    def forget(self) -> None:
        """Begin with round 0."""
        for name in ("state.json", "begun", "fail", "go"):
            (self.home.state / name).unlink(missing_ok=True)
        self.may(0)


class Followed(threading.Thread):
    """`run` in a thread."""

    def __init__(self, started: Started) -> None:
        super().__init__(daemon=True)
        self.started, self.events = started, list[Event]()
        self.done: Done | None = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.done = run(self.started.home, self.events.append, fab=tiny())
        except Exception as error:
            self.error = error

    def result(self) -> Done:
        self.join(120)
        if self.error is not None:
            raise self.error
        assert self.done is not None
        return self.done

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory, trio: Trio) -> Iterator[Started]:
    started = Started(tmp_path_factory.mktemp("home"), trio)
    yield started
    started.end()


@pytest.fixture
def started(coordinator: Started) -> Iterator[Started]:
    if coordinator.process.poll() is not None:
        coordinator.begin()
    coordinator.forget()
    yield coordinator
    if coordinator.process.poll() is None:
        stop(coordinator.home)  # a test that failed leaves a run behind


def test_a_run_goes_on_after_its_superlink_and_then_its_serverapp_are_killed(started: Started) -> None:
    started.may(1)
    followed = Followed(started)
    until(lambda: rounds_done(started.home.state) == 1)
    before = started.pids()

    os.kill(before["superlink"], signal.SIGKILL)
    started.may(2)
    until(lambda: rounds_done(started.home.state) == 2)
    assert started.begun() == [0]  # the same run, and the same process
    assert started.pids()["serverapp"] == before["serverapp"]

    os.kill(before["serverapp"], signal.SIGKILL)
    until(lambda: started.begun() == [0, 2])
    started.may(3)
    done = followed.result()
    assert done.rounds == 3
    assert len(done.runs) == 2
    assert followed.kinds[0] == "submitted"
    assert [kind for kind in followed.kinds if kind in ("gone", "ended", "again", "done")] == [
        "gone",
        "ended",
        "again",
        "done",
    ]


def test_a_second_run_follows_the_one_that_is_under_way_and_the_next_begins_when_that_was_aborted(
    started: Started,
) -> None:
    first = Followed(started)
    until(lambda: started.begun() == [0])
    second = forked(started.command("run"))
    assert second.returncode == 2
    assert "AlreadyRunning" in second.stderr
    first.started.may(1)
    (started.home.state / "fail").write_text("CohortTooSmall")
    until(lambda: len(started.begun()) == 2)
    with Control(started.home.server.superlink) as control:
        assert len([found for found in control.runs() if found.alive]) == 1
    started.may(3)
    assert first.result().rounds == 3
    assert any("CohortTooSmall: the test wants it" in event.text for event in first.events)


def test_a_run_whose_follower_went_away_is_taken_up_again(started: Started) -> None:
    with Control(started.home.server.superlink) as control:
        identifier = control.submit(tiny(), started.home.federation_file)
    until(lambda: started.begun() == [0])
    followed = Followed(started)
    started.may(3)
    assert followed.result().runs == (identifier,)
    assert followed.kinds == ["attached", "done"]


def test_an_error_that_would_come_again_ends_the_run_with_itself(started: Started) -> None:
    (started.home.state / "fail").write_text("ConfigError")
    with pytest.raises(ConfigError, match="the test wants it"):
        Followed(started).result()
    assert started.begun() == [0]


def test_a_run_that_is_stopped_by_hand_is_not_gone_on_with(started: Started) -> None:
    followed = Followed(started)
    until(lambda: started.begun() == [0])
    said = forked(started.command("stop"), check=True)
    assert "Ended run" in said.stdout
    done = followed.result()
    assert not done.complete
    assert len(done.runs) == 1
    until(lambda: "serverapp" not in started.pids())


def test_members_who_do_not_come_are_waited_for_so_often_and_no_longer(started: Started) -> None:
    path = started.folder / "federation.toml"
    text = path.read_text()
    path.write_text(text.replace("patience = 120", "patience = 0.5").replace("timeout = 3600", "timeout = 1"))
    try:
        found = forked(started.command("run"))
    finally:
        path.write_text(text)
    assert found.returncode == 3, found.stderr
    assert CohortTooSmall.__name__ in found.stderr
    assert found.stderr.count("is submitted") == 2


def test_a_second_start_is_refused(started: Started) -> None:
    second = forked(started.command("start"))
    assert second.returncode == 2
    assert f"AlreadyRunning: Process {started.process.pid}" in second.stderr


def test_status_names_the_processes(started: Started) -> None:
    until(lambda: not is_taken(started.home.app_lock))  # the last run's may still be ending
    found = forked(started.command("status", "--json"))
    assert found.returncode == 0, found.stderr
    about: dict[str, Any] = json.loads(found.stdout)
    assert about["pid"] == started.process.pid
    assert {name for name, each in about["services"].items() if each["ready"]} == {"superlink", "superexec", "front"}
    assert about["serverapp"] is False


def test_a_front_that_is_killed_is_there_again(started: Started) -> None:
    before = started.pids()
    os.kill(before["front"], signal.SIGKILL)
    until(lambda: listens(started.home.server.host, started.home.server.port) and started.pids() != before)
    assert started.pids()["superlink"] == before["superlink"]


def test_metrics_are_answered_on_loopback(started: Started) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{started.home.server.metrics_port}/metrics") as answer:
        assert b"partbook_" in answer.read()


def test_what_flower_keeps_is_for_its_owner_alone_and_lies_in_home(started: Started) -> None:
    secret = started.home.link / "superexec.secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.stat().st_size == 32
    assert stat.S_IMODE(started.home.link.stat().st_mode) == 0o700
    assert (started.home.link / "superlink.sqlite").exists()


def test_a_roster_that_is_broken_while_it_is_replaced_ends_nothing(started: Started) -> None:
    roster, members = started.folder / "roster.toml", started.home.tls / "members.pem"
    text, log = roster.read_text(), started.folder / "start.log"
    members.unlink()
    roster.write_text(text[:300])
    started.process.send_signal(signal.SIGHUP)
    until(lambda: f"ConfigError: {roster}" in log.read_text())
    roster.write_text(text)
    started.process.send_signal(signal.SIGHUP)
    until(members.exists)
    assert all(map(runs, (started.process.pid, *started.pids().values())))


def test_everything_killed_at_once_is_gone_on_with(started: Started) -> None:
    started.may(1)
    followed = Followed(started)
    until(lambda: rounds_done(started.home.state) == 1)
    victims = started.pids()
    for pid in (started.process.pid, *victims.values()):
        os.kill(pid, signal.SIGKILL)
    started.process.communicate()
    until(lambda: not any(map(runs, victims.values())))
    started.begin()
    until(lambda: started.begun() == [0, 1])
    started.may(3)
    assert followed.result().rounds == 3


def test_sigterm_ends_it_all_and_leaves_nobody(started: Started) -> None:
    coordinator = started
    with Control(coordinator.home.server.superlink) as control:
        control.submit(tiny(), coordinator.home.federation_file)
    until(lambda: coordinator.begun() == [0])
    pids = coordinator.pids()
    assert set(pids) == {"superlink", "superexec", "front", "serverapp"}
    coordinator.process.terminate()
    assert coordinator.process.wait(120) == 0
    until(lambda: not any(map(runs, pids.values())))
    found = forked(coordinator.command("status"))
    assert found.returncode == 1
    assert "Not started" in found.stdout

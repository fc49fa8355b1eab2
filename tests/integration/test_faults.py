"""What goes wrong in a federation of weeks: too few labels, full disks, cut cables, wrong clocks, old backups, twins.

One federation lives through all of it as long as each test leaves it whole; a failed one is followed by a new one. The
last test checks that its model is right. Each test can be run by itself.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import tomli_w
from cutting import Cable
from disks import MISSING, small_disk
from quartet import MEMBERS, PARTIES, SERVER, Quartet, Standing, rounds_spent
from support.fork_server import Forked
from support.fork_server import run as forked

from partbook.coordinator.timing import ServerTiming
from partbook.errors import RunFailed
from partbook.node import pausing
from partbook.node.policy import Policy
from partbook.node.settings import NodeSettings
from partbook.node.timing import ONLINE_FOR, PartyTiming
from partbook.simulation.parties import ANYTHING
from partbook.simulation.processes import ProcessFederation

pytestmark = pytest.mark.timeout(900)  # a federation of real processes, several rounds a test


CABLES: list[Cable] = []  # Tenor's; the last one is in use

CUT = 27.0  # seconds


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, tiny_base, tiny_tokenizer) -> Iterator[Standing]:
    def build(stack: ExitStack) -> Quartet:
        quartet = Quartet(tmp_path_factory.mktemp("faults"), tiny_base, tiny_tokenizer)
        federation = quartet.federation
        disk = stack.enter_context(small_disk(tmp_path_factory.mktemp("disk")))
        if disk is not None:
            (federation.folder / "Bass").mkdir(exist_ok=True)
            (federation.folder / "Bass" / "state").symlink_to(disk)
        CABLES.append(stack.enter_context(closing(Cable(federation.port))))
        federation.through["Tenor"] = CABLES[-1].port
        stack.enter_context(federation)
        return quartet.up()

    standing = Standing(build)
    yield standing
    standing.end()


def test_two_nodes_killed_at_once_abort_the_round_by_name_and_it_goes_on_when_they_are_back(quartet: Quartet) -> None:
    federation = quartet.federation
    configured(quartet, attempts=1, patience=25)
    quartet.order("Alto", "kill query.share received")
    quartet.order("Bass", "kill query.share received")
    quartet.begin()
    for member in ("Alto", "Bass"):
        quartet.dies(member)
    with pytest.raises(RunFailed, match=rf"CohortTooSmall: Round {quartet.rounds}: 1 of 3 .*Alto.*Bass"):
        quartet.finish()
    assert federation.rounds_done() == quartet.rounds - 1
    configured(quartet)
    for member in ("Alto", "Bass"):
        quartet.back(member)
    federation.start_run()
    quartet.finish()


def test_a_full_disk_at_a_node_ends_in_its_name_and_loses_nothing(quartet: Quartet) -> None:
    disk = quartet.federation.folder / "Bass" / "state"
    if not disk.is_symlink():
        pytest.skip(MISSING)
    configured(quartet, attempts=1)
    quartet.order("Bass", "full train received")
    quartet.begin()
    with pytest.raises(RunFailed, match=r"(?s)CohortTooSmall.*Bass declined with .*Error.*(space|cannot be written)"):
        quartet.finish()
    (disk / "ballast").unlink()
    configured(quartet)
    quartet.federation.start_run()
    quartet.finish()


def test_a_network_that_is_gone_for_longer_than_anybody_waits_is_waited_out(quartet: Quartet) -> None:
    # Calls in the line have been given up twice, every question repeated, and Tenor counts as gone.
    assert 2 * PARTIES.call_timeout + 2 < CUT
    assert SERVER.repeat_after < CUT
    assert ONLINE_FOR + 5 < CUT < quartet.patience
    quartet.begin()
    quartet.reaches("query.share")
    with CABLES[-1].cut():
        time.sleep(CUT)
        assert not quartet.federation.status()["parties"]["Tenor"]["here"]
    quartet.finish()


@pytest.mark.long
def test_a_minute_without_a_network_is_waited_out(quartet: Quartet) -> None:
    with unhurried(quartet, "Tenor"):
        quartet.begin()
        quartet.reaches("query.share")
        with CABLES[-1].cut():
            time.sleep(60)
        quartet.finish()


@pytest.mark.parametrize("seconds", [-600, 600])
def test_a_node_whose_clock_is_ten_minutes_off_says_so_and_ends(quartet: Quartet, seconds: int) -> None:
    federation = quartet.federation
    assert federation.stop("Alto") == 0
    quartet.order("Alto", f"clock {seconds}")
    federation.start_node("Alto", wait=False)
    process = federation.processes.pop("Alto")
    try:
        assert process.wait(120) == 2
        way = "behind" if seconds < 0 else "ahead of"
        said = federation.last_words("Alto")
        off = re.search(rf"WrongClock: This machine's clock is (\d+) s {way} the coordinator's", said)
        assert off is not None, said
        assert abs(int(off[1]) - abs(seconds)) < 30, "what the question took is in it, on a busy machine"
    finally:
        quartet.orders("Alto").unlink()
        quartet.back("Alto")


def test_a_node_with_an_old_backup_of_its_model_catches_up(quartet: Quartet, tmp_path: Path) -> None:
    federation = quartet.federation
    model = federation.node_config("Alto").model
    if not model.exists():
        quartet.begin()
        quartet.finish()
    older = Path(shutil.copy(model, tmp_path))
    quartet.begin()
    quartet.finish()
    assert federation.stop("Alto") == 0
    assert older.read_bytes() != model.read_bytes()
    shutil.copy(older, model)
    quartet.back("Alto")
    quartet.begin()
    quartet.finish()


def test_the_same_state_started_twice_is_refused_on_the_spot(quartet: Quartet) -> None:
    federation = quartet.federation
    twin = forked(node(federation.folder / "Alto" / "node.toml"), timeout=120)
    assert twin.returncode == 2
    assert f"AlreadyRunning: Process {federation.pid('Alto')} works in" in twin.stderr


def test_the_same_key_started_twice_is_refused_by_the_coordinator(quartet: Quartet, tmp_path: Path) -> None:
    federation = quartet.federation
    with copy_of_alto(federation, tmp_path, tls=True) as twin:
        assert twin.wait(200) == 2
        assert "AlreadyConnected" in (tmp_path / "twin.log").read_text()
        assert "online at" not in (tmp_path / "twin.log").read_text()


def test_a_twin_with_a_certificate_of_its_own_is_not_listened_to(quartet: Quartet, tmp_path: Path) -> None:
    federation = quartet.federation
    before = numbers_of(federation, "Alto")
    with copy_of_alto(federation, tmp_path, tls=False) as twin:
        federation.until("the twin is online", lambda: "online at" in (tmp_path / "twin.log").read_text())
        quartet.begin()
        quartet.finish()
        assert twin.poll() is None
    (number,) = numbers_of(federation, "Alto") - before
    assert json.loads((federation.state / "nodes.json").read_text())["Alto"] in before, f"{number} is the twin's"
    assert quartet.rounds not in rounds_spent(NodeSettings.read(tmp_path / "node.toml").node)


def test_a_paused_node_is_named(quartet: Quartet) -> None:
    configured(quartet, attempts=1)
    pausing.pause(quartet.federation.folder / "Alto" / "state", "holidays")
    quartet.begin()
    with pytest.raises(RunFailed, match=r"CohortTooSmall.*Alto declined with NodePaused"):
        quartet.finish()
    pausing.resume(quartet.federation.folder / "Alto" / "state")
    configured(quartet)
    quartet.federation.start_run()
    quartet.finish()


def test_a_plan_beyond_a_labels_policy_is_refused_by_name_and_the_round_that_waited_is_done(quartet: Quartet) -> None:
    federation = quartet.federation
    policy = federation.folder / "Alto" / "policy.toml"
    configured(quartet, attempts=1)
    assert federation.stop("Alto") == 0
    policy.unlink()
    Policy(epsilon_recording=8.0, rounds=100_000).write(policy)
    quartet.back("Alto")
    quartet.begin()
    with pytest.raises(RunFailed, match=r"CohortTooSmall.*Alto declined with NoiseRefused"):
        quartet.finish()
    assert federation.stop("Alto") == 0
    policy.unlink()
    ANYTHING.write(policy)
    quartet.back("Alto")
    configured(quartet)
    federation.start_run()
    quartet.finish()


def test_in_the_end_the_model_is_right_and_every_round_was_spent_once(quartet: Quartet) -> None:
    if quartet.rounds == 0:
        quartet.begin()
        quartet.finish()
    for member in MEMBERS:
        assert quartet.federation.stop(member) == 0
    assert quartet.spent() == {member: [*range(1, quartet.rounds + 1)] for member in MEMBERS}
    assert quartet.model_is_right()


def numbers_of(federation: ProcessFederation, member: str) -> set[int]:
    """Of all nodes that came online with a certificate of the member's."""
    return {*json.loads((federation.home / "tls" / "nodes.json").read_text())[member]}


def configured(quartet: Quartet, *, attempts: int = 5, patience: float = 90.0) -> None:
    """How stubborn the next run is."""
    home = quartet.federation.home
    server = (home / "server.toml").read_text().splitlines()
    lines = [f"attempts = {attempts}" if line.startswith("attempts") else line for line in server]
    (home / "server.toml").write_text("\n".join(lines) + "\n")
    config = (home / "federation.toml").read_text().splitlines()
    lines = [f"patience = {patience}" if line.startswith("patience") else line for line in config]
    (home / "federation.toml").write_text("\n".join(lines) + "\n")


@contextmanager
def unhurried(quartet: Quartet, member: str) -> Iterator[None]:
    """A label and the coordinator wait as long as the product does; the others are as hasty as before."""
    federation = quartet.federation

    def restarted(party: PartyTiming, server: ServerTiming) -> None:
        assert federation.stop(member) == 0
        node_toml, server_toml = federation.folder / member / "node.toml", federation.home / "server.toml"
        for path, timing in ((node_toml, party), (server_toml, server)):
            values = tomllib.loads(path.read_text())
            path.write_text(tomli_w.dumps({**values, "timing": timing.model_dump()}))
        quartet.back(member)

    restarted(PartyTiming(), ServerTiming())
    try:
        yield
    finally:
        restarted(PARTIES, SERVER)


def node(config: Path) -> list[str]:
    return [sys.executable, "-m", "partbook.cli", "node", "start", "--config", str(config)]


class copy_of_alto:  # noqa: N801 — reads as the phrase it is
    """A second machine with a copy of Alto's files, except those that a running node locks."""

    def __init__(self, federation: ProcessFederation, folder: Path, *, tls: bool) -> None:
        original = federation.folder / "Alto"
        shutil.copytree(federation.sites["Alto"].vault, folder / "vault")
        for name in ("state", *(["tls"] if tls else [])):
            shutil.copytree(original / name, folder / name)
        text = (original / "node.toml").read_text()
        text = text.replace(str(federation.sites["Alto"].vault.resolve()), str(folder / "vault"))
        for name in ("state", "tls"):
            text = text.replace(str(original / name), str(folder / name))
        (folder / "node.toml").write_text(text)
        self._log = (folder / "twin.log").open("wb")
        self._process = Forked(node(folder / "node.toml"), stdout=self._log, stderr=self._log, start_new_session=True)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

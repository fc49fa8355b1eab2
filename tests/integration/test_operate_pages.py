"""docs/operate, followed to the letter: every command on the three pages is run, on five machines that are folders.

A block of commands says whose it is and when its turn is: `sh label 4`. The test is the people: it carries the files
that are sent, reads out what one screen shows to whoever is on the telephone, and edits the two files that a page says
to edit. Names are replaced only where a page lists them. Commands for root (`sh root`) are held against deploy/.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import click
import pytest
import soundfile
from support.fork_server import Forked
from tunes import tune

from partbook import errors
from partbook.cli import _partbook as command_line
from partbook.generator.release import open_release
from partbook.identity.parties import Member
from partbook.music.rendering import SAMPLE_RATE, synthesise
from partbook.simulation.ports import lease_port

ROOT = Path(__file__).parents[2]
PAGES = {name: ROOT / "docs" / "operate" / f"{name}.md" for name in ("coordinator", "label", "custodian")}
LABELS = ("Label A", "Label B", "Label C")
DIGITS = "12345 …"
PATIENCE = 600.0  # seconds for a command
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "80",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "PARTBOOK_KEY_PASSPHRASE": "",
}

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SIXTY = re.compile(r"(\d{5}(?: \d{5}){5})\n\s*(\d{5}(?: \d{5}){5})")
_STARTS = re.compile(r"partbook (coordinator|node|custodian) start\b")
_READY = {"coordinator": "Ready.", "node": "online at", "custodian": "online at"}


@cache
def blocks(page: str) -> tuple[tuple[str, str], ...]:
    """The fenced blocks of a page: what stands behind the fence, and what is inside."""
    return tuple(_FENCE.findall(PAGES[page].read_text(encoding="utf-8")))


def commands(block: str) -> list[str]:
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def turn(page: str, number: int) -> list[str]:
    """The commands whose turn it is, in order."""
    return [line for info, block in blocks(page) if info == f"sh {page} {number}" for line in commands(block)]


def replaceable(page: str) -> set[str]:
    """What a page says that people put their own in place of."""
    (table,) = re.findall(r"\| On this page \|.*?\n\n", PAGES[page].read_text(encoding="utf-8"), re.DOTALL)
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])}


@dataclass
class Machine:
    """A folder that somebody types in, page in hand."""

    page: str
    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    screen: str = ""
    processes: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        assert set(self.names) <= replaceable(self.page)

    def follow(self, number: int, digits: str = "") -> None:
        """Type what the page says for this turn; `digits` is what the telephone said."""
        lines = turn(self.page, number)
        assert lines, f"{self.page}.md has nothing for turn {number}"
        assert not digits or DIGITS in replaceable(self.page)
        for line in lines:
            self.ran.append(line)
            for name, put in {**self.names, **({DIGITS: digits} if digits else {})}.items():
                line = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", put, line)
            words = shlex.split(line)
            if words[0] == "cd":
                self.folder = self.folder / words[1]
                assert self.folder.is_dir()
            elif kind := _STARTS.match(line):
                self._start(line, kind[1])
            else:
                self._type(line)

    def read_out(self) -> str:
        """The last 60 digits on the screen."""
        return " ".join(_SIXTY.findall(self.screen)[-1])

    def send(self, name: str, to: Machine, saved_as: str | None = None) -> None:
        """Mail a file."""
        shutil.copy(self.folder / name, to.folder / (saved_as or name))

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        path = self.folder / name
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before

    def end(self) -> list[int]:
        """Ctrl-C for all that still runs; exit codes, in order."""
        for process, _ in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        codes = []
        for process, _ in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(90)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            codes.append(process.wait())
        return codes

    def _type(self, line: str) -> None:
        with Forked(
            typed(line),
            cwd=self.folder,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=PATIENCE)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        self.screen += f"$ {line}\n{said}"
        assert process.returncode == 0, f"{self.page}.md: {line}\n{said}\n{self._background()}"

    def _start(self, line: str, kind: str) -> None:
        log = self.folder.parent / f"{self.folder.name}.{len(self.processes)}.log"
        with log.open("wb") as output:
            process = Forked(
                typed(line),
                cwd=self.folder,
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.processes.append((process, log))
        deadline = time.monotonic() + PATIENCE
        while _READY[kind] not in log.read_text():
            assert process.poll() is None, f"{line} has ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"{line} is not ready: {log.read_text()}"
            time.sleep(0.1)

    def _background(self) -> str:
        return "\n".join(log.read_text()[-1500:] for _, log in self.processes)


def typed(line: str) -> list[str]:
    """What a shell would run: Partbook's own commands by themselves, where they are plain words."""
    words = shlex.split(line, comments=True)
    plain = words[0] == "partbook" and not set("|&;<>$`*?~(") & set(line)
    return words if plain else ["bash", "-c", line]


@dataclass
class Stage:
    """The five machines."""

    coordinator: Machine
    custodian: Machine
    labels: tuple[Machine, ...]

    @property
    def machines(self) -> tuple[Machine, ...]:
        return (self.coordinator, self.custodian, *self.labels)

    def together(self, work: Callable[[Machine], None], *machines: Machine) -> None:
        with ThreadPoolExecutor(len(machines)) as pool:
            list(pool.map(work, machines))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    port, metrics = lease_port(), lease_port()
    masters = [tmp_path / f"masters-{index}" for index in range(len(LABELS))]
    for index, folder in enumerate(masters):
        render(index, folder)
    names = {"federation.example.org": "localhost", "9443": str(port), "9445": str(metrics), "20": "2"}
    stage = Stage(
        Machine("coordinator", tmp_path / "coordinator", names),
        Machine("custodian", tmp_path / "custodian"),
        tuple(
            Machine(
                "label",
                tmp_path / f"machine-{index}",
                {
                    "Label A": name,
                    "label-a": name.lower().replace(" ", "-"),
                    "/srv/masters": str(masters[index]),
                    "Sonata in D": "first",
                },
            )
            for index, name in enumerate(LABELS)
        ),
    )
    try:
        yield stage
    finally:
        for machine in reversed(stage.machines):
            machine.end()


def render(index: int, folder: Path) -> None:
    """Two short recordings on the harpsichord."""
    folder.mkdir()
    score = tune(index)
    for track in score.tracks:
        track.program = 6
    sound = synthesise(score)
    soundfile.write(folder / "first.wav", sound[: 8 * SAMPLE_RATE], SAMPLE_RATE)
    soundfile.write(folder / "second.wav", sound[3 * SAMPLE_RATE : 10 * SAMPLE_RATE], SAMPLE_RATE)


@pytest.mark.timeout(1800)
def test_the_three_pages_lead_from_nothing_to_a_release(stage: Stage) -> None:
    coordinator, custodian, labels = stage.coordinator, stage.custodian, stage.labels

    # An invitation goes out by mail, and its digits are read on the telephone.
    coordinator.follow(1)
    for party in (custodian, *labels):
        coordinator.send("invitation.toml", party)
    digits = coordinator.read_out()
    stage.together(lambda party: party.follow(2, digits), custodian, *labels)

    # Entries come back, and the digits of each are compared.
    for label, name in zip(labels, LABELS, strict=True):
        label.send(f"{name}.public.toml", coordinator)
    for name in ("Notary.public.toml", "Notary.seal.public"):
        custodian.send(name, coordinator)
    coordinator.follow(3)
    for party in (custodian, *labels):
        assert party.read_out() in [" ".join(found) for found in _SIXTY.findall(coordinator.screen)]
    stage.together(lambda label: label.follow(3), *labels)

    # Everybody gets a copy of the roster. One file goes round; whoever signs has heard the digits of another's copy.
    for party in (custodian, *labels):
        coordinator.send("roster.toml", party)
    for label in labels:
        coordinator.send("Notary.seal.public", label, "Custodian.seal.public")
    stage.together(lambda party: party.follow(4), custodian, *labels)
    heard = {party.page: labels[0].read_out() for party in stage.machines} | {"label": labels[1].read_out()}
    holder = coordinator
    for party in (*labels, custodian, coordinator):
        holder.send("roster.toml", party)
        party.follow(5, heard[party.page])
        holder = party
    for party in (custodian, *labels):
        coordinator.send("roster.toml", party)

    # What init wrote is edited as the page says: the noise, and ports that are free here.
    coordinator.follow(6)
    section = coordinator.screen[coordinator.screen.rindex("[training]") :]
    coordinator.edit(
        "federation.toml", lambda text: re.sub(r"\[training\].*?\n(?=\n)", lambda _: section, text, flags=re.DOTALL)
    )
    ports = {"listen": f'"127.0.0.1:{coordinator.names["9443"]}"', "metrics_port": coordinator.names["9445"]}
    for key, value in {**ports, "superlink_port": str(lease_port())}.items():
        coordinator.edit(
            "server.toml",
            lambda text, key=key, value=value: re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE),
        )
    coordinator.follow(7)
    stage.together(lambda party: party.follow(8), custodian, *labels)
    stage.together(lambda label: label.follow(9), *labels)
    coordinator.follow(10)
    signer = Member.read(coordinator.folder / "keys" / "coordinator.public.toml").identity
    release = open_release(coordinator.folder / "release-1", signer=signer)
    assert release.about["training"] == {"labels": list(LABELS), "rounds": 2}
    assert release.about["locks"] == {"masks": True, "seal": True, "noise": True}
    assert release.signer.fingerprint in coordinator.screen.replace("\n             ", " ")

    # Weeks go by.
    stage.together(lambda party: party.follow(11), custodian, *labels)
    coordinator.follow(12)
    assert 'partbook_party_here{party="Notary"} 1.0' in coordinator.screen
    stage.together(lambda label: label.follow(13), *labels)
    for machine in stage.machines:
        assert machine.end() == [0], machine.page

    for machine in stage.machines:
        turns = [block for info, block in blocks(machine.page) if info.startswith(f"sh {machine.page}")]
        written = [line for block in turns for line in commands(block)]
        assert sorted(machine.ran) == sorted(written)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_has_its_turn(page: str) -> None:
    for info, block in blocks(page):
        assert info == "text" or info == "sh root" or re.fullmatch(rf"sh {page} \d+", info), info
        assert info == "text" or commands(block)


@pytest.mark.parametrize("page", PAGES)
def test_roots_commands_name_units_that_are_shipped(page: str) -> None:
    for line in [line for info, block in blocks(page) if info == "sh root" for line in commands(block)]:
        units = re.findall(r"partbook-\w+", line)
        assert units, line
        for unit in units:
            text = (ROOT / "deploy" / "systemd" / f"{unit}.service").read_text()
            assert "reload" not in line or "ExecReload=" in text


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_only_commands_files_and_headings_that_exist(page: str) -> None:
    text = prose(page)
    for line in re.findall(r"`(partbook [^`…]+)`", text):
        must_exist(line.split())
    for path in re.findall(r"`(deploy/[^`]+)`", text):
        assert (ROOT / path).exists(), path
    for path, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        target = PAGES[page].parent / path if path else PAGES[page]
        assert target.is_file(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_errors_on_a_page_are_raised_and_say_what_it_quotes(page: str) -> None:
    rows = prose(page).partition("| You see |")[2].partition("\n\n")[0].splitlines()[2:]
    assert rows
    for row in rows:
        seen = row.split(" | ")[0]
        for quoted in re.findall(r"`([^`]+)`", seen):
            if re.fullmatch(r"[A-Z]\w+", quoted):
                assert issubclass(getattr(errors, quoted), errors.PartbookError)
            else:
                pattern = re.compile(".*".join(re.escape(part.strip()) for part in quoted.split("…")), re.DOTALL)
                assert any(pattern.search(said) for said in sayings()), quoted


def prose(page: str) -> str:
    return _FENCE.sub("", PAGES[page].read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them out of headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def must_exist(words: list[str]) -> None:
    command: click.Command | None = command_line
    with click.Context(command_line) as context:
        for word in words[1:]:
            if not isinstance(command, click.Group):
                break
            command = command.get_command(context, word)
            assert command is not None, words
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, words


@cache
def sayings() -> tuple[str, ...]:
    """Every text in the source, a gap where a value goes."""
    found = []
    for path in [path for side in ("common", "client", "server") for path in (ROOT / side).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append("".join(parts))
    return tuple(found)

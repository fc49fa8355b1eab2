"""Puts each seeded fault into a copy of the tree and runs the tests that must notice it.

First the same tests run on the copy as it is, where they must pass. A fault counts as noticed when a test fails: a
module that does not import, a fixture that breaks or a name that is missing would only show that it was put in wrongly.

python -m tests.mutants [--only NAME …] [--json FILE] [--at-once N] [--limit SECONDS]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal
from xml.etree import ElementTree

from .seeded import MUTANTS, Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
DOMAINS: Final = ("common", "client", "server", "simulation")
BUILT: Final = "server/partbook/generator/v1/*_pb2*"  # not in git, and needed
LIMIT: Final = 300.0  # seconds, of one fault's tests; of all on the tree as it is, so many times as long:
AS_IT_IS: Final = 4
WRONG: Final = ("ImportError", "ModuleNotFoundError", "SyntaxError", "NameError", "UnboundLocalError")

Verdict = Literal["killed", "survived", "broken", "hung"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tests said to a fault.

    Attributes:
        name, path, breaks: the fault's.
        verdict: `killed` where a test failed; `survived` where none did; `broken` where something else than a test
            failed; `hung` where the tests did not end.
        by: the test that failed, or what went wrong.
        seconds: that it took.
    """

    name: str
    path: str
    breaks: str
    verdict: Verdict
    by: str
    seconds: float


class Runs:
    """pytest in trees of their own, any number at a time; all end with this."""

    def __init__(self, scratch: Path, limit: float) -> None:
        """Keep copies and temporary files in `scratch`; no fault's tests run for more than `limit` seconds."""
        self._scratch, self.limit = scratch, limit
        self._running: set[subprocess.Popen[bytes]] = set()
        self._turn, self._over = threading.Lock(), False

    def run(self, tree: Path, *arguments: str, times: int = 1) -> tuple[int | None, Path]:
        """pytest's exit status, None where it was ended for its time, and the folder of its report and its words."""
        place = self._scratch / f"{tree.name}-run"
        (place / "tmp").mkdir(parents=True)
        path = [str(tree / "tests" / "mutants" / "path"), *(str(tree / domain) for domain in DOMAINS)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONDONTWRITEBYTECODE": "",
            "PARTBOOK_INSTALLED_TREE": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(place / "tmp"),
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "one_tree", "-p", "no:cacheprovider"]
        command += ["--hypothesis-seed=0", f"--junitxml={place / 'report.xml'}", *arguments]
        with (place / "words").open("wb") as words:
            with self._turn:
                if self._over:
                    raise KeyboardInterrupt
                process = subprocess.Popen(
                    command, cwd=tree, env=environment, stdout=words, stderr=words, start_new_session=True
                )
                self._running.add(process)
            try:
                return process.wait(times * self.limit), place
            except subprocess.TimeoutExpired:
                return None, place
            finally:
                _end(process)
                with self._turn:
                    self._running.discard(process)

    def end(self) -> None:
        """End all that run, and begin no more."""
        with self._turn:
            self._over = True
            for process in self._running:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # with what it has started
    process.wait()


def tree_at(place: Path) -> Path:
    """A copy of the tree: what git knows and what it does not ignore, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout  # fmt: skip
    files = {ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name} | set(ROOT.glob(BUILT))
    for file in sorted(files):
        if file.is_file():
            copy = place / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)
    return place


def mutated(mutant: Mutant, tree: Path, place: Path) -> Path:
    """A copy of a copy, with the fault; what is the same, bytecode with it, is shared."""
    shutil.copytree(tree, place, copy_function=os.link)
    path = place / mutant.path
    source = mutant.applied(path.read_text())
    path.unlink()
    path.write_text(source)
    return place


def judged(mutant: Mutant, status: int | None, place: Path, seconds: float) -> Outcome:
    """What a run's exit status and report say."""

    def outcome(verdict: Verdict, by: str) -> Outcome:
        return Outcome(mutant.name, mutant.path, mutant.breaks, verdict, by, round(seconds, 1))

    if status is None:
        return outcome("hung", "the tests did not end in time")
    if status == 0:
        return outcome("survived", f"{' '.join(mutant.killers)} passed")
    failed = list(failures(place / "report.xml")) if status == 1 else []
    for test, why in failed:
        if not why.startswith(WRONG):
            return outcome("killed", test)
    why = failed[0][1] if failed else (place / "words").read_text(errors="replace").strip()[-600:]
    return outcome("broken", f"pytest ended with {status}: {why}")


def failures(report: Path) -> Iterator[tuple[str, str]]:
    """Tests that failed, not those whose fixtures or modules did, and the first line of why."""
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (written by pytest just now)
        for failure in case.iter("failure"):
            yield f"{case.get('classname', '')}::{case.get('name', '')}", failure.get("message", "").partition("\n")[0]


def main(arguments: Sequence[str]) -> int:
    """Run them all, or those that are named; 0 if every one was killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=[mutant.name for mutant in MUTANTS], metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="faults looked at side by side")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="for the tests of one fault")
    chosen = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if not chosen.only or mutant.name in chosen.only]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        runs = Runs(Path(folder), chosen.limit)
        try:
            return _look(mutants, runs, Path(folder), chosen)
        except KeyboardInterrupt:
            _say("ended; nothing is left behind")
            return 130
        finally:
            runs.end()


def _look(mutants: Sequence[Mutant], runs: Runs, folder: Path, chosen: argparse.Namespace) -> int:
    began = time.monotonic()
    tree = tree_at(folder / "tree")
    killers = sorted({killer for mutant in mutants for killer in mutant.killers})
    _say(f"{len(mutants)} faults; first their tests on the tree as it is")
    workers = ("--numprocesses", str(chosen.at_once), "--dist", "loadfile")
    status, place = runs.run(tree, *workers, *killers, times=AS_IT_IS)
    if status != 0:
        _say((place / "words").read_text(errors="replace")[-3000:])
        _say(f"The tests do not pass on the tree as it is (pytest ended with {status}); mend that first.")
        return 2
    _say(f"{time.monotonic() - began:5.0f} s  they pass")

    def look(mutant: Mutant) -> Outcome:
        since = time.monotonic()
        copy = mutated(mutant, tree, folder / mutant.name)
        status, place = runs.run(copy, "-x", *mutant.killers)
        found = judged(mutant, status, place, time.monotonic() - since)
        shutil.rmtree(copy)
        shutil.rmtree(place, ignore_errors=True)
        return found

    found: list[Outcome] = []
    pool = ThreadPoolExecutor(chosen.at_once)
    try:
        for future in as_completed([pool.submit(look, mutant) for mutant in mutants]):
            found.append(future.result())
            one = found[-1]
            at = f"{time.monotonic() - began:5.0f} s  [{len(found):2} of {len(mutants)}]"
            _say(f"{at}  {one.verdict:8}  {one.name}, {one.seconds:.0f} s: {one.by}")
    finally:
        runs.end()
        pool.shutdown(cancel_futures=True)
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(one) for one in _in_order(found, mutants)], indent=1) + "\n")
    left = [one for one in found if one.verdict != "killed"]
    for one in left:
        _say(f"{one.verdict.upper()}: {one.name} ({one.path}): {one.breaks}. {one.by}")
    _say(f"{len(found) - len(left)} of {len(found)} faults were noticed in {time.monotonic() - began:.0f} s")
    return 1 if left else 0


def _in_order(found: Iterable[Outcome], mutants: Sequence[Mutant]) -> list[Outcome]:
    place = {mutant.name: index for index, mutant in enumerate(mutants)}
    return sorted(found, key=lambda one: place[one.name])


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Threads are chosen in one place, for a whole process, and an operator's own choice wins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from partbook import threads

ROOT = Path(__file__).parent.parent


def said_by(code: str, **variables: str) -> dict[str, object]:
    """What a new process with these variables alone of all that concern threads prints as JSON."""
    kept = {name: value for name, value in os.environ.items() if not re.match("OMP_|GOMP_|KMP_|MKL_|OPENBLAS_", name)}
    command = [sys.executable, "-c", f"import json, os, sys\n{code}"]
    done = subprocess.run(command, env=kept | variables, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable is set, and none is after the test; torch has the threads that it had."""
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "")  # so that monkeypatch knows it, and takes away what a test leaves
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.usefixtures("nothing_set")
def test_threads_wait_passively_where_nothing_is_said() -> None:
    threads.wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize(
    ("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "9"), ("KMP_BLOCKTIME", "1")]
)
def test_an_operator_may_have_them_wait_otherwise(nothing_set: pytest.MonkeyPatch, name: str, value: str) -> None:
    nothing_set.setenv(name, value)
    before = dict(os.environ)
    threads.wait_passively()
    assert dict(os.environ) == before


def test_every_command_has_threads_wait_passively_before_openmp_is_loaded() -> None:
    code = (
        "from partbook.cli import main\nsys.argv = ['partbook', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(json.dumps({'torch': 'torch' in sys.modules, 'policy': os.environ['OMP_WAIT_POLICY']}))"
    )
    assert said_by(code) == {"torch": False, "policy": "PASSIVE"}
    assert said_by(code, OMP_WAIT_POLICY="ACTIVE") == {"torch": False, "policy": "ACTIVE"}


def test_one_thread_holds_for_torch_whether_it_is_imported_before_or_after_and_for_children() -> None:
    choose, load = "from partbook import threads; threads.one_thread()", "import torch"
    tell = "print(json.dumps([torch.get_num_threads(), os.environ['OMP_NUM_THREADS']]))"
    assert said_by(f"{choose}\n{load}\n{tell}") == [1, "1"]
    assert said_by(f"{load}\n{choose}\n{tell}") == [1, "1"]
    operators = said_by(f"{load}\n{tell}", OMP_NUM_THREADS="2")  # torch has no more of them than there are cores
    assert said_by(f"{choose}\n{load}\n{tell}", OMP_NUM_THREADS="2") == operators
    assert said_by(f"{load}\n{choose}\n{tell}", OMP_NUM_THREADS="2") == operators


def test_a_block_with_one_thread_leaves_as_many_as_there_were(nothing_set: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        threads.exactly(2)
        with threads.one_thread_within():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError), threads.one_thread_within():
            _ = 1 // 0
        assert torch.get_num_threads() == 2
        nothing_set.setenv("OMP_NUM_THREADS", "2")
        with threads.one_thread_within():
            assert torch.get_num_threads() == 2
    finally:
        threads.exactly(before)


def test_processes_that_share_a_machine_get_one_thread_each(nothing_set: pytest.MonkeyPatch) -> None:
    assert threads.one_thread_each() == {"OMP_NUM_THREADS": "1"}
    nothing_set.setenv("OMP_NUM_THREADS", "4")
    assert threads.one_thread_each() == {}


def test_nobody_else_chooses_threads() -> None:
    chosen = re.compile(
        r"set_num_threads|[\"'](OMP|GOMP|KMP|MKL|OPENBLAS)_[A-Z_]+[\"']|(OMP|MKL|OPENBLAS)_NUM_THREADS="
    )
    own = ROOT / "common" / "partbook" / "threads.py"
    found = [
        str(path.relative_to(ROOT))
        for domain in ("common", "client", "server", "simulation")
        for path in (ROOT / domain).rglob("*.py")
        if path != own and chosen.search(path.read_text())
    ]
    assert not found, "partbook.threads is where this is chosen"


def test_variables_are_set_in_a_block_and_are_afterwards_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTBOOK_TEST_KEPT", "before")
    monkeypatch.delenv("PARTBOOK_TEST_NEW", raising=False)
    with threads.in_environment({"PARTBOOK_TEST_KEPT": "within", "PARTBOOK_TEST_NEW": "within"}):
        assert os.environ["PARTBOOK_TEST_KEPT"] == os.environ["PARTBOOK_TEST_NEW"] == "within"
    assert os.environ["PARTBOOK_TEST_KEPT"] == "before"
    assert "PARTBOOK_TEST_NEW" not in os.environ

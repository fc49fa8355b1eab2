"""Processes of Partbook that begin as a fork of one in which everything is imported.

A node imports torch, Flower and TenSEAL before it does anything: seconds of processor time for each of the 150
processes that the tests start. `Forked` is `subprocess.Popen` for them. What it starts is a process of its own, a child
of whoever asked, with the command line, environment, folder, session and open files that it was given: it is killed,
waited for and listed like any other. Only its imports are done.

    caller ── fork server (imports, one thread, waits)
       │         └── a passing child, which forks once more and ends
       └── the process: adopted by the caller, whom the kernel finds as the nearest subreaper (prctl(2))

A process that starts others (`partbook coordinator start`, SuperExec) has a fork server of its own from its first
moment, while it has one thread. What a fork server cannot start is started as ever: any program that is not Partbook's,
and everything on a system without `prctl`. Tests about imports, the environment or the wheel do not use this.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import functools
import gc
import importlib
import inspect
import os
import pickle
import re
import runpy
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

IMPORTED: Final = (
    "flwr.serverapp",
    "flwr.supercore.cli",
    "flwr.superlink.cli",
    "flwr.superlink.main",
    "flwr.supercore.superexec.run_superexec",
    "flwr.server.superlink.linkstate.sql_linkstate",
    "flwr.supercore.state.schema.linkstate_models",
    "flwr.superlink.grid.http_grid",
    "flwr.supernode.fleet_http_connection",
    "torch._dynamo",
    "dp_accounting",
    "dp_accounting.rdp",
    "tenseal",
    "uvicorn",
    "partbook.cli",
    "partbook.coordinator.app",
    "partbook.coordinator.cli",
    "partbook.coordinator.front",
    "partbook.coordinator.metrics",
    "partbook.coordinator.releasing",
    "partbook.coordinator.running",
    "partbook.coordinator.serverapp",
    "partbook.coordinator.sparing",
    "partbook.coordinator.starting",
    "partbook.custodian.app",
    "partbook.custodian.cli",
    "partbook.node.app",
    "partbook.node.cli",
    "partbook.node.held_model",
    "partbook.node.pinned",
    "partbook.node.running_cli",
    "partbook.simulation.federation",
    "partbook.simulation.reference",
)
"""What the processes of a federation import, sooner or later. None of it starts a thread."""

# As the processes that tests start are told anyway: Flower reads some of these when it is imported.
ENVIRONMENT: Final = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_LENGTH: Final = struct.Struct("!I")
_SIGNATURE: Final = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
_BEGIN: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from support.fork_server import main
del sys.path[0]
main(int(sys.argv[2]))
"""
_ROOM: Final = 16_384  # bytes of command line that a forked process can be listed with


@dataclass(frozen=True, slots=True)
class _Target:
    """What a command line runs: a module (`python -m`) or a script in Python, and its `sys.argv` and first path."""

    kind: str
    name: str
    arguments: tuple[str, ...]
    path: str | None

    @property
    def starts_others(self) -> bool:
        """Whether the process will start processes of Partbook."""
        script = Path(self.name).name
        return script in ("flower-superexec", "flower-supernode") or self.arguments[:2] == ("coordinator", "start")


@dataclass(frozen=True, slots=True)
class _Request:
    """What the fork server is asked for. Files 0, 1, 2 come first among the descriptors sent along, then `kept`."""

    target: _Target
    shown: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    new_session: bool
    group: int
    kept: tuple[int, ...]
    before: bytes
    caller: int


class Forked(subprocess.Popen[Any]):
    """`subprocess.Popen`, but a process of Partbook begins with its imports done.

    `before`, in place of Popen's `preexec_fn`, may be anything that can be pickled.
    """

    def _execute_child(self, *given: Any) -> None:
        values = _SIGNATURE.bind(self, *given).arguments
        environment = os.environ if values["env"] is None else values["env"]
        arguments = values["args"]
        words = [arguments] if isinstance(arguments, str | bytes) else list(arguments)
        server = None if values["shell"] or values["executable"] is not None else _serving()
        target = server and resolved([os.fsdecode(word) for word in words], environment)
        if not target:
            super()._execute_child(*given)  # type: ignore[misc]
            return
        assert server is not None
        ends = [values[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        streams = [end if end != -1 else number for number, end in enumerate((ends[0], ends[3], ends[5]))]
        folder = os.fsdecode(values["cwd"]) if values["cwd"] is not None else os.getcwd()
        if not os.path.isdir(folder):
            raise FileNotFoundError(2, "No such file or directory", folder)
        request = _Request(
            target,
            tuple(map(os.fsdecode, words)),
            {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()},
            folder,
            bool(values["start_new_session"]),
            values["process_group"],
            tuple(values["pass_fds"]),
            pickle.dumps(values["preexec_fn"]),
            os.getpid(),
        )
        self.pid = server.fork(request, [*streams, *values["pass_fds"]])
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]


def run(
    words: Sequence[str], *, timeout: float | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` by `Forked`, with output captured as text.

    Raises:
        CalledProcessError: it ended with another code than 0, and `check` was asked for.
        TimeoutExpired: it did not end in time, and was killed.
    """
    pipe = subprocess.PIPE
    with Forked(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, **options) as process:
        try:
            said, complained = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(list(words), process.returncode, said, complained)
    if check:
        done.check_returncode()
    return done


def resolved(words: Sequence[str], environment: Mapping[str, str]) -> _Target | None:
    """What a command line runs, if it is Python that can be run in a fork of this interpreter."""
    if Path(words[0]).name in (Path(sys.executable).name, "python", "python3"):
        if os.path.realpath(words[0]) != os.path.realpath(sys.executable):
            return None
        return _of_interpreter(list(words[1:]))
    found = shutil.which(words[0], path=environment.get("PATH"))
    return _of_script(Path(found), list(words)) if found else None


def _of_interpreter(rest: list[str]) -> _Target | None:
    safe = False
    while rest and rest[0] in ("-P", "-u"):
        safe |= rest.pop(0) == "-P"
    if rest[:1] == ["-m"] and len(rest) > 1 and rest[1].startswith("partbook."):
        return _Target("module", rest[1], tuple(rest[2:]), None if safe else "")
    if rest and rest[0].endswith(".py"):
        return _Target("script", rest[0], tuple(rest[1:]), None if safe else str(Path(rest[0]).parent))
    return None


def _of_script(script: Path, words: list[str]) -> _Target | None:
    """Of a console script beside this interpreter, or of a shell script that does nothing but `exec` Python."""
    try:
        head = script.read_text(errors="replace")
    except OSError:
        return None
    first, _, rest = head.partition("\n")
    if re.fullmatch(r"#!\S*/python[\d.]*", first):
        same = Path(first[2:]).parent.resolve() == Path(sys.executable).parent.resolve()
        return _Target("script", str(script), tuple(words[1:]), str(script.parent)) if same else None
    if first == "#!/bin/sh" and (line := re.fullmatch(r'exec (.+) "\$@"\n', rest)):
        inner = [*shlex.split(line[1]), *words[1:]]
        return resolved(inner, {})
    return None


class _ForkServer:
    """The caller's end."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        self._line, self.pid, self._asking = line, pid, threading.Lock()

    @classmethod
    def started(cls) -> _ForkServer:
        """A new one, with everything imported."""
        ours, theirs = socket.socketpair()
        room = "." * _ROOM
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BEGIN, str(Path(__file__).parents[1]), str(theirs.fileno()), room],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        _received(ours)  # it is ready
        return cls(ours, process.pid)

    def fork(self, request: _Request, files: Sequence[int]) -> int:
        """Have a process forked; it is this process's child. Its number."""
        assert _LIBC is not None
        with self._asking:
            _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                _sent(self._line, pickle.dumps(request), files)
                answer, _ = _received(self._line)
            finally:
                # Orphans that are nobody's business here go where they always went.
                _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        return int(answer)


_server: _ForkServer | None = None
_starting = threading.Lock()
_is_forked = False


def _serving() -> _ForkServer | None:
    """This process's fork server; started by the first who needs it."""
    global _server
    with _starting:
        if _server is None and not _is_forked and _LIBC is not None:
            _server = _ForkServer.started()
        return _server


def _sent(line: socket.socket, body: bytes, files: Sequence[int] = ()) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
    line.sendmsg([_LENGTH.pack(len(body))], rights)
    line.sendall(body)


def _received(line: socket.socket) -> tuple[bytes, list[int]]:
    """A message and its files.

    Raises:
        EOFError: the other end is gone.
    """
    head, rights, _, _ = line.recvmsg(_LENGTH.size, socket.CMSG_SPACE(4 * 64))
    files = array.array("i")
    for _, _, data in rights:
        files.frombytes(data[: len(data) - len(data) % files.itemsize])
    while 0 < len(head) < _LENGTH.size:
        head += line.recv(_LENGTH.size - len(head))
    if not head:
        raise EOFError
    body = bytearray()
    (length,) = _LENGTH.unpack(head)
    while len(body) < length:
        more = line.recv(length - len(body))
        if not more:
            raise EOFError
        body += more
    return bytes(body), list(files)


def _serve(line: socket.socket, caller: int) -> Callable[[], None]:
    """Fork whatever is asked for, until the caller is gone. Returns in each forked process: what that is to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _sent(line, b"ready")
    while True:
        try:
            body, files = _received(line)
        except (EOFError, OSError):
            os._exit(0)
        reading, writing = os.pipe()
        passing = os.fork()
        if not passing:
            os.close(reading)
            child = os.fork()
            if child:
                os.write(writing, str(child).encode())
                os._exit(0)
            os.close(writing)
            line.close()
            return functools.partial(_be, pickle.loads(body), files)  # noqa: S301 — from the process that started us
        os.close(writing)
        for file in files:
            os.close(file)
        number = os.read(reading, 32)
        os.close(reading)
        os.waitpid(passing, 0)
        _sent(line, number)


def _be(request: _Request, files: list[int]) -> None:
    """Become the process that was asked for, and end."""
    _be_surrounded(request, files)
    code: object = 0
    try:
        if request.target.starts_others:
            _serve_this_process()
        _run(request.target)
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 130 if isinstance(sys.exc_info()[1], KeyboardInterrupt) else 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    # As an interpreter ends, without taking its modules apart.
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(int(code or 0) & 0xFF)


def _be_surrounded(request: _Request, files: list[int]) -> None:
    """Files, folder, environment, session, signals: what `exec` and its caller would have arranged."""
    while os.getppid() != request.caller:  # until the passing child is gone
        os.sched_yield()
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for number, file in zip(request.kept, files[3:], strict=True):
        os.dup2(file, number)
    for file in files:
        if file > 2 and file not in request.kept:
            os.close(file)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    if request.new_session:
        os.setsid()
    elif request.group >= 0:
        os.setpgid(0, request.group)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _show(request.shown)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 — buffered as what it is now
    if request.environment.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[attr-defined]
    _reread_environment(request.environment)
    before = pickle.loads(request.before)  # noqa: S301 — from the process that started us
    if before is not None:
        before()


def _reread_environment(environment: Mapping[str, str]) -> None:
    """What imported modules have read once, and other processes would read differently. And numbers drawn anew."""
    import logging

    import numpy as np

    level = environment.get("FLWR_LOG_LEVEL")
    logging.getLogger("flwr").setLevel(level.upper() if level else logging.INFO)
    np.random.seed()


def _show(words: Sequence[str]) -> None:
    """Be listed with this command line: the kernel reads it out of this process's own memory (proc(5), arg_start)."""
    start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    line = b"\0".join(map(os.fsencode, words))[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, line, len(line))


def _run(target: _Target) -> None:
    sys.argv = [target.name, *target.arguments]
    if target.path is not None:
        sys.path.insert(0, target.path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'partbook.*' found in sys.modules", RuntimeWarning)
        if target.kind == "module":
            runpy.run_module(target.name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(target.name, run_name="__main__")


def _serve_this_process() -> None:
    """Fork a fork server for this process, and have all that it starts begin there."""
    global _server
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        ours.close()
        assert _LIBC is not None
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        _serve(theirs, parent)()
    theirs.close()
    _received(ours)
    _server = _ForkServer(ours, pid)
    subprocess.Popen = Forked  # type: ignore[misc]


def main(file: int) -> None:
    """Import everything, and fork what is asked for through a socket, until its other end is closed."""
    global _is_forked
    line = socket.socket(fileno=file)
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a process with threads must not be forked"
    gc.collect()
    gc.freeze()
    _is_forked = True
    _serve(line, os.getppid())()

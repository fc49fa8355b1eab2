"""Ends a process at each of its writes, one after another, and lets a check look at what is left on the disk.

A write is a system call by which SQLite changes a file (its own table of them is patched, so a page may also be torn
in half), or one of the calls by which Python code here does: of a file that is about to be flushed, half may be there.
Every life is lived in a forked process that really gets SIGKILL. Run by scripts, not in pytest's own process, which has
threads.
"""

from __future__ import annotations

import _sqlite3
import contextlib
import ctypes
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

Say = Callable[[str], None]
Tear = Literal["nothing", "pages", "everything"]  # SQLite's pages, or also files that are about to be flushed
_CALLS = {"pwrite64": 4, "pwrite": 4, "write": 3, "ftruncate": 2, "unlink": 1, "fallocate": 3}  # and their arguments
_PYTHON = ("fsync", "replace", "rename", "unlink", "open", "fchmod")
_resting = False


@contextlib.contextmanager
def unharmed() -> Iterator[None]:
    """What is written in here is neither counted nor a place to end: it is somebody else's machine."""
    global _resting
    before, _resting = _resting, True
    try:
        yield
    finally:
        _resting = before


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`, version 3."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("iVersion", "szOsFile", "mxPathname")),
        *((name, ctypes.c_void_p) for name in ("pNext", "zName", "pAppData")),
        *((f"method{index}", ctypes.c_void_p) for index in range(13)),
        ("set_call", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)),
        ("get_call", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)),
        ("next_call", ctypes.c_void_p),
    )


class _Writes:
    """Counts the writes of this process from now on, and ends it at the wanted one."""

    def __init__(self, last: int | None, *, torn: bool) -> None:
        self.names: list[str] = []
        self._last, self._torn = last, torn
        self._kept: list[object] = []
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        self._vfs = library.sqlite3_vfs_find(None)
        for name, arguments in _CALLS.items():
            self._patch_sqlite(name, arguments)
        for name in _PYTHON:
            self._patch_python(name)

    def _due(self, name: str) -> bool:
        if _resting:
            return False
        self.names.append(name)
        return self._last is not None and len(self.names) == self._last

    def _patch_sqlite(self, name: str, arguments: int) -> None:
        vfs = ctypes.cast(self._vfs, ctypes.c_void_p)
        address = self._vfs.contents.get_call(vfs, name.encode())
        if not address:
            return
        kinds = [ctypes.c_void_p if name == "unlink" else ctypes.c_int, *[ctypes.c_void_p] * (arguments - 1)]
        kind = ctypes.CFUNCTYPE(ctypes.c_ssize_t, *kinds)
        real = kind(address)

        def patched(*given: int | None) -> int:
            if self._due(name):
                if self._torn and "write" in name:
                    real(given[0], given[1], given[2] // 2, *given[3:])
                _end()
            return real(*given)

        wrapped = kind(patched)
        self._kept += [real, wrapped]
        self._vfs.contents.set_call(vfs, name.encode(), ctypes.cast(wrapped, ctypes.c_void_p))

    def _patch_python(self, name: str) -> None:
        real = getattr(os, name)

        def patched(*arguments: object, **named: object) -> object:
            file = name == "fsync" and stat.S_ISREG(os.fstat(arguments[0]).st_mode)
            if self._due("os.fsync of a file" if file else f"os.{name}"):
                if self._torn and file:
                    place = f"/proc/self/fd/{arguments[0]}"
                    os.truncate(place, os.stat(place).st_size // 2)
                _end()
            return real(*arguments, **named)

        setattr(os, name, patched)


def kill_everywhere(
    template: Path,
    folder: Path,
    live: Callable[[Path, Say], None],
    check: Callable[[Path, list[str]], None],
    *,
    tear: Tear = "pages",
) -> dict[str, int]:
    """Live once for every write there is, and once more for every one that can be torn.

    Args:
        template: folder with what is there before.
        folder: where copies of it are lived in.
        live: the life; it says what it has done as soon as that has returned.
        check: looks at what is left, with what was said.
        tear: what is also torn in half.

    Returns:
        Number of ends, by kind of write.
    """
    whole = _copy(template, folder / "whole")
    _, names = _lived(whole, live, None, torn=False)
    ends: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        tearable = "write" in name or (tear == "everything" and name == "os.fsync of a file")
        for torn in (False, True) if tear != "nothing" and tearable else (False,):
            place = _copy(template, folder / f"{number}{'torn' if torn else ''}")
            said, _ = _lived(place, live, number, torn=torn)
            check(place, said)
            shutil.rmtree(place)
            label = f"{name} torn" if torn else name
            ends[label] = ends.get(label, 0) + 1
    return ends


def _lived(
    place: Path, live: Callable[[Path, Say], None], last: int | None, *, torn: bool
) -> tuple[list[str], list[str]]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            writes = _Writes(last, torn=torn)
            live(place, lambda text: _tell(writing, text))
            _tell(writing, "".join(f"\x00{name}" for name in writes.names))
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    if last is None:
        assert os.waitstatus_to_exitcode(status) == 0, f"the whole life ended with {status}"
        return said[:-1], said[-1].split("\x00")[1:]
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"write {last} ended with {status}"
    return said, []


def _tell(pipe: int, text: str) -> None:
    os.write(pipe, text.encode() + b"\n")


def _copy(template: Path, place: Path) -> Path:
    shutil.copytree(template, place)
    return place


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

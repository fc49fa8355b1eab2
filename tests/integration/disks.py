"""A disk that can be filled to the last byte: a file system of a few megabytes, mounted by whoever may."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

MISSING = (
    "needs a file system of its own that can be full: run it as root, or let users have namespaces of their own "
    "(`unshare` of util-linux; sysctl user.max_user_namespaces > 0 and, where they are there, "
    "kernel.unprivileged_userns_clone = 1 and kernel.apparmor_restrict_unprivileged_userns = 0)"
)
_MOUNT = ("mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """The root of a file system of 4 MiB, or None where this user can have none.

    Root mounts it on `folder`. For everybody else a process mounts it in a namespace of its own, which others of the
    same user reach through that process's entry in /proc.
    """
    if os.geteuid() == 0 and subprocess.run([*_MOUNT, folder], capture_output=True, check=False).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return
    hold = f'{" ".join(_MOUNT)} "$0" && echo mounted && exec cat'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hold, str(folder)]
    try:
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        yield None
        return
    with holder:  # its input ends with this process, and it with its input
        assert holder.stdout is not None
        mounted = holder.stdout.readline() == b"mounted\n"
        yield Path(f"/proc/{holder.pid}/root{folder}") if mounted else None

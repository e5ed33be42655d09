"""Stands in for `make` in makeflags' tests: does to a sub-make what a host would, then becomes the real make.

Its open files are closed but 0, 1 and 2; it has the environment that crosses, and a jobserver of its own.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from d1fleet.makeflags import Jobserver, clean_environment, jobserver, parse


def become_remote(make: str, scratch: Path, *, pair: bool) -> None:
    """Execute `make` as a remote make.

    Args:
        make: path of the real make.
        scratch: folder for a fifo, an output lock, and `log`, which gets a line: what jobserver() said.
        pair: whether to give a jobserver to a parallel make that had none.
    """
    env = dict(os.environb)
    # A script is told its own path, whatever argv[0] was.
    argv = [b"make", *map(os.fsencode, sys.argv[1:])]
    flags = parse(env.get(b"MAKEFLAGS", b""))
    was_open = flags.fds is not None and all(map(_is_open, flags.fds))
    kind = jobserver(flags, argv, fds_open=was_open)
    with (scratch / "log").open("a") as log:
        log.write(kind.value + "\n")
    os.closerange(3, 64)
    fds, fifo, sync_mutex = None, None, None
    if kind is Jobserver.CLIENT and flags.fifo is not None:
        fifo = _fifo(scratch / "a fifo")
    elif kind is Jobserver.CLIENT and (flags.auth is not None or pair):
        fds = flags.fds or (3, 4)
    if flags.sync_mutex is not None:
        (scratch / "lock").touch()
        sync_mutex = b"fnm:" + os.fsencode(scratch / "lock")
    held = fds or (flags.fds if kind is Jobserver.OWN and was_open else None)
    if held:
        ends = os.pipe()
        os.write(ends[1], b"+" * 2)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in ends]
        os.closerange(3, 64)
        for fd, number in zip(high, held, strict=True):
            os.dup2(fd, number)
            os.close(fd)
    env = clean_environment(env, fds=fds, fifo=fifo, sync_mutex=sync_mutex)
    env[b"PATH"] = env[b"PATH"].partition(b":")[2]
    os.execve(make, argv, env)


def _fifo(path: Path) -> bytes:
    """A fifo that holds two tokens for as long as this process and what it becomes live."""
    os.mkfifo(path)
    held = fcntl.fcntl(os.open(path, os.O_RDWR), fcntl.F_DUPFD, 100)
    os.write(held, b"+" * 2)
    os.closerange(3, 64)
    return os.fsencode(path)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

"""What the standard library lacks of Linux: subreapers, death signals, whole trees, what lies in a pipe."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Collection, Iterable
from typing import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SYS_PIDFD_GETFD = 438
"""On every architecture (Linux 5.6)."""

LONGEST_NAME = 15
"""Characters of a program's name that the kernel keeps (proc(5), comm)."""


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def descriptor_of(pid: int, fd: int) -> int:
    """A copy of another process's descriptor: pidfd_getfd(2), which needs the right to trace it.

    Raises:
        OSError: it may not be had.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        copy = libc.syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if copy < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(copy)


def become_subreaper() -> None:
    """Descendants whose parents end become children of this process, not of init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int) -> None:
    """Get signal `number` when the thread that forked this process ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


def raise_descriptor_limit() -> None:
    """Allow this process as many open files as it may have: 200 jobs need 2000, a login gives 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def children(pid: int) -> list[int]:
    """Children of a process, of all its threads; none when it is gone."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found


def descendants(pid: int, spare: Collection[int] = ()) -> list[int]:
    """All processes below `pid`, parents before children, without the trees of `spare`."""
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in children(parent) if child not in spare]
        found += level
    return found


def no_recipes(pid: int, makes: Collection[str]) -> list[int]:
    """Processes below `pid` whose parents are no makes, going by the names of these: makes see to theirs."""
    return [
        child
        for parent in (pid, *descendants(pid))
        if name(parent) not in makes
        for child in children(parent)
    ]


def own() -> list[int]:
    """Processes of this user, whatever has started them."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == os.geteuid():
                found.append(int(name))
    return found


def name(pid: int) -> str:
    """Of its program, at most LONGEST_NAME characters; empty when it is gone."""
    return os.fsdecode(_read(pid, "comm").rstrip(b"\n"))


def command_line(pid: int) -> str:
    """Its words, for people; empty when it has ended."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def environment(pid: int) -> list[bytes]:
    """NAME=value, as it was started with; empty when it is gone, or not ours to look at."""
    return _read(pid, "environ").split(b"\0")


def folder(pid: int) -> str:
    """The one it works in; empty when it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def parent(pid: int) -> int:
    """Its parent; 0 when it is gone."""
    return int((_stat(pid) or ["", "0"])[1])


def started(pid: int) -> int:
    """When it was started, in ticks, which with its number names it for good; 0 when it has ended."""
    stat = _stat(pid)
    return int(stat[19]) if stat and stat[0] not in "ZX" else 0


def _stat(pid: int) -> list[str]:
    """proc(5), from the state on: the name in front of it may hold blanks and parentheses."""
    return _read(pid, "stat").rpartition(b")")[2].decode().split()


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def group(pid: int) -> int:
    """Its process group; 0 when it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def session(pid: int) -> int:
    """Its session; 0 when it is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def send(pid: int, number: int) -> None:
    """Send a signal; a process that is gone, or became another user's, is none of our business."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def send_to_all(find: Callable[[], Iterable[int]], number: int) -> list[int]:
    """Send a signal to all that `find` finds, again until nobody is new: one may have been forked while the
    others were told. Returns them.
    """
    told: list[int] = []
    while new := [pid for pid in find() if pid not in told]:
        for pid in new:
            send(pid, number)
        told += new
    return told


def reap(pid: int) -> None:
    """Take note of the end of a child, if it has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def wait_for(pid: int, limit_s: float) -> None:
    """Wait for the end of a child, at most this long."""
    deadline = time.monotonic() + limit_s
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.01)


def reap_orphans(ended: Collection[int], spare: Collection[int]) -> set[int]:
    """Take note of the ends of children that had `ended` at the last look already, and are none of `spare`.

    Who has started a child himself waits for it at once; to take its status away would tell him a lie.

    Returns:
        The children that have ended and are there still: for the next look.
    """
    found = {pid for pid in children(os.getpid()) if pid not in spare and _has_ended(pid)}
    for pid in found.intersection(ended):
        reap(pid)
    return found - set(ended)


def _has_ended(pid: int) -> bool:
    return state(pid) == "Z"


def state(pid: int) -> str:
    """The letter of proc(5): R, S, D, T, Z ...; empty when it is gone."""
    return (_stat(pid) or [""])[0]


def kill_descendants(
    spare: Collection[int] = (),
    reaped: Callable[[int, int], None] = lambda pid, status: None,
    limit_s: float = 5.0,
) -> set[int]:
    """SIGKILL everything below this process until nothing is left, new children included.

    The caller must be a subreaper: only then does each orphan come back here.

    Args:
        spare: children whose trees live on.
        reaped: told of each child that ended, with its wait status.
        limit_s: give up after this long; a process in uninterruptible sleep cannot be killed.

    Returns:
        The processes that could not be ended.
    """
    deadline = time.monotonic() + limit_s
    while True:
        left = descendants(os.getpid(), spare)
        for pid in left:
            send(pid, signal.SIGKILL)
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                reaped(pid, status)
        except ChildProcessError:
            return set()
        if not left:
            return set()
        if time.monotonic() > deadline:
            return set(left)
        time.sleep(0.001)

"""Breaks what a build runs on this host, for `d1fleet chaos`. Only processes of that build, and this user's.

It is known by its tree: processes of jobs work in there, and have our server's socket in their environment.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

from ..errors import D1fleetError
from . import process

_LOOK_S = 0.005
_SPARE_S = 0.5
_MAKES = ("make", "gmake")
_LEFT_BYTES = 4096
"""To how many bytes files may still grow where there is no room."""

_LONGEST = 300
"""Characters of a command line that are told."""

_GARBAGE = b"\xff\x00this is no frame of ours\r\n" * 40


@dataclass
class _Hit:
    """A recipe at work, and what of ours it runs below."""

    recipe: int
    make: int
    supervisor: int
    server: int
    ssh: bool
    """The host is reached over SSH."""

    @property
    def all(self) -> list[int]:
        return [self.server, *process.descendants(self.server)]

    @property
    def sshd(self) -> int:
        """The process of the login that carries the connection.

        Raises:
            D1fleetError: the host is not reached over SSH.
        """
        pid = self.server if self.ssh else 0  # above a server on the build's own machine is the user's login
        while (pid := process.parent(pid)) > 1:
            if process.name(pid).startswith("sshd"):
                return pid
        raise D1fleetError("it is not reached over SSH")


def strike(given: dict[str, Any], environ: dict[str, str], limit_s: float) -> dict[str, Any]:
    """Wait for a recipe of the build that is at work here, and break something in the middle of it.

    Args:
        given: `tree`, an absolute path; `host`, its name in the build; `ssh`, whether it is reached over
            that; `how`, one of the strikes.

    Returns:
        hit: whether a recipe was there; recipe and make: their command lines; folder: of the recipe;
        stopped: processes that `heal` lets go on, as [pid, time of its start].
    """
    tree, host, how = str(given["tree"]), str(given["host"]), str(given["how"])
    ssh = bool(given["ssh"])
    act = _STRIKES.get(how)
    if act is None:
        raise D1fleetError(f"no way to strike is called {how}")
    deadline = time.monotonic() + limit_s - _SPARE_S
    while time.monotonic() < deadline:
        found = list(_recipes(tree, host, ssh))
        random.shuffle(found)
        for hit in found:
            # Stopped, it cannot end before the blow; the blow itself lets it go on, or does not.
            process.send(hit.recipe, signal.SIGSTOP)
            words = process.command_line(hit.recipe)
            if not words or not process.command_line(hit.make):
                process.send(hit.recipe, signal.SIGCONT)
                continue
            folder, make = process.folder(hit.recipe), process.command_line(hit.make)
            try:
                stopped = act(hit)
            finally:
                if how not in _FREEZE:
                    process.send(hit.recipe, signal.SIGCONT)
            told = {"recipe": words, "make": make, "folder": folder}
            return {
                "hit": True,
                **{name: text[:_LONGEST] for name, text in told.items()},
                "stopped": [[pid, start] for pid in stopped if (start := process.started(pid))],
            }
        time.sleep(_LOOK_S)
    return {"hit": False, "recipe": "", "make": "", "folder": "", "stopped": []}


def heal(given: dict[str, Any], environ: dict[str, str], limit_s: float) -> dict[str, Any]:
    """Let go on what a strike has stopped, as far as it is still there."""
    done = 0
    for pid, start in given["stopped"]:
        if process.started(int(pid)) == start:
            with contextlib.suppress(OSError, ValueError):
                soft, hard = resource.prlimit(int(pid), resource.RLIMIT_FSIZE)
                if soft == _LEFT_BYTES:
                    resource.prlimit(int(pid), resource.RLIMIT_FSIZE, (hard, hard))
            process.send(int(pid), signal.SIGCONT)
            done += 1
    return {"healed": done}


# -- the strikes: each returns what it has stopped ---------------------------------------------------------


def _kill(whom: str) -> Callable[[_Hit], list[int]]:
    def act(hit: _Hit) -> list[int]:
        os.kill(getattr(hit, whom), signal.SIGKILL)
        return []

    return act


def _freeze(hit: _Hit) -> list[int]:
    first = []
    with contextlib.suppress(D1fleetError):
        first = [hit.sshd]
    return process.send_to_all(lambda: [*first, *hit.all], signal.SIGSTOP)


def _everything(hit: _Hit) -> list[int]:
    for pid in _freeze(hit):
        process.send(pid, signal.SIGKILL)
    return []


def _cut(hit: _Hit) -> list[int]:
    sshd = hit.sshd
    os.kill(sshd, signal.SIGSTOP)
    return [sshd]


def _hang(hit: _Hit) -> list[int]:
    os.kill(hit.server, signal.SIGSTOP)
    return [hit.server]


def _terminate(hit: _Hit) -> list[int]:
    os.kill(hit.make, signal.SIGTERM)
    return []


def _fill(hit: _Hit) -> list[int]:
    """No room for more: files of the build's processes do not grow any further."""
    pids = hit.all
    for pid in pids:
        with contextlib.suppress(OSError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (_LEFT_BYTES, hard))
    return pids


def _garbage(hit: _Hit) -> list[int]:
    """Write into the connection what no server says: it is a pipe to the login, or the socket that the server
    has twice, for reading and for writing.
    """
    ours, theirs = _files(hit.server), set(_files(hit.sshd).values())
    for fd, what in sorted(ours.items()):
        twice = what.startswith("socket:") and list(ours.values()).count(what) == 2
        piped = what.startswith("pipe:") and what in theirs and what != ours.get(2)  # that is for complaints
        if (twice or piped) and _can_write(hit.server, fd):
            try:
                copy = process.descriptor_of(hit.server, fd)
            except OSError as error:
                raise D1fleetError(
                    f"its connection is not for others to write to: {error.strerror} (ptrace_scope)"
                ) from error
            try:
                os.write(copy, _GARBAGE)
            finally:
                os.close(copy)
            return []
    raise D1fleetError("its connection is not to be found")


def _can_write(pid: int, fd: int) -> bool:
    with open(f"/proc/{pid}/fdinfo/{fd}") as file:
        return any(line.startswith("flags:") and int(line.split()[1], 8) & 3 for line in file)


def _files(pid: int) -> dict[int, str]:
    """What its descriptors are."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def _look(hit: _Hit) -> list[int]:
    return []


_STRIKES: dict[str, Callable[[_Hit], list[int]]] = {
    "look": _look,
    "server": _kill("server"),
    "supervisor": _kill("supervisor"),
    "make": _kill("make"),
    "make-term": _terminate,
    "recipe": _kill("recipe"),
    "sshd": _kill("sshd"),
    "host": _everything,
    "freeze": _freeze,
    "cut": _cut,
    "hang": _hang,
    "full": _fill,
    "garbage": _garbage,
}

_FREEZE = ("freeze",)
"""Strikes after which the recipe stays stopped."""


# -- what is there -------------------------------------------------------------------------------------------


def _recipes(tree: str, host: str, ssh: bool) -> Iterator[_Hit]:
    for pid in process.own():
        if not f"{process.folder(pid)}/".startswith(f"{tree}/"):
            continue
        if process.name(pid) in _MAKES or process.children(pid) or process.state(pid) not in ("R", "S", "D"):
            continue
        if _host_of(pid) == host:
            hit = _above(pid, ssh)
            if hit is not None:
                yield hit


def _above(recipe: int, ssh: bool) -> _Hit | None:
    """Whose recipe it is: the nearest make, and the first that has no socket of ours is its supervisor."""
    make, pid = 0, recipe
    while (pid := process.parent(pid)) > 1:
        if not _socket(pid):
            server = process.parent(pid)
            return _Hit(recipe, make, pid, server, ssh) if make and server > 1 else None
        if not make and process.name(pid) in _MAKES:
            make = pid
    return None


def _host_of(pid: int) -> str:
    """What the build calls the host on which this job's process runs."""
    socket = _socket(pid)
    try:
        with open(os.path.join(os.path.dirname(socket), "build")) as file:
            return file.read().partition(" ")[2]
    except (OSError, UnicodeDecodeError):
        return ""


def _socket(pid: int) -> str:
    for each in process.environment(pid):
        if each.startswith(b"D1FLEET_SOCKET="):
            return os.fsdecode(each.partition(b"=")[2])
    return ""

"""The process that the user's shell knows, in front of the coordinator.

The shell waits for this one. It is what stops on Ctrl-Z, so that the shell notices; the coordinator below
it never stops, for leases have to be kept. Both are subreapers: whichever is killed, the other one still has
the whole local tree below it and ends that.

    shell - front (the terminal's foreground group)
              └ coordinator (a group of its own)
                  └ make (back in the front's group) - recipes, shims
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

from . import words
from .errors import JobLostError
from .server import process

WATCHED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGUSR1,
)

EVENT = struct.Struct("!BB")
"""Front to coordinator: a signal's number, and 1 where it came from the terminal, so that make has it too."""

RESULT = struct.Struct("!BB")
"""Coordinator to front: 0 and an exit status, or 1 and the signal that ended make."""

_SI_KERNEL = 0x80
_STOP_ANSWER_S = 0.5

_TERM_GRACE_S = 2.0
"""Longer than servers over pipes, which are below us too, give their makes."""

_LOOK_S = 1.0
"""A signal may get lost: look this often whether the coordinator has ended."""


def in_front_of(coordinator: Callable[[socket.socket, int], None]) -> tuple[int, int]:
    """Run `coordinator(control socket, process group of the front)` in a process below this one.

    Returns:
        (0, exit status for the shell), or (1, signal that ended make): the caller tidies up and dies of it.
    """
    ours, theirs = socket.socketpair()
    group = os.getpgrp()
    ignored = {number for number in WATCHED if signal.getsignal(number) is signal.SIG_IGN}
    watched = {number for number in WATCHED if number not in ignored} | {signal.SIGCHLD}
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    process.become_subreaper()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            coordinator(theirs, group)
            status = 0
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                words.say_fault()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(status)
    theirs.close()
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    status, early = _wait(pid, ours, watched)
    kind, value = _result(ours, early)
    ours.close()
    if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) != 0 or kind < 0:
        _end_tree()
        words.say("the coordinator ended before the build: everything of this build was ended")
        return 0, JobLostError.exit_code
    # The signals stay blocked: a late one must not cut short what the caller has to tidy up.
    return kind, value


def _wait(pid: int, control: socket.socket, watched: set[signal.Signals]) -> tuple[int, bytes]:
    """Pass signals on until the coordinator has ended; returns its wait status, and what it said
    meanwhile.
    """
    early = b""
    while True:
        info = signal.sigtimedwait(watched, _LOOK_S)
        if info is None or info.si_signo == signal.SIGCHLD:
            with contextlib.suppress(ChildProcessError):
                while True:
                    found, status = os.waitpid(-1, os.WNOHANG)
                    if found == pid:
                        return status, early
                    if found == 0:
                        break
            continue
        with contextlib.suppress(OSError):
            # A hang-up comes from the kernel too, but to the session's leader alone.
            to_all = info.si_code == _SI_KERNEL and info.si_signo != signal.SIGHUP
            control.send(EVENT.pack(info.si_signo, to_all))
        if info.si_signo == signal.SIGTSTP:
            control.settimeout(_STOP_ANSWER_S)
            with contextlib.suppress(OSError):
                early += control.recv(1)
            control.settimeout(None)
            if _somebody_could_continue():
                os.kill(os.getpid(), signal.SIGSTOP)
            else:
                os.killpg(os.getpgrp(), signal.SIGCONT)
            with contextlib.suppress(OSError):
                control.send(EVENT.pack(signal.SIGCONT, 0))


def _somebody_could_continue() -> bool:
    """Is a shell with job control above us? Where none is (a terminal whose first process we are),
    the kernel does not stop a plain make either.
    """
    try:
        above = os.getppid()
        return os.getsid(above) == os.getsid(0) and os.getpgid(above) != os.getpgrp()
    except OSError:
        return False


def _end_tree() -> None:
    """The coordinator is gone and its tree is ours: SIGTERM, so that make can delete half-written targets,
    then SIGKILL.
    """
    for pid in process.children(os.getpid()):
        process.send(pid, signal.SIGTERM)
        process.send(pid, signal.SIGCONT)
    deadline = time.monotonic() + _TERM_GRACE_S
    while process.children(os.getpid()) and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)
    process.kill_descendants()


def _result(control: socket.socket, data: bytes) -> tuple[int, int]:
    """What the coordinator said at its end; -1 when it said nothing."""
    control.setblocking(False)
    with contextlib.suppress(OSError):
        while more := control.recv(64):
            data += more
    if len(data) < RESULT.size:
        return -1, 0
    kind, value = RESULT.unpack(data[-RESULT.size :])  # before it come answers to Ctrl-Z
    return kind, value


def die_of(number: int) -> None:
    """End as make did, without a core of our own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):  # SIGKILL has no other action
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)

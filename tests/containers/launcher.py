"""How podman is started, so that it is never killed half-way, and so that its monitors are nobody's orphans.

For every container podman leaves a monitor behind, conmon, to be adopted. Pytest here adopts all orphans and
takes what is new for a leak (tests/support/leaks.py). That check stays as strict as it is: where this process
adopts orphans, `Outside` starts podman from a process that is not below it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from tests.containers.errors import ContainerError

_OUTSIDE = Path(__file__).with_name("outside.py")

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


@dataclass(frozen=True)
class Command:
    """What to run.

    Attributes:
        timeout_s: then it is killed.
        patience_s: how long it may go on when nobody waits for it any more.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    stdin: str
    timeout_s: float
    patience_s: float


@dataclass(frozen=True)
class Done:
    """How a command ended; a signal is a negative status."""

    status: int
    stdout: str
    stderr: str


class Launch(Protocol):
    """Runs a command in a session of its own, where no Ctrl-C reaches it.

    Raises:
        ContainerError: it took too long, or there is no such program.
    """

    def __call__(self, command: Command) -> Done: ...


def launch_here(command: Command) -> Done:
    """Run a command as a child of this process: `Launch`."""
    try:
        process = subprocess.Popen(
            command.argv, env=command.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as exc:
        raise ContainerError(f"{command.argv[0]} cannot be started: {exc}") from exc
    with process:
        try:
            out, err = process.communicate(command.stdin, command.timeout_s)
        except subprocess.TimeoutExpired as exc:
            _kill_group(process)
            raise _too_long(command) from exc
        except BaseException:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=command.patience_s)
            _kill_group(process)
            raise
    return Done(process.returncode, out, err)


class Outside:
    """A process beside this one's tree that runs commands for it, and ends when this one does: `Launch`."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-I", str(_OUTSIDE), str(theirs.fileno())]
        with theirs, subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()],
            cwd="/", start_new_session=True,
        ) as parent:  # fmt: skip
            assert parent.stdout is not None
            ready = parent.stdout.readline()  # its child runs, and waits to be an orphan
            with _not_adopting():
                parent.communicate()
        if not ready:
            self.close()
            raise ContainerError(f"{_OUTSIDE.name} does not start (status {parent.returncode})")

    def __call__(self, command: Command) -> Done:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(self._control, [b"c"], [theirs.fileno()])
            ours.sendall(json.dumps(asdict(command)).encode())
            ours.shutdown(socket.SHUT_WR)
            try:
                answer = _read_all(ours)
            except BaseException:
                if command.patience_s:
                    ours.settimeout(command.patience_s)
                    with contextlib.suppress(TimeoutError):
                        _read_all(ours)
                raise
        if not answer:
            raise ContainerError(f"{_OUTSIDE.name} is gone; so is the end of {' '.join(command.argv[:4])}")
        kind, *rest = json.loads(answer)
        if kind == "done":
            return Done(*rest)
        raise _too_long(command) if kind == "late" else ContainerError(str(rest[0]))

    def close(self) -> None:
        """Let it end, when what it runs has ended."""
        self._control.close()


def launcher() -> Outside | None:
    """A launcher for what leaves processes behind, where this process would adopt them; to be closed."""
    return Outside() if _adopts() else None


@contextmanager
def _not_adopting() -> Iterator[None]:
    """Let orphans pass on to whoever adopts this process's own; for as short a time as can be."""
    adopts = _adopts()
    if adopts:
        _prctl(_PR_SET_CHILD_SUBREAPER, 0)
    try:
        yield
    finally:
        if adopts:
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _adopts() -> bool:
    answer = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    return bool(answer.value)


def _prctl(option: int, argument: int) -> None:
    call = ctypes.CDLL(None, use_errno=True).prctl
    if call(option, ctypes.c_ulong(argument), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _read_all(source: socket.socket) -> bytes:
    return b"".join(iter(lambda: source.recv(65536), b""))


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _too_long(command: Command) -> ContainerError:
    return ContainerError(f"{' '.join(command.argv[:4])} ... took more than {command.timeout_s} s")

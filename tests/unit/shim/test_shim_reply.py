"""What the shim does with each answer, and with none."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import Shims
from .coordinator import Coordinator

GONE = (88, b"", b"d1fleet: the coordinator of this build is gone; make not run\n")
FORWARDED = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
DEADLY = [signal.SIGKILL, signal.SIGPIPE, signal.SIGSEGV, signal.SIGUSR1]


@pytest.mark.parametrize(("verb", "value"), [(b"X", 0), (b"X", 2), (b"X", 255), (b"I", 80), (b"I", 99)])
def test_exit(coordinator: Coordinator, shims: Shims, verb: bytes, value: int) -> None:
    shim = shims.start("all")
    with coordinator.request() as request:
        request.answer(verb, value)
    assert shims.end(shim) == (value, b"", b"")


@pytest.mark.parametrize(
    "died_of", [*FORWARDED, signal.SIGKILL, signal.SIGPIPE, signal.SIGSEGV, signal.SIGUSR1]
)
def test_dies_of_the_signal_and_leaves_no_core(
    coordinator: Coordinator, shims: Shims, died_of: signal.Signals
) -> None:
    def prepare() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        signal.pthread_sigmask(signal.SIG_BLOCK, {died_of})

    shim = shims.start(preexec_fn=prepare, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with coordinator.request() as request:
        request.answer(b"S", died_of)
    _, status = os.waitpid(shim.pid, 0)
    shim.returncode = os.waitstatus_to_exitcode(status)
    assert shim.returncode == -died_of
    assert not os.WCOREDUMP(status)


def test_a_signal_that_was_ignored_can_still_be_died_of(coordinator: Coordinator, shims: Shims) -> None:
    shim = shims.start(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    with coordinator.request() as request:
        request.answer(b"S", signal.SIGINT)
    assert shims.end(shim)[0] == -signal.SIGINT


def test_run_here(coordinator: Coordinator, shims: Shims, real_make: Path) -> None:
    shim = shims.start("-C", "a b", "x\ny")
    with coordinator.request() as request:
        request.answer(b"L", 12345)
    assert shims.end(shim) == (0, f"ran {real_make}: <-C> <a b> <x\ny>".encode(), b"")


@pytest.mark.parametrize(
    ("program", "args"),
    [("ls", ["/proc/self/fd"]), ("cat", ["/proc/self/environ", "/proc/self/limits", "/proc/self/status"])],
)
def test_run_here_changes_nothing(
    coordinator: Coordinator, shims: Shims, program: str, args: list[str]
) -> None:
    """The real make finds files, environment, signals, umask and limits as if the shim had never been."""

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (88, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})

    path = shutil.which(program)
    env = {**shims.environ, "D1FLEET_MAKE": str(path)}
    r, w = os.pipe()
    try:
        how: dict[str, Any] = {"preexec_fn": prepare, "pass_fds": (r, w), "umask": 0o037, "env": env}
        directly = shims.run(*args, executable=path, **how)
        shim = shims.start(*args, **how)
    finally:
        os.close(r)
        os.close(w)
    with coordinator.request() as request:
        request.answer(b"L")
    through = shims.end(shim)
    # What is left out of /proc/self/status are pids and counters.
    volatile = re.compile(rb"^(?!Sig(Blk|Ign|Cgt)|Umask|Max |.*\0).*\n", re.MULTILINE)
    if program == "cat":
        assert b"Umask:\t0037\n" in through[1]
        directly, through = ((out[0], volatile.sub(b"", out[1]), out[2]) for out in (directly, through))
    assert directly[0] == 0 and len(directly[1]) > 5
    assert through == directly


def test_run_here_keeps_argv0(coordinator: Coordinator, kind: str, shims: Shims, plain_make: str) -> None:
    """$(MAKE) of the next level is argv[0]: were it a path, each echoed command would show it."""
    env = {**shims.environ, "D1FLEET_MAKE": plain_make}
    names = ["make", "gmake"] if kind == "python" else ["make", "gmake", "/a b/make"]
    for name in names:
        shim = shims.start("-f/dev/null", "--eval=$(info [$(MAKE)])all:;@:", name=name, env=env)
        with coordinator.request() as request:
            request.answer(b"L")
        assert shims.end(shim)[1] == f"[{name}]\n".encode()


def test_no_socket(shims: Shims, coordinator: Coordinator) -> None:
    coordinator.path.unlink()
    assert shims.run() == GONE


def test_stale_socket(shims: Shims, coordinator: Coordinator) -> None:
    coordinator.close()
    assert shims.run() == GONE


def test_socket_with_too_long_a_name(shims: Shims) -> None:
    assert shims.run(env={**shims.environ, "D1FLEET_SOCKET": "/tmp/" + "x" * 5000}) == GONE


def test_gone_is_said_with_the_name_called(shims: Shims, coordinator: Coordinator) -> None:
    coordinator.path.unlink()
    assert shims.run(name="gmake")[2].endswith(b"gone; gmake not run\n")


@pytest.mark.parametrize("answer", [b"", b"X", b"X\0\0\0", b"L\0\0", b"?\0\0\0\0", b"\0\0\0\0\0"])
def test_hangs_up_without_an_answer(coordinator: Coordinator, shims: Shims, answer: bytes) -> None:
    shim = shims.start()
    with coordinator.request() as request:
        request.call.sendall(answer)
    assert shims.end(shim) == GONE


def test_hangs_up_on_a_shim_without_stderr(coordinator: Coordinator, shims: Shims) -> None:
    """The socket has the number of stderr then, and to write to it would be to die of SIGPIPE."""
    shim = shims.start(preexec_fn=lambda: os.close(2))
    with coordinator.request():
        pass
    assert shims.end(shim) == (88, b"", b"")


def test_hangs_up_in_mid_request(coordinator: Coordinator, shims: Shims) -> None:
    shim = shims.start(*["x" * 100000] * 10)
    with coordinator.accept() as call:
        call.recv(1)
    assert shims.end(shim) == GONE


def test_answers_and_hangs_up_in_mid_request(coordinator: Coordinator, shims: Shims) -> None:
    shim = shims.start(*["x" * 100000] * 10)
    with coordinator.accept() as call:
        call.sendall(b"I\0\0\0\x5f")
        call.recv(1)
    assert shims.end(shim) == (95, b"", b"")


def test_an_answer_in_pieces(coordinator: Coordinator, shims: Shims) -> None:
    shim = shims.start()
    with coordinator.request() as request:
        request.call.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for i in range(5):
            request.call.sendall(b"X\0\0\0\x05"[i : i + 1])
            # A signal passed on shows that the shim has begun to read, and a piece is not the whole.
            shim.send_signal(signal.SIGHUP)
            if i < 4:
                assert request.next_signal() == signal.SIGHUP
    assert shims.end(shim)[0] == 5


@pytest.mark.parametrize("sent", FORWARDED)
def test_signals_are_passed_on_while_the_shim_waits(
    coordinator: Coordinator, shims: Shims, sent: signal.Signals
) -> None:
    shim = shims.start()
    with coordinator.request() as request:
        for _ in range(3):
            shim.send_signal(sent)
            assert request.next_signal() == sent
        request.answer(b"S", sent)
    assert shims.end(shim) == (-sent, b"", b"")


def test_an_ignored_signal_stays_ignored(coordinator: Coordinator, shims: Shims) -> None:
    def prepare() -> None:
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    shim = shims.start(preexec_fn=prepare)
    with coordinator.request() as request:
        shim.send_signal(signal.SIGHUP)
        shim.send_signal(signal.SIGINT)
        shim.send_signal(signal.SIGTERM)
        assert request.next_signal() == signal.SIGTERM
        request.answer(b"X", 6)
        assert request.call.recv(1) == b""  # nothing else came
    assert shims.end(shim)[0] == 6


def test_a_blocked_signal_stays_blocked(coordinator: Coordinator, shims: Shims) -> None:
    shim = shims.start(preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}))
    with coordinator.request() as request:
        shim.send_signal(signal.SIGINT)
        shim.send_signal(signal.SIGTERM)
        assert request.next_signal() == signal.SIGTERM
        request.answer(b"X", 6)
        assert request.call.recv(1) == b""  # nothing else came
    assert shims.end(shim)[0] == 6


def test_no_make_starts_after_an_interrupt(coordinator: Coordinator, shims: Shims) -> None:
    shim = shims.start()
    with coordinator.request() as request:
        shim.send_signal(signal.SIGINT)
        assert request.next_signal() == signal.SIGINT
        request.answer(b"L")
    assert shims.end(shim) == (-signal.SIGINT, b"", b"")


def test_stops_and_goes_on(coordinator: Coordinator, shims: Shims) -> None:
    # In a group of its own: the kernel does not stop a group that nobody could continue.
    shim = shims.start(process_group=0)
    with coordinator.request() as request:
        shim.send_signal(signal.SIGTSTP)
        _, status = os.waitpid(shim.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        shim.send_signal(signal.SIGCONT)
        request.answer(b"X", 1)
    assert shims.end(shim)[0] == 1

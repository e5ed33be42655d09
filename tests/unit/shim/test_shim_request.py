"""What the coordinator is told about a call: everything, byte by byte."""

from __future__ import annotations

import os
import pty
import resource
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .conftest import SYSTEM_PATH, Shims
from .coordinator import TIMEOUT_S, Coordinator

ODD = [b"-C", b"a b", b"it's", b'"q"', b"$x `y` \\", b"line\nbreak", b"\xff\xfe\x80", b"", b"\t", b"\xc3\xa9"]


def test_arguments_folder_and_environment_arrive_bytewise(
    coordinator: Coordinator, shims: Shims, tmp_path: Path
) -> None:
    folder = os.fsencode(tmp_path) + b"/d \xff\n'q\" $HOME"
    os.mkdir(folder)
    env = {os.fsencode(name): os.fsencode(value) for name, value in shims.environ.items()}
    env |= {b"ODD\xfe": b"\xff\n=a b\\ ", b"EMPTY": b""}
    shim = shims.start(*ODD, env=env, cwd=folder)
    with coordinator.request() as request:
        assert request.argv == [b"make", *ODD]
        assert request.cwd == folder
        # Nothing is added either: Python would like to have LC_CTYPE in there.
        assert sorted(request.env) == sorted(name + b"=" + value for name, value in env.items())
        request.answer(b"X")
    assert shims.end(shim) == (0, b"", b"")


def test_no_arguments(coordinator: Coordinator, shims: Shims) -> None:
    shim = shims.start()
    with coordinator.request() as request:
        assert request.argv == [b"make"]
        request.answer(b"X")
    shims.end(shim)


def test_called_as_gmake(coordinator: Coordinator, shims: Shims) -> None:
    shim = shims.start("all", name="gmake")
    with coordinator.request() as request:
        assert request.argv == [b"gmake", b"all"]
        request.answer(b"X")
    shims.end(shim)


def test_a_mebibyte_of_arguments(coordinator: Coordinator, shims: Shims) -> None:
    args = [bytes([65 + i]) * 104857 + b"\xff\n" for i in range(10)]
    shim = shims.start(*args)
    with coordinator.request() as request:
        assert request.argv[1:] == args
        assert request.flags & 14 == 14
        request.answer(b"X", 3)
    assert shims.end(shim)[0] == 3


def test_a_request_that_is_sent_in_pieces(coordinator: Coordinator, shims: Shims) -> None:
    """A stop and a continue interrupt the send; the rest follows, and no file comes twice."""
    args = [bytes([65 + i]) * 100000 for i in range(10)]
    shim = shims.start(*args)
    call = coordinator.accept()
    for _ in range(5):
        shim.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(shim.pid, os.WUNTRACED)[1])
        shim.send_signal(signal.SIGCONT)
        assert os.WIFCONTINUED(os.waitpid(shim.pid, os.WCONTINUED)[1])
        call.recv(1 << 16, socket.MSG_PEEK)
    with coordinator.request(call) as request:
        assert request.argv[1:] == args
        assert len(request.fds) == 3
        request.answer(b"X", 3)
    assert shims.end(shim)[0] == 3


def test_umask_limits_and_ignored_signals(coordinator: Coordinator, shims: Shims) -> None:
    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (77, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGRTMAX, signal.SIG_IGN)

    shim = shims.start(umask=0o027, preexec_fn=prepare)
    with coordinator.request() as request:
        assert request.umask == 0o027
        expected = {n: resource.getrlimit(n)[0] % 2**64 for n in range(16)}
        expected |= {resource.RLIMIT_NOFILE: 77, resource.RLIMIT_CORE: 0}
        assert request.limits == expected
        assert resource.RLIM_INFINITY % 2**64 in expected.values()
        assert request.ignored == {signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMAX}
        request.answer(b"L")
    assert shims.end(shim)[0] == 0


def test_the_standard_files_themselves_arrive(coordinator: Coordinator, shims: Shims) -> None:
    shim = shims.start(stdin=subprocess.PIPE)
    assert shim.stdin is not None
    shim.stdin.write(b"in")
    shim.stdin.flush()
    with coordinator.request() as request:
        assert request.flags == 2 | 4 | 8
        stdin, stdout, stderr = request.fds
        assert os.read(stdin, 10) == b"in"
        os.write(stdout, b"out \xff")
        os.write(stderr, b"err \xfe")
        request.answer(b"X", 7)
    assert shims.end(shim) == (7, b"out \xff", b"err \xfe")


@pytest.mark.parametrize(
    ("closed", "flags"), [([0], 4 | 8), ([1], 2 | 8), ([2], 2 | 4), ([0, 1, 2], 0)], ids=str
)
def test_closed_files(
    coordinator: Coordinator, shims: Shims, closed: list[int], flags: int, real_make: Path
) -> None:
    def close() -> None:
        for fd in closed:
            os.close(fd)

    shim = shims.start(preexec_fn=close)
    with coordinator.request() as request:
        assert request.flags == flags
        assert len(request.fds) == 3 - len(closed)
        request.answer(b"X", 4)
    assert shims.end(shim)[0] == 4


def _open_pair(case: str, folder: Path) -> tuple[int, int]:
    """Files to be 1 and 2."""
    log = os.fspath(folder / "log")
    if case == "pipe":
        r, w = os.pipe()
        os.close(r)
        return w, os.dup(w)
    if case == "two pipes":
        (r1, w1), (r2, w2) = os.pipe(), os.pipe()
        os.close(r1)
        os.close(r2)
        return w1, w2
    if case == "fifo opened twice":
        os.mkfifo(log)
        return os.open(log, os.O_RDWR), os.open(log, os.O_RDWR)
    if case == "device opened twice":
        return os.open("/dev/null", os.O_WRONLY), os.open("/dev/null", os.O_WRONLY)
    if case == "terminal":
        leader, follower = pty.openpty()
        os.close(leader)
        return follower, os.dup(follower)
    if case == "socket":
        a, b = socket.socketpair()
        b.close()
        return a.detach(), os.open("/dev/null", os.O_WRONLY)
    create = os.O_WRONLY | os.O_CREAT
    first = os.open(log, create)
    os.write(first, b"earlier\n")
    if case == "file":
        return first, os.dup(first)
    if case == "file opened twice":
        return first, os.open(log, create)
    if case == "file opened twice, one to append":
        second = os.open(log, create | os.O_APPEND)
        os.lseek(second, 0, os.SEEK_END)
        return first, second
    assert case == "two files"
    return first, os.open(log + "2", create)


@pytest.mark.parametrize(
    ("case", "same"),
    [
        ("pipe", True),
        ("two pipes", False),
        ("fifo opened twice", True),
        ("device opened twice", True),
        ("terminal", True),
        ("socket", False),
        ("file", True),
        ("file opened twice", False),
        ("file opened twice, one to append", False),
        ("two files", False),
    ],
)
def test_whether_stdout_and_stderr_are_one(
    coordinator: Coordinator, shims: Shims, case: str, same: bool, tmp_path: Path
) -> None:
    out, err = _open_pair(case, tmp_path)
    try:
        shim = shims.start(stdout=out, stderr=err)
    finally:
        os.close(out)
        os.close(err)
    with coordinator.request() as request:
        assert request.flags & 1 == same
        request.answer(b"X")
    assert shims.end(shim)[0] == 0


def test_one_offset_is_not_one_file(
    kind: str, coordinator: Coordinator, shims: Shims, tmp_path: Path
) -> None:
    """kcmp tells apart what offset and flags do not; the stand-in has no kcmp and says so."""
    with open(tmp_path / "log", "wb") as out, open(tmp_path / "log", "r+b") as err:
        err_like_out = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            shim = shims.start(stdout=out, stderr=err_like_out)
        finally:
            os.close(err_like_out)
        assert err.read() == b""
    with coordinator.request() as request:
        assert request.flags & 1 == (kind == "python")
        request.answer(b"X")
    assert shims.end(shim)[0] == 0


@pytest.mark.parametrize(
    ("makeflags", "passed"),
    [
        ("k -j4 --jobserver-auth={r},{w} -- V=1", True),
        (" -j4 --jobserver-auth={r},{w}", True),
        (" -j4 --jobserver-fds={r},{w} -j", True),
        (" --jobserver-auth=98,99 --jobserver-auth={r},{w}", True),
        (" --jobserver-auth={r},{w} --jobserver-auth=98,99", False),
        (" --jobserver-auth={r},{w} --jobserver-auth=fifo:/tmp/GMfifo1", False),
        (" -Ia\\ b --eval=\\\\ --jobserver-auth={r},{w} -- A=b\\ c", True),
        (" --eval=x\\ --jobserver-auth={r},{w}", False),
        (" -j4 -- A=1\\  --jobserver-auth={r},{w}", False),
        ("-- --jobserver-auth={r},{w}", False),
        (" --jobserver-auth=-2,-2", False),
        (" --jobserver-auth={r}", False),
        (" --jobserver-auth={r},", False),
        (" --jobserver-auth=,{w}", False),
        (" --jobserver-auth={r},{w},{w}", False),
        (" --jobserver-auth={r},{w}x", False),
        (" --jobserver-auth={r},{file}", False),
        (" --jobserver-auth={r},99999999999999999999", False),
        (" --jobserver-auth={r},{wide}", False),
        ("", False),
    ],
)
def test_jobserver(
    coordinator: Coordinator, shims: Shims, makeflags: str, passed: bool, tmp_path: Path
) -> None:
    r, w = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        env = {**shims.environ, "MAKEFLAGS": makeflags.format(r=r, w=w, file=file, wide=w + 2**32)}
        shim = shims.start(env=env, pass_fds=(r, w, file))
        with coordinator.request() as request:
            assert request.flags == 14 | (16 if passed else 0)
            if passed:
                os.write(w, b"+")
                assert os.read(request.fds[3], 1) == b"+"
                os.write(request.fds[4], b"-")
                assert os.read(r, 1) == b"-"
            else:
                assert len(request.fds) == 3
            request.answer(b"X")
    finally:
        for fd in (r, w, file):
            os.close(fd)
    assert shims.end(shim)[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root has no such limit, and only root can be somebody else")
def test_more_files_on_their_way_than_a_user_may_have(kind: str, shims: Shims, shim_dir: Path) -> None:
    """The kernel counts a user's files in flight against RLIMIT_NOFILE; a slow coordinator costs no job."""
    user = 64999
    origin = shims.environ["D1FLEET_ORIGIN"].partition(":")[2]

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))

    with tempfile.TemporaryDirectory() as folder, closing(Coordinator(Path(folder, "socket"))) as coordinator:
        os.chmod(folder, 0o755)
        coordinator.path.chmod(0o777)
        env = {
            **shims.environ,
            "D1FLEET_SOCKET": str(coordinator.path),
            "D1FLEET_ORIGIN": f"{user}:{origin}",
        }
        program = Path(shutil.copy(shim_dir / "make", folder))
        program.chmod(0o755)
        reachable = shutil.which("python3", path=SYSTEM_PATH)
        if kind == "python" and reachable:
            lines = program.read_bytes().partition(b"\n")
            program.write_bytes(b"#!" + os.fsencode(reachable) + b" -ISE\n" + lines[2])
        how: dict[str, Any] = {"executable": program, "env": env, "cwd": "/", "preexec_fn": prepare}
        try:
            started = [shims.start(user=user, **how) for _ in range(8)]
        except PermissionError:
            pytest.skip("another user cannot reach the interpreter or the temporary folder")
        calls = [coordinator.accept() for _ in started]
        while calls:
            # No more than three requests of three files fit into the limit; which three is not known.
            full = min(3, len(calls))
            while len(ready := select.select(calls, [], [], TIMEOUT_S)[0]) < full:
                assert ready
            calls.remove(ready[0])
            with coordinator.request(ready[0]) as request:
                assert len(request.fds) == 3
                request.answer(b"X", 9)
    assert [shims.end(shim)[0] for shim in started] == [9] * 8

"""The socket that shims connect to: where it is, who is heard, what is answered; tests/fuzz has the rest."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet.errors import RuntimeFolderError
from d1fleet.loop import Loop
from d1fleet.shims import EXIT, LOCAL, ShimConnection, ShimListener, ShimRequest
from tests.fuzz.test_fuzz_shims import body, framed


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(path))
    return sock


def test_a_shim_is_heard_and_known_by_its_pid(loop: Loop, tmp_path: Path) -> None:
    found: list[tuple[socket.socket, int]] = []
    listener = ShimListener(loop, str(tmp_path / "s"), lambda sock, pid: found.append((sock, pid)))
    shim = _connect(tmp_path / "s")
    loop.run_once(5)
    ((sock, pid),) = found
    assert pid == os.getpid()
    sock.close()
    shim.close()
    listener.close()
    assert not (tmp_path / "s").exists()


def test_many_at_once(loop: Loop, tmp_path: Path) -> None:
    found: list[socket.socket] = []
    listener = ShimListener(loop, str(tmp_path / "s"), lambda sock, _: found.append(sock))
    shims = [_connect(tmp_path / "s") for _ in range(200)]
    for _ in range(20):
        loop.run_once(0)
    assert len(found) == 200
    for sock in [*shims, *found]:
        sock.close()
    listener.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_not_heard(loop: Loop, tmp_path: Path) -> None:
    found: list[socket.socket] = []
    path = Path("/tmp") / f"d1fleet-test-{os.getpid()}"
    listener = ShimListener(loop, str(path), lambda sock, _: found.append(sock))
    path.chmod(0o777)
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            shim = _connect(path)
            os._exit(5 if shim.recv(1) == b"" else 6)
        finally:
            os._exit(7)
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        loop.run_once(0.05)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert found == []
    listener.close()


@pytest.mark.parametrize("what", ["taken", "no folder", "too long"])
def test_a_socket_that_cannot_be_made(loop: Loop, tmp_path: Path, what: str) -> None:
    path = {"taken": tmp_path / "s", "no folder": tmp_path / "x" / "s", "too long": tmp_path / ("x" * 120)}[
        what
    ]
    if what == "taken":
        path.write_text("")
    with pytest.raises(RuntimeFolderError, match="cannot be made") as caught:
        ShimListener(loop, str(path), lambda sock, _: sock.close())
    assert caught.value.exit_code == 86


def test_the_socket_is_no_ones_file_afterwards(loop: Loop, tmp_path: Path) -> None:
    listener = ShimListener(loop, str(tmp_path / "s"), lambda sock, _: sock.close())
    assert stat.S_ISSOCK((tmp_path / "s").stat().st_mode)
    os.unlink(tmp_path / "s")
    listener.close()  # harmless when somebody has tidied up


class _Shim:
    """One connection with a whole request."""

    def __init__(self, loop: Loop) -> None:
        self.sock, ours = socket.socketpair()
        self.sock.settimeout(20)
        self.requests: list[ShimRequest] = []
        self.gone = 0
        self.connection = ShimConnection(
            loop,
            ours,
            1,
            lambda _, request: self.requests.append(request),
            lambda _: None,
            self._gone,
            lambda _: None,
        )
        with open(os.devnull) as null:
            socket.send_fds(self.sock, [framed(body())], [null.fileno()] * 3)
        loop.run_once(5)

    def _gone(self) -> None:
        self.gone += 1


def test_a_request_may_be_read_at_once(loop: Loop) -> None:
    """As the coordinator does it: no further round of the loop for what is there already."""
    shim = _Shim(loop)
    assert len(shim.requests) == 1
    shim.connection.readable()  # nothing more: no harm
    assert shim.gone == 0
    shim.requests[0].close()
    shim.requests[0].close()
    shim.connection.close()
    shim.sock.close()


def test_one_answer_and_no_more(loop: Loop) -> None:
    shim = _Shim(loop)
    shim.connection.reply(LOCAL)
    shim.connection.reply(EXIT, 3)
    assert shim.sock.recv(20) == b"L\0\0\0\0"
    assert shim.sock.recv(20) == b""
    loop.run_once(0)
    assert shim.gone == 0
    shim.requests[0].close()
    shim.sock.close()


def test_an_answer_to_a_shim_that_has_gone(loop: Loop) -> None:
    shim = _Shim(loop)
    shim.sock.close()
    shim.connection.reply(EXIT, 3)
    loop.run_once(0)
    assert shim.gone == 0
    shim.requests[0].close()

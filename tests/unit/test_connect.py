"""Looks at hosts that are gone, and logins in threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d1fleet import connect
from d1fleet.connect import AT_ONCE, Connector, Logins
from d1fleet.errors import ConnectError, D1fleetError
from d1fleet.loop import Loop
from d1fleet.model import Host
from d1fleet.transport import sshconfig
from d1fleet.transport.base import Channel
from tests.fuzz.test_fuzz_hostlink import FakeChannel


@pytest.fixture
def connector() -> Connector:
    return Connector("/dev/null", (), 5.0)


def test_a_look_sees_who_listens(connector: Connector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = Host("h", address="127.0.0.1", port=listening.getsockname()[1])
        assert connector.answers(host)
        listening.accept()[0].close()
    assert not connector.answers(host)


def test_a_name_that_cannot_be_resolved_does_not_answer(connector: Connector) -> None:
    assert not connector.answers(Host("nosuchhost.invalid"))


def test_what_a_look_cannot_tell_is_left_to_the_login(connector: Connector) -> None:
    assert connector.answers(Host("h", transport="local"))
    assert connector.answers(Host("h", ssh_args=("-oProxyCommand=false",)))
    assert connector.answers(Host("h", address="127.0.0.1", port=1, ssh_args=("-oBindAddress=127.0.0.2",)))
    assert connector.answers(Host("h", ssh_args=("-oNoSuchKeyword=1",)))


def test_looks_start_no_program_each(connector: Connector, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = sshconfig.resolve

    def resolve(host: Host, **how: object) -> sshconfig.SshTarget:
        asked.append(host)
        return real(host, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(sshconfig, "resolve", resolve)
    host = Host("h", address="127.0.0.1", port=1)
    for _ in range(5):
        connector.answers(host)
    assert asked == [host]
    monkeypatch.setattr(connect, "_TARGET_KEPT_S", 0.0)
    connector.answers(host)
    assert asked == [host, host]


# -- threads -----------------------------------------------------------------------------------------


class Told:
    """What a login came to."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.found: list[object] = []

    def arrived(self, channel: Channel) -> None:
        self.found.append(channel)

    def failed(self, error: D1fleetError) -> None:
        self.found.append(error)

    def absent(self) -> None:
        self.found.append("absent")

    def wait(self, count: int = 1) -> list[object]:
        while len(self.found) < count:
            self._loop.run_once(1.0)
        return self.found


@pytest.fixture
def told() -> Iterator[Told]:
    loop = Loop()
    yield Told(loop)
    loop.close()


def _logins(told: Told, connecting: Callable[[Host], Channel], answers: bool = True) -> Logins:
    return Logins(told._loop, connecting, lambda host: answers)


def test_a_host_that_answers_is_logged_in_to(told: Told) -> None:
    channel = FakeChannel()
    _logins(told, lambda host: channel).again(Host("h"), told.arrived, told.failed, told.absent)
    assert told.wait() == [channel]


def test_one_that_does_not_is_left_alone(told: Told) -> None:
    def connecting(host: Host) -> Channel:
        raise AssertionError

    _logins(told, connecting, answers=False).again(Host("h"), told.arrived, told.failed, told.absent)
    assert told.wait() == ["absent"]


@pytest.mark.parametrize("error", [ConnectError("no"), ZeroDivisionError("a fault of ours")])
def test_failures_are_told_whatever_they_are(told: Told, error: Exception) -> None:
    def connecting(host: Host) -> Channel:
        raise error

    _logins(told, connecting).again(Host("h"), told.arrived, told.failed, told.absent)
    (found,) = told.wait()
    assert found is error or type(found) is D1fleetError


def test_no_more_than_so_many_at_once(told: Told, tmp_path: Path) -> None:
    go, lock = threading.Event(), threading.Lock()
    inside, most = 0, 0

    def connecting(host: Host) -> Channel:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        go.wait(10.0)
        with lock:
            inside -= 1
        return FakeChannel()

    class Link:
        host = Host("h")
        connected = staticmethod(told.arrived)
        fail = staticmethod(told.failed)

    logins = _logins(told, connecting)
    for _ in range(AT_ONCE + 10):
        logins.start(Link())  # type: ignore[arg-type]
    while inside < AT_ONCE:
        told._loop.run_once(0.01)
    go.set()
    assert len(told.wait(AT_ONCE + 10)) == AT_ONCE + 10
    assert most == AT_ONCE

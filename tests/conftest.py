"""Fixtures for all tests: a loopback SSH server, and the check that nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.leaks import Holdings, adopt_orphans
from tests.support.sshd import LoopbackSshd, missing_reason

# What the tests' own caller may have set must not reach the builds that they start.
_NOT_FOR_TESTS = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEFILES", "GNUMAKEFLAGS", "MAKE")
_OURS = ("D1FLEET_", "D1MAKE_", "ANSIBLE_")


def pytest_configure(config: pytest.Config) -> None:
    adopt_orphans()
    # What a shell starts in its background ignores Ctrl-C, and so would every build that is tried here.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        if name in _NOT_FOR_TESTS or (name.startswith(_OURS) and not name.startswith("D1FLEET_TEST_")):
            del os.environ[name]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """A test fails when it leaves processes (orphans too), threads or open files behind."""
    before = Holdings.now()
    yield
    left = before.left_since()
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackSshd]:
    """Three servers on loopback, hosts a, b and c."""
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    with LoopbackSshd(tmp_path_factory.mktemp("sshd"), servers=3, options={"MaxSessions": 1}) as servers:
        yield servers

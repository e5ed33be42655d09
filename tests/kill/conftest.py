"""Fleets of two hosts, one job each, over pipes and over SSH."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kill.fleet import DEFAULTS, SHORT, Fleet, Times, private_sshd
from tests.support.sshd import LoopbackSshd, missing_reason

HOSTS = {name: {"d1fleet_slots": 4, "d1fleet_max_jobs": 1} for name in ("a", "b")}

TRANSPORTS = ("pipes", "ssh", pytest.param("openssh", marks=pytest.mark.full))
"""How the hosts of a test are reached: SSH by paramiko, and by OpenSSH's client."""

REPEATS = 10

NewFleet = Callable[[str, Times], Fleet]


@pytest.fixture(scope="session")
def kill_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackSshd | None]:
    """A server for the hosts; None where there can be none."""
    if missing_reason():
        yield None
        return
    with private_sshd(tmp_path_factory.mktemp("sshd"), tuple(HOSTS)) as server:
        yield server


@pytest.fixture
def new_fleet(kill_sshd: LoopbackSshd | None, tmp_path: Path) -> NewFleet:
    """Makes the two hosts: `new_fleet(transport, times)`."""

    def make(transport: str, times: Times) -> Fleet:
        if transport == "pipes":
            return Fleet(tmp_path, HOSTS, None, times)
        if kill_sshd is None:
            pytest.skip(missing_reason())
        return Fleet(tmp_path, HOSTS, kill_sshd, times, transport=transport)

    return make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each fault once with short leases; with `full`, ten times, and once with the defaults."""
    if "times" in metafunc.fixturenames:
        again = [pytest.param(SHORT, id=f"short{n}", marks=pytest.mark.full) for n in range(2, REPEATS + 1)]
        once = pytest.param(DEFAULTS, id="defaults", marks=pytest.mark.full)
        metafunc.parametrize("times", [pytest.param(SHORT, id="short"), *again, once])

"""Fixtures for all tests: a loopback SSH server, hosts in containers, and that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests import containers
from tests.containers import hygiene
from tests.support import history
from tests.support.leaks import Holdings, adopt_orphans
from tests.support.sshd import LoopbackSshd, missing_reason

# What the tests' own caller may have set must not reach the builds that they start.
_NOT_FOR_TESTS = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEFILES", "GNUMAKEFLAGS", "MAKE")
_OURS = ("D1FLEET_", "D1MAKE_", "ANSIBLE_")

FIRST_FLEET_TIMEOUT_S = 900
"""For a test on containers that sets no time-out of its own: the first may have to make the image."""


def pytest_configure(config: pytest.Config) -> None:
    adopt_orphans()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        # The path of a socket has 107 bytes at most.
        config.option.basetemp = Path(config.option.basetemp).with_name(worker.removeprefix("gw"))
    # Builds of tests shall not push the user's own out of what is kept on record.
    state = tempfile.mkdtemp(prefix="d1fleet-state-")
    os.environ["XDG_STATE_HOME"] = state
    config.add_cleanup(lambda: shutil.rmtree(state, ignore_errors=True))
    # What a shell starts in its background ignores Ctrl-C, and so would every build that is tried here.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup, and so would the builds
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for name in list(os.environ):
        if name in _NOT_FOR_TESTS or (name.startswith(_OURS) and not name.startswith("D1FLEET_TEST_")):
            del os.environ[name]


@pytest.fixture(autouse=True)
def no_history() -> None:
    """What one test's build took must not decide where another's runs."""
    history.forget()


_HOSTS = ("containers", "doctor", "roles")
"""Folders of tests that share hosts in containers, or that run Ansible."""


class _Workers(LoadScopeScheduling):  # type: ignore[misc]
    """Which tests one of several workers runs, one after the other: those that build on this machine, as they
    share its slots, and those on hosts, as they share the hosts.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.split("/")[1]
        if folder == "unit":
            return nodeid
        return "hosts" if folder in _HOSTS else "builds"


# xdist's own groups do nothing under pytest 9.2: they change names of tests that it keeps elsewhere by now.
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Workers(config, log)


_MINUTES = (
    *("checkin/test_agent.py", "cli/test_join.py", "cli/test_registry.py", "test_inventory_plugin.py"),
    *("registry/test_connections.py", "registry/test_panel_attacks.py", "registry/test_postgres.py"),
    *("registry/test_panel.py", "registry/test_serve.py", "registry/test_sqlitefile.py"),
)
"""Below tests/unit: of the registry, what takes minutes together; its logic is tried without them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        module = item.nodeid.split("::")[0].removeprefix("tests/unit/")
        if module in _MINUTES or (module.startswith("registry/") and "postgresql" in item.nodeid):
            item.add_marker(pytest.mark.full)
        if item.get_closest_marker("containers") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(FIRST_FLEET_TIMEOUT_S))


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


@pytest.fixture(scope="session")
def container_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[containers.ContainerHosts]:
    """Three hosts with a toolchain and pytest's folders at the same paths; ask for `container_hosts`."""
    reason = containers.missing_reason()
    if reason:
        pytest.skip(reason)
    shared = tmp_path_factory.getbasetemp()
    fleet = containers.ContainerHosts(f"tests-{os.getpid()}", variant="build", volumes=[shared])
    try:
        fleet.up()
    except containers.ImageUnavailable as exc:
        pytest.skip(str(exc))
    try:
        yield fleet
    finally:
        fleet.down()


@pytest.fixture
def container_hosts(container_fleet: containers.ContainerHosts) -> Iterator[containers.ContainerHosts]:
    """The three hosts, whole; after the test they are mended, and it fails when it left processes in them."""
    before = {host.name: hygiene.foreign(host) for host in container_fleet}
    yield container_fleet
    for host in container_fleet:
        hygiene.mend(host)
    left = hygiene.left_behind(container_fleet, before)
    if left:
        pytest.fail("left behind in containers:\n  " + "\n  ".join(left), pytrace=False)

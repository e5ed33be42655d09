"""Many jobs on one host, and many names of one machine, over SSH whose server allows one session a login."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kill.fleet import DEFAULTS, Fleet, private_sshd
from tests.limits.trees import Gate, StampTree, Sub, build, start, wait_until_running
from tests.support.sshd import LoopbackSshd, missing_reason

JOBS = 200
ALIASES = tuple(f"alias{number}" for number in range(21))

pytestmark = [pytest.mark.sshd, pytest.mark.timeout(240)]


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[LoopbackSshd]:
    """A server of the test's own, whose log is of this test alone."""
    if missing_reason():
        pytest.skip(missing_reason())
    folder = tmp_path / "sshd"
    folder.mkdir()
    with private_sshd(folder, ALIASES) as server:
        yield server


def _fleet(folder: Path, server: LoopbackSshd, names: tuple[str, ...], slots: int) -> Fleet:
    hosts = {name: {"d1fleet_slots": slots, "d1fleet_server_setup": f"STAMP_HOST={name}"} for name in names}
    return Fleet(folder, hosts, server, DEFAULTS)


def test_many_jobs_on_one_host(own_sshd: LoopbackSshd, tmp_path: Path, tree_folder: Path) -> None:
    """200 jobs run at once on one host, by one login and in one session."""
    subs = [Sub(f"s{number}") for number in range(JOBS)]
    with Gate(tree_folder, subs) as gate:
        tree = StampTree(tree_folder, subs, hold=gate.hold)
        fleet = _fleet(tmp_path, own_sshd, ALIASES[:1], JOBS)
        with start(fleet, tree, f"-j{JOBS}") as running:
            wait_until_running(tree, JOBS, running)
            gate.let_through(1)
            assert running.end() == 0, running.stderr
    assert running.stderr == ""
    assert tree.stamps().most_at_once() == JOBS
    assert tree.stamps().hosts() == {ALIASES[0]}
    assert own_sshd.accepted_logins() == 1
    assert len(re.findall("Starting session", own_sshd.log.read_text())) == 1


def test_many_names_of_one_machine(own_sshd: LoopbackSshd, tmp_path: Path, tree_folder: Path) -> None:
    """21 aliases share the machine's slots, and all of them get work; each has one login."""
    slots = 3
    tree = StampTree(tree_folder, [Sub(f"s{number}", recipes=2, nested=1) for number in range(63)])
    running = build(_fleet(tmp_path, own_sshd, ALIASES, slots), tree, "-j30")
    assert running.stderr == ""
    stamps = tree.stamps()
    assert len(stamps.started()) == tree.recipes
    assert stamps.most_at_once() == slots
    assert stamps.hosts() == set(ALIASES)
    assert own_sshd.accepted_logins() == len(ALIASES)

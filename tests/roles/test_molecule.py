"""Molecule's scenarios: that of the fleet, and those of roles that have changed. `make molecule` runs all."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.containers import missing_reason
from tests.roles.roles import ROLES, ROOT, load, tool

SCENARIOS = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))

MOST_ROLES = 2
"""Of those that have changed, so that a change of all of them does not take the time of all."""

BASE = os.environ.get("D1FLEET_TEST_BASE", "HEAD~1")
"""What a change is compared with: the branch that it goes to, where whoever runs this knows it."""


def _changed_roles() -> list[str] | None:
    """Roles with a file that differs from BASE's, sorted; None where git does not say."""
    git = shutil.which("git")
    if git is None:
        return None
    argv = [git, "-C", str(ROOT), "diff", "--name-only", BASE, "--", "roles", "molecule"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    found = {Path(line).parts[1] for line in done.stdout.splitlines()}
    return ROLES if "shared" in found else sorted(found.intersection(ROLES))


def _run(scenario: str) -> None:
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    environment = {**os.environ, "PATH": f"{Path(tool('molecule')).parent}:{os.environ['PATH']}"}
    # Hosts that a run that was broken off has left are not bare.
    for arguments in (["destroy"], ["test", "--scenario-name", scenario]):
        done = subprocess.run(
            [tool("molecule"), *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:]


def test_each_role_has_a_scenario() -> None:
    assert sorted([*ROLES, "default"]) == SCENARIOS
    needs = load("molecule/shared/vars/needs.yml")["needs"]
    assert {*needs, *(each for found in needs.values() for each in found)} <= set(ROLES)


@pytest.mark.containers
@pytest.mark.timeout(1200)
def test_the_fleet() -> None:
    _run("default")


@pytest.mark.containers
@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ROLES)
def test_a_role(role: str) -> None:
    changed = _changed_roles()
    if changed is None:
        pytest.skip(f"nothing tells what has changed since {BASE}; `make molecule` runs all")
    if role not in changed:
        pytest.skip(f"role {role} is as in {BASE}; `make molecule` runs all")
    if role not in changed[:MOST_ROLES]:
        pytest.skip(f"{len(changed)} roles differ from {BASE}: the first {MOST_ROLES} stand for all here")
    _run(role)

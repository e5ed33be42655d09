"""Builds whose recipes do what tokens and slots have no say in: slower at most, they never stand still."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kill.fleet import DEFAULTS, Fleet

LIMIT_S = 40.0

pytestmark = pytest.mark.timeout(120)

CARGO = """\
import os, subprocess, sys
read, write = os.pipe()
os.write(write, b"+++")
auth = f"{read},{write}"
environment = dict(os.environ, MAKEFLAGS=f"-j --jobserver-fds={auth} --jobserver-auth={auth}")
call = ["make", "-s", "-C", "native", *sys.argv[1:]]
raise SystemExit(subprocess.call(call, env=environment, pass_fds=(read, write)))
"""
"""What cargo does for the build script of a crate that calls make."""


def _build(folder: Path, files: dict[str, str], slots: int) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        path = folder / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    fleet = Fleet(folder, {"alder": {"d1fleet_slots": slots}}, times=DEFAULTS)
    return subprocess.run(
        fleet.command("-j4"),
        cwd=folder / "tree",
        env=fleet.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.parametrize("jobs", ["", "-j2", "-j"])
def test_a_program_in_between_has_a_jobserver_of_its_own(tmp_path: Path, jobs: str) -> None:
    """Also where it wants as many slots as there are, while its own recipe has one of them."""
    names = " ".join(f"p{number}" for number in range(6))
    files = {
        "Makefile": f"all: x {names}\nx: ; @sleep 0.3; python3 cargo.py {jobs}\n"
        f"{names}: ; @$(MAKE) -s --no-print-directory -C other X=$@\n.PHONY: all x {names}\n",
        "cargo.py": CARGO,
        "native/Makefile": "all: ; @echo native\n",
        "other/Makefile": "all: ; @sleep 0.5; echo $(X)\n",
    }
    done = _build(tmp_path, files, 2)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if "directory" not in line) == sorted(
        ["native", *names.split()]
    )
    assert "sets -j itself" not in done.stderr


def test_two_makes_in_the_background_of_one_recipe_wait_for_each_other(tmp_path: Path) -> None:
    """As a client and its server do in a test; the host is full meanwhile, and its make could use more."""
    waits = (
        "n=0; until [ -e ../flag ]; do sleep 0.1; n=$$((n+1)); [ $$n -lt 60 ] || exit 1; done; echo client"
    )
    call = "$(MAKE) -s --no-print-directory -C"
    files = {
        "Makefile": f"all: ; @{call} p\n",
        "p/Makefile": "all: x y\n"
        f"x: ; @sleep 0.4; {call} ../client & sleep 0.9; {call} ../server & wait\n"
        "y: ; @sleep 1\n",
        "client/Makefile": f"all: ; @{waits}\n",
        "server/Makefile": "all: ; @echo server; touch ../flag\n",
    }
    done = _build(tmp_path, files, 1)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["client", "server"]

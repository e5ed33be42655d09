"""A whole build with a host that means ill: tests/trouble/hostile_server.py in place of its Python."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kill.fleet import CHECKOUT, DEFAULTS, SHORT, Fleet, Times
from tests.support.sshd import LoopbackSshd
from tests.trouble.hostile_server import ASKED

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 90.0


def fleet(folder: Path, sshd: LoopbackSshd, how: str, times: Times, slots: int = 2) -> Fleet:
    """The hostile host over SSH, and one that is this machine."""
    python = folder / "python"
    server = CHECKOUT / "tests" / "trouble" / "hostile_server.py"
    python.write_text(f"#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} {server} {folder} {how}\n")
    python.chmod(stat.S_IRWXU)
    hosts: dict[str, dict[str, object]] = {
        "a": {"ansible_python_interpreter": str(python)},
        "here": {"d1fleet_transport": "local", "d1fleet_slots": slots},
    }
    # No history: it would know that what is asked for is too short to be moved.
    return Fleet(folder, hosts, sshd, times, {"XDG_STATE_HOME": str(folder / "cache")})


def build(folder: Path, found: Fleet, *own: str, subs: int = 8) -> subprocess.CompletedProcess[str]:
    tree = folder / "tree"
    tree.mkdir()
    record = folder / "record"
    up = f'until [ "$$(grep -c host-up {record})" -ge 2 ]; do sleep 0.02; done'
    names = " ".join(f"s{number}" for number in range(subs))
    (tree / "Makefile").write_text(
        f"all: {names}\nup: ; @{up}\n{names}: up ; @$(MAKE) -s --no-print-directory -f sub.mk $@\n"
    )
    (tree / "sub.mk").write_text("%: ; @sleep 0.2; touch made-$@; echo done\n")
    return subprocess.run(
        found.command("-k", "-j6", record=record, own=own),
        cwd=tree,
        env=found.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_it_asks_for_our_machine(tmp_path: Path, sshd: LoopbackSshd) -> None:
    end = build(tmp_path, fleet(tmp_path, sshd, "asks", DEFAULTS))
    assert end.returncode == 0, end.stderr
    assert end.stdout == "done\n" * 8
    answers = ast.literal_eval((tmp_path / "answers").read_text())
    assert answers == {"Stay": ASKED, "Placed": 0, "Exit": 0}
    assert not os.path.exists(tmp_path / "evil")


def test_it_is_trusted(tmp_path: Path, sshd: LoopbackSshd) -> None:
    """The test above would see it: where the user allows it and a slot is free, our machine does as asked."""
    # A token that make leaves alone keeps a slot of our machine: there is one more.
    end = build(tmp_path, fleet(tmp_path, sshd, "late", DEFAULTS, slots=3), "--trust-hosts", subs=6)
    assert end.returncode == 0, end.stderr
    answers = ast.literal_eval((tmp_path / "answers").read_text())
    assert answers["Placed"] == answers["Exit"] > 0
    assert os.path.exists(tmp_path / "evil")


def test_it_writes_without_end(tmp_path: Path, sshd: LoopbackSshd) -> None:
    """It is given up; what it had is lost, and made elsewhere."""
    end = build(tmp_path, fleet(tmp_path, sshd, "endless", SHORT))
    assert end.returncode == 0, end.stderr
    assert "bytes of output came without credit" in end.stderr
    made = [line.lstrip("x") for line in end.stdout.splitlines()]
    assert made.count("done") == 8
    # What was taken until it was one time too many depends on who is quicker; it is not without end.
    assert len(end.stdout) < 1 << 26

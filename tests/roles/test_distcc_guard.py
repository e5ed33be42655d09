"""What clients leave behind in the compile server's unit is ended, and nothing else is."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from typing import Any

import pytest

from tests.roles.roles import ROOT


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("distcc_guard", ROOT / "roles/distcc/files/distcc_guard.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    spec.loader.exec_module(module)
    return module


SERVER = {100: (1, 9000.0), 101: (100, 9000.0), 102: (100, 50.0)}
"""distccd and two that serve clients."""


def test_what_works_for_a_client_stays_however_long_the_server_runs(guard: Any) -> None:
    assert guard.left({}, 600) == []
    assert guard.left(SERVER, 600) == []
    assert guard.left({**SERVER, 200: (102, 900.0), 201: (200, 900.0)}, 600) == []


def test_what_nobody_waits_for_is_ended_when_its_time_is_over(guard: Any) -> None:
    orphans = {300: (1, 601.0), 301: (300, 601.0), 302: (1, 599.0)}
    assert guard.left({**SERVER, **orphans}, 600) == [300]
    # Next, its child.
    assert guard.left({**SERVER, 301: (1, 606.0)}, 600) == [301]


def test_the_guard_ends_them(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as orphan:
        monkeypatch.setattr(guard, "NFT", "true")  # as nft that ends at once: the guard looks once
        monkeypatch.setattr(guard, "stands", lambda family, table: True)
        monkeypatch.setattr(guard, "members", lambda unit: {**SERVER, orphan.pid: (1, 700.0)})
        assert guard.main("inet", "x", "x.service", "600") == "nft monitor has ended"
        assert orphan.wait(10) == -signal.SIGKILL


def test_a_units_processes_are_read(guard: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    procs = tmp_path / "system.slice/x.service/cgroup.procs"
    procs.parent.mkdir(parents=True)
    procs.write_text(f"{os.getpid()}\n999999999\n")
    monkeypatch.setattr(guard, "CGROUPS", (str(tmp_path / "none"), str(tmp_path)))
    ((pid, (parent, age_s)),) = guard.members("x.service").items()
    assert (pid, parent) == (os.getpid(), os.getppid())
    assert 0 <= age_s < 1e9

"""The look at the compilers, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet.checkin import compilers
from d1fleet.loop import Loop
from d1fleet.server import toolchain


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


def test_it_sees_what_the_server_sees(tmp_path: Path) -> None:
    found = compilers.look(str(tmp_path / "cache"), ["gcc"])
    assert found == toolchain.describe(["gcc"], compilers.ENVIRON)
    assert "gcc" in found and (tmp_path / "cache").is_dir()
    assert compilers.look(str(tmp_path / "cache"), ["gcc"]) == found


def test_it_is_at_a_low_priority() -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from d1fleet.checkin import compilers;"
        "compilers.toolchain.examine = lambda *_: ({'nice': str(os.nice(0))}, True);"
        "compilers.main(['5', ''])"
    )
    argv = [sys.executable, "-c", script, compilers._ROOT]
    assert compilers.read(subprocess.run(argv, capture_output=True, check=True).stdout) == {
        "nice": str(os.nice(0) + 5)
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        json.dumps({"parts": {"cc": "no answer"}, "sure": False}).encode(),
        json.dumps({"parts": {"cc": 1}, "sure": True}).encode(),
        json.dumps({"parts": {}, "sure": True, "more": 1}).encode(),
    ],
)
def test_what_is_not_sure_is_not_known(data: bytes) -> None:
    assert compilers.read(data) == {}


def _look(loop: Loop, folder: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []

    def done(parts: dict[str, str]) -> None:
        found.append(parts)
        loop.stop()

    compilers.Look(loop, str(folder), [], done)
    loop.run()
    return found


def test_in_a_loop(loop: Loop, tmp_path: Path) -> None:
    (found,) = _look(loop, tmp_path / "cache")
    assert found == toolchain.describe([], compilers.ENVIRON)


def test_one_that_hangs_is_ended(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "argv", lambda *_: ["sleep", "60"])
    monkeypatch.setattr(compilers, "LONGEST_S", 0.1)
    assert _look(loop, tmp_path) == [{}]


def test_one_that_prints_without_end_is_ended(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilers, "argv", lambda *_: ["yes"])
    assert _look(loop, tmp_path) == [{}]


def test_one_that_is_given_up(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "argv", lambda *_: ["sleep", "60"])
    found: list[dict[str, str]] = []
    look = compilers.Look(loop, str(tmp_path), [], found.append)
    look.close()
    look.close()
    assert not found and look._process.returncode is not None


def test_a_busy_host_is_not_sure(tmp_path: Path) -> None:
    """A compiler that does not answer: what is said of it is not taken for its word."""
    slow = tmp_path / "gcc"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    parts, sure = toolchain.examine(["gcc"], environ)
    assert not sure and parts["gcc"].startswith("no answer")
    assert toolchain.examine([], compilers.ENVIRON)[1]

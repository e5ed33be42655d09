"""Builds that learn from those before: what is short stays where it is called, and not for ever."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kill.fleet import DEFAULTS, Fleet

LIMIT_S = 60.0
SHORT, LONG = "true", "sleep 0.4"

pytestmark = pytest.mark.timeout(120)


class Builds:
    """One tree, built again and again with one history."""

    def __init__(self, folder: Path, top: str, mid: str = "") -> None:
        self._tree = folder / "tree"
        self._tree.mkdir()
        self._record = folder / "record"
        state = {"XDG_STATE_HOME": str(folder / "state")}
        self._fleet = Fleet(folder, {"alder": {"d1fleet_slots": 2}}, times=DEFAULTS, variables=state)
        (self._tree / "Makefile").write_text(top)
        (self._tree / "mid.mk").write_text(mid)

    def build(self, recipe: str, *arguments: str) -> dict[str, Any]:
        """Build with that recipe at the end of all; returns what the record says of the make that has it."""
        (self._tree / "sub.mk").write_text(f"all: ; @{recipe}\n")
        self._record.unlink(missing_ok=True)
        done = subprocess.run(
            self._fleet.command(*arguments, record=self._record),
            cwd=self._tree,
            env=self._fleet.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        events = map(json.loads, self._record.read_text().splitlines())
        (found,) = [each for each in events if each["event"] == "job" and each["argv"][-1] == "sub.mk"]
        return dict(found)


@pytest.mark.parametrize("jobs", [(), ("-j2",)], ids=["serial", "-j2"])
def test_a_short_one_stays_here_until_it_is_seen_to_be_long(tmp_path: Path, jobs: tuple[str, ...]) -> None:
    builds = Builds(tmp_path, "all: ; @$(MAKE) -s -f sub.mk\n")
    first = builds.build(SHORT, *jobs)
    assert (first["host"], first["expected_s"]) == ("alder", None)
    second = builds.build(SHORT, *jobs)
    assert (second["host"], second["reason"]) == (None, "tiny")
    assert builds.build(LONG, *jobs)["host"] is None  # nobody could know
    fourth = builds.build(LONG, *jobs)
    assert fourth["host"] == "alder"
    assert fourth["expected_s"] > 0.1


def test_what_stays_on_a_host_is_measured_there(tmp_path: Path) -> None:
    top, mid = "all: ; @$(MAKE) -s -f mid.mk\n", "all: ; @$(MAKE) -s -f sub.mk; sleep 0.2\n"
    builds = Builds(tmp_path, top, mid)
    for expected_s, recipe in ((None, SHORT), (0.0, LONG), (0.1, SHORT), (0.1, SHORT)):
        found = builds.build(recipe, "-j2")
        assert (found["asked_from"], found["host"]) == ("alder", "alder")
        assert (found["expected_s"] is None) == (expected_s is None)
        assert expected_s is None or found["expected_s"] > expected_s
        assert found["reason"] == ("tiny" if expected_s == 0.0 else "no-room-elsewhere")


def test_builds_with_little_to_do_do_not_make_it_short(tmp_path: Path) -> None:
    """A developer's usual day: one clean build, then many in which nothing of this folder has changed."""
    builds = Builds(tmp_path, "all: ; @$(MAKE) -s -f sub.mk\n")
    builds.build("sleep 0.6")
    for _ in range(4):
        assert builds.build(SHORT)["host"] == "alder"
    assert builds.build(SHORT)["expected_s"] > 0.5

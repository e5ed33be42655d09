"""Records of builds are kept without being asked for, and are never a reason for a build to fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from d1fleet.record import EVENTS
from tests.kill.fleet import PROGRAM

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 90.0
HOSTS = ("--hosts", ":/2")
MAKEFILE = "all: one two\none two: ; @$(MAKE) -s --no-print-directory -f sub.mk $@\n"
SUB = "%: ; @echo made $@\n"
TYPES = {"float": float, "int": int, "str": str, "bool": bool, "list[str]": list, "list[list]": list}


class Place:
    """A tree, and a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.tree.mkdir()
        (self.tree / "Makefile").write_text(MAKEFILE)
        (self.tree / "sub.mk").write_text(SUB)
        self.state = folder / "state"
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": str(self.state)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=self.tree,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def why(self, *arguments: str) -> Any:
        ended = self.run("why", "--json", *arguments)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def records(self) -> list[Path]:
        return sorted(self.state.glob("d1fleet/records/*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_kept_is_told(place: Place) -> None:
    assert place.run("build", *HOSTS, "-j2").returncode == 0
    (build,) = place.why()
    assert (build["command"], build["jobs"], build["exit"]) == (["make", "-j2"], 2, 0)
    story = place.why("one")
    assert (story["outcome"], story["reason"], story["explanation"] != "") == ("ended well", "soonest", True)
    assert story["asked_s"] <= story["placed_s"] <= story["ended_s"] < LIMIT_S
    assert "because it would have ended it first." in place.run("why", "one").stdout


def test_what_a_build_writes_is_what_the_contract_has(place: Place) -> None:
    record = place.state / "named"
    place.state.mkdir()
    until = f"one: ; @until grep -q host-failed {record}; do sleep 0.05; done\n"
    (place.tree / "sub.mk").write_text(until)
    hosts = ("--hosts", ":/2 nosuchhost.invalid")
    place.run("build", *hosts, "--record", str(record), "-j2", "-k", "one", "none")
    seen = set()
    for line in place.records()[0].read_text().splitlines():
        event = json.loads(line)
        kind = event.pop("event")
        seen.add(kind)
        assert EVENTS[kind].keys() == event.keys()
        for name, value in event.items():
            wanted = EVENTS[kind][name]
            assert (value is None and wanted.endswith("?")) or type(value) is TYPES[wanted.rstrip("?")], name
    assert {"build", "job", "host-up", "host-failed", "end"} <= seen


def test_how_many_are_kept(place: Place) -> None:
    for _ in range(3):
        assert place.run("build", *HOSTS, "--keep-records", "2").returncode == 0
    assert len(place.records()) == 2
    assert place.run("build", *HOSTS, "--keep-records", "0").returncode == 0
    assert len(place.records()) == 2
    assert place.run("build", "--keep-records", "-1").returncode == 81


def test_a_folder_that_cannot_be_used(place: Place) -> None:
    place.state.write_text("no folder")
    ended = place.run("build", *HOSTS, "-j2")
    assert (ended.returncode, sorted(ended.stdout.split())) == (0, ["made", "made", "one", "two"])
    assert "d1fleet: no record of this build is kept" in ended.stderr
    assert "d1fleet: no journal of this build is kept" in ended.stderr


def test_a_coordinator_that_is_killed(place: Place) -> None:
    """What is on record by then is told, and that the build did not end."""
    begun = place.tree / "begun"
    os.mkfifo(begun)
    (place.tree / "sub.mk").write_text("one: ; @echo made\ntwo: one ; @echo >begun; sleep 1000\n")
    with subprocess.Popen(
        [*PROGRAM, "build", *HOSTS, "two"],
        cwd=place.tree,
        env=place.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as front:
        begun.read_text()
        children = Path(f"/proc/{front.pid}/task/{front.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert front.wait(LIMIT_S) == 88
    (build,) = place.why()
    assert (build["ended"], build["exit"]) == (False, None)
    assert "not, or killed" in place.run("why").stdout

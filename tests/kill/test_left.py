"""What a job leaves running when it has ended well is ended with the build, and the build says so."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.kill import proc
from tests.kill.conftest import TRANSPORTS, NewFleet
from tests.kill.fleet import SHORT
from tests.kill.nasty import KINDS
from tests.kill.running import Build, Scene

pytestmark = pytest.mark.timeout(150)

LEFT = KINDS[1:]
"""All but the recipe's own process outlive it."""


@pytest.mark.parametrize("manner", ["meek", "stubborn"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ended_with_the_build(new_fleet: NewFleet, transport: str, manner: str) -> None:
    fleet = new_fleet(transport, SHORT)
    with Scene(manner) as scene, Build.on(fleet, scene) as build:
        scene.release("one")
        scene.wait_for("gone", "one", "child")
        # It has left its job, and make waits for the other one: until then nobody ends it.
        for kind in LEFT:
            assert proc.runs(scene.pids()["one", kind]), scene.report()
        scene.release("two")
        assert build.wait(30) == 0, scene.report()
        build.wait_until_gone(SHORT.lease_s + 10)
        # In each job a sh waits for the grandchild.
        left = 2 * (len(LEFT) + 1)
        assert re.fullmatch(rf"d1fleet: {left} processes that outlived .*\n", build.stderr), build.stderr
        for job in scene.jobs:
            assert scene.target(job) == "half\nwhole\n"
        ran = [json.loads(line) for line in (scene.folder / "record").read_text().splitlines()]
        assert {entry["host"] for entry in ran if entry["event"] == "job"} == {"a", "b"}


def test_plain_make_leaves_them(new_fleet: NewFleet) -> None:
    """Plain make leaves all of them behind: there is something to end, and we see it."""
    make = shutil.which("make")
    assert make is not None
    with (
        Scene("meek") as scene,
        Build(scene, [make, "-j2"], new_fleet("pipes", SHORT).environment()) as build,
    ):
        scene.wait_for_all("ready", scene.jobs)
        scene.release(*scene.jobs)
        assert build.wait(30) == 0, scene.report()
        expected = {scene.pids()[job, kind] for job in scene.jobs for kind in LEFT}
        assert expected <= set(scene.found())
        assert expected <= set(build.left())
        (scene.folder / "release").touch()
        scene.wait_for_all("gone", scene.jobs, LEFT)
        build.wait_until_gone(10)

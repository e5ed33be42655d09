"""Hosts whose clocks are wrong, by hours or days: leases and torn targets go by other clocks."""

from __future__ import annotations

import glob
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.scene import Scene
from tests.kill.conftest import NewFleet
from tests.kill.fleet import SHORT, Fleet

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not shutil.which("faketime"), reason="no faketime (package faketime)"),
]

LIMIT_S = 60.0

TIMES = (1, *(pytest.param(number, marks=pytest.mark.full) for number in range(2, 11)))


def wrong(fleet: Fleet, offset: str) -> Fleet:
    """The same hosts with clocks that are wrong: makes and recipes see another time. The kernel, which gives
    files their times, does not, and servers never ask.
    """
    (library,) = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    setup = f"LD_PRELOAD={library} FAKETIME={offset}"
    return replace(
        fleet, hosts={name: {**given, "d1fleet_server_setup": setup} for name, given in fleet.hosts.items()}
    )


@pytest.mark.parametrize("number", TIMES)
@pytest.mark.parametrize("offset", ["+3d", "-3d"])
def test_torn_targets_are_found(new_fleet: NewFleet, tmp_path: Path, offset: str, number: int) -> None:
    with Scene(tmp_path, wrong(new_fleet("ssh", SHORT), offset)) as scene:
        build = scene.start()
        first = scene.recipe(1)
        environment = Path(f"/proc/{first}/environ").read_bytes()
        assert b"FAKETIME=" + offset.encode() in environment
        os.kill(scene.supervisor(first), signal.SIGKILL)
        scene.recipe(2)
        assert scene.put_away == {"sub/big.o": "half\n"}
        scene.go()
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == 0, err
        assert scene.product() == "half\nwhole\n"


@pytest.mark.parametrize("number", TIMES)
@pytest.mark.parametrize("offset", ["+3d", "-3d"])
def test_what_a_frozen_one_has_written_is_found(
    new_fleet: NewFleet, tmp_path: Path, offset: str, number: int
) -> None:
    fleet = wrong(new_fleet("ssh", SHORT), offset)
    with Scene(tmp_path, fleet, goal="steady.o") as scene:
        scene.thaw_behind_the_build()
        again = scene.start()
        _, err = again.communicate(timeout=LIMIT_S)
        assert again.returncode == 0, err
        assert "may be half written, and will be made again: sub/steady.o" in err
        assert scene.product("steady.o") == "whole\n"

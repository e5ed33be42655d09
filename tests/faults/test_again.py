"""What breaks in the middle of a write is done again, and nothing torn is taken for whole."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet.errors import JobLostError, TreeError
from tests.faults.scene import Scene
from tests.kill import proc
from tests.kill.conftest import TRANSPORTS, NewFleet
from tests.kill.fleet import SHORT

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 60.0

WHOLE = "half\nwhole\n"


@pytest.fixture(params=TRANSPORTS)
def scene(request: pytest.FixtureRequest, new_fleet: NewFleet, tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path, new_fleet(request.param, SHORT)) as found:
        yield found


@pytest.mark.parametrize("who", ["server", "supervisor", "make"])
def test_killed_in_the_middle_of_a_write(scene: Scene, who: str) -> None:
    build = scene.start()
    first = scene.recipe(1)
    scene.wait_for_hosts(2)
    make = proc.parent(first)
    os.kill(
        {"server": scene.server, "supervisor": scene.supervisor}.get(who, proc.parent)(first), signal.SIGKILL
    )
    if who == "make":
        # Not infrastructure: the build fails, as under plain make; but the next one makes it anew.
        assert not proc.wait_until_gone(lambda: [make], LIMIT_S)
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == 2, err
        assert "may be half written, and will be made again: sub/big.o" in err
        build = scene.start()
    second = scene.recipe(2)
    assert not proc.runs(first)
    scene.go()
    _, err = build.communicate(timeout=LIMIT_S)
    assert build.returncode == 0, err
    assert scene.product() == WHOLE
    assert second != first
    if who != "make":
        assert "it is done again" in err
        ends = [(event["infrastructure"], event["exit"]) for event in scene.events("job")]
        assert ends == [("internal" if who == "supervisor" else "lost", None), ("", 0)]
        hosts = [event["host"] for event in scene.events("job")]
        assert hosts[0] != hosts[1]
    if who != "server":  # of its death its makes hear by SIGTERM, and delete what is half made
        assert scene.put_away == {"sub/big.o": "half\n"}
    assert scene.left_in_tree <= {".d1fleet-lost"}


def test_what_was_whole_is_made_again_too(new_fleet: NewFleet, tmp_path: Path) -> None:
    """Nobody can tell it from what is torn."""
    with Scene(tmp_path, new_fleet("pipes", SHORT), goal="both") as scene:
        build = scene.start()
        os.kill(scene.supervisor(scene.recipe(1)), signal.SIGKILL)
        scene.recipe(2)
        assert scene.put_away == {"sub/big.o": "half\n", "sub/whole.o": "whole\n"}
        scene.go()
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == 0, err
        assert (scene.product(), scene.product("whole.o")) == (WHOLE, "whole\n")


def test_three_times_is_enough(new_fleet: NewFleet, tmp_path: Path) -> None:
    """A recipe that ends its hosts."""
    with Scene(tmp_path, new_fleet("pipes", SHORT)) as scene:
        build = scene.start()
        for number in (1, 2, 3):
            os.kill(scene.supervisor(scene.recipe(number)), signal.SIGKILL)
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == JobLostError.exit_code, err
        assert "it was lost 3 times" in err
        assert scene.product() == ""


def test_what_must_not_be_done_twice_is_not(scene: Scene) -> None:
    build = scene.start(own=("--not-repeatable", "folder=*"))
    os.kill(scene.supervisor(scene.recipe(1)), signal.SIGKILL)
    _, err = build.communicate(timeout=LIMIT_S)
    assert build.returncode == JobLostError.exit_code, err
    assert "it must not be done twice" in err
    assert scene.put_away == {"sub/big.o": "half\n"}


def test_the_next_build_knows_what_a_killed_one_has_torn(scene: Scene) -> None:
    build = scene.start()
    first = scene.recipe(1)
    scene.wait_for_hosts(2)  # until then files are there by which hosts prove that they see this tree
    assert scene.left_in_tree == set()  # recipes see what they see under plain make
    make, server = proc.parent(first), scene.server(first)
    # What make deletes when it hears of the end is not torn: it must not hear of it.
    os.kill(make, signal.SIGKILL)
    os.kill(scene.coordinator(build), signal.SIGKILL)
    build.communicate(timeout=LIMIT_S)
    assert not proc.wait_until_gone(lambda: [server, first], LIMIT_S)
    assert scene.product() == "half\n"
    scene.go()
    again = scene.start()
    _, err = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 0, err
    assert "the build before this one was broken off with 1 sub-make at work" in err
    assert scene.product() == WHOLE
    assert scene.put_away == {"sub/big.o": "half\n"}
    assert scene.left_in_tree == {".d1fleet-lost"}


def test_a_torn_file_that_git_tracks_keeps_builds_from_going_on(new_fleet: NewFleet, tmp_path: Path) -> None:
    with Scene(tmp_path, new_fleet("pipes", SHORT)) as scene:
        for words in (["init", "-q"], ["add", "-f", "sub/big.o"]):
            (scene.tree / "sub" / "big.o").touch()
            subprocess.run(["git", "-C", scene.tree, *words], check=True)
        os.utime(scene.tree / "sub" / "big.o", (1, 1))
        build = scene.start()
        os.kill(scene.supervisor(scene.recipe(1)), signal.SIGKILL)
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == JobLostError.exit_code, err
        assert "sub/big.o may be half written, and was left where it is: it is under version control" in err
        # Still so for the next build, until somebody has looked.
        again = scene.start()
        _, err = again.communicate(timeout=LIMIT_S)
        assert again.returncode == TreeError.exit_code, err
        assert "files that may be half written are in make's sight" in err

"""A host that was frozen goes on when others have done its work: what it tears is not taken for whole."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet.errors import JobLostError
from tests.faults.scene import Scene
from tests.kill import proc
from tests.kill.conftest import TRANSPORTS, NewFleet
from tests.kill.fleet import SHORT, Times

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 60.0

SLOW = Times(lease_s=100.0, grace_s=50.0, heartbeat_s=1.0)
"""Who waits for these is not ended by the end of the test."""


@pytest.fixture(params=TRANSPORTS)
def scene(request: pytest.FixtureRequest, new_fleet: NewFleet, tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path, new_fleet(request.param, SHORT), goal="steady.o") as found:
        yield found


TIMES = (1, *(pytest.param(number, marks=pytest.mark.full) for number in range(2, 21)))
"""Once, and twenty times in the full run."""


def built_again(scene: Scene) -> str:
    """Build, and see that all is as it should be; returns what d1fleet said."""
    again = scene.start()
    _, err = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 0, err
    assert scene.product("steady.o") == "whole\n"
    assert scene.left_in_tree == {".d1fleet-lost"}
    return err


@pytest.mark.parametrize("number", TIMES)
def test_it_thaws_while_another_does_its_work(scene: Scene, number: int) -> None:
    build = scene.start()
    first = scene.recipe(1)
    frozen = scene.frozen(first)
    scene.recipe(2)
    scene.thaw(frozen)
    assert not proc.wait_until_gone(lambda: [first], 5.0)
    scene.wait_for(lambda: scene.has_note, "a note of the host")
    scene.go()
    _, err = build.communicate(timeout=LIMIT_S)
    assert build.returncode == JobLostError.exit_code, err
    assert "may be half written, and will be made again: sub/steady.o" in err
    assert "sub/steady.o" in scene.put_away
    built_again(scene)


@pytest.mark.parametrize("number", TIMES)
def test_it_thaws_when_the_build_has_ended(scene: Scene, number: int) -> None:
    said = scene.thaw_behind_the_build()
    assert "not heard of since it was lost, with sub-makes at work: " in said
    assert scene.has_note
    assert "may be half written, and will be made again: sub/steady.o" in built_again(scene)


@pytest.mark.parametrize("number", TIMES)
def test_a_host_that_is_cut_off_writes_nothing_after_its_lease(
    new_fleet: NewFleet, tmp_path: Path, number: int
) -> None:
    """It would write each 10 ms, and its connection stays silent."""
    with Scene(tmp_path, new_fleet("ssh", SHORT), goal="ticks.o") as scene:
        build = scene.start()
        first = scene.recipe(1)
        ticks = scene.tree / f"ticks.{first}"
        scene.wait_for(ticks.exists, "a tick")
        session = scene.session(first)
        os.kill(session, signal.SIGSTOP)
        cut_s = time.time()
        scene.recipe(2)
        began_s = (scene.tree / "began").stat().st_mtime
        last_s = ticks.stat().st_mtime
        assert cut_s < last_s < began_s, "a second one began before the first had ended"
        assert last_s <= cut_s + SHORT.lease_s + SHORT.grace_s / 2
        assert not proc.runs(first)
        scene.go()
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == 0, err
        assert ticks.stat().st_mtime == last_s
        os.kill(session, signal.SIGKILL)
        assert scene.product("ticks.o") == "whole\n"


def test_strict_takes_no_such_end_for_a_good_one(new_fleet: NewFleet, tmp_path: Path) -> None:
    with Scene(tmp_path, new_fleet("pipes", SHORT), goal="steady.o") as scene:
        build = scene.start(own=("--strict",))
        frozen = scene.frozen(scene.recipe(1))
        scene.recipe(2)
        scene.go()
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == JobLostError.exit_code, err
        scene.thaw(frozen)


@pytest.mark.parametrize("works", [True, False])
def test_the_site_can_make_sure(new_fleet: NewFleet, tmp_path: Path, works: bool) -> None:
    with Scene(tmp_path, new_fleet("pipes", SHORT), goal="steady.o") as scene:
        pids = tmp_path / "frozen"
        command = f"echo $D1FLEET_FENCE_HOST $D1FLEET_FENCE_ADDRESS > {tmp_path}/asked; sleep 1; " + (
            f"kill -KILL $(cat {pids})" if works else "echo no such machine; exit 3"
        )
        build = scene.start(own=("--fence", command))
        frozen = scene.frozen(scene.recipe(1))
        pids.write_text(" ".join(map(str, frozen)))
        scene.recipe(2)
        began_s = (scene.tree / "began").stat().st_mtime
        assert began_s >= (tmp_path / "asked").stat().st_mtime + 1, "done again before the fence had ended"
        scene.go()
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == 0, err
        name, address = (tmp_path / "asked").read_text().split()
        assert name == address and f"host {name} has not been heard of since: fence is run for it" in err
        ((_, reason),) = [(event["host"], event["reason"]) for event in scene.events("host-fenced")]
        if works:
            assert f"host {name}: fence has made sure that nothing runs there" in err
            assert "not heard of since it was lost" not in err and reason == ""
        else:
            assert f"host {name}: fence failed, exit status 3: no such machine" in err
            assert "not heard of since it was lost" in err and reason
            scene.thaw(frozen)


@pytest.mark.parametrize("who", ["server", "both"])
def test_who_comes_back_and_has_nothing_left_is_not_waited_for(
    new_fleet: NewFleet, tmp_path: Path, who: str
) -> None:
    """Also when nobody of ours was left there to end what ran: the next server does."""
    with Scene(tmp_path, new_fleet("ssh", SLOW), goal="steady.o") as scene:
        build = scene.start()
        first = scene.recipe(1)
        server, supervisor = scene.server(first), scene.supervisor(first)
        if who == "both":
            os.kill(supervisor, signal.SIGSTOP)
        os.kill(server, signal.SIGKILL)
        if who == "both":
            os.kill(supervisor, signal.SIGKILL)
        scene.recipe(2)
        assert not proc.runs(first)
        scene.go()
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == 0, err
        assert "not heard of since it was lost" not in err
        assert scene.product("steady.o") == "whole\n"

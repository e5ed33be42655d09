"""However a target is named, wherever it lies, whoever has called the make: what is torn is made again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.scene import Scene
from tests.kill import proc
from tests.kill.conftest import NewFleet
from tests.kill.fleet import SHORT

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 60.0
WHOLE = "half\nwhole\n"

RECIPE = (
    "\t@echo half > $@; echo $$$$ >> {began}; while [ ! -e {go} ]; do sleep 0.02; done; echo whole >> $@\n"
)

WAYS = {
    "odd-name": {
        "sub/Makefile": "all: $(CURDIR)/../sub//x/../out.o\n$(CURDIR)/../sub//x/../out.o: big.c\n{recipe}",
    },
    "variable-from-above": {
        "Makefile": "export OUT := out.o\nall: ; $(MAKE) -C sub\n",
        "sub/Makefile": "all: $(OUT)\n$(OUT): big.c\n{recipe}",
    },
    "jobserver-of-its-own": {
        "sub/Makefile": "all: ; @$(MAKE) -j2 middle\nmiddle: ; @$(MAKE) out.o\nout.o: big.c\n{recipe}",
    },
}


def scene_of(folder: Path, new_fleet: NewFleet, way: str) -> Scene:
    scene = Scene(folder, new_fleet("pipes", SHORT), goal="all")
    recipe = RECIPE.format(began=scene.tree / "began", go=scene.tree / "go")
    for name, text in WAYS[way].items():
        (scene.tree / name).write_text(text.replace("{recipe}", recipe))
    (scene.tree / "sub" / "x").mkdir()
    return scene


@pytest.mark.parametrize("way", WAYS)
def test_in_the_same_build(new_fleet: NewFleet, tmp_path: Path, way: str) -> None:
    with scene_of(tmp_path, new_fleet, way) as scene:
        build = scene.start()
        first = scene.recipe(1)
        # The outermost make's: of the makes within, none has a supervisor.
        os.kill(proc.above(first)[[*map(_is_server, proc.above(first))].index(True) - 1], signal.SIGKILL)
        scene.recipe(2)
        assert scene.put_away == {"sub/out.o": "half\n"}
        scene.go()
        _, err = build.communicate(timeout=LIMIT_S)
        assert build.returncode == 0, err
        assert scene.product("out.o") == WHOLE


@pytest.mark.parametrize("way", WAYS)
def test_in_the_next_build(new_fleet: NewFleet, tmp_path: Path, way: str) -> None:
    with scene_of(tmp_path, new_fleet, way) as scene:
        build = scene.start()
        first = scene.recipe(1)
        above = proc.above(first)
        server = above[[*map(_is_server, above)].index(True)]
        coordinator = scene.coordinator(build)
        frozen = proc.freeze(server)
        os.kill(coordinator, signal.SIGKILL)
        for pid in reversed(frozen):
            os.kill(pid, signal.SIGKILL)
        build.communicate(timeout=LIMIT_S)
        scene.go()
        again = scene.start()
        _, err = again.communicate(timeout=LIMIT_S)
        assert again.returncode == 0, err
        assert scene.put_away == {"sub/out.o": "half\n"}
        assert scene.product("out.o") == WHOLE


def _is_server(pid: int) -> bool:
    """A process with a Python, above which is the coordinator, that has children with supervisors' jobs."""
    words = proc.words(pid)
    return any("D1FLEET-" in word for word in words) and not any(
        "D1FLEET-" in word for word in proc.words(proc.parent(pid))
    )

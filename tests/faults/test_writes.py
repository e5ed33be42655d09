"""A host is killed while it writes a large object, an archive, a list of prerequisites."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.scene import START_LIMIT_S
from tests.kill import proc
from tests.kill.conftest import NewFleet
from tests.kill.fleet import SHORT, Fleet

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 60.0
LARGE_BYTES = 48 << 20

TOP = "all: ; $(MAKE) --no-print-directory -C sub\n"
SUB = """\
program: main.o lib.a
\t$(CC) -o $@ $^
lib.a: large.o
\t$(AR) rcD $@ $^
%.o: %.c
\t$(CC) -MMD -c -o $@ $<
-include main.d large.d
"""

SEEN: dict[str, Callable[[Path], bool]] = {
    "object": lambda sub: _size(sub / "large.o") > 0,
    "archive": lambda sub: any(map(_size, [sub / "lib.a", *sub.glob("st??????")])),
    "list": lambda sub: (sub / "large.d").exists(),
}
"""When what is to be torn is being written."""

TIMES = {"object": 34, "archive": 33, "list": 33}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def make_tree(tree: Path) -> None:
    (tree / "sub").mkdir(parents=True)
    (tree / "Makefile").write_text(TOP)
    (tree / "sub" / "Makefile").write_text(SUB)
    (tree / "sub" / "main.c").write_text("extern char large[]; int main(void) { return large[1]; }\n")
    (tree / "sub" / "large.h").write_text(f"enum {{ size = {LARGE_BYTES} }};\n")
    (tree / "sub" / "large.c").write_text('#include "large.h"\nchar large[size] = {1};\n')


def products(tree: Path) -> dict[str, bytes]:
    names = ("main.o", "large.o", "lib.a", "program", "main.d", "large.d")
    return {name: (tree / "sub" / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What plain make makes."""
    tree = tmp_path_factory.mktemp("clean") / "tree"
    make_tree(tree)
    subprocess.run(["make", "-s"], cwd=tree, check=True)
    return products(tree)


def strike(fleet: Fleet, folder: Path, what: str) -> subprocess.CompletedProcess[str]:
    """Build, and kill all that the host runs when that is being written."""
    tree = folder / "tree"
    make_tree(tree)
    build = subprocess.Popen(
        fleet.command("-j2", record=folder / "record"),
        cwd=tree,
        env={**fleet.environment(), "D1KILL_MARK": folder.name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not SEEN[what](tree / "sub"):
            assert time.monotonic() < deadline and build.poll() is None, f"never: {what}"
        makes = [pid for pid in proc.marked(str(tree / "sub")) if proc.words(pid)[:1] == ["make"]]
        server = proc.parent(proc.parent(makes[0]))
        for pid in proc.freeze(server):  # as if at one moment
            os.kill(pid, signal.SIGKILL)
        _, err = build.communicate(timeout=LIMIT_S)
        return subprocess.CompletedProcess([], build.returncode, "", err)
    finally:
        if build.poll() is None:
            build.kill()
            build.communicate()
        proc.wait_until_gone(lambda: proc.marked(folder.name), 20.0)


@pytest.mark.parametrize(
    ("what", "number"),
    [
        pytest.param(what, number, marks=[pytest.mark.full] if number else [])
        for what, times in TIMES.items()
        for number in range(times)
    ],
)
def test_what_is_made_is_as_clean(
    new_fleet: NewFleet, tmp_path: Path, clean: dict[str, bytes], what: str, number: int
) -> None:
    ended = strike(new_fleet("pipes", SHORT), tmp_path, what)
    assert ended.returncode == 0, ended.stderr
    assert "it is done again" in ended.stderr
    assert products(tmp_path / "tree") == clean

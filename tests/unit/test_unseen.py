"""Which processes count as sub-makes that came by."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from d1fleet.interpose import MARKER
from d1fleet.unseen import Call, Unseen, _executed

MAKE = shutil.which("make") or pytest.skip("there is no make here", allow_module_level=True)


@pytest.fixture
def shim_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / MARKER).touch()
    return folder


@contextmanager
def running(tmp_path: Path, argv0: str, **environ: str) -> Iterator[int]:
    """A make that waits, and its process id."""
    with subprocess.Popen(
        [argv0, "-f", "-"],
        executable=MAKE,
        cwd=tmp_path,
        env=environ,
        stdin=subprocess.PIPE,
    ) as process:
        try:
            yield process.pid  # it waits for its makefile
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("argv0", "environ", "why"),
    [
        ("/usr/bin/make", {"MAKELEVEL": "1"}, "it was called by a path"),
        ("make", {"MAKELEVEL": "1", "PATH": "/usr/bin"}, "PATH was set anew"),
        ("make", {"MAKELEVEL": "1", "FAKEROOTKEY": "7"}, "it was under fakeroot"),
        ("make", {"MAKELEVEL": "1", "LD_PRELOAD": "/lib/none.so"}, "LD_PRELOAD was set"),
        ("make", {"MAKELEVEL": "1"}, None),
        ("{shim}/make", {"MAKELEVEL": "1"}, None),
        ("/usr/bin/make", {"MAKELEVEL": "0"}, None),
        ("/usr/bin/make", {}, None),
        ("/usr/bin/make", {"MAKELEVEL": "odd"}, None),
    ],
)
def test_what_counts(
    tmp_path: Path, shim_dir: Path, argv0: str, environ: dict[str, str], why: str | None
) -> None:
    environ = {"PATH": f"{shim_dir}:/usr/bin:/bin", **environ}
    unseen = Unseen(shim_dir, "")
    with running(tmp_path, argv0.format(shim=shim_dir), **environ) as pid:
        found = [call for call in unseen.look(()) if call.folder == str(tmp_path)]
        assert unseen.look(()) == []  # each one once
        spared = Unseen(shim_dir, "").look((pid,))
    words = " ".join([argv0, "-f", "-"])
    assert found == ([Call(words, str(tmp_path), why)] if why else [])
    assert spared == [] and unseen.calls == found


def test_levels_count_from_where_the_build_stands(tmp_path: Path, shim_dir: Path) -> None:
    with running(tmp_path, "/usr/bin/make", PATH="/usr/bin", MAKELEVEL="2"):
        assert len(Unseen(shim_dir, "1").look(())) == 1
        assert Unseen(shim_dir, "2").look(()) == []


def test_a_copy_of_a_make_that_has_not_become_its_own_program(tmp_path: Path) -> None:
    """Between fork and exec a recipe looks like the make that starts it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        assert not _executed(pid)
    finally:
        os.close(write)
        os.waitpid(pid, 0)
    with running(tmp_path, "make") as made:
        assert _executed(made)

"""A build's own folder, and the user's cache."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet import folders, runtime
from d1fleet.errors import RuntimeFolderError


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield folder
    while runtime._locks:  # a build holds them until its process ends
        os.close(runtime._locks.pop())


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_builds_folder_is_its_users_alone(base: Path) -> None:
    folder = runtime.build_folder()
    assert folder.parent == base / "d1fleet" / "builds"
    for each in (folder, folder.parent, folder.parent.parent):
        assert _mode(each) == 0o700
    assert runtime.build_folder() != folder
    assert folder.is_dir()


_BUILD = (
    "import os, sys; sys.path.insert(0, sys.argv[1]); from d1fleet import runtime; "
    "print(runtime.build_folder(), flush=True)"
)


def _other_build(code: str = "") -> subprocess.Popen[str]:
    root = str(Path(runtime.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", f"{_BUILD}; {code or 'sys.stdin.readline()'}", root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_a_killed_build_left_is_removed_and_a_living_ones_is_not() -> None:
    with _other_build() as living:
        assert living.stdout
        kept = Path(living.stdout.readline().strip())
        with _other_build("os.kill(os.getpid(), 9)") as killed:
            assert killed.stdout
            left = Path(killed.stdout.readline().strip())
        assert kept.is_dir() and left.is_dir()
        mine = runtime.build_folder()
        assert mine.is_dir() and kept.is_dir() and not left.exists()
        living.communicate("\n", timeout=30)


def test_a_folder_without_a_lock_is_removed(base: Path) -> None:
    """Its build was killed before it had one."""
    half = base / "d1fleet" / "builds" / "b0"
    half.mkdir(parents=True, mode=0o700)
    (base / "d1fleet").chmod(0o700)
    (base / "d1fleet" / "builds").chmod(0o700)
    runtime.build_folder()
    assert not half.exists()


def test_many_builds_at_once_keep_their_folders() -> None:
    builds = [_other_build() for _ in range(6)]
    folders = []
    for build in builds:
        assert build.stdout
        folders.append(Path(build.stdout.readline().strip()))
    assert len(set(folders)) == len(builds)
    assert all((folder / "lock").exists() for folder in folders)
    for build in builds:
        build.communicate("\n", timeout=30)


def test_a_folder_that_others_may_write_to(base: Path) -> None:
    runtime.build_folder()
    (base / "d1fleet" / "builds").chmod(0o777)
    with pytest.raises(RuntimeFolderError, match="can be written by others"):
        runtime.build_folder()


def test_a_file_where_the_folder_should_be(base: Path) -> None:
    (base / "d1fleet").write_text("")
    with pytest.raises(RuntimeFolderError, match="is not a folder"):
        runtime.build_folder()


def test_a_path_too_long_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(RuntimeFolderError, match="too long a path for a socket"):
        runtime.build_folder()


def test_cache(tmp_path: Path) -> None:
    folder = folders.cache_folder("shim")
    assert folder == tmp_path / "cache" / "d1fleet" / "shim"
    assert _mode(folder) == _mode(folder.parent) == 0o700
    assert folders.cache_folder("shim") == folder


def test_cache_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.cache_folder("x") == tmp_path / ".cache" / "d1fleet" / "x"


def test_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(RuntimeFolderError, match="cannot be made"):
        folders.cache_folder("x")


def test_cache_of_somebody_else(tmp_path: Path) -> None:
    folders.cache_folder("x").chmod(0o770)
    with pytest.raises(RuntimeFolderError, match="can be written by others"):
        folders.cache_folder("x")

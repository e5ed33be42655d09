"""Files that root writes where others may have put traps."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet.checkin.safefolder import SafeFolder
from d1fleet.errors import RuntimeFolderError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def folder(place: Path) -> Iterator[SafeFolder]:
    found = SafeFolder(str(place))
    yield found
    found.close()


def test_a_file_is_written_once(folder: SafeFolder, place: Path) -> None:
    assert folder.write("engine", b"one\n")
    found = place / "engine"
    assert (found.read_bytes(), found.stat().st_mode & 0o777) == (b"one\n", 0o644)
    number = found.stat().st_ino
    assert not folder.write("engine", b"one\n")
    assert found.stat().st_ino == number
    assert folder.write("engine", b"two\n")
    assert found.read_bytes() == b"two\n"
    assert folder.names() == ["engine"]


def test_a_link_is_replaced_and_not_followed(folder: SafeFolder, place: Path, tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_text("as it was")
    (place / "engine").symlink_to(target)
    assert folder.read("engine") is None
    assert folder.write("engine", b"new")
    assert target.read_text() == "as it was"
    assert not (place / "engine").is_symlink() and (place / "engine").read_text() == "new"


def test_what_is_no_plain_file_is_not_read(folder: SafeFolder, place: Path) -> None:
    os.mkfifo(place / "fifo")
    (place / "sub").mkdir()
    assert folder.read("fifo") is None and folder.read("sub") is None and folder.read("none") is None


def test_what_cannot_be_written_leaves_the_old_one(
    folder: SafeFolder, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("engine", b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write("engine", b"new")
    assert (place / "engine").read_text() == "old"
    assert folder.names() == ["engine"]


def test_what_a_killed_one_left_is_swept_away(folder: SafeFolder, place: Path) -> None:
    (place / ".d1fleet-new-0123").write_text("half")
    (place / "engine").write_text("whole")
    folder.sweep()
    assert folder.names() == ["engine"]


def test_the_last_folder_is_made(tmp_path: Path) -> None:
    SafeFolder(str(tmp_path / "new")).close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755
    with pytest.raises(RuntimeFolderError, match="cannot be used"):
        SafeFolder(str(tmp_path / "none" / "new"))


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/", ""])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(RuntimeFolderError, match="no absolute path"):
        SafeFolder(path)


def test_a_link_on_the_way(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path / "link", tmp_path / "link" / "hosts"):
        with pytest.raises(RuntimeFolderError, match="no link"):
            SafeFolder(str(path))


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
def test_others_may_not_write_there(place: Path, mode: int) -> None:
    place.chmod(mode)
    with pytest.raises(RuntimeFolderError, match="by others than root"):
        SafeFolder(str(place))


def test_nor_above_unless_they_cannot_rename(place: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(RuntimeFolderError, match=f"{tmp_path} can be changed"):
        SafeFolder(str(place))
    tmp_path.chmod(0o1777)
    SafeFolder(str(place)).close()


@needs_root
@pytest.mark.parametrize("which", ["", ".."])
def test_another_users_folder(place: Path, which: str) -> None:
    os.chown(place / which, 65534, 65534)
    try:
        with pytest.raises(RuntimeFolderError, match="by others than root"):
            SafeFolder(str(place))
    finally:
        os.chown(place / which, 0, 0)


def test_one_at_a_time(folder: SafeFolder, place: Path) -> None:
    first = folder.lock("lock", 1.0)
    assert (place / "lock").stat().st_mode & 0o777 == 0o600
    with pytest.raises(TimeoutError):
        folder.lock("lock", 0.0)
    threading.Timer(0.1, os.close, [first]).start()
    os.close(folder.lock("lock", 30.0))


def test_a_lock_is_no_link(folder: SafeFolder, place: Path, tmp_path: Path) -> None:
    (place / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError):
        folder.lock("lock", 0.0)
    assert not (tmp_path / "made").exists()

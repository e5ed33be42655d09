"""Which folders are used, and which are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from d1fleet.errors import RuntimeFolderError
from d1fleet.folders import own_folder, runtime_base, slots_directory

UID = os.geteuid()


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """XDG_RUNTIME_DIR, /run/user and /tmp, made up."""
    xdg, run_user, temporary = tmp_path / "xdg", tmp_path / "run", tmp_path / "tmp"
    xdg.mkdir(mode=0o700)
    (run_user / str(UID)).mkdir(parents=True, mode=0o700)
    temporary.mkdir()
    temporary.chmod(0o1777)
    return xdg, run_user, temporary


def _base(places: tuple[Path, Path, Path], **environ: str) -> str:
    return runtime_base(environ, UID, str(places[1]), str(places[2]))


def test_the_users_own_runtime_folder_first(places: tuple[Path, Path, Path]) -> None:
    xdg, run_user, _ = places
    assert _base(places, XDG_RUNTIME_DIR=str(xdg)) == str(xdg / "d1fleet")
    assert _base(places) == str(run_user / str(UID) / "d1fleet")


@pytest.mark.parametrize("value", ["", "relative", "/nonexistent"])
def test_a_runtime_folder_of_no_use_is_passed_over(places: tuple[Path, Path, Path], value: str) -> None:
    assert _base(places, XDG_RUNTIME_DIR=value) == str(places[1] / str(UID) / "d1fleet")


def test_a_runtime_folder_of_another_user_is_passed_over(places: tuple[Path, Path, Path]) -> None:
    """After su it is still the other one's."""
    xdg, run_user, temporary = places
    if UID == 0:
        os.chown(xdg, 12345, -1)
    else:
        xdg.chmod(0o777)
    os.rmdir(run_user / str(UID))
    assert _base(places, XDG_RUNTIME_DIR=str(xdg)) == str(temporary / f"d1fleet-{UID}")


def test_made_with_mode_0700_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = own_folder(str(tmp_path / "own"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert own_folder(folder) == folder


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_writable_by_others(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(RuntimeFolderError, match="can be written by others") as caught:
        own_folder(str(folder))
    assert f"{mode:04o}" in caught.value.message
    assert str(folder) in caught.value.mend


def test_readable_by_others_is_no_fault(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    folder.chmod(0o755)
    assert own_folder(str(folder)) == str(folder)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "own").symlink_to(tmp_path / "real")
    with pytest.raises(RuntimeFolderError, match="is not a folder"):
        own_folder(str(tmp_path / "own"))


def test_another_users(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    with pytest.raises(RuntimeFolderError, match=f"belongs to uid {UID}, not to {UID + 1}"):
        own_folder(str(tmp_path / "own"), UID + 1)


def test_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFolderError, match="cannot be made"):
        own_folder(str(tmp_path / "a" / "b"))


def _slots(places: tuple[Path, Path, Path], system: Path) -> str:
    return slots_directory(
        {"XDG_RUNTIME_DIR": str(places[0])}, UID, str(system), str(places[1]), str(places[2])
    )


def test_slots_of_a_host_that_was_never_enrolled(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    assert _slots(places, tmp_path / "missing") == str(places[0] / "d1fleet" / "slots")


@pytest.mark.skipif(UID != 0, reason="only root can make the shared folder")
@pytest.mark.parametrize(("mode", "used"), [(0o1777, True), (0o755, True), (0o777, False), (0o775, False)])
def test_the_shared_slots(places: tuple[Path, Path, Path], tmp_path: Path, mode: int, used: bool) -> None:
    system = tmp_path / "slots"
    system.mkdir()
    system.chmod(mode)
    assert (_slots(places, system) == str(system)) is used


@pytest.mark.skipif(UID != 0, reason="only root can give a folder away")
def test_shared_slots_that_are_not_roots(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    system = tmp_path / "slots"
    system.mkdir()
    system.chmod(0o1777)
    os.chown(system, 12345, -1)
    assert _slots(places, system) != str(system)

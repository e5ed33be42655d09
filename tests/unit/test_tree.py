"""The proof that hosts see the same tree, and the lock that keeps a second build out."""

from __future__ import annotations

import fcntl
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from d1fleet.errors import TreeError
from d1fleet.server.facts import tree_difference
from d1fleet.tree import TreeLock, forget, prove


def test_the_file_lies_in_the_folder(tmp_path: Path) -> None:
    made = prove(3, os.fsencode(tmp_path))
    assert made.number == 3
    assert made.device == os.stat(tmp_path).st_dev
    assert os.path.dirname(made.nonce) == made.folder == os.fsencode(tmp_path)
    assert Path(os.fsdecode(made.nonce)).read_bytes() == made.content
    assert len(made.content) >= 16
    assert tree_difference(made.folder, made.nonce, made.content) is None
    forget(made)
    assert os.listdir(tmp_path) == []
    forget(made)


def test_no_two_are_alike(tmp_path: Path) -> None:
    one, two = prove(0, os.fsencode(tmp_path)), prove(1, os.fsencode(tmp_path))
    assert one.nonce != two.nonce and one.content != two.content
    forget(one)
    forget(two)


@pytest.mark.parametrize("depth", [0, 2])
def test_git_is_preferred_here_alone(tmp_path: Path, depth: int) -> None:
    (tmp_path / ".git").mkdir()
    folder = tmp_path.joinpath(*["sub"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    made = prove(0, os.fsencode(folder))
    assert os.path.dirname(made.nonce) == os.fsencode(folder if depth else tmp_path / ".git")
    assert made.folder == os.fsencode(folder)
    forget(made)
    assert os.listdir(tmp_path / ".git") == []


def test_a_git_that_is_a_file_is_passed_over(tmp_path: Path) -> None:
    """As in a worktree or a submodule."""
    (tmp_path / ".git").write_text("gitdir: elsewhere")
    made = prove(0, os.fsencode(tmp_path))
    assert os.path.dirname(made.nonce) == os.fsencode(tmp_path)
    forget(made)


def test_a_git_on_another_file_system_is_passed_over(tmp_path: Path) -> None:
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("/dev/shm is the same file system as the tests' folder")
    (tmp_path / ".git").symlink_to("/dev/shm")
    made = prove(0, os.fsencode(tmp_path))
    assert os.path.dirname(made.nonce) == os.fsencode(tmp_path)
    forget(made)


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff a"
    os.mkdir(folder)
    made = prove(0, folder)
    assert tree_difference(made.folder, made.nonce, made.content) is None
    forget(made)


def _as_nobody(work: Callable[[], int]) -> int:
    """Run something as a user without rights; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            if os.geteuid() == 0:
                os.setgid(pwd.getpwnam("nobody").pw_gid)
                os.setuid(pwd.getpwnam("nobody").pw_uid)
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_folder_that_cannot_be_written_to() -> None:
    def work() -> int:
        try:
            prove(0, b"/usr/lib")
        except TreeError as error:
            return 7 if "/usr/lib cannot be checked" in error.message and error.mend else 8
        return 0

    assert _as_nobody(work) == 7


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="cannot be checked"):
        prove(0, os.fsencode(tmp_path / "missing"))


def test_nothing_is_left_when_the_file_cannot_be_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TreeError, match="No space left"):
        prove(0, os.fsencode(tmp_path))
    assert os.listdir(tmp_path) == []


def test_one_build_at_a_time(tmp_path: Path) -> None:
    lock = TreeLock(os.fsencode(tmp_path))
    with pytest.raises(TreeError, match="another d1fleet build is at work"):
        TreeLock(os.fsencode(tmp_path))
    assert os.listdir(tmp_path) == []
    lock.close()
    TreeLock(os.fsencode(tmp_path)).close()


def test_folders_below_are_another_matter(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    outer, inner = TreeLock(os.fsencode(tmp_path)), TreeLock(os.fsencode(tmp_path / "sub"))
    outer.close()
    inner.close()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        TreeLock(os.fsencode(tmp_path))
        os._exit(0)
    os.waitpid(pid, 0)
    TreeLock(os.fsencode(tmp_path)).close()


def test_a_folder_that_may_only_be_read_can_be_locked() -> None:
    assert _as_nobody(lambda: (TreeLock(b"/usr/lib").close(), 5)[1]) == 5  # type: ignore[func-returns-value]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    TreeLock(os.fsencode(tmp_path)).close()

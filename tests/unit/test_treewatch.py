"""What programs change below a folder is noted, all of it and nothing else."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet import treewatch
from d1fleet.changes import EXACT, FILE, GONE, LINK, OTHER, Change
from d1fleet.treewatch import TreeWatch


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "sub" / "old.o").write_text("old")
    return tmp_path


@pytest.fixture
def watch(tree: Path) -> Iterator[TreeWatch]:
    made = TreeWatch(os.fsencode(tree))
    yield made
    made.close()


def kinds(watch: TreeWatch, tree: Path) -> dict[str, bytes]:
    return {
        os.path.relpath(os.fsdecode(change.path), tree): change.kind
        for change in changes(watch)
        if change.path != os.fsencode(tree)
    }


def changes(watch: TreeWatch) -> list[Change]:
    watch.read()
    return watch.changes()


def test_nothing_at_first_and_all_once(watch: TreeWatch, tree: Path) -> None:
    assert changes(watch) == []
    (tree / "sub" / "new.o").write_text("four")
    (change,) = changes(watch)
    found = (tree / "sub" / "new.o").stat()
    assert change == (os.fsencode(tree / "sub" / "new.o"), FILE, found.st_mtime_ns, 4)
    assert changes(watch) == []


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("echo more >> sub/old.o", {"sub/old.o": FILE}),
        ("touch sub/old.o", {"sub/old.o": FILE}),
        ("chmod +x sub/old.o", {"sub/old.o": FILE}),
        ("rm sub/old.o", {"sub/old.o": GONE}),
        ("mv sub/old.o sub/deep/x", {"sub/old.o": GONE, "sub/deep/x": FILE}),
        ("ln sub/old.o sub/y", {"sub/y": FILE}),
        ("ln -s old.o sub/y", {"sub/y": LINK}),
        ("ln sub/old.o sub/y; rm sub/old.o", {"sub/y": FILE, "sub/old.o": GONE}),
        ("echo x > sub/t; ln sub/t sub/y; rm sub/t", {"sub/y": FILE, "sub/t": GONE}),
        ("touch -d '2 hours ago' sub/t; mv sub/t sub/old.o", {"sub/t": GONE, "sub/old.o": EXACT}),
        ("rmdir sub/deep", {"sub/deep": GONE}),
        ("cat sub/old.o > /dev/null; ls -R > /dev/null; test -e nothing || :", {}),
        ("mkdir .git .d1fleet-lost; echo > .git/x; echo > .d1fleet-lost/x", {}),
        ("mkdir -p a/b/c && echo > a/b/c/d", {"a": OTHER, "a/b": OTHER, "a/b/c": OTHER, "a/b/c/d": FILE}),
        ("mv sub moved", {"sub": GONE, "moved": OTHER, "moved/deep": OTHER, "moved/old.o": FILE}),
    ],
)
def test_what_counts(watch: TreeWatch, tree: Path, command: str, wanted: dict[str, bytes]) -> None:
    subprocess.run(["sh", "-c", command], cwd=tree, check=True)
    assert kinds(watch, tree) == wanted


def test_a_file_counts_when_it_is_closed(watch: TreeWatch, tree: Path) -> None:
    with open(tree / "half", "w") as file:
        file.write("half")
        file.flush()
        assert kinds(watch, tree) == {}
    assert kinds(watch, tree) == {"half": FILE}


def test_new_folders_are_watched_also_where_they_moved(watch: TreeWatch, tree: Path) -> None:
    (tree / "a").mkdir()
    changes(watch)
    (tree / "a" / "b").mkdir()
    changes(watch)
    (tree / "a").rename(tree / "sub" / "z")
    changes(watch)
    (tree / "sub" / "z" / "b" / "x").touch()
    assert kinds(watch, tree) == {"sub/z/b/x": FILE}


def test_what_was_changed_just_before(tree: Path) -> None:
    os.utime(tree / "sub" / "old.o", times=(1, 1))  # its content is old; that somebody has said so is not
    recent = TreeWatch(os.fsencode(tree), recent_s=60.0)
    try:
        assert kinds(recent, tree) == {"sub": OTHER, "sub/deep": OTHER, "sub/old.o": EXACT}
    finally:
        recent.close()


def test_when_the_kernel_has_lost_count(
    watch: TreeWatch, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "told.o").touch()
    changes(watch)
    (tree / "told.o").unlink()
    (tree / "sub" / "new.o").touch()
    os.read(watch.fd, 1 << 16)
    watch._event(-1, treewatch._IN_Q_OVERFLOW, b"")
    wanted = {"sub": OTHER, "sub/deep": OTHER, "sub/old.o": FILE, "sub/new.o": FILE, "told.o": GONE}
    assert kinds(watch, tree) == wanted


def test_a_folder_by_a_link(tree: Path) -> None:
    (tree / "link").symlink_to("sub")
    watch = TreeWatch(os.fsencode(tree / "link"))
    try:
        (tree / "sub" / "new.o").touch()
        assert kinds(watch, tree) == {"link/new.o": FILE}
    finally:
        watch.close()


def test_a_folder_that_is_none(tree: Path) -> None:
    with pytest.raises(OSError, match="Not a directory"):
        TreeWatch(os.fsencode(tree / "sub" / "old.o"))


def test_other_mounts_are_not_entered(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = os.stat(tree).st_dev
    monkeypatch.setattr(
        TreeWatch, "_is_ours", lambda self, folder: not folder.endswith(b"deep") and self._device == device
    )
    watch = TreeWatch(os.fsencode(tree))
    try:
        (tree / "sub" / "deep" / "x").touch()
        assert kinds(watch, tree) == {}
    finally:
        watch.close()


def test_whatever_programs_do_the_end_is_known(watch: TreeWatch, tree: Path) -> None:
    """Told changes, put together, are the tree."""
    rng = random.Random(7)
    told: dict[bytes, bytes] = {}
    for step in range(400):
        folders = [Path(place) for place, _, _ in os.walk(tree)]
        at = rng.choice(folders) / f"{rng.choice('abc')}"
        what = rng.randrange(6)
        if what == 0 and not at.exists():
            at.mkdir()
        elif what == 1 and at.exists():
            shutil.rmtree(at) if at.is_dir() else at.unlink()
        elif what == 2 and at.exists() and at.parent not in (tree,):
            target = tree / f"moved{step}"
            at.rename(target)
        elif not at.is_dir():
            at.write_text("x" * rng.randrange(9))
        if step % 7 == 0:
            told.update({change.path: change.kind for change in changes(watch)})
    told.update({change.path: change.kind for change in changes(watch)})
    for place, names, files in os.walk(tree):
        for name in names + files:
            path = os.fsencode(os.path.join(place, name))
            if name not in ("sub", "deep", "old.o"):
                assert told.get(path) == (OTHER if name in names else FILE), path

"""What may be torn goes, what anybody may have written stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d1fleet.scrub import LOST_FOLDER, Scrubbed, Suspect, scrub
from d1fleet.targets import Question

MAKE = b"/usr/bin/make"

MAKEFILE = """\
all: a.o lib.a new.x b.x
a.o: a.c ; cc -MMD -c a.c
lib.a: a.o ; ar cr $@ $^
%.x: %.c ; touch $@
-include a.d b.d
.PHONY: check
check: ; true
"""


def suspect(folder: Path, since_ns: int, *argv: str) -> Suspect:
    words = [b"make", *map(os.fsencode, argv)]
    return Suspect(Question(MAKE, words, {b"PATH": b"/usr/bin:/bin"}, os.fsencode(folder)), since_ns)


def now_ns(folder: Path) -> int:
    """By the clock that files have; what is written from now on is not older."""
    mark = folder / ".mark"
    mark.write_text("")
    when = mark.stat().st_mtime_ns
    while True:
        mark.write_text("")
        if mark.stat().st_mtime_ns > when:
            break
    mark.unlink()
    return when + 1


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "Makefile").write_text(MAKEFILE)
    for name in ("a.c", "b.c", "lib.a", "check"):
        (tmp_path / name).write_text(f"{name}\n")
    return tmp_path


def names(done: Scrubbed, root: Path) -> list[str]:
    for path, to in done.moved.items():
        assert not os.path.lexists(path)
        assert os.path.isfile(to)
        assert to.startswith(os.path.join(os.fsencode(root), LOST_FOLDER, b"7", b""))
    return sorted(os.path.relpath(os.fsdecode(path), root) for path in done.moved)


def test_targets_that_changed_go_and_nothing_else(tree: Path) -> None:
    since = now_ns(tree)
    for name in ("a.o", "new.c", "new.x", "notes", "check", "b.c"):
        (tree / name).write_text(f"{name} meanwhile\n")
    done = scrub(os.fsencode(tree), [suspect(tree, since)], "7")
    assert done.is_clean
    assert names(done, tree) == ["a.o", "new.x"]
    assert (tree / ".d1fleet-lost/7/a.o").read_text() == "a.o meanwhile\n"
    assert (tree / ".d1fleet-lost/.gitignore").read_text() == "*\n"
    # Another time: nothing is left to move.
    assert not scrub(os.fsencode(tree), [suspect(tree, since)], "8").moved


def test_what_another_sub_make_of_that_makefile_has_made_stays(tree: Path) -> None:
    """It would not be made again with the lost one."""
    since = now_ns(tree)
    for name in ("a.o", "lib.a", "b.x"):
        (tree / name).write_text("meanwhile")
    done = scrub(os.fsencode(tree), [suspect(tree, since, "a.o", "b.x")], "7")
    assert done.is_clean
    assert names(done, tree) == ["a.o", "b.x"]


def test_a_time_that_was_set_hides_nothing(tree: Path) -> None:
    since = now_ns(tree)
    (tree / "a.o").write_text("half")
    os.utime(tree / "a.o", (0, 0))
    assert names(scrub(os.fsencode(tree), [suspect(tree, since)], "7"), tree) == ["a.o"]


@pytest.mark.parametrize(
    ("torn", "whole"),
    [
        ("a.o: a.c a.h\n", ["a.d"]),  # its object was not begun
        ("a.o: a.c\n\na.", ["a.d"]),  # make stops at it
        ("a.o: a.c a.h \\", ["a.d"]),
    ],
)
def test_a_list_of_prerequisites_goes_with_its_object(tree: Path, torn: str, whole: list[str]) -> None:
    (tree / "a.h").write_text("")
    since = now_ns(tree)
    (tree / "a.d").write_text(torn)
    (tree / "notes.d").write_text("the user's\n")
    done = scrub(os.fsencode(tree), [suspect(tree, since)], "7")
    assert done.is_clean, done
    assert names(done, tree) == whole


def test_an_object_whose_list_was_written_goes_too(tree: Path) -> None:
    (tree / "a.o").write_text("old")
    since = now_ns(tree)
    (tree / "a.d").write_text("a.o: a.c\n")
    assert names(scrub(os.fsencode(tree), [suspect(tree, since)], "7"), tree) == ["a.d", "a.o"]


def test_a_torn_makefile_of_the_user_is_not_moved(tree: Path) -> None:
    since = now_ns(tree)
    (tree / "a.o").write_text("half")
    (tree / "Makefile").write_text(MAKEFILE + "torn line\n")
    done = scrub(os.fsencode(tree), [suspect(tree, since)], "7")
    assert not done.is_clean and not done.moved
    assert "missing separator" in done.unknown[os.fsencode(tree)]


def test_a_rule_that_came_meanwhile_moves_nothing(tree: Path) -> None:
    since = now_ns(tree)
    (tree / "Makefile").write_text("all: notes\n" + MAKEFILE + "notes: ; touch $@\n")
    (tree / "notes").write_text("the user's")
    done = scrub(os.fsencode(tree), [suspect(tree, since)], "7")
    assert not done.moved
    assert "has changed meanwhile" in done.left[os.fsencode(tree / "notes")]


def test_what_git_tracks_stays(tree: Path) -> None:
    inner = tree / "inner"
    inner.mkdir()
    for folder in (tree, inner):
        subprocess.run(["git", "init", "-q", folder], check=True)
    (inner / "Makefile").write_text("all: kept made\nkept made: ; touch $@\n")
    (tree / "a.o").write_text("tracked")
    (inner / "kept").write_text("tracked")
    subprocess.run(["git", "-C", tree, "add", "-f", "a.o"], check=True)
    subprocess.run(["git", "-C", inner, "add", "kept"], check=True)
    since = now_ns(tree)
    for path in (tree / "a.o", tree / "b.x", inner / "kept", inner / "made"):
        path.write_text("meanwhile")
    found = [suspect(tree, since), suspect(tree, since, "-C", "inner")]
    done = scrub(os.fsencode(tree), found, "7")
    assert names(done, tree) == ["b.x", "inner/made"]
    assert done.left == dict.fromkeys(
        map(os.fsencode, (tree / "a.o", inner / "kept")), "it is under version control"
    )
    status = subprocess.run(
        ["git", "-C", tree, "status", "--short"], check=True, capture_output=True, text=True
    )
    assert "d1fleet" not in status.stdout


def test_a_link_and_a_folder_are_no_torn_files(tree: Path) -> None:
    since = now_ns(tree)
    (tree / "l.x").symlink_to("b.c")
    (tree / "b.x").mkdir()
    (tree / ".git").mkdir()
    (tree / ".git" / "a.x").write_text("")
    found = suspect(tree, since, "l.x", "b.x", ".git/a.x")
    assert scrub(os.fsencode(tree), [found], "7") == Scrubbed()


def test_what_lies_outside_of_the_tree_is_kept_beside_where_it_was(tmp_path: Path) -> None:
    tree, outside = tmp_path / "src", tmp_path / "obj"
    for folder in (tree, outside):
        folder.mkdir()
    (tree / "Makefile").write_text("all: ../obj/a.o\n../obj/a.o: ; touch $@\n")
    since = now_ns(tree)
    (outside / "a.o").write_text("half")
    done = scrub(os.fsencode(tree), [suspect(tree, since)], "7")
    assert done.moved == {bytes(outside / "a.o"): bytes(outside / ".d1fleet-lost/7/a.o")}


def test_who_has_written_what_has_an_empty_recipe_cannot_be_told(tree: Path) -> None:
    """`%.h: ;` is common, and fits headers that a person writes."""
    (tree / "Makefile").write_text("all: a.h b.o\n%.h: ;\nb.o: ; touch $@\n")
    since = now_ns(tree)
    for name in ("a.h", "b.o"):
        (tree / name).write_text("meanwhile")
    done = scrub(os.fsencode(tree), [suspect(tree, since)], "7")
    assert names(done, tree) == ["b.o"]
    assert done.left == {bytes(tree / "a.h"): "its rule has no recipe: who has written it cannot be told"}


def test_where_it_cannot_be_moved(tree: Path) -> None:
    since = now_ns(tree)
    (tree / "a.o").write_text("half")
    (tree / ".d1fleet-lost").write_text("in the way")
    done = scrub(os.fsencode(tree), [suspect(tree, since)], "7")
    assert (tree / "a.o").exists()
    assert "it cannot be moved to" in done.left[os.fsencode(tree / "a.o")]


_NAMES = st.text(st.sampled_from("ab.cox~ -#%:=$\\'\"*\n\u00e9"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(_NAMES, max_size=12))
def test_look_alikes_of_targets_stay(tmp_path_factory: pytest.TempPathFactory, found: set[str]) -> None:
    """Whatever files of the user's are called: only those that make has a rule for are moved."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "Makefile").write_text("a.x: ; touch $@\n")
    since = now_ns(tree)
    for name in found:
        (tree / name).write_text("meanwhile")
    done = scrub(os.fsencode(tree), [suspect(tree, since, "-r")], "7")
    assert names(done, tree) == sorted({"a.x"} & found)
    assert {path.name for path in tree.iterdir()} - {".d1fleet-lost", "Makefile"} == found - {"a.x"}

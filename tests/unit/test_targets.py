"""Make says what its targets are, and runs nothing for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from d1fleet.targets import AskError, Question, targets_of
from tests.support.debsource import SourceUnavailable
from tests.support.make44 import real_make

Ask = Callable[..., dict[str, str]]


@pytest.fixture(scope="module", params=["4.3", "4.4"])
def make(request: pytest.FixtureRequest) -> bytes:
    try:
        return os.fsencode(real_make(request.param))
    except SourceUnavailable as exc:
        pytest.skip(f"no make {request.param}: {exc}")


@pytest.fixture
def ask(make: bytes, tmp_path: Path, reached: list[set[str]]) -> Ask:
    """Names that are targets, of a makefile whose goals they are unless `argv` says otherwise. Every recipe
    and `$(shell)` that runs leaves a mark.
    """

    def asked(
        makefile: str, *names: str, argv: tuple[str, ...] | None = None, files: str = "", **environment: str
    ) -> dict[str, str]:
        argv = names if argv is None else argv
        (tmp_path / "Makefile").write_text(makefile)
        for name in files.split():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"# {name}\n")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        question = Question(
            make,
            [b"make", *map(os.fsencode, argv)],
            {b"PATH": b"/usr/bin:/bin", **{os.fsencode(k): os.fsencode(v) for k, v in environment.items()}},
            os.fsencode(tmp_path),
        )
        try:
            every = targets_of(question)
            place = os.fsdecode(question.directory)
            paths = {name: os.fsencode(os.path.normpath(os.path.join(place, name))) for name in names}
            found = {name: every[path] for name, path in paths.items() if path in every}
            reached.append({name for name, each in found.items() if each.reached})
        finally:
            after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
            assert after == before, "something was run"
        return {name: os.fsdecode(each.makefile) for name, each in found.items()}

    return asked


@pytest.fixture
def reached() -> list[set[str]]:
    """For each question, those that the goals reach."""
    return []


def test_targets_of_rules_of_every_kind(ask: Ask) -> None:
    found = ask(
        "all: explicit stem.x static.y double\n"
        "explicit: source ; touch $@\n"
        "%.x: %.c ; touch $@\n"
        "static.y: %.y: %.c ; touch $@\n"
        "double:: source ; touch $@\n"
        "norecipe: source\n"
        ".c.suf: ; touch $@\n"
        ".SUFFIXES: .suf\n",
        *[
            "all",
            "explicit",
            "stem.x",
            "static.y",
            "double",
            "norecipe",
            "stem.o",
            "stem.suf",
            "source",
            "stem.c",
            "other",
        ],
        files="source stem.c static.c explicit stem.x other",
    )
    assert found == {
        "explicit": "Makefile", "stem.x": "Makefile", "static.y": "Makefile", "double": "Makefile",
        "stem.o": "", "stem.suf": "Makefile",
    }  # fmt: skip


def test_nothing_is_run(ask: Ask) -> None:
    found = ask(
        "export SHELLED := $(shell echo name)\n"
        "-include made.mk\n"
        "$(SHELLED).out: source ; +touch ran-plus\n"
        "deep: ; $(MAKE) -f Makefile plus\n"
        "plus: ; +@touch ran-plus\n"
        "made.mk: source ; touch $@\n"
        "Makefile: source ; touch ran-makefile $@\n"
        "one: both ; touch $@\n"
        "both: ; +touch ran-both\n"
        ".INTERMEDIATE: between\n"
        "between: ; touch $@\n"
        "last: between ; touch $@\n",
        *["name.out", "deep", "plus", "one", "last", "between", "made.mk"],
        files="source between",
    )
    assert sorted(found) == sorted(["name.out", "deep", "plus", "one", "last", "between", "made.mk"])


def test_a_phony_target_is_no_file(ask: Ask) -> None:
    assert ask(".PHONY: check\ncheck: ; true\nmade: ; true\n", "check", "made", files="check") == {
        "made": "Makefile"
    }


@pytest.mark.parametrize(
    "said", ["special: SHELL = /bin/bash", "special: override SHELL := /bin/sh", "spec%: SHELL = /bin/sh",
             "special: .SHELLFLAGS = -xc", "special: export SHELL = /bin/sh"],
)  # fmt: skip
def test_a_shell_of_a_target_s_own_is_not_run_either(ask: Ask, reached: list[set[str]], said: str) -> None:
    found = ask(
        f"{said}\nspecial: source ; +touch $@\nplain: special ; touch $@\nmore: ; touch $@\n"
        "%.x: %.c ; touch $@\n",
        *["special", "plain", "more", "stem.x", "source"],
        argv=("plain", "stem.x"),
        files="source stem.c",
    )
    # Had it looked at its goals, make would have said that stem.x is one, too.
    assert found == {"special": "Makefile", "plain": "Makefile", "more": "Makefile"}
    assert reached == [{"special", "plain"}]


def test_as_it_was_called(ask: Ask) -> None:
    makefile = (
        "ifeq ($(MAKECMDGOALS),one two)\n"
        "$(NAME).$(FROM): ; touch $@\n"
        "endif\n"
        "%.o: %.c ; touch $@\n"
    )  # fmt: skip
    makefile += "one two: $(NAME).$(FROM)\n"
    argv = ("-j8", "-k", "-B", "NAME=a b", "one", "two", "-C.")
    found = ask(makefile, "a", "b.e", "x.e", argv=argv, MAKEFLAGS="rn -j4 -- NAME=x FROM=e", files="x.c")
    assert found == {"a": "Makefile", "b.e": "Makefile"}
    found = ask(makefile, "x.o", "x", argv=("NAME=x", "x.o"), MAKEFLAGS="r", files="x.c x.o")
    assert found == {"x.o": "Makefile"}


def test_in_the_folder_that_it_goes_to(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.mk").write_text(
        "all: out $(CURDIR)/abs ../up\nout: ; touch $@\n$(CURDIR)/abs: ; touch $@\n../up: ; touch $@\n"
    )
    found = ask("", "out", "abs", "../up", "../out", argv=("-C", "sub", "-f", "other.mk"))
    assert found == dict.fromkeys(("out", "abs", "../up"), "other.mk")


def test_however_a_name_is_written(ask: Ask, tmp_path: Path) -> None:
    for name in ("real", "sub"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked").symlink_to("real")
    makefile = (
        "all: $(CURDIR)/sub/../a obj//b sub/./c linked/d p_1~rc1.deb (e) f+g[1].x\n"
        "$(CURDIR)/sub/../a obj//b sub/./c linked/d p_1~rc1.deb (e) f+g[1].x: ; touch $@\n"
    )
    names = ("a", "obj/b", "sub/c", "real/d", "p_1~rc1.deb", "(e)", "f+g[1].x")
    assert ask(makefile, *names, argv=()) == dict.fromkeys(names, "Makefile")


@pytest.mark.parametrize("name", ["a b", "a:b", "a=b", "a%", "#a", "a\nb", "-n", "$(shell touch ran)", "a*"])
def test_what_cannot_be_a_name_is_none(ask: Ask, name: str) -> None:
    assert ask("%: ; touch ran\n", name, argv=()) == {}


def test_what_the_goals_do_not_need_is_another_make_s(ask: Ask, reached: list[set[str]]) -> None:
    makefile = (
        "one: a.x | order ; touch $@\n"
        "two: b.x ; touch $@\n"
        "%.x %.h: %.y ; touch $*.x $*.h\n"
        "g1 g2 &: ; touch g1 g2\n"
        "order: lib(m.x) ; touch $@\n"
        "lib(%): % ; touch $@\n"
        "alone: ; touch $@\n"
        "deep:: alone ; touch $@\n"
        "deep:: ; touch $@\n"
        "-include made.mk\n"
        "made.mk: ; touch $@\n"
    )
    names = ["one", "two", "a.x", "a.h", "b.x", "g1", "g2", "order", "m.x", "lib", "alone", "deep", "made.mk"]
    files = "a.y b.y m.y made.mk"
    one = ["one", "a.x", "a.h", "order", "m.x", "lib", "made.mk"]
    assert sorted(ask(makefile, *names, argv=("one",), files=files)) == sorted(one)
    assert sorted(ask(makefile, *names, argv=(), files=files)) == sorted(one)
    assert sorted(ask(makefile, *names, argv=("./deep", "g1"), files=files)) == sorted(
        ["deep", "alone", "g1", "g2", "made.mk"]
    )
    assert reached[0] == set(one)


def test_more_names_than_a_command_line_takes(ask: Ask) -> None:
    names = [f"{'long' * 20}-{number}.x" for number in range(3000)]
    makefile = f"all: {' '.join(names)}\n%.x: ; touch $@\n"
    assert len(ask(makefile, *names, "other", argv=())) == 3000


def test_a_makefile_that_make_cannot_read(ask: Ask) -> None:
    with pytest.raises(AskError, match=r"Makefile:1: .*missing separator"):
        ask("torn line\n", "a")
    with pytest.raises(AskError, match="No such file"):
        ask("include gone.mk\na: ; touch a\n", "a")

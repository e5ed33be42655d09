"""A make that a job calls on one machine, and that runs on another, behaves as under plain make."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fuzz.peer import wait_until
from tests.support.depth import Depth, ended

pytestmark = pytest.mark.timeout(150)

CALL = "$(MAKE) -f leaf.mk"
MID = f"all:\n\t@{CALL}\n"


@dataclass(frozen=True)
class Case:
    """One tree, and how many sub-makes of its second level move."""

    mid: str = MID
    leaf: str = "all: ; @echo leaf\n"
    arguments: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    moved: int = 1
    unordered: bool = False


STARTED = "until [ -e started ]; do sleep 0.01; done"
SIGNALLED = f"{CALL} & pid=$$!; {STARTED}; kill -%s $$pid; wait $$pid; echo $$?"

CASES = {
    "output": Case(),
    "exit-code": Case(leaf="all: ; @exit 3\n"),
    "error-ignored": Case(mid=f"all:\n\t-@{CALL}\n\t@echo after\n", leaf="all: ; @exit 3\n"),
    "error-in-shell": Case(mid=f"all:\n\t@{CALL} || echo code $$?\n", leaf="all: ; @exit 3\n"),
    "make-is-killed": Case(leaf="all: ; @kill -9 $$PPID\n"),
    "make-is-terminated": Case(leaf="all: ; @kill -TERM $$PPID; exec sleep 20\n"),
    "recipe-is-killed": Case(leaf="all: ; @kill -9 $$$$\n"),
    "caller-terminates-it": Case(
        mid=f"all:\n\t@{SIGNALLED % 'TERM'}\n", leaf="all: ; @touch started; exec sleep 20\n"
    ),
    "caller-interrupts-it": Case(
        # make waits for its recipe then. With job control: a shell's background ignores SIGINT otherwise.
        mid=f"all:\n\t@bash -mc '{SIGNALLED % 'INT'}'\n",
        leaf="all: ; @touch started; exec sleep 1\n",
    ),
    "order": Case(
        mid=f"all:\n\t@echo before; {CALL} 2>&1; echo after\n",
        leaf="all: ; @for i in 1 2 3 4 5 6 7 8 9; do echo out $$i; echo err $$i >&2; done; exit 1\n",
    ),
    "separate": Case(leaf="all: ; @echo out; echo err >&2\n"),
    "stdin-of-a-loop": Case(
        mid=f"all:\n\t@while read x; do echo mid $$x; {CALL} -s; done < list\n",
        leaf="all: ; @read y; echo leaf $$y\n",
        files={"list": "1\n2\n3\n4\n5\n6\n"},
        moved=3,
    ),
    "stdin-of-a-pipe": Case(
        mid=f"all:\n\t@printf 'b\\na\\n' | {CALL}; seq 100000 | {CALL} -s\n",
        leaf="all: ; @sort | cksum\n",
        moved=2,
    ),
    "reader-that-ends": Case(mid=f"all:\n\t@{CALL} -s 2>/dev/null | head -n 3\n", leaf="all: ; @yes\n"),
    "large": Case(leaf="all: ; @seq 300000\n"),
    "keep-going": Case(
        mid=f"all: x y\nx y: ; @{CALL} $@\n",
        leaf="x: ; @exit 2\ny: ; @echo y\n",
        arguments=("-k",),
        moved=-1,
        unordered=True,
    ),
    "output-sync": Case(
        mid=f"all: x y\nx y: ; @echo {{ $@; {CALL} $@; echo $@ }}\n",
        leaf="x y: ; @echo [ $@; sleep 0.1; echo $@ ] >&2\n",
        arguments=("-Otarget",),
        moved=-1,
        unordered=True,
    ),
    "variables": Case(
        mid=f"export X = of mid\nall:\n\t@Y='a b' {CALL} Z='c d'\n",
        leaf="all: ; @echo '$(X)' '$(Y)' '$(Z)' $$X $(MAKELEVEL)\n",
    ),
    "umask": Case(
        mid=f"all:\n\t@umask 027; {CALL}\n", leaf="all: ; @umask; touch made; ls -l made | cut -c1-10\n"
    ),
    "folder": Case(
        mid="all:\n\t@mkdir -p sub; cp leaf.mk sub/Makefile; $(MAKE) -C sub\n",
        leaf="all: ; @basename $$PWD\n",
    ),
    "own-j": Case(mid=f"all:\n\t@{CALL} -j3\n", leaf="all: x y z\nx y z: ; @:\n", moved=0),
    "own-jobserver": Case(
        mid=f"MAKEFLAGS += -j3\nall:\n\t@{CALL}\n", leaf="all: x y z\nx y z: ; @:\n", moved=-1
    ),
    "just-print": Case(mid=f"all:\n\t@{CALL} -n\n", leaf="all: ; @echo no\n", moved=0),
    "question": Case(mid=f"all:\n\t@{CALL} -q || echo $$?\n", moved=0),
    "four-levels": Case(
        leaf="all:\n\t@$(MAKE) -f last.mk\n", files={"last.mk": "all: ; @echo last; exit 7\n"}, moved=-1
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_as_plain_make(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    depth = Depth(tmp_path)
    depth.plant(case.mid, case.leaf, **case.files)
    plain = depth.plain("-j2", *case.arguments)
    depth.plant(case.mid, case.leaf, **case.files)
    ours = depth.build("-j2", *case.arguments)
    if case.unordered:
        assert sorted(ours.out.splitlines()) == sorted(plain.out.splitlines())
        assert sorted(ours.err.splitlines()) == sorted(plain.err.splitlines())
        assert ours.code == plain.code
    else:
        assert ours == plain
    if case.moved >= 0:
        assert depth.moved() == case.moved


def test_one_stream_for_both(tmp_path: Path) -> None:
    """stdout and stderr are the same open file from the start."""
    leaf = "all: ; @for i in 1 2 3 4 5 6 7 8 9; do echo out $$i; echo err $$i >&2; done; exit 1\n"
    depth = Depth(tmp_path)
    depth.plant(MID, leaf)
    plain = depth.plain("-j2", merged=True)
    assert depth.build("-j2", merged=True) == plain
    assert depth.moved() == 1


def test_a_setup_stays_where_it_is(tmp_path: Path) -> None:
    """Variables of the first host's setup do not reach the second one, those that a makefile sets do."""
    show = "echo $$STAMP_HOST $${ONLY_a-none} $${ONLY_b-none} $$BOTH"
    depth = Depth(tmp_path, {name: f"ONLY_{name}=1 BOTH={name}" for name in ("a", "b")})
    depth.plant(f"all:\n\t@{show}; {CALL}; BOTH=set {CALL}\n", f"all: ; @{show}\n")
    end = depth.build("-j2", "-s")
    assert end.code == 0, end.err
    lines = {"a": "a 1 none", "b": "b none 1"}
    first = end.out[0]
    second = "ab".replace(first, "")
    assert end.out.splitlines() == [
        f"{lines[first]} {first}",
        f"{lines[second]} {second}",
        f"{lines[second]} set",
    ]


@pytest.fixture
def interrupted(tmp_path: Path) -> Iterator[Depth]:
    depth = Depth(tmp_path)
    depth.plant(MID, "all: ; @echo $$$$ > pid; mv pid started; exec sleep 60\n")
    yield depth
    pid = int((depth.tree / "started").read_text())
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_build_is_broken_off(interrupted: Depth, number: signal.Signals) -> None:
    """As a terminal does: the signal reaches all of the group."""
    depth = interrupted
    running = depth.start(depth.command("-j2"))
    wait_until((depth.tree / "started").exists)
    os.killpg(running.pid, number)
    end = ended(running)
    assert end.code in (-number, 128 + number), end
    assert depth.moved() == 1

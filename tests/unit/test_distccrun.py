"""What is said of a build by distcc, from what its log has told; tests/distcc runs real ones."""

from __future__ import annotations

from collections import Counter

import pytest

from d1fleet.distcclog import CUT, Told
from d1fleet.distccrun import kept_here, report, seen

NATIVE = "native is another processor on each host: name one (`gcc -march=native -Q --help=target`)"


def _kept(*commands: str) -> dict[str, list[str]]:
    return kept_here(Told(undistributable=len(commands), kept=list(commands)))


def test_compilations_that_distcc_keeps_here_have_a_reason() -> None:
    found = _kept(
        "gcc -march=native -c a.c -o a.o",
        '/usr/bin/gcc -march=native "-DA="x y"" "-DB=it\'s" -c -o b.o b.c',
        'gcc -flto "-DC="a" -c c.c',
        "gcc -c conftest.c",
        "gcc -E a.c",
        "gcc -c a.s",
        "gcc -new-option -c d.c",
    )
    assert list(found.values()) == [["a.c", "b.c"], ["c.c"], ["d.c"]]
    assert list(found) == [
        NATIVE,
        "with -flto compilation waits for the link; distcc leaves both here",
        "d1fleet does not know why",
    ]


def test_a_command_that_distccs_log_cuts_off_is_a_compilation_unless_it_has_objects() -> None:
    """It ends in -I and the like then, as CMake writes it."""
    folders = " ".join(f"-I/some/folder/number/{number}" for number in range(CUT // 20))
    assert _kept(f"gcc -march=native {folders}"[:CUT]) == {NATIVE: ["(a long command).c"]}
    assert _kept(f"gcc -march=native -c a.c {folders}"[:CUT]) == {NATIVE: ["a.c"]}
    assert _kept(f"gcc -march=native -o prog a.o {folders}"[:CUT]) == {}
    assert _kept(f"gcc -march=native {folders}"[: CUT - 1]) == {}


@pytest.mark.parametrize(
    ("told", "so"),
    [
        (Told(), False),
        (Told(undistributable=3), False),
        (Told(remote=Counter(h1=1)), True),
        (Told(here=1), True),
        (Told(fell_back=Counter(h1=1)), True),
        (Told(codes=Counter({116: 1})), True),
        (Told(undistributable=1, kept=["gcc -march=native -c a.c"]), True),
    ],
)
def test_whether_distcc_has_seen_a_compilation(told: Told, so: bool) -> None:
    assert seen(told, kept_here(told)) is so


def test_one_is_one() -> None:
    told = Told(
        undistributable=2,
        kept=["gcc -march=native -c a.c"],
        remote=Counter(h1=1),
        fell_back=Counter(h1=1),
        codes=Counter({116: 1}),
    )
    lines = list(report(told, {}, kept_here(told), everything=True))
    assert lines[:3] == [
        "1 compilation: h1 1, this machine 0",
        "1 command that cannot be distributed (links, tests of configure ...)",
        f"1 compilation that distcc does not distribute: a.c: {NATIVE}",
    ]
    assert lines[3] == "1 compilation fell back to this machine:"
    assert lines[-1].endswith(" 1 time")


def test_where_nothing_is_distributed_it_is_said_without_being_asked() -> None:
    told = Told(undistributable=1, kept=["gcc -march=native -c a.c"])
    assert len(list(report(told, {}, kept_here(told), everything=False))) == 1
    told.remote["h1"] = 1
    assert list(report(told, {}, kept_here(told), everything=False)) == []

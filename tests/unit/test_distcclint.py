"""What is said of commands in a build's output; tests/distcc asks distcc whether that is right."""

from __future__ import annotations

import json

import pytest

from d1fleet.distcclint import DISTRIBUTED, HERE, LOSSY, Verdict, about, commands, compiles, findings, judge


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("gcc -c a.c", [["gcc", "-c", "a.c"]]),
        (
            "cd sub && arm-none-eabi-g++-12 -c a.cc -o 'a b.o'",
            [["arm-none-eabi-g++-12", "-c", "a.cc", "-o", "a b.o"]],
        ),
        ("/bin/bash ../libtool --mode=compile gcc -c a.c -o a.lo", [["gcc", "-c", "a.c", "-o", "a.lo"]]),
        (
            "ccache /usr/bin/clang -c a.c; cc -c b.c",
            [["ccache", "/usr/bin/clang", "-c", "a.c"], ["cc", "-c", "b.c"]],
        ),
        ("/bin/libtool distcc gcc -c a.c", [["distcc", "gcc", "-c", "a.c"]]),
        ("make CC=/usr/bin/gcc -C sub", []),
        ("-DCC=/usr/bin/gcc -c a.c", []),
        ("cc -c a.c && \\\ncc -c b.c", [["cc", "-c", "a.c"], ["cc", "-c", "b.c"]]),
        ("if x; then cc -c a.c; fi", [["cc", "-c", "a.c"]]),
        ("echo gcc is a compiler", []),
        ("gcc", []),
        ("ar rc libgcc.a a.o", []),
        ("make[1]: Entering directory '/x'", []),
        ("don't", []),
    ],
)
def test_commands_are_found_in_a_log(line: str, found: list[list[str]]) -> None:
    assert list(commands(line)) == found


def test_and_in_a_compilation_database() -> None:
    entries = [{"command": "cc -c 'a b.c'"}, {"arguments": ["cc", "-c", "b.c"]}, {"file": "x"}, 7]
    assert list(commands(json.dumps(entries))) == [["cc", "-c", "a b.c"], ["cc", "-c", "b.c"]]
    assert list(commands("[1/2] /usr/bin/cc -c a.c\n[")) == [["/usr/bin/cc", "-c", "a.c"]]


def test_values_of_options_are_no_sources() -> None:
    assert judge(["gcc", "-include", "x.c", "-MF", "y.c", "-c", "a.c"]).what == DISTRIBUTED
    assert judge(["gcc", "-c", "a.c", "b.c"]).what == HERE


def test_findings_count_by_reason() -> None:
    log = "cc -c a.c\ncc -c b.c\ncc -march=native -c c.c\ncc -o prog a.o\ncc -gsplit-dwarf -c d.c\n"
    found = findings(log)
    assert [(each.verdict.what, each.count, each.example) for each in found] == [
        (DISTRIBUTED, 2, "a.c"),
        (HERE, 1, "c.c"),
        (HERE, 1, "prog"),
        (LOSSY, 1, "d.c"),
    ]
    assert "native is another processor" in found[1].verdict.why


def _what(line: str) -> Verdict:
    """Of the one command in a line."""
    (argv,) = commands(line)
    return judge(argv)


@pytest.mark.parametrize(
    ("compiler", "mend"),
    [
        ("/usr/bin/gcc", "CC=gcc"),
        ("/usr/bin/g++-12", "CXX=g++-12"),
        ("tools/bin/arm-none-eabi-gcc", "CC=arm-none-eabi-gcc"),
        ("./cc", "CC=cc"),
        ("/cc", "CC=cc"),
    ],
)
def test_a_compiler_with_a_path_passes_distcc_by(compiler: str, mend: str) -> None:
    why = f"{compiler} is a path, which passes distcc by: {mend}"
    assert _what(f"{compiler} -O2 -c a.c") == Verdict(HERE, why)
    assert _what(f"cd x && {compiler} -march=native -c a.c") == Verdict(HERE, why)
    # A link would be here in any case.
    assert "it links" in _what(f"{compiler} -o prog a.o").why


@pytest.mark.parametrize(
    "line",
    [
        "/usr/lib/distcc/gcc -c a.c",
        "/usr/lib/../lib64/distcc/gcc -c a.c",
        "/usr/lib/ccache/gcc -c a.c",
        "distcc /usr/bin/gcc -c a.c",
        "/usr/bin/distcc /usr/bin/gcc -c a.c",
        "ccache gcc -c a.c",
        "gcc -c /src/a.c",
    ],
)
def test_unless_the_path_is_distccs_or_distcc_is_called(line: str) -> None:
    assert _what(line).what == DISTRIBUTED


def test_behind_ccache_a_path_needs_ccaches_own_way_to_distcc() -> None:
    found = _what("ccache /usr/bin/gcc -c a.c")
    assert found == Verdict(HERE, "ccache calls /usr/bin/gcc without distcc, but for `d1fleet run --ccache`")


def test_cmakes_commands_as_it_writes_them() -> None:
    """By CMake 3.25; with a launcher its database is the same, and what ninja or make runs has it."""
    entry = {"command": "/usr/bin/cc    -o CMakeFiles/p.dir/m.c.o -c /tmp/m.c"}
    (found,) = findings(json.dumps([entry]))
    assert found.verdict.what == HERE
    assert found.verdict.why.startswith(
        "/usr/bin/cc is a path, which passes distcc by: start cmake by `d1fleet run`"
    )
    assert "LAUNCHER" in found.verdict.why
    masqueraded = {"command": entry["command"].replace("/usr/bin", "/usr/lib/distcc")}
    assert findings(json.dumps([masqueraded]))[0].verdict.what == DISTRIBUTED
    assert _what(f"distcc {entry['command']}").what == DISTRIBUTED


@pytest.mark.parametrize(
    ("line", "so"),
    [
        ("gcc -march=native -c a.c", True),
        ("distcc gcc -S a.cpp", True),
        ("gcc -c a.c b.c", True),
        ("gcc -o prog a.c", False),
        ("gcc -o prog a.o", False),
        ("gcc -E -c a.c", False),
        ("gcc -MM -c a.c", False),
        ("gcc -c a.s", False),
        ("gcc -c -x c /dev/null", False),
        ("gcc -march=native -c conftest.c", False),
    ],
)
def test_what_counts_as_a_compilation(line: str, so: bool) -> None:
    assert compiles(line.split()) is so


def test_a_command_is_shown_by_its_source() -> None:
    assert about(["distcc", "gcc", "-c", "a.c"]) == "a.c"
    assert about(["distcc", "gcc", "--version"]) == "gcc"

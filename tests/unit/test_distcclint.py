"""What is said of commands in a build's output; tests/distcc asks distcc whether that is right."""

from __future__ import annotations

import json

import pytest

from d1fleet.distcclint import DISTRIBUTED, HERE, LOSSY, commands, findings, judge


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("gcc -c a.c", [["gcc", "-c", "a.c"]]),
        (
            "cd sub && arm-none-eabi-g++-12 -c a.cc -o 'a b.o'",
            [["arm-none-eabi-g++-12", "-c", "a.cc", "-o", "a b.o"]],
        ),
        ("/bin/bash ../libtool --mode=compile gcc -c a.c -o a.lo", [["gcc", "-c", "a.c", "-o", "a.lo"]]),
        ("ccache /usr/bin/clang -c a.c; cc -c b.c", [["/usr/bin/clang", "-c", "a.c"], ["cc", "-c", "b.c"]]),
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

"""What d1fleet says of a command line is what distcc does with it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from d1fleet.distcclint import HERE, LOSSY, judge
from tests.distcc.lan import lan, missing_reason

pytestmark = [
    pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-"),
    pytest.mark.timeout(180),
]

COMMANDS = """
gcc -c a.c
gcc -c -O2 -g -pipe a.c -o a.o
gcc a.c -o a
gcc a.o -o a
gcc -shared a.o -o a.so
gcc --version
gcc -print-search-dirs
gcc -fsyntax-only a.c
gcc -S a.c -o a.asm
gcc -E a.c
gcc -M a.c
gcc -MM -c a.c -o a.o
gcc -MD -c a.c -o a.o
gcc -MMD -MF x.d -MT a.o -c a.c -o a.o
gcc -march=native -c a.c -o a.o
gcc -mtune=native -c a.c -o a.o
gcc -march=x86-64 -c a.c -o a.o
gcc -fprofile-arcs -c a.c -o a.o
gcc -ftest-coverage -c a.c -o a.o
gcc --coverage -c a.c -o a.o
gcc -fprofile-generate -c a.c -o a.o
gcc -fprofile-use=/tmp -c a.c -o a.o
gcc -flto -c a.c -o a.o
gcc -gsplit-dwarf -g -c a.c -o a.o
gcc -save-temps -c a.c -o a.o
gcc -fdump-tree-original -c a.c -o a.o
gcc -fstack-usage -c a.c -o a.o
gcc -x c -c a.c -o a.o
gcc -xc -c a.c -o a.o
gcc -c h.h -o h.gch
gcc -Wa,-ahl=x.lst -c a.c -o a.o
gcc -Wa,--noexecstack -c a.c -o a.o
gcc -specs=/dev/null -c a.c -o a.o
gcc -dr -c a.c -o a.o
gcc -c a.c b.c
gcc -c a.s -o a.o
gcc -c a.i -o a.o
gcc -c - -o a.o
gcc -c a.c -o -
gcc -frepo -c a.c -o a.o
gcc -include h.h -c a.c -o a.o
gcc -fdebug-prefix-map=/a=/b -g -c a.c -o a.o
gcc -c conftest.c -o conftest.o
g++ -c a.cpp -o a.o
/usr/bin/gcc -c a.c -o a.o
""".strip().splitlines()

SOURCES = {
    "a.c": "int f(void) { return 1; }\n",
    "b.c": "int g(void) { return 1; }\n",
    "a.cpp": "int f() { return 1; }\n",
    "a.i": "int f(void) { return 1; }\n",
    "a.s": "f: ret\n",
    "h.h": "int f(void);\n",
    "conftest.c": "int x;\n",
}


def test_as_distcc_does_it(tmp_path: Path) -> None:
    tree, state = tmp_path / "tree", tmp_path / "state"
    tree.mkdir()
    for name, text in SOURCES.items():
        (tree / name).write_text(text)
    wrong, lost = [], []
    with lan(tmp_path) as net:
        net.distccd("192.0.2.1")
        for command in COMMANDS:
            # A host that could not be reached, or had an error, would be left alone for a minute.
            shutil.rmtree(state, ignore_errors=True)
            state.mkdir()
            log = {
                "DISTCC_DIR": str(state),
                "DISTCC_LOG": str(state / "log"),
                "DISTCC_HOSTS": "192.0.2.1/1,lzo",
            }
            before = set(tree.iterdir())
            argv = ["distcc", *command.split()]
            net.run(argv, check=False, cwd=tree, env={**os.environ, **log})
            went = re.search("exec on 192", (state / "log").read_text()) is not None
            verdict = judge(argv)
            if went != (verdict.what != HERE):
                wrong.append(f"{command}: {verdict}, and {'not ' if went else ''}here")
            made = {path.name for path in set(tree.iterdir()) - before}
            if verdict.what == LOSSY and any(
                name.endswith((".dwo", ".su", ".ii", ".original")) for name in made
            ):
                lost.append(f"{command} has left {made} here")
    assert wrong == []
    assert lost == []

"""The tracer changes nothing of a build but the time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.trees.stamp import tracing_environment
from tests.trees.trace import read

MAKEFILE = """\
SHELL = /bin/bash
MAKEOVERRIDES =
X := $(shell echo "from a function")
all: quotes continued script sub bad
quotes:
\t@echo '$(X)' "a  b" \\$$HOME `echo x`; [[ -n yes ]] && echo 'it'"'"'s'
continued: quotes | silent
\t@echo one \\
\t  two
\t-@exit 3
silent:
\t@:
script:
\t@$(SHELL) ./script.sh -c 'an argument'
sub: continued
\t@+$(MAKE) -s --no-print-directory -f sub.mk SHELL=/bin/sh
bad: sub
\t@kill -TERM $$$$
"""

SUB = """\
x: ; @echo level $(MAKELEVEL); (exit 7)
"""


def _run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    argv = ["make", "-k", *arguments]
    done = subprocess.run(
        argv, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_traced_build_says_and_ends_as_without(tmp_path: Path, stamp_program: Path, release: str) -> None:
    (tmp_path / "Makefile").write_text(MAKEFILE.replace("bad: sub", "bad:"))
    (tmp_path / "sub.mk").write_text(SUB)
    (tmp_path / "script.sh").write_text('echo "$@"\n')
    log = tmp_path / "log"
    plain = _run(tmp_path)
    environment = tracing_environment(stamp_program, log, "/bin/bash")
    assert _run(tmp_path, **environment) == plain
    assert plain[0] == 2 and "it's" in plain[1] and "level 1" in plain[1]
    trace = read(log)
    assert [(ran.target, ran.level, ran.status) for ran in trace] == [
        ("quotes", 0, 0),
        ("silent", 0, 0),
        ("continued", 0, 0),
        ("continued", 0, 3),
        ("script", 0, 0),
        ("sub", 0, 2),
        ("x", 1, 7),
        ("bad", 0, 128 + signal.SIGTERM),
    ]
    assert trace[2].needs == ("quotes", "silent")
    assert {ran.parent for ran in trace[:6]} == {""} and trace[6].parent == trace[5].key
    assert all(ran.end_s is not None and ran.cpu_s is not None for ran in trace)


def test_a_long_list_of_prerequisites_is_cut(tmp_path: Path, stamp_program: Path) -> None:
    names = " ".join(f"a_rather_long_name_of_a_file_{number}" for number in range(300))
    (tmp_path / "Makefile").write_text(f"all: {names}\n\t@echo all\n{names}:\n")
    environment = tracing_environment(stamp_program, tmp_path / "log", "/bin/sh")
    assert _run(tmp_path, **environment)[:2] == (0, "all\n")
    (line, _) = (tmp_path / "log").read_text().splitlines()
    assert len(line) < 4096
    (ran,) = read(tmp_path / "log")
    assert ran.needs[0] == "a_rather_long_name_of_a_file_0"


@pytest.mark.parametrize("how", ["burn", "sleep"])
def test_work_takes_its_time(tmp_path: Path, stamp_program: Path, how: str) -> None:
    log = tmp_path / "log"
    argv = [str(stamp_program), "work", "name", "out", "0.05", how, "0"]
    subprocess.run(argv, cwd=tmp_path, env={"STAMP_LOG": str(log)}, check=True)
    (ran,) = read(log)
    assert ran.length_s >= 0.049 and (tmp_path / "out").read_text() == "name\n"
    assert (ran.cpu_s or 0) >= 0.049 or how == "sleep"  # two clocks, which do not quite agree


def test_work_that_is_killed_has_a_start_alone(tmp_path: Path, stamp_program: Path) -> None:
    log = tmp_path / "log"
    argv = [str(stamp_program), "work", "name", "out", "60", "sleep", "0"]
    child = subprocess.Popen(argv, cwd=tmp_path, env={"STAMP_LOG": str(log)})
    while not read(log):
        time.sleep(0.01)
    child.kill()
    child.wait()
    (ran,) = read(log)
    assert ran.end_s is None and not (tmp_path / "out").exists()

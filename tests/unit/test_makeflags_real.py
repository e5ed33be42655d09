"""A sub-make that gets what makeflags made of its environment conducts itself as under plain make.

Each case runs twice with the real make: plainly, and with tests/support/remote_make.py as `make` first in
PATH. Nothing may differ. Both makes are tried, as far as they can be had.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from d1fleet.makeflags import for_host
from tests.support.debsource import SourceUnavailable
from tests.support.make44 import real_make

ROOT = Path(__file__).resolve().parents[2]
CASES: list[dict[str, Any]] = json.loads((ROOT / "tests/data/makeflags/real.json").read_text())["cases"]

TOP = """\
all:
\t@echo top
\t{call}
"""

SUB = r"""
include_dirs := $(.INCLUDE_DIRS)
$(info MAKEFLAGS=[$(MAKEFLAGS)])
$(info MFLAGS=[$(MFLAGS)] MAKEOVERRIDES=[$(MAKEOVERRIDES)] $(origin MAKEOVERRIDES))
$(info MAKE=[$(MAKE)] $(origin MAKE) MAKELEVEL=$(MAKELEVEL) goals=[$(MAKECMDGOALS)])
$(info CC=[$(CC)] $(origin CC) $(flavor CC))
$(foreach v,V A B Q P D T J N E S Y Z,$(info $v=[$(value $v)] [$($v)] $(origin $v) $(flavor $v)))
$(info $(filter-out /usr%,$(include_dirs)))
all: first nested literal
first:
	@env | LC_ALL=C grep -a -e '^MA' -e '^MFLAGS' -e '^GNUMAKEFLAGS' -e '^[A-Z]=' | LC_ALL=C sort
	@echo "B=[$$B] Q=[$$Q] D=[$$D]"; echo err >&2
	@for fd in 3 4 5 6; do if [ -e /proc/self/fd/$$fd ]; then echo open $$fd; fi; done
nested: first
	$(MAKE) -f deep.mk MORE='m n'
literal: nested
	make -f deep.mk
"""

DEEP = r"""
$(info deep MAKEFLAGS=[$(MAKEFLAGS)] MFLAGS=[$(MFLAGS)] $(origin CC) B=[$(B)] MORE=[$(MORE)])
all: ; @env | LC_ALL=C grep -a -e '^MA' -e '^MFLAGS' | LC_ALL=C sort
"""


@pytest.fixture(scope="session", params=["4.3", "4.4"])
def make(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Version and path of a real make."""
    try:
        return request.param, str(real_make(request.param))
    except SourceUnavailable as exc:
        pytest.skip(f"no make {request.param}: {exc}")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_remote_make_equals_plain(case: dict[str, Any], make: tuple[str, str], tmp_path: Path) -> None:
    version, real = make
    tree = _tree(tmp_path, case)
    real_folder, shim_folder = tmp_path / "real", tmp_path / "shim"
    real_folder.mkdir()
    (real_folder / "make").symlink_to(real)
    shim_folder.mkdir()
    (shim_folder / "make").write_text(
        f"#!{sys.executable} -ISE\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from tests.support.remote_make import become_remote\n"
        f"become_remote({real!r}, Path({str(tmp_path)!r}), pair={case.get('pair', True)})\n"
    )
    (shim_folder / "make").chmod(0o755)

    plain = _run(case, version, real, tree, [real_folder])
    remote = _run(case, version, real, tree, [shim_folder, real_folder])

    expected = case["jobserver"]
    expected = expected if isinstance(expected, str) else expected[version]
    assert (tmp_path / "log").read_text().splitlines() == [expected]
    assert _comparable(case, remote.stdout) == _comparable(case, plain.stdout)
    assert _comparable(case, remote.stderr) == _comparable(case, plain.stderr)
    assert remote.returncode == plain.returncode == 0, remote.stderr
    assert b"deep" in plain.stdout


def test_client_takes_a_token_and_returns_it(make: tuple[str, str], tmp_path: Path) -> None:
    """One token in its pipe: two recipes at once, which meet in a fifo, and the token is back."""
    os.mkfifo(tmp_path / "meet")
    (tmp_path / "Makefile").write_text(
        "all: a b\na: ; @timeout 20 sh -c 'echo met > meet'\nb: ; @timeout 20 cat meet\n"
    )
    read, write = os.pipe()
    try:
        os.write(write, b"+")
        text = for_host(b" -j9 --jobserver-auth=fifo:/nowhere", fds=(read, write))
        env = _environment({"MAKEFLAGS": os.fsdecode(text), "MAKELEVEL": "1"})
        done = subprocess.run(
            [make[1], "--no-print-directory"], cwd=tmp_path, env=env, pass_fds=(read, write),
            capture_output=True, timeout=50,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, b"met\n", b"")
        os.set_blocking(read, False)
        assert os.read(read, 10) == b"+"
    finally:
        os.close(read)
        os.close(write)


def _tree(tmp_path: Path, case: dict[str, Any]) -> Path:
    tree = tmp_path / "tree"
    for folder in ("sub/in c", "sub/other"):
        (tree / folder).mkdir(parents=True)
    for name in ("in c", "other"):
        (tree / name).mkdir()
    call = case.get("call", "$(MAKE) -C sub")
    (tree / "Makefile").write_text(TOP.format(call=call))
    (tree / "posix.mk").write_text(".POSIX:\n" + TOP.format(call=call))
    (tree / "sub/Makefile").write_text(SUB)
    (tree / "sub/flags.mk").write_text("MAKEFLAGS += -k --no-print-directory\n" + SUB)
    (tree / "sub/deep.mk").write_text(DEEP)
    return tree


def _environment(extra: dict[str, str]) -> dict[str, str]:
    # A UTF-8 locale, so that the stand-in's Python does not set one itself.
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": "/", **extra}


def _run(
    case: dict[str, Any], version: str, real: str, tree: Path, path: list[Path]
) -> subprocess.CompletedProcess[bytes]:
    env = _environment(case.get("env", {}))
    env["PATH"] = ":".join([*map(str, path), os.defpath])
    args = [os.fsencode(word) for word in case["args"]]
    if version == "4.4" and "style" in case:
        args.append(b"--jobserver-style=" + case["style"].encode())
    return subprocess.run(
        [b"make", *args], executable=real, cwd=tree, env=env, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=50,
    )  # fmt: skip


def _comparable(case: dict[str, Any], text: bytes) -> bytes:
    """Without what differs from one plain run to the next, or by intent."""
    text = re.sub(rb"--sync-mutex=fnm:[^] \n]*", b"--sync-mutex=X", text)
    text = re.sub(rb"--jobserver-auth=fifo:(?:\\.|[^] \n])*", b"--jobserver-auth=fifo:X", text)
    if case.get("load"):
        text = re.sub(rb" ?-l900", b"", text)
    return text

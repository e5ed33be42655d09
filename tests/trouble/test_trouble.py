"""What happens to us is no reason for a build to fail, nor for a job to be passed by for ever."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kill.fleet import PROGRAM

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 90.0
NOWHERE = "nosuchhost.invalid"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two sub-makes that say their names."""
    return write(tmp_path, "all: one two\none two: ; @$(MAKE) -s --no-print-directory -f sub.mk $@\n")


def write(tmp_path: Path, makefile: str, sub: str = "%: ; @echo made $@\n") -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "Makefile").write_text(makefile)
    (folder / "sub.mk").write_text(sub)
    return folder


def environment(tmp_path: Path) -> dict[str, str]:
    """A runtime folder of the test's own: slots are shared with nobody else."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    return {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "LC_ALL": "C.UTF-8"}


def argv(*arguments: str) -> list[str]:
    return [*PROGRAM, "build", *arguments]


def build(tree: Path, *arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    how = {"stderr": subprocess.PIPE, **how}
    return subprocess.run(
        argv(*arguments),
        cwd=tree,
        env=environment(tree.parent),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=False,
        **how,
    )


@contextlib.contextmanager
def deaf_reader() -> Iterator[int]:
    """The writing end of a pipe that nobody reads any more."""
    read, end = os.pipe()
    os.close(read)
    try:
        yield end
    finally:
        os.close(end)


@pytest.mark.parametrize("options", [[], ["--summary"]])
@pytest.mark.parametrize("stderr", ["full", "deaf"])
def test_words_that_cannot_be_written(tree: Path, stderr: str, options: Sequence[str]) -> None:
    with deaf_reader() as deaf, open("/dev/full", "w") as full:
        end = build(
            tree, "--hosts", f"{NOWHERE} :/2", *options, "-j2", stderr=full if stderr == "full" else deaf
        )
    assert end.returncode == 0
    assert sorted(end.stdout.split("\n")) == ["", "made one", "made two"]


def test_a_reader_that_pauses_holds_up_nobody(tree: Path) -> None:
    """stderr is full from the start, and we have something to say: the build goes on all the same."""
    read, end = os.pipe()
    os.set_blocking(end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(end, b"." * 4096)
    os.set_blocking(end, True)
    command, env = argv("--hosts", ":/2", "-j2"), {**environment(tree.parent), "MAKE": "make"}
    with subprocess.Popen(
        command, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=end, text=True
    ) as running:
        os.close(end)
        assert running.stdout is not None
        assert {running.stdout.readline() for _ in range(2)} == {"made one\n", "made two\n"}
        said = b""
        while part := os.read(read, 65536):
            said += part
        assert running.wait(LIMIT_S) == 0
    os.close(read)
    assert said.strip(b".").startswith(b"d1fleet: MAKE is set in the environment")


def test_a_record_that_cannot_be_written(tree: Path) -> None:
    end = build(tree, "--record", "/dev/full", "--hosts", ":/2", "-j2")
    assert end.returncode == 0
    assert end.stderr.splitlines() == [
        "d1fleet: the record /dev/full ends here, the build goes on: No space left on device"
    ]


def test_few_descriptors_and_no_host(tmp_path: Path) -> None:
    """More sub-makes wait for this machine than it may have files open."""
    names = " ".join(f"s{number}" for number in range(200))
    tree = write(tmp_path, f"all: {names}\n{names}: ; @$(MAKE) -s --no-print-directory -f sub.mk $@\n")
    end = build(
        tree,
        "--hosts",
        NOWHERE,
        "-j250",
        "-k",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
    )
    assert end.returncode == 0, end.stderr
    assert len(end.stdout.splitlines()) == 200


HEAVY = "heavy: ; @$(MAKE) -j2 -s --no-print-directory -f sub.mk heavy\n"
SUB = "heavy: ; @echo heavy\n%: ; @sleep 0.25; echo $@\n"


def test_a_job_of_several_slots_is_not_passed_by(tmp_path: Path) -> None:
    """Its own -j2 wants both slots, and there always is a small one for the first that comes free."""
    small = " ".join(f"s{number}" for number in range(40))
    tree = write(
        tmp_path,
        f"all: s0 heavy {small}\n{HEAVY}{small}: ; @$(MAKE) -s --no-print-directory -f sub.mk $@\n",
        SUB,
    )
    end = build(tree, "--hosts", ":/2", "-j6")
    assert end.returncode == 0, end.stderr
    order = end.stdout.split()
    assert len(order) == 41
    assert order.index("heavy") < 35, order


def test_a_job_of_several_slots_is_not_passed_by_by_another_build(tmp_path: Path) -> None:
    names = " ".join(f"s{number}" for number in range(120))
    long = write(tmp_path, f"all: {names}\n{names}: ; @$(MAKE) -s --no-print-directory -f sub.mk $@\n", SUB)
    other = tmp_path / "other"
    other.mkdir()
    (other / "Makefile").write_text(f"all: heavy\n{HEAVY}")
    (other / "sub.mk").write_text(SUB)
    with subprocess.Popen(
        argv("--hosts", ":/2", "-j2"), cwd=long, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        end = build(other, "--hosts", ":/2", "-j2")
        assert (end.returncode, end.stdout) == (0, "heavy\n")
        assert running.poll() is None, "the other build had ended before"
        running.terminate()
        running.stdout.read()


def test_a_nested_build_that_cannot_know_it_is_one(tmp_path: Path) -> None:
    """It waits for the slot that its own recipe holds; somebody has to say so."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "Makefile").write_text("all: ; @$(MAKE) -f sub.mk x\n")
    (inner / "sub.mk").write_text("x: ; @echo inner\n")
    runtime = environment(tmp_path)["XDG_RUNTIME_DIR"]
    clean = f"env -i PATH={os.environ['PATH']} HOME={os.environ['HOME']} XDG_RUNTIME_DIR={runtime}"
    path = f"PYTHONPATH={':'.join(sys.path)}"
    nested = f"cd {inner} && {clean} {path} {' '.join(argv('--hosts', ':/1'))}"
    tree = write(tmp_path, "all: ; @$(MAKE) -f sub.mk deep\n", f"deep: ; @{nested}\n")
    with subprocess.Popen(
        argv("--hosts", ":/1"), cwd=tree, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        line = running.stderr.readline()
        running.terminate()
        running.stderr.read()
    assert "wait for slots there that other builds hold" in line


@pytest.mark.parametrize(("typed", "meant"), [("--host", "--hosts"), ("--sumary", "--summary")])
def test_a_misspelt_option(tree: Path, typed: str, meant: str) -> None:
    end = build(tree, typed, "-j2")
    assert (end.returncode, end.stdout) == (81, "")
    assert end.stderr == (
        f"d1fleet: neither d1fleet nor make has an option {typed}\nd1fleet:   mend: did you mean {meant}?\n"
    )


def test_the_summary_says_where_and_how(tmp_path: Path) -> None:
    makefile = (
        "all: one two three\n"
        "one two: ; @cd sub && $(MAKE) -s --no-print-directory $@\n"
        "three: ; @$(MAKE) -n -C sub\n"
    )
    tree = write(tmp_path, makefile)
    (tree / "sub").mkdir()
    (tree / "sub" / "Makefile").write_text("one: ; @:\ntwo: ; @exit 3\n")
    end = build(tree, "--hosts", ":/2", "--summary", "-k")
    assert re.search(r"^d1fleet: sub-make +folder +host +seconds$", end.stderr, re.M)
    assert re.search(r"^d1fleet: make -s --no-print-directory one  sub +:  +\d\.\d\d$", end.stderr, re.M)
    assert re.search(
        r"^d1fleet: make -s --no-print-directory two  sub +:  +\d\.\d\d +exit 2$", end.stderr, re.M
    )
    assert re.search(r"^d1fleet: make -n -C sub +\.  +this machine +-n only prints", end.stderr, re.M)

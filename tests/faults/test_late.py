"""Hosts that see late what others make, by sshfs, whose caches are as those of NFS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.trial import options
from tests.containers import ContainerHosts, ImageUnavailable
from tests.containers import missing_reason as no_containers
from tests.containers.sshfs import CACHE_S

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

TIMES = [pytest.param(number, marks=[pytest.mark.full] if number else []) for number in range(20)]

AS_IT_IS = (sys.executable, "-m", "d1fleet.cli")
BLIND = (sys.executable, str(Path(__file__).with_name("blind.py")))
"""Without what the tests are about."""

TOP = """\
all: use1 use2
use1 use2: made1 made2 ; @$(MAKE) -C sub $@
{made}
look1 look2: ready ; @$(MAKE) -C sub $@
"""

READY = """\
ready: ; @until test `grep -c '"host-up"' {record}` = 2; do sleep 0.05; done
"""

SUB = """\
# Each host takes one of two: it has one slot, and they last for a moment.
look%: ; @ls -l . 1 2 >/dev/null; cat */file */result >/dev/null 2>&1; sleep 0.7
made%: ; @sleep 0.7; {change}
use1 use2: use%: %/of1 %/of2
\t@sleep 0.7
1/of1 2/of1: %/of1: {first}
\t@{look}
1/of2 2/of2: %/of2: {second}
\t@{look}
1.FORCE 2.FORCE:
"""

WAYS = {
    "new": "echo new > $*/file",
    "pattern": "echo new > $*/file.c",
    "changed": "echo new > $*/file",
    "gone": "rm $*/result",
}
"""What two sub-makes do, each on another host; then each host makes something of what either has done."""

BY_HOST = "made1 made2: look1 look2 ; @$(MAKE) -C sub $@"
BY_HAND = "made1 made2: made%: look1 look2 ; @cd sub && sleep 0.3 && echo new > $*/file"

RIGHT = {"new": "new\n", "pattern": "new\n", "changed": "new\n", "gone": "again\n"}


@pytest.fixture(scope="module")
def late_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ContainerHosts, Path]]:
    """The first one has the folder, the others see it late."""
    reason = no_containers()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("late")
    try:
        with ContainerHosts(f"seen-late-{os.getpid()}", variant="build", sshfs=folder) as hosts:
            yield hosts, folder
    except ImageUnavailable as error:
        pytest.skip(str(error))


def build(
    late_hosts: tuple[ContainerHosts, Path],
    way: str,
    made: str = BY_HOST,
    program: tuple[str, ...] = AS_IT_IS,
    nested: bool = False,
) -> tuple[subprocess.CompletedProcess[str], bool]:
    """One build on the two that see late, and whether what it has made is right."""
    hosts, folder = late_hosts
    tree = folder / f"tree{time.monotonic_ns()}"
    sub, record = tree / "sub", folder / f"{tree.name}.record"
    sub.mkdir(parents=True)
    ready, steps = READY.format(record=record), TOP.format(made=made)
    if nested:
        (tree / "middle.mk").write_text(f"{steps}ready:\n")
        steps = "all: ready ; @$(MAKE) -f middle.mk\n"
    (tree / "Makefile").write_text(steps + ready)
    words = {"change": WAYS[way], "first": "1/file", "second": "2/file", "look": "cat $< > $@"}
    if way == "gone":
        look = "if test -e $(patsubst %.FORCE,%,$<)/result; then echo old; else echo again; fi > $@"
        words |= {"first": "1.FORCE", "second": "2.FORCE", "look": look}
    elif way == "pattern":
        words |= {"first": "1/file.o%", "second": "2/file.o%"}
    text = SUB
    for name, word in words.items():
        text = text.replace(f"{{{name}}}", word)
    if way == "pattern":  # no rule names the file: make looks for it in its folder's listing
        text += "%.o1: %.c ; @cat $< > $@\n%.o2: %.c ; @cat $< > $@\n"
    (sub / "Makefile").write_text(text)
    for folder_name in ("1", "2"):
        (sub / folder_name).mkdir()
        if way not in ("new", "pattern"):
            for age, name in enumerate(("of1", "of2", "result", "file"), 1):
                path = sub / folder_name / name
                path.write_text("old\n")
                os.utime(path, times=(time.time() - 1000 * age,) * 2)
    typed = options(["h2/1", "h3/1"], hosts.ssh_config)
    done = subprocess.run(
        [*program, "build", *typed, "--record", str(record), "-j2"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    found = [path.read_text() for path in sorted(sub.glob("?/of?"))]
    return done, len(found) == 4 and set(found) == {RIGHT[way]}


@pytest.mark.parametrize("number", TIMES)
@pytest.mark.parametrize("way", WAYS)
def test_what_another_host_has_done_is_seen(
    late_hosts: tuple[ContainerHosts, Path], way: str, number: int
) -> None:
    done, right = build(late_hosts, way)
    assert (done.returncode, done.stderr) == (0, "")
    assert right


@pytest.mark.parametrize("number", TIMES)
def test_what_makes_within_sub_makes_have_done_is_seen(
    late_hosts: tuple[ContainerHosts, Path], number: int
) -> None:
    done, right = build(late_hosts, "changed", nested=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert right


def test_what_a_make_on_a_host_does_itself_is_seen(late_hosts: tuple[ContainerHosts, Path]) -> None:
    done, right = build(late_hosts, "changed", BY_HAND, nested=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert right


def test_what_make_does_itself_is_seen(late_hosts: tuple[ContainerHosts, Path]) -> None:
    done, right = build(late_hosts, "changed", BY_HAND)
    assert (done.returncode, done.stderr) == (0, "")
    assert right


@pytest.mark.parametrize("way", ["pattern", "changed", "gone"])
def test_it_would_go_wrong(late_hosts: tuple[ContainerHosts, Path], way: str) -> None:
    """sshfs does not remember that something is not there, as NFS does."""
    done, right = build(late_hosts, way, program=BLIND)
    assert done.returncode != 0 or not right


HERE = """\
out: file ; @cat file > out
file: FORCE ; @$(MAKE) -C sub
FORCE:
"""


@pytest.fixture
def late_here(late_hosts: tuple[ContainerHosts, Path]) -> Iterator[tuple[ContainerHosts, Path]]:
    """Now this machine sees the folder by the first host, late."""
    hosts, folder = late_hosts
    if shutil.which("sshfs") is None:
        pytest.skip("sshfs is missing")
    late = ",".join(f"{name}_timeout={CACHE_S}" for name in ("attr", "entry", "dcache"))
    mount = ["sshfs", "-F", str(hosts.ssh_config), "-o", late, f"h1:{folder}", str(folder)]
    subprocess.run(mount, check=True, timeout=30)
    try:
        yield hosts, folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


@pytest.mark.parametrize("program", [AS_IT_IS, BLIND])
def test_this_machine_sees_late(
    late_here: tuple[ContainerHosts, Path], tmp_path: Path, program: tuple[str, ...]
) -> None:
    hosts, folder = late_here
    tree = folder / f"tree{time.monotonic_ns()}"
    (tree / "sub").mkdir(parents=True)
    (tree / "Makefile").write_text(HERE)
    (tree / "sub" / "Makefile").write_text("all: ; @echo new > ../file\n")
    for age, name in enumerate(("out", "file"), 1):
        (tree / name).write_text("old\n")
        os.utime(tree / name, times=(time.time() - 1000 * age,) * 2)
    typed = options(["h1/1"], hosts.ssh_config)
    done = subprocess.run(
        [*program, "build", *typed, "-j2"], cwd=tree, capture_output=True, text=True, check=False, timeout=200
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ((tree / "out").read_text() == "new\n") is (program is AS_IT_IS)

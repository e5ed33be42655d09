"""`d1fleet build --command`: programs that start makes, over pipes, compared with plain runs of them."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kill import proc
from tests.kill.fleet import PROGRAM
from tests.kill.terminal import Terminal

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 90.0
HOSTS = ("north", "east")

SUBS = """
all: one two
.PHONY: all one two
one two: ; @$(MAKE) --no-print-directory -f sub.mk $@
"""
SUB = "%: ; @echo $@ of $(CURDIR), level $(MAKELEVEL); touch $@.made\n"


@dataclass
class Site:
    """A folder, and how to build in it."""

    folder: Path

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def script(self, *lines: str) -> str:
        self.write("script", "\n".join(["#!/bin/sh", *lines, ""]), 0o755)
        return "./script"

    @property
    def environment(self) -> dict[str, str]:
        """Runtime and state folders of the test's own."""
        runtime = self.folder.parent / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        state = str(self.folder.parent / "state")
        return {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": state, "LC_ALL": "C.UTF-8"}

    def argv(self, program: Sequence[str], jobs: Sequence[str] = (), own: Sequence[str] = ()) -> list[str]:
        hosts = {name: {"ansible_connection": "local", "d1fleet_slots": 2} for name in HOSTS}
        inventory = self.folder.parent / "hosts.yml"
        inventory.write_text(json.dumps({"projects": {"children": {"test": {"hosts": hosts}}}}))
        record = str(self.folder.parent / "record")
        own = ["--inventory", str(inventory), "--record", record, *own, *jobs]
        return [*PROGRAM, "build", *own, "--command", "--", *program]

    def build(
        self, *program: str, jobs: Sequence[str] = (), own: Sequence[str] = (), **more: str
    ) -> subprocess.CompletedProcess[str]:
        return self._run(self.argv(program, jobs, own), {**self.environment, **more})

    def plain(self, *program: str) -> subprocess.CompletedProcess[str]:
        return self._run(list(program), self.environment)

    def _run(self, argv: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder.parent / "record").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def jobs(self) -> list[tuple[list[str], str | None]]:
        """Goals and host of each sub-make."""
        return [(job["argv"][-1:], job["host"]) for job in self.events("job")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "tree")
    site.write("Makefile", SUBS)
    site.write("sub.mk", SUB)
    return site


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize("make", ["make", "/usr/bin/make"])
def test_makes_of_a_script(site: Site, make: str) -> None:
    """The makes that it starts run here, wherever it found them; what they call runs on hosts."""
    need("/usr/bin/make")
    script = site.script(f"{make} one || exit", "echo between", f"cd . && {make} -j2 two")
    plain = site.plain(script)
    ours = site.build(script)
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert plain.stdout.count("level 1") == 2
    assert [goals for goals, _ in site.jobs()] == [["one"], ["two"]]
    assert all(host in HOSTS for _, host in site.jobs())


def test_a_make_that_is_executable(site: Site) -> None:
    """As debian/rules is."""
    need("/usr/bin/make")
    rules = site.write("rules", f"#!/usr/bin/make -f\n{SUBS}", 0o755)
    assert site.build(str(rules), "all").returncode == 0
    assert sorted(goals for goals, _ in site.jobs()) == [["one"], ["two"]]


@pytest.mark.parametrize(
    ("jobs", "given", "expected"),
    [
        ([], "", ""),
        ([], "k", "k"),
        (["-j8"], "", "-j8"),
        (["-j", "8"], "k", "k -j8"),
        (["-j"], "", "-j"),
        (["--jobs=3"], "k -j2 -- CC=x", "k -j3 -- CC=x"),
    ],
)
def test_jobs(site: Site, jobs: list[str], given: str, expected: str) -> None:
    """-jN is what each make of the program has."""
    script = site.script('echo "<$MAKEFLAGS>"')
    assert site.build(script, jobs=jobs, MAKEFLAGS=given).stdout == f"<{expected}>\n"


def test_a_jobserver_of_each_make(site: Site) -> None:
    """Both sub-makes run at once: each waits for the other."""
    meet = "%: ; @touch $@.here; until test -e one.here -a -e two.here; do :; done; echo $@ met\n"
    site.write("sub.mk", meet)
    ours = site.build(site.script("make; rm *.here; make"), jobs=["-j2"])
    assert sorted(ours.stdout.split("\n")) == ["", "one met", "one met", "two met", "two met"]
    assert ours.stderr == ""


@pytest.mark.parametrize(
    "last", ["exit 3", "exit 1", "kill -9 $$", "kill -TERM $$", "make -f /dev/null none"]
)
def test_its_end_is_the_builds(site: Site, last: str) -> None:
    script = site.script("make one", last)
    assert site.build(script).returncode == site.plain(script).returncode != 0


@pytest.mark.parametrize(
    ("name", "text", "mode", "status", "said"),
    [
        ("not-there", None, 0, 127, "there is no ./not-there"),
        ("plain", "echo\n", 0o644, 126, "plain may not be executed"),
        ("lost", "#!/no/interpreter\n", 0o755, 127, "its interpreter is not there"),
        ("bad", "\x7fELF\0 rubbish", 0o755, 126, "cannot be started"),
    ],
)
def test_what_cannot_be_started(
    site: Site, name: str, text: str | None, mode: int, status: int, said: str
) -> None:
    if text is not None:
        site.write(name, text, mode)
    ours = site.build(f"./{name}")
    assert ours.returncode == status
    assert ours.stderr.startswith("d1fleet: ") and said in ours.stderr and "Traceback" not in ours.stderr


def test_what_is_in_no_folder_of_path(site: Site) -> None:
    ours = site.build("no-such-program")
    assert (ours.returncode, "in PATH there is no program no-such-program" in ours.stderr) == (127, True)


def test_a_script_without_a_first_line(site: Site) -> None:
    site.write("bare", 'echo "$0 $1"; make one >/dev/null; exit 4\n', 0o755)
    ours = site.build("./bare", "x y")
    assert (ours.returncode, ours.stdout, ours.stderr) == (4, "./bare x y\n", "")


def test_it_is_named_where_it_passes_us_by(site: Site) -> None:
    """A sub-make that is called by a path runs here, and the summary says so. It waits to be noticed."""
    need("/usr/bin/make")
    site.write("Makefile", "all: ; @/usr/bin/make --no-print-directory -f sub.mk passing\n")
    record = site.folder.parent / "record"
    site.write("sub.mk", f"passing: ; @until grep -q unseen {record}; do sleep 0.05; done\n")
    ours = site.build("make", own=["--summary"])
    assert ours.returncode == 0
    assert "1 sub-make at least ran on this machine without asking d1fleet:" in ours.stderr
    assert "/usr/bin/make --no-print-directory -f sub.mk passing (in " in ours.stderr
    (event,) = site.events("unseen")
    assert (event["dir"], event["reason"]) == (str(site.folder), "it was called by a path")
    assert site.jobs() == []


def test_under_fakeroot_it_stays_here(site: Site) -> None:
    need("fakeroot")
    site.write("Makefile", "%: ; @$(MAKE) --no-print-directory -f sub.mk $@\n")
    record = site.folder.parent / "record"
    site.write(
        "sub.mk",
        f"build: ; @echo built\nbinary: ; @until grep -q unseen {record}; do sleep 0.05; done; id -u\n",
    )
    ours = site.build(site.script("make build", "fakeroot make binary"))
    assert (ours.returncode, ours.stdout) == (0, "built\n0\n")
    ((goals, host),) = site.jobs()
    assert (goals, host in HOSTS) == (["build"], True)
    assert site.events("unseen")[0]["reason"] == "it was under fakeroot"


@contextlib.contextmanager
def running(argv: list[str], site: Site, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """A build whose recipe has begun; ended at the end, however the test ends."""
    begun = site.folder / "begun"
    os.mkfifo(begun)
    with subprocess.Popen(
        argv, cwd=site.folder, env=site.environment, stdin=subprocess.DEVNULL, text=True, **how
    ) as process:
        try:
            begun.read_text()  # comes when the recipe has opened it
            yield process
        finally:
            if process.poll() is None:
                process.kill()


SLOW = "slow: ; @echo half >$@; echo >begun; sleep 1000; echo whole >$@\n"


def test_ctrl_c(site: Site) -> None:
    """The whole program ends of it, and half a target does not stay."""
    site.write("sub.mk", SLOW)
    site.write("Makefile", "slow: ; +make -f sub.mk slow\n")
    script = site.script("make slow", "echo went on")
    with Terminal() as terminal:
        how = {
            "stdout": terminal.slave,
            "stderr": terminal.slave,
            "preexec_fn": terminal.become_controlling,
            "start_new_session": True,
        }
        with running(site.argv([script]), site, **how) as process:
            terminal.press("\x03")
            assert process.wait(LIMIT_S) == -signal.SIGINT
        terminal.wait_for("Deleting file 'slow'")
        assert "went on" not in terminal.text
    assert not (site.folder / "slow").exists()


def test_ctrl_z(site: Site) -> None:
    """It stops with all that it has started, and goes on with fg."""
    need("bash")
    os.mkfifo(site.folder / "begun")
    os.mkfifo(site.folder / "go")
    site.write("sub.mk", "slow: ; @echo $$PPID >begun; read x <go; echo went on\n")
    site.write("Makefile", "slow: ; @+make -f sub.mk slow\n")
    script = site.script("echo $$ >pid", "make slow", "exit 7")
    with (
        Terminal() as terminal,
        subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            cwd=site.folder,
            env={**site.environment, "PS1": "ready> "},
            stdin=terminal.slave,
            stdout=terminal.slave,
            stderr=terminal.slave,
            preexec_fn=terminal.become_controlling,
            start_new_session=True,
        ) as shell,
    ):
        terminal.wait_for("ready> ")
        terminal.press(shlex.join(site.argv([script])) + "; echo status=$?\n")
        made = int((site.folder / "begun").read_text())
        started = int((site.folder / "pid").read_text())
        terminal.press("\x1a")
        terminal.wait_for("Stopped")
        for pid in (started, made):
            assert _stops(pid), proc.describe(pid)
        terminal.press("fg\n")
        (site.folder / "go").write_text("\n")
        terminal.wait_for("went on")
        terminal.press("echo status=$?\n")
        terminal.wait_for("status=7")
        terminal.press("exit\n")
        assert shell.wait(LIMIT_S) == 0


def _stops(pid: int) -> bool:
    """Is it stopped within ten seconds? Nothing tells of that to anybody but the parent."""
    deadline = time.monotonic() + 10
    while proc.state(pid) != "T":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", ["here", "on a host"])
def test_a_signal_for_us_alone(site: Site, where: str, number: signal.Signals) -> None:
    """The program has it too; what it had started ends as make does."""
    site.write("sub.mk", SLOW)
    site.write("Makefile", "slow: ; +make -f sub.mk slow\n")
    script = site.script("make slow" if where == "on a host" else "make -f sub.mk slow", "echo went on")
    with running(
        site.argv([script]), site, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == -number
    assert "went on" not in out and "Deleting file 'slow'" in err
    assert not (site.folder / "slow").exists()


CMAKE = """
cmake_minimum_required(VERSION 3.10)
project(sample C)
foreach(name one two)
  file(WRITE ${CMAKE_BINARY_DIR}/${name}.c "int ${name}(void) { return 0; }")
  add_library(${name} ${CMAKE_BINARY_DIR}/${name}.c)
endforeach()
file(WRITE ${CMAKE_BINARY_DIR}/main.c "int one(void), two(void); int main(void) { return one() + two(); }")
add_executable(main ${CMAKE_BINARY_DIR}/main.c)
target_link_libraries(main one two)
"""


def test_cmake(site: Site) -> None:
    """`cmake --build` calls make by a path; and what was configured so can be built without d1fleet."""
    need("cmake", "cc")
    site.write("CMakeLists.txt", CMAKE)
    script = site.script("cmake -S . -B out -G 'Unix Makefiles' && cmake --build out -j2")
    ours = site.build(script)
    assert ours.returncode == 0, ours.stderr
    argvs = [job["argv"] for job in site.events("job") if job["host"] in HOSTS]
    assert [argv[-1] for argv in argvs if "CMakeFiles/Makefile2" in argv] == ["all"]
    assert subprocess.run([site.folder / "out/main"], check=False).returncode == 0
    # The path of make that it wrote down has to last.
    (site.folder / "out/main").unlink()
    again = site.plain("cmake", "--build", "out")
    assert again.returncode == 0, again.stderr
    assert (site.folder / "out/main").exists()


CONTROL = """Source: sample
Maintainer: Nobody <nobody@example.invalid>
Rules-Requires-Root: binary-targets

Package: sample
Architecture: all
Description: built to see where
"""
CHANGELOG = """sample (1) unstable; urgency=low

  * First.

 -- Nobody <nobody@example.invalid>  Thu, 01 Jan 2026 00:00:00 +0000
"""
RULES = """#!/usr/bin/make -f
build: ; +make -f sub.mk product
clean: ; rm -rf product debian/tmp debian/files
binary:
\t+make -f sub.mk packed
\tdpkg-gencontrol
\tdpkg-deb --build debian/tmp ..
build-indep binary-indep: %-indep: %
.PHONY: build clean binary
"""
PACK = """product: ; echo made >$@
packed:
\tinstall -d debian/tmp/DEBIAN debian/tmp/usr/share/sample
\tinstall -m 644 product debian/tmp/usr/share/sample
\ttest "$$(stat -c %u debian/tmp/usr)" = 0
"""


def test_a_debian_package(site: Site) -> None:
    """Its `build` part is dispatched, its `binary` part runs here under fakeroot; the package is the same."""
    need("dpkg-buildpackage", "fakeroot")
    for name, text in (("control", CONTROL), ("changelog", CHANGELOG)):
        site.write(f"debian/{name}", text)
    site.write("debian/source/format", "3.0 (native)\n")
    site.write("debian/rules", RULES, 0o755)
    site.write("sub.mk", PACK)
    (site.folder / "Makefile").unlink()
    command = ["dpkg-buildpackage", "-b", "-uc", "-d", "-rfakeroot"]
    package = site.folder.parent / "sample_1_all.deb"
    plain = site.plain(*command)
    assert plain.returncode == 0, plain.stderr
    content = package.read_bytes()
    package.unlink()
    ours = site.build(*command)
    assert ours.returncode == 0, ours.stderr
    assert package.read_bytes() == content
    assert [(goals, host in HOSTS) for goals, host in site.jobs()] == [(["product"], True)]

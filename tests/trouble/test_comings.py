"""Hosts that are lost and come back, join, are drained and leave, during builds."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from d1fleet.errors import HostError, JobLostError, UnknownProjectError
from tests.containers import ContainerHosts
from tests.kill.fleet import PROGRAM, SHORT
from tests.support.sshd import LoopbackSshd, missing_reason

pytestmark = pytest.mark.timeout(180)

LIMIT_S = 60.0
"""For what mostly takes a second or two: a machine that is busy."""

PROMISED_S = 5.0
"""A host that returns or is added gets jobs within this time: printed, and asserted with the noise of a test
machine on top.
"""

NOISE_S = 5.0

NAMES = ("alder", "birch")

MAKEFILE = f"""\
all: {" ".join(f"j{number}" for number in range(400))}
j%:; +@$(MAKE) -s --no-print-directory -f sub.mk x N=$*
"""
# N: no host has run that one before, so all are equal.
SUB = "x:; @test -e ../done || sleep 0.3\n"


@dataclass
class Scene:
    """A build that goes on until it is told to end, on hosts of an inventory that tests write anew."""

    folder: Path
    common: Mapping[str, object]
    """Variables of all hosts."""
    options: list[str]
    environ: Mapping[str, str]
    build: subprocess.Popen[str] | None = None

    @property
    def inventory(self) -> Path:
        return self.folder / "hosts.yml"

    def write(self, *names: str, **variables: object) -> None:
        """Write the inventory as an editor does: another file takes its place."""
        hosts = {name: {**self.common, **variables} for name in names}
        new = self.folder / ".new.yml"
        new.write_text(yaml.safe_dump({"projects": {"children": {"test": {"hosts": hosts}}}}))
        new.rename(self.inventory)

    def start(self, *own: str) -> None:
        tree = self.folder / "tree"
        tree.mkdir()
        (tree / "Makefile").write_text(MAKEFILE)
        (tree / "sub.mk").write_text(SUB)
        options = ["--inventory", str(self.inventory), "--record", str(self.folder / "record"), *self.options]
        self.build = subprocess.Popen(
            [*PROGRAM, "build", *options, *SHORT.options(), *own, "-k", "-j6"],
            cwd=tree,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        """Let the build come to its end; its exit status and stderr."""
        assert self.build is not None
        (self.folder / "done").touch()
        said = self.build.communicate(timeout=LIMIT_S)[1]
        return self.build.returncode, said

    def close(self) -> None:
        if self.build is not None and self.build.poll() is None:
            self.build.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.build.communicate(timeout=10.0)
            self.build.kill()
            self.build.communicate()

    def drain(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [*PROGRAM, "drain", "--inventory", str(self.inventory), *self.options, *words]
        return subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=LIMIT_S)

    def events(self, event: str, host: str | None = None) -> list[dict[str, Any]]:
        record = self.folder / "record"
        lines = record.read_text().splitlines() if record.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [each for each in found if each["event"] == event and host in (None, each["host"])]

    def wait_for(self, event: str, host: str, count: int = 1) -> dict[str, Any]:
        """The event of that number."""
        until(lambda: len(self.events(event, host)) >= count, f"{count}. {event} of {host}")
        return self.events(event, host)[count - 1]

    def jobs_placed_after(self, host: str, at_s: float) -> list[float]:
        return sorted(job["placed_s"] for job in self.events("job", host) if job["placed_s"] > at_s)

    def works_after(self, host: str, at_s: float) -> float:
        """When, on the record's clock, the host was first given a job after `at_s`."""
        until(lambda: bool(self.jobs_placed_after(host, at_s)), f"jobs on {host}")
        return self.jobs_placed_after(host, at_s)[0]

    def comes_within(self, since: float, host: str, count: int) -> float:
        """Seconds from `since` (time.monotonic) until the host was up for that time, and had a job."""
        up = self.wait_for("host-up", host, count)
        seen_s = time.monotonic() - since
        waited_s: float = self.works_after(host, up["at_s"] - 0.001) - up["at_s"]
        return seen_s + waited_s


def until(found: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not found():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def _within_promise(what: str, seconds: float) -> None:
    print(f"{what} had a job after {seconds:.2f} s (promised: {PROMISED_S:.0f} s)")
    assert seconds <= PROMISED_S + NOISE_S


@contextlib.contextmanager
def _scene(folder: Path, common: Mapping[str, object], options: list[str]) -> Iterator[Scene]:
    runtime = folder / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(runtime), "LC_ALL": "C.UTF-8"}
    scene = Scene(folder, common, options, environ)
    try:
        yield scene
    finally:
        scene.close()


@pytest.fixture
def piped(tmp_path: Path) -> Iterator[Scene]:
    """Hosts are this machine, over pipes."""
    with _scene(tmp_path, {"d1fleet_transport": "local", "d1fleet_slots": 4}, []) as scene:
        yield scene


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[LoopbackSshd]:
    if missing_reason():
        pytest.skip(missing_reason())
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    options: dict[str, str | int] = {"SetEnv": f"XDG_RUNTIME_DIR={runtime} TMPDIR={runtime}"}
    with LoopbackSshd(tmp_path, NAMES, servers=2, options=options) as found:
        yield found


TRANSPORTS = ["ssh", pytest.param("openssh", marks=pytest.mark.full)]


@pytest.fixture(params=TRANSPORTS)
def sshed(request: pytest.FixtureRequest, servers: LoopbackSshd, tmp_path: Path) -> Iterator[Scene]:
    """Hosts are two SSH servers of this machine."""
    common = {"d1fleet_transport": request.param, "d1fleet_slots": 4}
    with _scene(tmp_path, common, ["--ssh-config", str(servers.ssh_config)]) as scene:
        yield scene


# -- coming back -------------------------------------------------------------------------------------


def test_a_lost_host_works_again_when_it_is_reachable(sshed: Scene, servers: LoopbackSshd) -> None:
    sshed.write(*NAMES)
    sshed.start()
    for name in NAMES:
        sshed.works_after(name, 0.0)
    servers.stop("alder")
    lost = sshed.wait_for("host-lost", "alder")
    time.sleep(2 * SHORT.lease_s)  # it is looked at several times meanwhile
    sshed.works_after("birch", lost["at_s"])
    servers.restart("alder")
    _within_promise("a host that came back", sshed.comes_within(time.monotonic(), "alder", 2))
    code, said = sshed.end()
    assert code in (0, JobLostError.exit_code), said
    assert said.count("d1fleet: host alder: ") == 3 if "what runs there" in said else 2, said
    assert "it is tried again\n" in said and "d1fleet: host alder: it is there again\n" in said
    jobs = sshed.events("job", "alder")
    # What the old connection had ended before anything else could take its place.
    lost_jobs = [job for job in jobs if job["infrastructure"]]
    assert {job["infrastructure"] for job in lost_jobs} <= {"lost"}
    assert len(sshed.events("host-up")) == 3


def test_none_at_the_start_is_no_reason_to_wait_and_they_work_when_they_come(
    sshed: Scene, servers: LoopbackSshd
) -> None:
    for name in NAMES:
        servers.stop(name)
    sshed.write(*NAMES)
    sshed.start()
    until(lambda: bool(sshed.events("job")), "a job on this machine")
    assert sshed.events("job")[0]["host"] is None
    servers.restart("birch")
    _within_promise("a host that was off at the start", sshed.comes_within(time.monotonic(), "birch", 1))
    code, said = sshed.end()
    assert code == 0, said
    assert said.count("host alder: no connection to") == 1
    assert "d1fleet: host birch: it is there now\n" in said


def test_a_killed_server_is_started_again(piped: Scene) -> None:
    piped.write("alder", "birch")
    piped.start()
    for name in NAMES:
        piped.works_after(name, 0.0)
    assert piped.build is not None
    # What a server of ours has open, and nobody else: the coordinator's pipes are its standard streams.
    import psutil

    (coordinator,) = psutil.Process(piped.build.pid).children()
    pid = next(child.pid for child in coordinator.children() if "-ISE" in child.cmdline())
    began = time.monotonic()
    os.kill(pid, 9)
    until(lambda: bool(piped.events("host-lost")), "a loss")
    name = piped.events("host-lost")[0]["host"]
    _within_promise("a host whose server was killed", piped.comes_within(began, name, 2))
    code, said = piped.end()
    assert code in (0, JobLostError.exit_code), said


def test_under_strict_work_waits_for_the_only_host(sshed: Scene, servers: LoopbackSshd) -> None:
    sshed.write("alder")
    sshed.start("--strict")
    sshed.works_after("alder", 0.0)
    servers.stop("alder")
    lost = sshed.wait_for("host-lost", "alder")
    servers.restart("alder")
    sshed.works_after("alder", lost["at_s"])
    code, said = sshed.end()
    assert code in (0, JobLostError.exit_code), said
    assert "sub-makes wait up to 60 s for one to come back (--strict)" in said
    assert "no host can run" not in said


# -- the inventory -----------------------------------------------------------------------------------


def test_added_and_removed(piped: Scene) -> None:
    piped.write("alder")
    piped.start()
    piped.works_after("alder", 0.0)
    began = time.monotonic()
    piped.write("alder", "birch")
    _within_promise("an added host", piped.comes_within(began, "birch", 1))
    piped.write("birch")
    removed = piped.wait_for("host-removed", "alder")
    piped.works_after("birch", removed["at_s"] + 1.0)
    assert piped.jobs_placed_after("alder", removed["at_s"]) == []
    code, said = piped.end()
    assert code == 0, said
    assert said.splitlines()[:2] == [
        "d1fleet: host birch is new in the inventory",
        "d1fleet: host alder gets no more sub-makes: the inventory no longer has it",
    ]
    assert all(job["exit"] == 0 for job in piped.events("job"))  # it finished what it had


def test_a_broken_inventory_is_said_once_and_the_old_one_stays(piped: Scene) -> None:
    piped.write("alder")
    piped.start()
    first = piped.works_after("alder", 0.0)
    good = piped.inventory.read_text()
    piped.inventory.write_text("projects: {children: [\n")
    time.sleep(4.0)  # long enough to be read twice
    piped.inventory.write_text("projects: {children: [ \n")
    time.sleep(4.0)
    piped.works_after("alder", first + 6.0)
    piped.inventory.write_text(good)
    piped.write("alder", "birch")
    piped.wait_for("host-up", "birch")
    code, said = piped.end()
    assert code == 0, said
    assert said.count("the inventory has changed and cannot be followed, hosts stay as they are: ") == 1
    assert "host alder" not in said


# -- draining ----------------------------------------------------------------------------------------


def test_a_drained_host_finishes_what_it_has_and_gets_no_more(piped: Scene) -> None:
    piped.write(*NAMES)
    piped.start()
    for name in NAMES:
        piped.works_after(name, 0.0)
    # One machine: its mark is for both.
    done = piped.drain("alder", "--reason", "new kernel")
    assert done.returncode == 0, done.stderr
    assert "gets no more sub-makes, in builds of our login there alone: drained by " in done.stdout
    assert done.stdout.endswith(": new kernel\n")
    drained = [piped.wait_for("host-drained", name) for name in NAMES]
    assert drained[0]["reason"].endswith(": new kernel")
    until(
        lambda: any(not job["host"] for job in piped.events("job")), "a job on this machine: as if none were"
    )
    done = piped.drain("alder", "--undo", "--json")
    assert json.loads(done.stdout) == {
        "host": "alder",
        "drained": False,
        "reason": "",
        "everybody": False,
    }
    for name, event in zip(NAMES, drained, strict=True):
        undrained = piped.wait_for("host-undrained", name)
        assert piped.works_after(name, event["at_s"]) >= undrained["at_s"]
    code, said = piped.end()
    assert code == 0, said
    assert said.count("host alder gets no more sub-makes: drained by ") == 1
    assert said.count("host alder is no longer drained") == 1
    # What they had they finished.
    assert all(job["exit"] == 0 for job in piped.events("job") if job["host"])


def test_later_builds_do_without_it(sshed: Scene) -> None:
    sshed.write("alder")
    assert sshed.drain("alder").returncode == 0
    sshed.start("--strict")
    assert sshed.build is not None
    said = sshed.build.communicate(timeout=LIMIT_S)[1]
    assert sshed.build.returncode == HostError.exit_code, said
    assert "host alder gets no more sub-makes: drained by" in said
    assert sshed.drain("alder", "--undo").stdout == "host alder takes sub-makes\n"


def test_words_for_a_drain_that_does_not_work(sshed: Scene, servers: LoopbackSshd) -> None:
    sshed.write("alder")
    unknown = sshed.drain("adler")
    assert unknown.returncode == UnknownProjectError.exit_code
    assert unknown.stderr.splitlines() == [
        "d1fleet: project test has no host adler",
        "d1fleet:   mend: did you mean alder? its hosts: alder",
    ]
    servers.stop("alder")
    away = sshed.drain("alder")
    assert away.returncode == 90
    assert "connection refused" in away.stderr and "is sshd running there" in away.stderr


# -- machines of their own ---------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.containers
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["stopped", "cut"])
def test_a_machine_that_comes_back(container_hosts: ContainerHosts, tmp_path: Path, how: str) -> None:
    """Stopped and booted again, or cut off for longer than its lease."""
    first, second, *_ = container_hosts
    with _scene(tmp_path, {}, ["--ssh-config", str(container_hosts.ssh_config)]) as scene:
        scene.write(first.name, second.name)
        scene.start()
        for host in (first, second):
            scene.works_after(host.name, 0.0)
        if how == "stopped":
            first.kill()
        else:
            first.cut()
        try:
            lost = scene.wait_for("host-lost", first.name)
            time.sleep(2 * SHORT.lease_s)
            scene.works_after(second.name, lost["at_s"])
        finally:
            if how == "stopped":
                first.start()
                first.wait_for_sshd()
            else:
                first.restore()
        _within_promise(f"a host that was {how}", scene.comes_within(time.monotonic(), first.name, 2))
        code, said = scene.end()
        assert code in (0, JobLostError.exit_code), said
        assert said.count("no word from it for") == 1

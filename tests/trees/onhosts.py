"""Builds of a tree on container hosts of a known share of a processor: plain make on one, d1fleet on all."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.containers import ContainerHosts
from tests.packages.trees import BuildFailed
from tests.trees.database import Rules, read_rules
from tests.trees.figures import Figures
from tests.trees.plan import Make, figures, scaled, work_s
from tests.trees.stamp import tracing_environment
from tests.trees.trace import Ran, read, utilisation
from tests.trees.traced import plain_recipes, plan_of

BUILD_LIMIT_S = 1500.0
"""For one build; a guess, three times what the longest one took."""

SLOTS = 1
"""Of each host: none has more than one processor's worth."""

D1FLEET = (sys.executable, "-m", "d1fleet.cli", "build")
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tree:
    """What is built, again and again.

    Attributes:
        folder: where, at the same path on all hosts.
        restore: puts it into the state before a build.
        shell: what its makefiles take for SHELL.
    """

    name: str
    folder: Path
    restore: Callable[[], object]
    goals: Sequence[str] = ()
    shell: str = "/bin/sh"


@dataclass(frozen=True)
class Built:
    """How a build went.

    Attributes:
        cpu_share: processor time that the hosts used, of what they had meanwhile.
        jobs: the events of d1fleet's record about sub-makes.
        hosts_up_s: when the last host could take some, CLOCK_BOOTTIME.
    """

    wall_s: float
    cpu_share: float = 0.0
    jobs: Sequence[Mapping[str, object]] = ()
    hosts_up_s: float = 0.0

    @property
    def dispatched(self) -> int:
        """Sub-makes that ran on a host."""
        return sum(bool(job["host"]) for job in self.jobs)


@dataclass
class Place:
    """Hosts, and a folder that they share.

    Args:
        cpus: of each host.
        shared: on all hosts at the same path; ours to write to.
        stamp: the program of `stamp`, in that folder.
    """

    containers: ContainerHosts
    cpus: float
    shared: Path
    stamp: Path
    _caches: Path | None = None

    @property
    def words(self) -> str:
        return f"{len(self.containers)} x {self.cpus} CPU"

    def plain(self, tree: Tree, trace: Path | None = None) -> Built:
        """Plain make, serial, on the first host."""
        tree.restore()
        environment = self._tracing(tree, trace)
        words = ["env", *(f"{name}={value}" for name, value in environment.items()), "make", *tree.goals]
        host = self.containers[0]
        command = f"cd {shlex.quote(str(tree.folder))} && exec {shlex.join(words)}"
        return self._timed(self.containers.ssh(host.name, command), self.shared, {}, f"{tree.name}-plain")

    def rules(self, tree: Tree) -> Rules:
        """What targets wait for, by the makes that find everything made after a build by `plain`."""
        host, name = self.containers[0], f"{tree.name}-rules"
        command = f"cd {shlex.quote(str(tree.folder))} && exec make -p {shlex.join(tree.goals)}"
        self._timed(self.containers.ssh(host.name, command), self.shared, {}, name)
        with (self.shared / f"{name}.log").open(errors="replace") as log:
            return read_rules(log)

    def fleet(self, tree: Tree, trace: Path | None = None, **environment: str) -> Built:
        """d1fleet on all hosts; the coordinator and its own recipes are on this machine, without a limit."""
        tree.restore()
        environment = {**self._tracing(tree, trace), **environment}
        record = self.shared / f"{tree.name}.record"
        hosts = self.containers
        names = ",".join(host.name for host in hosts)
        argv = [*D1FLEET, "--hosts", names, "--ssh-config", str(hosts.ssh_config), "--slots", str(SLOTS)]
        argv += ["--record", str(record), f"-j{len(hosts) * SLOTS}", *tree.goals]
        before_s = sum(host.cpu_s() for host in hosts)
        built = self._timed(argv, tree.folder, environment, f"{tree.name}-fleet")
        used_s = sum(host.cpu_s() for host in hosts) - before_s
        events = [json.loads(line) for line in record.read_text().splitlines()]
        jobs = [event for event in events if event["event"] == "job"]
        up_s = max(event["at_s"] for event in events if event["event"] == "host-up")
        return Built(built.wall_s, used_s / (self.cpus * len(hosts) * built.wall_s), jobs, up_s)

    def forget(self) -> None:
        """Let the next build be a first one: what builds remember of trees is kept in the shared folder."""
        self._caches = self.shared / f"caches-{time.monotonic_ns()}"

    def _tracing(self, tree: Tree, trace: Path | None) -> Mapping[str, str]:
        if trace is None:
            return {}
        trace.unlink(missing_ok=True)
        return tracing_environment(self.stamp, trace, tree.shell)

    def _timed(self, argv: Sequence[str], folder: Path, environment: Mapping[str, str], name: str) -> Built:
        if self._caches is None:
            self.forget()
        own = {
            "PYTHONPATH": str(CHECKOUT),
            "XDG_CACHE_HOME": f"{self._caches}/cache",
            "XDG_STATE_HOME": f"{self._caches}/state",
        }
        log = self.shared / f"{name}.log"
        start_s = time.monotonic()
        with log.open("wb") as out:
            done = subprocess.run(
                argv,
                cwd=folder,
                env={**os.environ, **own, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=BUILD_LIMIT_S,
                check=False,
            )
        wall_s = time.monotonic() - start_s
        if done.returncode:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise BuildFailed(f"{shlex.join(argv)} ended with {done.returncode}:\n{last}")
        return Built(wall_s)


@dataclass(frozen=True)
class Measured:
    """All that was found about a tree.

    Attributes:
        plan: from the trace of plain make, its times scaled to those of a build that is not traced.
        recipes: of the traced build by d1fleet.
    """

    figures: Figures
    plan: Make
    recipes: Sequence[Ran]


def measure(
    place: Place, tree: Tree, *, second: bool = False, look: Callable[[str], object] = lambda _: None
) -> Measured:
    """Build a tree in all ways, one after the other.

    Args:
        second: build it by d1fleet a second time, with the first one's history.
        look: called after plain make with `plain`, and after d1fleet with `fleet`.

    Raises:
        BuildFailed: one of the builds did.
    """
    plain = place.plain(tree)
    look("plain")
    place.forget()
    first = place.fleet(tree)
    look("fleet")
    last = place.fleet(tree) if second else first
    trace = place.shared / f"{tree.name}.trace"
    traced = place.plain(tree, trace)
    rules = place.rules(tree)
    plan = scaled(plan_of(read(trace), rules), plain.wall_s / traced.wall_s)
    known = figures(plan, len(place.containers), SLOTS)
    fleet = place.fleet(tree, trace)
    recipes, before = plain_recipes(read(trace), rules)
    use = utilisation(recipes, before, len(place.containers), SLOTS, fleet.hosts_up_s)
    found = Figures(
        tree.name,
        place.words,
        plain.wall_s,
        first.wall_s,
        last.wall_s if second else 0.0,
        known["speed_up_bound"],
        known["speed_up_schedule"],
        use.contended_s,
        use.busy_share,
        last.cpu_share,
        last.dispatched,
    )
    return Measured(found, plan, recipes)


def describe(measured: Measured) -> str:
    """A line for the log of a test: what the tracer says of the tree."""
    found, plan = measured.figures, measured.plan
    return (
        f"{found.tree} on {found.fleet}: {work_s(plan):.1f} s of work in a serial plain make that took"
        f" {found.plain_s:.1f} s; {len(measured.recipes)} plain recipes by d1fleet"
    )

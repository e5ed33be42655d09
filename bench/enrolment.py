"""What it takes to enrol 20 container hosts, beside what Ansible takes to say hello to them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.containers import ContainerHosts
from tests.containers.missing import missing_reason

from . import stats
from .stage import ROOT, Stage
from .stats import Row, Sample

HOSTS = 20
LIMIT_S = 1200.0


def measure(stage: Stage) -> list[Row]:
    """`ansible -m ping`, fact gathering and the playbook, each twice, over the same kept connections.

    Packages come from a network that is not ours to measure: the hosts have the toolchain already.
    """
    reason = missing_reason()
    if reason:
        raise RuntimeError(reason)
    ping: list[float] = []
    facts: list[float] = []
    plays: list[float] = []
    with ContainerHosts(f"bench-{os.getpid()}", count=stage.few(HOSTS, 2), variant="build") as hosts:
        inventory = ["--inventory", str(hosts.inventory)]
        for _ in range(2):
            ping.append(_run("ansible", *inventory, "-m", "ping", "projects"))
            facts.append(_run("ansible", *inventory, "-m", "setup", "projects"))
            plays.append(_run("ansible-playbook", *inventory, "site.yml"))
        count = len(hosts)
    hello, gathered = Sample(tuple(ping), "s"), Sample(tuple(facts), "s")
    first, second = (Sample((seconds,), "s") for seconds in plays)
    return [
        stats.row(f"ansible -m ping, {count} hosts", hello),
        stats.row("gathering all facts", gathered),
        stats.ratio_row("site.yml, bare of ours : gathering all facts", first, gathered),
        stats.ratio_row("site.yml, nothing to change : gathering all facts", second, gathered),
    ]


def _run(program: str, *arguments: str) -> float:
    path = Path(sys.executable).with_name(program)
    environment = {**os.environ, "PATH": f"{path.parent}:{os.environ['PATH']}"}
    began = time.monotonic()
    done = subprocess.run(
        [str(path), *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program} ended with {done.returncode}: {_last(done.stdout.splitlines())}")
    return time.monotonic() - began


def _last(lines: Sequence[str]) -> str:
    return " / ".join(lines[-4:])

"""The registry with 5,000 hosts that beat as often as they do by default, from another process, over TLS.

In a network namespace of its own, where every address of a network is this machine's: needs root.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.distcc.lan import lan, missing_reason
from tests.registry.running import PORT, Running

from . import stats
from .stage import ROOT, Stage
from .stats import Row, Sample, at_most

HOSTS, PROJECTS, SECONDS = 5000, 100, 120
NETWORK = "10.77"
ADDRESS = f"{NETWORK}.255.254"
LIMIT_S = 600


def measure(stage: Stage) -> list[Row]:
    """Beats for two minutes after all have joined."""
    if reason := missing_reason():
        raise RuntimeError(reason)
    hosts, projects = stage.few(HOSTS, 100), stage.few(PROJECTS, 4)
    seconds = stage.few(SECONDS, 5)
    with tempfile.TemporaryDirectory(dir=stage.scratch) as scratch, lan(Path(scratch)) as network:
        network.run(["ip", "route", "add", "local", f"{NETWORK}.0.0/16", "dev", "lo"])
        registry = Running(Path(scratch) / "registry", ADDRESS, inside=network.inside([]))
        registry.start()
        try:
            tokens = []
            for number in range(projects):
                registry.ask("project", "create", f"p{number}", "--range", f"{NETWORK}.0.0/16")
                tokens.append(registry.token(f"p{number}"))
            return _rows(registry, network.inside([]), tokens, hosts, seconds)
        finally:
            registry.stop()


def _rows(registry: Running, inside: list[str], tokens: list[str], hosts: int, seconds: int) -> list[Row]:
    swarm = subprocess.Popen(
        [
            *(*inside, sys.executable, "-m", "bench.swarm", "--address", ADDRESS, "--port", str(PORT)),
            *("--certificate", str(registry.certificate), "--hosts", str(hosts), "--seconds", str(seconds)),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert swarm.stdin is not None and swarm.stdout is not None and swarm.stderr is not None
    swarm.stdin.write("\n".join(tokens))
    swarm.stdin.close()
    if swarm.stderr.readline() != "joined\n":
        raise RuntimeError(swarm.stderr.read()[-500:])
    # All that is left to tell after the joins has been told by then.
    time.sleep(seconds / 4)
    process = psutil.Process(registry.pid)
    began, used = time.monotonic(), sum(process.cpu_times()[:2])
    documents = _documents(registry)
    time.sleep(seconds / 2)
    passed_s = time.monotonic() - began
    busy_s = sum(process.cpu_times()[:2]) - used
    memory = process.memory_info().rss
    worked_out = _documents(registry) - documents
    seen = json.loads(swarm.stdout.read())
    swarm.wait(LIMIT_S)
    beats = seen["beats_s"]
    return [
        stats.row(f"{hosts} hosts join", Sample((seen["joined_s"],), "s")),
        stats.row("beats", Sample((len(beats),), "")),
        stats.row(
            "beats missed or refused",
            Sample((seen["missed"] + sum(seen["refused"].values()),), ""),
            at_most(0, ""),
        ),
        stats.row("a beat, median", Sample((beats[len(beats) // 2] * 1000,), "ms")),
        stats.row("a beat, 99 % within", Sample((beats[int(len(beats) * 0.99)] * 1000,), "ms")),
        stats.row("the registry's CPU", Sample((100 * busy_s / passed_s,), "%")),
        stats.row("the registry's memory", Sample((memory / 1e6,), "MB")),
        stats.row("documents worked out meanwhile", Sample((worked_out,), ""), at_most(0, "")),
    ]


def _documents(registry: Running) -> int:
    text = registry.command("registry", "status", "--data", str(registry.data), "--json")
    return int(json.loads(text).get("documents_worked_out", 0))

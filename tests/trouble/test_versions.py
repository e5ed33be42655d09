"""Two people with two versions of d1fleet use the same hosts at the same time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers import ContainerHosts
from tests.kill.fleet import CHECKOUT

pytestmark = [pytest.mark.containers, pytest.mark.timeout(240)]

MAKEFILE = """\
all: one two
one two: up ; @$(MAKE) -s --no-print-directory -f sub.mk $@
up: ; @until [ "$$(grep -c host-up {record})" = 2 ]; do sleep 0.05; done
"""

# Each build's jobs wait for the other build's: both have to be at work on both hosts.
SUB = """\
%:
\t@touch {own}/at-work-$@; n=0; \\
\twhile [ ! -e {other}/at-work-$@ ]; do n=$$((n+1)); [ $$n -lt 1200 ] || exit 1; sleep 0.05; done; \\
\techo {own}
"""


def test_both_work_at_once(container_hosts: ContainerHosts, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(CHECKOUT / "d1fleet", old / "d1fleet", ignore=shutil.ignore_patterns("__pycache__"))
    server = old / "d1fleet/server/main.py"
    server.write_text(server.read_text() + "\n# Another version.\n")
    trees = [tmp_path / "mine", tmp_path / "theirs"]
    hosts = [host.name for host in container_hosts][:2]
    builds = []
    for number, (tree, package) in enumerate(zip(trees, (CHECKOUT, old), strict=True)):
        tree.mkdir()
        (tree / "Makefile").write_text(MAKEFILE.format(record=tmp_path / f"record{number}"))
        (tree / "sub.mk").write_text(SUB.format(own=tree, other=trees[1 - number]))
        argv = [sys.executable, "-m", "d1fleet.cli", "build", "--ssh-config", str(container_hosts.ssh_config)]
        argv += ["--hosts", " ".join(hosts), "--record", str(tmp_path / f"record{number}"), "--strict", "-j2"]
        runtime = tmp_path / f"run{number}"
        runtime.mkdir(mode=0o700)
        env = {**os.environ, "PYTHONPATH": str(package), "XDG_RUNTIME_DIR": str(runtime)}
        builds.append(
            subprocess.Popen(
                argv, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    for number, build in enumerate(builds):
        out, err = build.communicate(timeout=120)
        assert (build.returncode, err) == (0, "")
        assert out.splitlines() == [str(trees[number])] * 2
        events = map(json.loads, (tmp_path / f"record{number}").read_text().splitlines())
        assert {event["host"] for event in events if event["event"] == "job"} == set(hosts)
    for name in hosts:
        kept = container_hosts[name].run(["ls", "/root/.cache/d1fleet/server"]).stdout.split()
        assert len(kept) >= 2

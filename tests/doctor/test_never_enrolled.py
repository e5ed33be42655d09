"""`d1fleet doctor` on hosts that no role has touched, and on a tree that is seen late there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.containers import ContainerHosts, ImageUnavailable, missing_reason

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


def examine(hosts: ContainerHosts, tree: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and answer."""
    done = subprocess.run(
        [sys.executable, "-m", "d1fleet.cli", "doctor", "--json", "--inventory", str(hosts.inventory)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def kinds(answer: dict[str, Any], host: str) -> set[str]:
    return {each["id"] for each in answer["findings"] if host in each["hosts"]}


def test_what_is_there_is_well_and_what_is_not_is_named(
    container_hosts: ContainerHosts, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    code, answer = examine(container_hosts, tree)
    assert code == 0, answer
    for host in ("h1", "h2", "h3"):
        assert kinds(answer, host) == {"slots-per-user", "server-not-installed"}, answer
    assert {host["tree"] for host in answer["hosts"]} == {"same"}
    assert {host["login"] for host in answer["hosts"]} == {"paramiko"}
    assert "distcc" in answer["not_checked"]
    assert list(tree.iterdir()) == []

    container_hosts["h1"].run(["mount", "-t", "tmpfs", "none", str(tree)])
    container_hosts["h2"].pause()
    began = time.monotonic()
    try:
        code, answer = examine(container_hosts, tree)
    finally:
        container_hosts["h2"].unpause()
        container_hosts["h1"].run(["umount", str(tree)])
    assert time.monotonic() - began < 60
    assert code == 97
    assert "tree" in kinds(answer, "h1") and kinds(answer, "h2") == {"unreachable"}
    assert kinds(answer, "h3") == {"slots-per-user", "server-not-installed"}


@pytest.mark.full
def test_a_tree_that_is_seen_late(tmp_path: Path) -> None:
    """By sshfs, whose caches are as those of NFS; with caches that forget, nothing is said of it."""
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    try:
        with ContainerHosts(f"late-{os.getpid()}", count=2, variant="build", sshfs=tmp_path) as hosts:
            code, answer = examine(hosts, tmp_path)
            assert code == 97
            assert "tree-stale" in kinds(answer, "h2") and "tree-stale" not in kinds(answer, "h1")
            (late,) = [each for each in answer["findings"] if each["id"] == "tree-stale"]
            assert "dir_cache=no" in late["mend"]
            unit = "/etc/systemd/system/d1fleet-tests-sshfs.service"
            edit = "s/(attr|entry)_timeout=[0-9]+/\\1_timeout=0/g; s/dcache_timeout=[0-9]+/dir_cache=no/"
            forget = f"sed -i -E '{edit}' {unit}"
            restart = "systemctl daemon-reload && systemctl restart d1fleet-tests-sshfs.service"
            wait = f"for n in $(seq 100); do mountpoint -q {tmp_path} && break; sleep 0.1; done"
            done = hosts["h2"].run(["sh", "-c", f"{forget} && {restart} && {wait}"])
            assert done.returncode == 0, done.stderr
            code, answer = examine(hosts, tmp_path)
            assert "tree-stale" not in kinds(answer, "h2"), answer
            assert code == 0, answer
    except ImageUnavailable as error:
        pytest.skip(str(error))

"""The workers of `make test`: builds on one, hosts on the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

FOLDERS = {"builds": "tests/conduct/test_runner.py", "hosts": "tests/roles/test_toolchain_versions.py"}


def test_each_has_its_own_tests() -> None:
    # This process may be such a worker itself.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-n", "2", "-p", "no:cacheprovider", *FOLDERS.values()],
        cwd=Path(__file__).parents[2],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    workers = defaultdict(set)
    for worker, path in re.findall(r"^\[(gw\d)\].* (tests/\S+?)::", done.stdout, re.MULTILINE):
        workers[path].add(worker)
    assert sorted(workers) == sorted(FOLDERS.values())
    assert all(len(found) == 1 for found in workers.values())
    assert workers[FOLDERS["builds"]] != workers[FOLDERS["hosts"]]

"""Hosts of a build need the libraries that its tree was configured with."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.containers import Host

INSTALL_LIMIT_S = 600.0
"""Fetching packages, three hosts after each other; a guess."""


def build_dependencies(control: str) -> set[str]:
    """Names of packages in the Build-Depends fields of a debian/control, alternatives too."""
    fields = re.findall(r"^Build-Depends(?:-\w+)?:((?:.*\n)(?:[ \t].*\n)*)", control, re.MULTILINE)
    return {name for field in fields for name in re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9.+-]+)", field)}


def give_libraries(source: Path, hosts: Iterable[Host]) -> None:
    """Install on hosts those of a source package's build dependencies that this machine has."""
    wanted = sorted(build_dependencies((source / "debian/control").read_text()))
    show = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n", *wanted]
    here = _installed(subprocess.run(show, capture_output=True, text=True, check=False).stdout)
    for host in hosts:
        missing = sorted(here - _installed(host.run(show).stdout))
        if missing:
            install = ["apt-get", "-q", "install", "-y", "--no-install-recommends", *missing]
            done = host.run(install, timeout_s=INSTALL_LIMIT_S)
            assert done.returncode == 0, done.stdout + done.stderr


def _installed(shown: str) -> set[str]:
    lines = (line.split() for line in shown.splitlines())
    return {line[0] for line in lines if len(line) == 2 and line[1][1:2] == "i"}
